//! The fault of a command that failed.

use std::borrow::Cow;

use rusty_socks_protocol::{Answer, ErrorCode, answer};
use serde_json::value::RawValue;

use super::json;
use crate::RoomError;

/// The reason why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: ErrorCode,
    message: Cow<'static, str>,
    retry_after_ms: Option<u64>,
}

impl Fault {
    pub(super) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { code, message: message.into(), retry_after_ms: None }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(ErrorCode::BadRequest, message)
    }

    /// Two rooms of one message are in different shards.
    pub(super) fn apart(first: &str, second: &str) -> Fault {
        Fault::bad_request(format!(
            "the rooms {first:?} and {second:?} are in different shards, and no message can be for \
             both; rooms with the same {{tag}} in their names are in one shard"
        ))
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn retry_after_ms(self, wait: u64) -> Fault {
        Fault { retry_after_ms: Some(wait), ..self }
    }

    /// Formats the `error` frame.
    pub(super) fn frame(&self, reference: Option<&RawValue>) -> String {
        let (code, retry_after_ms) = (self.code.clone(), self.retry_after_ms);
        let message = Cow::Borrowed(&*self.message);
        json::text(&Answer::error(reference, answer::Error { code, message, retry_after_ms }))
    }
}

impl From<RoomError> for Fault {
    fn from(error: RoomError) -> Fault {
        let fault = Fault::new(code(error), error.to_string());
        match error {
            RoomError::RoomsTooFast { retry_after_ms, .. } => fault.retry_after_ms(retry_after_ms),
            RoomError::Overloaded
            | RoomError::EngineAway
            | RoomError::ShortOfMemory
            | RoomError::ClientBehind => fault.retry_after_ms(1000),
            _ => fault,
        }
    }
}

/// Returns the code of the protocol for `error`.
pub(super) fn code(error: RoomError) -> ErrorCode {
    match error {
        RoomError::AlreadyMember => ErrorCode::AlreadyMember,
        RoomError::NotMember => ErrorCode::NotMember,
        RoomError::NoSuchRoom | RoomError::NoSuchClient => ErrorCode::NotFound,
        RoomError::TooManyRooms
        | RoomError::TooManyMemberships
        | RoomError::PatternTooWide
        | RoomError::InboxFull
        | RoomError::TooManyConnections => ErrorCode::LimitExceeded,
        RoomError::RoomsTooFast { .. } => ErrorCode::RateLimited,
        RoomError::Overloaded
        | RoomError::EngineAway
        | RoomError::ShortOfMemory
        | RoomError::ClientBehind => ErrorCode::Overloaded,
        RoomError::SameRoomTwice | RoomError::RoomsApart { .. } | RoomError::NotFresh => {
            ErrorCode::BadRequest
        }
        RoomError::NoSuchSession => ErrorCode::Unrecoverable,
        RoomError::TakenOver | RoomError::Forbidden(_) | RoomError::OtherUser => {
            ErrorCode::Forbidden
        }
        RoomError::Revoked => ErrorCode::Unauthorized,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_json_whatever_it_holds() {
        let fault = Fault::new(ErrorCode::Overloaded, "a \"b\"\n").retry_after_ms(5);
        let reference = serde_json::value::to_raw_value("r").expect("JSON");
        let frame = fault.frame(Some(&reference));
        let value: serde_json::Value = serde_json::from_str(&frame).expect("JSON");
        assert_eq!(value["message"], "a \"b\"\n");
        assert_eq!((&value["ref"], &value["retry_after_ms"]), (&"r".into(), &5.into()));
    }
}
