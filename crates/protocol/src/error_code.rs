//! Why a command was not carried out.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a command was not carried out: the stable `code` of an `error` frame.
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

            /// The code as it stands in the frame.
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
    /// The frame is no JSON.
    InvalidJson = "invalid_json",
    /// The frame is JSON, but no command.
    BadRequest = "bad_request",
    /// There is no command of this `type`.
    UnknownType = "unknown_type",
    /// The client is not in the room.
    NotMember = "not_member",
    /// The client is in the room already.
    AlreadyMember = "already_member",
    /// There is no client of this id, or its session has ended.
    NotFound = "not_found",
    /// The client may not do this.
    Forbidden = "forbidden",
    /// A field is too long.
    TooLarge = "too_large",
    /// A bound of the server is reached.
    LimitExceeded = "limit_exceeded",
    /// The client says more than its rate allows. `retry_after_ms` says when to repeat it.
    RateLimited = "rate_limited",
    /// The server is behind. `retry_after_ms` says when to repeat the command.
    Overloaded = "overloaded",
    /// The session is not known: it never was, or has ended.
    Unrecoverable = "unrecoverable",
    /// Reserved: the client must say who it is.
    Unauthorized = "unauthorized",
    /// Reserved: the server failed. Also read where no code is said.
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
