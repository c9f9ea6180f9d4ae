//! The query of a request: the parameters of a list.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::answer::error;
use crate::{AdminAnswer, Request, Status, chat::fault::Fault};

/// Entries of a page, unless the request says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// The most entries of a page.
const LIMIT_MAX: usize = 1000;

/// The parameters of a query, decoded.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses the query of `request`, which may have each of `known` once.
    pub(super) fn parse(request: &Request<'_>, known: &[&str]) -> Result<Query, AdminAnswer> {
        let mut found = BTreeMap::new();
        for [name, value] in pairs(request.query()) {
            let is_known = known.contains(&name.as_str());
            if !is_known || found.insert(name, value).is_some() {
                let message = match known {
                    [] => "this route takes no query".to_owned(),
                    known => format!("the query may have {}, each once", known.join(", ")),
                };
                return Err(error(Status::BadRequest, "bad_request", &message));
            }
        }
        Ok(Query(found))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// How many entries a page is to have.
    pub(super) fn limit(&self) -> Result<usize, Fault> {
        let Some(text) = self.text("limit") else { return Ok(LIMIT_DEFAULT) };
        let limit = number(text).filter(|limit| (1..=LIMIT_MAX as u64).contains(limit));
        let wrong = || Fault::bad_request(format!("limit must be 1 to {LIMIT_MAX}"));
        limit.map(|limit| limit as usize).ok_or_else(wrong)
    }

    /// Returns the number of a message.
    pub(super) fn seq(&self, name: &str) -> Result<Option<u64>, Fault> {
        let wrong = || Fault::bad_request(format!("{name} must be a whole number, 0 or more"));
        self.text(name).map(|text| number(text).ok_or_else(wrong)).transpose()
    }

    /// Returns the client behind which a page begins.
    pub(super) fn after_client(&self) -> Result<Option<Uuid>, Fault> {
        let wrong = |_| Fault::bad_request("after must be a client_id, which is a UUID");
        self.text("after").map(|text| Uuid::try_parse(text).map_err(wrong)).transpose()
    }
}

/// Returns the names and values of a query, decoded as those of a form are.
fn pairs(query: &str) -> impl Iterator<Item = [String; 2]> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        [decode(name), decode(value)]
    })
}

fn number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_a_form_is() {
        let all = |query: &str| {
            let pairs = pairs(query).map(|[name, value]| format!("{name}:{value}"));
            pairs.collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(all(""), "");
        assert_eq!(all("&&"), "");
        assert_eq!(all("a=b+c&d&e="), "a:b c | d: | e:");
        assert_eq!(all("a=%2B%26%3D&&b=c=d"), "a:+&= | b:c=d");
        assert_eq!(all("%61=%C3%A9&b=%zz%4&=c"), "a:\u{e9} | b:%zz%4 | :c");
        assert_eq!(all("a=%ff"), "a:\u{fffd}");
    }
}
