//! The token that comes with an upgrade, and where it may stand.

use rusty_socks_protocol::TOKEN_SUBPROTOCOL;

use crate::{Config, Request};

/// Where a token is looked for, beside the header and the subprotocol.
#[derive(Debug)]
pub(super) struct Places {
    cookie: String,
    in_query: bool,
}

impl Places {
    pub(super) fn new(config: &Config) -> Places {
        Places { cookie: config.token_cookie.clone(), in_query: config.token_in_query }
    }

    /// Finds the token of a request. Of several places the first counts: the header
    /// `Authorization`, a subprotocol, the query, a cookie, which a browser sends by itself.
    pub(super) fn find<'r>(&self, request: &'r Request<'_>) -> Option<&'r str> {
        bearer(request)
            .or_else(|| subprotocol(request))
            .or_else(|| query(request).filter(|_| self.in_query))
            .or_else(|| cookie(request, &self.cookie))
    }
}

/// Returns the token of `Authorization: Bearer` (RFC 6750, 2.1). Other schemes are not ours.
fn bearer<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let (scheme, token) = request.header("Authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Returns the token that is offered as a subprotocol, which a page can set.
fn subprotocol<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let lists = request.values("Sec-WebSocket-Protocol");
    let mut offers = lists.flat_map(|list| list.split(',')).map(str::trim);
    offers.find_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL))
}

/// Returns the token of `?token=`. A JWT has no character that would be encoded there.
fn query<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    request.query().split('&').find_map(|pair| pair.strip_prefix("token="))
}

/// Returns the cookie of this name (RFC 6265, 4.2.1); none if the name is empty.
fn cookie<'r>(request: &'r Request<'_>, name: &str) -> Option<&'r str> {
    let pairs = request.values("Cookie").flat_map(|list| list.split(';')).map(str::trim);
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| !name.is_empty() && *key == name)?;
    Some(value.trim_matches('"'))
}
