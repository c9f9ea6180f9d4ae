//! Request heads (RFC 9112), parsed incrementally by `httparse`.

use std::cell::Cell;

use super::{body::BodyLength, response::Status};
use crate::{
    identity::{Authenticator, Identity, TokenError},
    ws::{handshake::UpgradeRequest, headers::Headers},
};

/// The most headers of a request; one more is answered with 431.
const HEADERS_MAX: usize = 64;

/// Space for the parsed headers, on the caller's stack.
pub(crate) struct HeaderSpace<'b>([httparse::Header<'b>; HEADERS_MAX]);

impl Default for HeaderSpace<'_> {
    fn default() -> Self {
        HeaderSpace([httparse::EMPTY_HEADER; HEADERS_MAX])
    }
}

/// The head of an HTTP request, borrowed from the bytes it was parsed from.
#[derive(Debug)]
pub struct Request<'b> {
    method: &'b str,
    target: &'b str,
    minor_version: u8,
    headers: Headers<'b>,
    remote: Option<std::net::SocketAddr>,
    authenticator: Option<&'b Authenticator>,
    /// What its handling has cost so far, in microseconds or so.
    spent: Cell<usize>,
}

/// A malformed head, and the answer it gets before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead {
    pub(crate) status: Status,
    pub(crate) reason: &'static str,
    /// Whether the answer is to a HEAD request.
    pub(crate) head_only: bool,
}

fn bad(reason: &'static str) -> BadHead {
    BadHead { status: Status::BadRequest, reason, head_only: false }
}

impl<'b> Request<'b> {
    /// Parses one head off the front of `bytes`, of a request that may not have a body. Returns
    /// `None` while the head is incomplete, else the request and the number of bytes it took.
    pub(crate) fn parse(
        bytes: &'b [u8],
        space: &'b mut HeaderSpace<'b>,
    ) -> Result<Option<(Request<'b>, usize)>, BadHead> {
        let Some((request, length, used)) = Request::parse_with_body(bytes, space)? else {
            return Ok(None);
        };
        request.check_no_body(length)?;
        Ok(Some((request, used)))
    }

    /// Refuses a body, for a route that takes none: the bytes of an unread one would be parsed as
    /// the next request.
    pub(crate) fn check_no_body(&self, length: BodyLength) -> Result<(), BadHead> {
        match length {
            BodyLength::Sized(0) => Ok(()),
            BodyLength::Sized(_) | BodyLength::Chunked => {
                let head_only = self.method == "HEAD";
                Err(BadHead { head_only, ..bad("this route takes no request body") })
            }
        }
    }

