//! The error codes of commands.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The stable `code` of an `error` frame: why a command failed.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A code that this version does not know.
            Other(Box<str>),
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const KNOWN: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// Returns the code as in the frame.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$variant => $text,)*
                    ErrorCode::Other(text) => text,
                }
            }
        }

        impl From<&str> for ErrorCode {
            fn from(text: &str) -> ErrorCode {
                match text {
                    $($text => ErrorCode::$variant,)*
                    other => ErrorCode::Other(other.into()),
                }
            }
        }
    };
}

codes! {
    /// The frame is not JSON.
    InvalidJson = "invalid_json",
    /// The frame is JSON, but not a valid command.
    BadRequest = "bad_request",
    /// No command has this `type`.
    UnknownType = "unknown_type",
    /// The client is not a member of the room.
    NotMember = "not_member",
    /// The client is already a member of the room.
    AlreadyMember = "already_member",
    /// No client has this id, or its session has ended.
    NotFound = "not_found",
    /// The client may not do this.
    Forbidden = "forbidden",
    /// A field is too long.
    TooLarge = "too_large",
    /// A bound of the server is reached.
    LimitExceeded = "limit_exceeded",
    /// The client sends more than its rate allows. `retry_after_ms` says when to repeat the
    /// command.
    RateLimited = "rate_limited",
    /// The server is behind. `retry_after_ms` says when to repeat the command.
    Overloaded = "overloaded",
    /// The session is unknown or has ended.
    Unrecoverable = "unrecoverable",
    /// The client must send a token, or its token is refused.
    Unauthorized = "unauthorized",
    /// Reserved: the server failed. Also the value for a missing code.
    #[default]
    Internal = "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<ErrorCode, D::Error> {
        Ok(Cow::<str>::deserialize(input)?.as_ref().into())
    }
}
