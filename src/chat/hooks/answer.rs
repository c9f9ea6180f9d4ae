//! The backend's answer.

use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use crate::{
    Identity,
    chat::{command::SENDER_BYTES_MAX, json},
    identity::{self, Grant},
};

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
    /// Who a client without a token is, of the moment when that was asked: who is revoked while
    /// the backend thinks is not let in.
    pub(in crate::chat) identity: Option<Box<Identity>>,
    /// What its user may do, beside what a token grants.
    grants: Box<[Grant]>,
}

#[derive(Deserialize)]
struct Fields {
    allow: bool,
    reason: Option<String>,
    sender: Option<String>,
    user: Option<String>,
    rooms: Option<Value>,
}

impl Allowed {
    /// Adds to an identity what the backend has said of it: its name, and what it may do.
    pub(in crate::chat) fn complete(&self, identity: &mut Identity) {
        if let Some(sender) = &self.sender {
            identity.name = Some(sender.as_str().into());
        }
        if !self.grants.is_empty() {
            identity.grants = identity.grants.iter().chain(&self.grants).cloned().collect();
        }
    }
}

impl Answered {
    /// Reads an answer about a client, whose user is `known` if it has one, to a question of
    /// `asked_at_s` seconds since 1970. Fields that are not known do not matter.
    pub(super) fn read(
        body: &[u8],
        known: Option<&str>,
        asked_at_s: u64,
    ) -> Result<Answered, Failure> {
        let improper = Failure::Improper;
        if !json::is_object(body) {
            return Err(improper("an answer that is no JSON object".into()));
        }
        let fields: Fields = serde_json::from_slice(body)
            .map_err(|error| improper(format!("an answer that is not as it should be: {error}")))?;
        let Fields { allow, reason, sender, user, rooms } = fields;
        if !allow {
            return Ok(Answered::Refused(shortened(reason.unwrap_or_else(|| NO_REASON.into()))));
        }
        if sender.as_ref().is_some_and(|sender| json::text(sender).len() > SENDER_BYTES_MAX) {
            return Err(improper(format!("a sender of more than {SENDER_BYTES_MAX} bytes")));
        }
        if let (Some(user), Some(known)) = (&user, known)
            && user != known
        {
            return Err(improper("another user than the client's token says".into()));
        }
        if user.as_ref().is_some_and(|user| !identity::is_user(user)) {
            return Err(improper("a user that is not 1 to 128 bytes of plain text".into()));
        }
        let whose = user.as_deref().or(known);
        let grants = match rooms.filter(|rooms| !rooms.is_null()) {
            Some(rooms) => identity::read_grants(&rooms, whose.unwrap_or_default())
                .map_err(|why| improper(format!("rooms that are not as they should be: {why}")))?,
            None => Box::default(),
        };
        // Grants are those of a user; a client without one gets them with its token, if at all.
        let grants = whose.map(|_| grants).unwrap_or_default();
        let identity = user.map(|user| {
            let mut identity = Identity::new(user);
            identity.issued_at = asked_at_s;
            Box::new(identity)
        });
        Ok(Answered::Allowed(Allowed { sender, identity, grants }))
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
    use crate::Permissions;

    #[test]
    fn an_answer_allows_refuses_or_is_improper() {
        let allowed = |sender: Option<&str>| {
            let sender = sender.map(str::to_owned);
            Answered::Allowed(Allowed { sender, ..Allowed::default() })
        };
        let read = |text: &str| Answered::read(text.as_bytes(), None, 7);
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
            "{\"allow\":true,\"user\":7}",
            "{\"allow\":true,\"user\":\"\"}",
            "{\"allow\":true,\"user\":\"a\\n\"}",
            &format!("{{\"allow\":true,\"user\":\"{}\"}}", "x".repeat(129)),
            "{\"allow\":true,\"rooms\":{}}",
            "{\"allow\":true,\"user\":\"a\",\"rooms\":[{\"match\":\"a*\",\"allow\":[]}]}",
        ] {
            assert!(matches!(read(text), Err(Failure::Improper(_))), "{text}");
        }
        assert!(Answered::read(b"{\"allow\":\xff}", None, 7).is_err());
    }

    fn allowed(text: &str, known: Option<&str>) -> Allowed {
        match Answered::read(text.as_bytes(), known, 7) {
            Ok(Answered::Allowed(allowed)) => allowed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_gives_a_user_a_name_and_rooms() {
        let rooms = r#""rooms":[{"match":"of.{sub}","allow":["join"]}]"#;
        let given = allowed(&format!(r#"{{"allow":true,"user":"u7","sender":"U",{rooms}}}"#), None);
        let mut identity = given.identity.clone().expect("a user");
        assert_eq!(identity.issued_at, 7);
        given.complete(&mut identity);
        assert_eq!((&*identity.user, &**identity.shown_name()), ("u7", "U"));
        assert_eq!(identity.granted("of.u7"), Permissions::JOIN);
        // What a token says already stays.
        let given = allowed(&format!(r#"{{"allow":true,"user":null,{rooms}}}"#), Some("anna"));
        assert_eq!(given.identity, None);
        let grants = [Grant::new("tea", Permissions::PUBLISH).expect("a room")].into();
        let mut identity = Identity { grants, ..Identity::new("anna") };
        given.complete(&mut identity);
        assert_eq!(&**identity.shown_name(), "anna");
        assert_eq!(identity.granted("tea"), Permissions::PUBLISH);
        assert_eq!(identity.granted("of.anna"), Permissions::JOIN);
        // Without a user there is nobody whose rooms they are.
        assert_eq!(allowed(&format!(r#"{{"allow":true,{rooms}}}"#), None), Allowed::default());
    }

    #[test]
    fn a_token_and_the_backend_name_the_same_user() {
        let text = r#"{"allow":true,"user":"anna"}"#;
        allowed(text, Some("anna"));
        let other = Answered::read(text.as_bytes(), Some("ben"), 7);
        assert!(matches!(other, Err(Failure::Improper(_))), "{other:?}");
    }
}
