//! The backend's answer.

use serde::Deserialize;

use super::failure::Failure;
use crate::chat::{command::SENDER_BYTES_MAX, json};

/// The longest reason that is passed on, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// The reason where the backend gives none.
const NO_REASON: &str = "the server's backend does not allow this";

/// An answer as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Allowed(Allowed),
    Refused(String),
}

/// What a client may, beside what it asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::chat) struct Allowed {
    /// The name to use in place of the client's own.
    pub(in crate::chat) sender: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    allow: bool,
    reason: Option<String>,
    sender: Option<String>,
}

impl Answered {
    /// Reads an answer. Fields that are not known do not matter.
    pub(super) fn read(body: &[u8]) -> Result<Answered, Failure> {
        let improper = Failure::Improper;
        // serde would accept a list of the right values for an object.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(improper("an answer that is no JSON object".into()));
        }
        let fields: Fields = serde_json::from_slice(body)
            .map_err(|error| improper(format!("an answer that is not as it should be: {error}")))?;
        let Fields { allow, reason, sender } = fields;
        if !allow {
            return Ok(Answered::Refused(shortened(reason.unwrap_or_else(|| NO_REASON.into()))));
        }
        if sender.as_ref().is_some_and(|sender| json::text(sender).len() > SENDER_BYTES_MAX) {
            return Err(improper(format!("a sender of more than {SENDER_BYTES_MAX} bytes")));
        }
        Ok(Answered::Allowed(Allowed { sender }))
    }
}

/// Cuts a reason to the bytes that are passed on, at a character boundary.
fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_allows_refuses_or_is_improper() {
        let allowed =
            |sender: Option<&str>| Answered::Allowed(Allowed { sender: sender.map(str::to_owned) });
        let read = |text: &str| Answered::read(text.as_bytes());
        assert_eq!(read(r#"{"allow":true,"new":[1]}"#), Ok(allowed(None)));
        assert_eq!(read(r#"{"allow":true,"sender":"a\"b"}"#), Ok(allowed(Some("a\"b"))));
        assert_eq!(read(r#"{"allow":false}"#), Ok(Answered::Refused(NO_REASON.into())));
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "é".repeat(150));
        assert_eq!(read(&long), Ok(Answered::Refused("é".repeat(100))));
        for text in [
            "",
            "{}",
            "[true]",
            "[true,null,null]",
            "true",
            "<html>",
            "{\"allow\":1}",
            "{\"allow\":\"true\"}",
            "{\"allow\":true,\"sender\":7}",
            "{\"allow\":true} {\"allow\":true}",
            "\u{feff}{\"allow\":true}",
            &format!("{{\"allow\":true,\"sender\":\"{}\"}}", "x".repeat(255)),
        ] {
            assert!(matches!(read(text), Err(Failure::Improper(_))), "{text}");
        }
        assert!(Answered::read(b"{\"allow\":\xff}").is_err());
    }
}