    /// Whether the client waits to be asked for the body (RFC 9110, 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        let mut expects = self.values("Expect");
        self.is_http_1_1() && expects.any(|what| what.eq_ignore_ascii_case("100-continue"))
    }

    /// Parses one head off the front of `bytes`. Returns `None` while the head is incomplete, else
    /// the request, the length of the body that follows, and the number of bytes the head took.
    ///
    /// Stricter than `httparse` wherever a proxy in front might read the same bytes differently.
    pub(crate) fn parse_with_body(
        bytes: &'b [u8],
        space: &'b mut HeaderSpace<'b>,
    ) -> Result<Option<(Request<'b>, BodyLength, usize)>, BadHead> {
        let mut parsed = httparse::Request::new(&mut space.0);
        let status = parsed.parse(bytes).map_err(|error| match error {
            httparse::Error::TooManyHeaders => BadHead {
                status: Status::HeadTooLarge,
                ..bad("a request may have at most 64 headers")
            },
            httparse::Error::Version => bad("only HTTP/1.0 and HTTP/1.1 are spoken"),
            // The first bytes of a TLS handshake.
            _ if bytes.starts_with(&[22, 3]) => {
                bad("this port does not speak TLS: use http:// or ws://")
            }
            _ => bad("the request head is malformed"),
        })?;
        let httparse::Status::Complete(used) = status else { return Ok(None) };
        let (Some(method), Some(target), Some(minor_version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Ok(None);
        };
        let head_only = method == "HEAD";
        if has_bare_line_feed(&bytes[..used]) {
            return Err(BadHead { head_only, ..bad("a line must end in CR LF") });
        }
        let refused = |reason| BadHead { head_only, ..bad(reason) };
        let target = origin_form(target).map_err(refused)?;
        let headers = Headers(parsed.headers);
        let request = Request {
            method,
            target,
            minor_version,
            headers,
            remote: None,
            authenticator: None,
            spent: Cell::new(0),
        };
        request.check().map_err(refused)?;
        let length = request.body_length().map_err(refused)?;
        Ok(Some((request, length, used)))
    }

    /// Checks the rules for every request, whatever its route.
    fn check(&self) -> Result<(), &'static str> {
        let mut hosts = self.values("Host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.is_http_1_1() => {
                return Err("an HTTP/1.1 request must have one Host header");
            }
            (_, Some(_)) => return Err("a request must have only one Host header"),
            (Some(host), None) if !is_host(host) => return Err("the Host header is malformed"),
            _ => {}
        }
        Ok(())
    }

    /// Returns how long the body is. Refuses whatever two readers of the same bytes might take for
    /// two different lengths (RFC 9112, 6.3).
    fn body_length(&self) -> Result<BodyLength, &'static str> {
        let mut lengths = self.values("Content-Length");
        let mut codings = self.values("Transfer-Encoding");
        match (lengths.next(), codings.next()) {
            (None, None) => Ok(BodyLength::Sized(0)),
            (Some(_), Some(_)) => {
                Err("a request must have Content-Length or Transfer-Encoding, not both")
            }
            (None, Some(coding)) if codings.next().is_none() => {
                match self.is_http_1_1() && coding.eq_ignore_ascii_case("chunked") {
                    true => Ok(BodyLength::Chunked),
                    false => Err("the only Transfer-Encoding here is chunked, in HTTP/1.1"),
                }
            }
            (Some(length), None) if lengths.next().is_none() => {
                // `00` is 0 to some, and strange to all.
                let is_plain = length == "0" || !length.starts_with('0');
                let digits = is_plain && length.bytes().all(|byte| byte.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits);
                length.map(BodyLength::Sized).ok_or("the Content-Length is malformed")
            }
            _ => Err("a request must have only one Content-Length or Transfer-Encoding header"),
        }
    }

    pub(crate) fn with_remote(self, remote: std::net::SocketAddr) -> Request<'b> {
        Request { remote: Some(remote), ..self }
    }

    pub(crate) fn with_authenticator(self, authenticator: &'b Authenticator) -> Request<'b> {
        Request { authenticator: Some(authenticator), ..self }
    }

    /// Verifies a token (a JWT) that came with the request, with the keys of the configuration.
    /// Costs up to some 60 µs on the worker, which count towards the connection's share of a turn.
    ///
    /// # Errors
    /// The reason why the token is refused; [`TokenError::Off`] if
    /// [`Config::identity`](crate::Config::identity) is off.
    pub fn authenticate(&self, token: &str) -> Result<Identity, TokenError> {
        let authenticator = self.authenticator.ok_or(TokenError::Off)?;
        let (outcome, cost) = authenticator.authenticate(token);
        self.spent.set(self.spent.get() + cost);
        outcome
    }

    /// Returns what the handling of the request has cost so far, in microseconds or so.
    pub(crate) fn spent(&self) -> usize {
        self.spent.get()
    }

    /// Returns the method, as it was sent: `GET`, `HEAD`, …
    pub fn method(&self) -> &str {
        self.method
    }

    /// Returns the path of the request target, without query, scheme and host. Not decoded: `/%77s`
    /// is not `/ws`.
    pub fn path(&self) -> &str {
        match self.target.split('?').next().unwrap_or_default() {
            "" => "/",
            path => path,
        }
    }

    /// Returns the query: everything after the first `?` of the target, or an empty text. Not
    /// decoded.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns the first header of this name (in any case), trimmed; `None` if there is none or it
    /// is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Returns the address of the client: the socket's peer, or the one that a proxy named
    /// which is in `trusted_proxies`. The port is 0 if the proxy told none. It is `0.0.0.0:0` if
    /// the peer of a Unix socket named nobody.
    pub fn remote_addr(&self) -> Option<std::net::SocketAddr> {
        self.remote
    }

    /// Returns the parts of the request that decide about an upgrade.
    pub(crate) fn upgrade(&self) -> UpgradeRequest<'b> {
        let (method, is_http_1_1) = (self.method, self.is_http_1_1());
        UpgradeRequest { method, is_http_1_1, headers: self.headers }
    }

    /// Returns every header of this name (in any case), in order.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'b str> {
        self.headers.values(name)
    }

    pub(crate) fn is_http_1_1(&self) -> bool {
        self.minor_version == 1
    }

    /// Whether the client will send another request on this connection (RFC 9112, 9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        match self.is_http_1_1() {
            true => !self.headers.has_token("Connection", "close"),
            false => self.headers.has_token("Connection", "keep-alive"),
        }
    }
}

/// Whether a line ends in LF alone. RFC 9112, 2.2 allows a server to accept that, but then it may
/// see more lines than a proxy in front of it.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let ends_line = |at: usize| at > 0 && head[at - 1] == b'\r';
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && !ends_line(at))
}

/// Removes scheme and host from a target that has them (RFC 9112, 3.2.2).
fn origin_form(target: &str) -> Result<&str, &'static str> {
    if !target.is_ascii() || target.contains('#') {
        return Err("the request target is malformed");
    }
    let Some((scheme, rest)) = target.split_once("://") else { return Ok(target) };
    let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
    if !is_http {
        // `://` may occur in a path or a query. A target with another scheme matches no route.
        return Ok(target);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    match !host.is_empty() && is_host(host) {
        true => Ok(target),
        false => Err("the request target has a malformed host"),
    }
}

/// Whether `host` has the syntax of a host and a port (RFC 3986, 3.2.2). It may be empty.
fn is_host(host: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte);
    host.bytes().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<R>(
        bytes: &[u8],
        look: impl FnOnce(&Request<'_>, usize) -> R,
    ) -> Result<Option<R>, BadHead> {
        let mut space = HeaderSpace::default();
        Ok(Request::parse(bytes, &mut space)?.map(|(request, used)| look(&request, used)))
    }

    #[test]
    fn a_head_is_whole_at_its_last_byte_and_not_before() {
        let head = b"GET /stats?pretty=1 HTTP/1.1\r\nHost: a\r\nconnection: Foo, CLOSE\r\n\r\nGET";
        let whole = head.len() - 3;
        for cut in 0..whole {
            assert_eq!(parse(&head[..cut], |_, _| ()), Ok(None), "at {cut} bytes");
        }
        let checked = parse(head, |request, used| {
            assert_eq!(
                (request.method(), request.path(), request.query()),
                ("GET", "/stats", "pretty=1")
            );
            assert!(!request.keeps_alive());
            used
        });
        assert_eq!(checked, Ok(Some(whole)));
    }

    #[test]
    fn what_is_no_head_is_told_so() {
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
        for (head, status) in [
            ("\x00\x01\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/2.0\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            (&many, Status::HeadTooLarge),
        ] {
            let refused = parse(head.as_bytes(), |_, _| ()).expect_err(head);
            assert_eq!(refused.status, status, "{head}");
        }
    }

    #[test]
    fn a_target_is_reduced_to_its_path_and_its_query() {
        for (target, path, query) in [
            ("/ws", "/ws", ""),
            ("/ws?a=1?b", "/ws", "a=1?b"),
            ("/%77s?%20", "/%77s", "%20"),
            ("//ws", "//ws", ""),
            ("/to?http://other/ws", "/to", "http://other/ws"),
            ("/http://other/ws", "/http://other/ws", ""),
            ("http://host/ws", "/ws", ""),
            ("HTTPS://host:443/ws?a", "/ws", "a"),
            ("http://[::1]:80", "/", ""),
            ("http://host?a=1", "/", "a=1"),
            ("ftp://host/ws", "ftp://host/ws", ""),
            ("*", "*", ""),
            ("host:80", "host:80", ""),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let parsed = parse(head.as_bytes(), |request, _| {
                (request.path().to_owned(), request.query().to_owned())
            });
            assert_eq!(parsed, Ok(Some((path.to_owned(), query.to_owned()))), "{target}");
        }
        for target in ["/ws#top", "/w\u{e4}", "http:///ws", "http://a@b/ws", "http://a\\b/"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(parse(head.as_bytes(), |_, _| ()).is_err(), "{target}");
        }
    }
}
