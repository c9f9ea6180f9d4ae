//! Close codes and reasons, as clients, handlers, logs and `/stats` share them.

use std::{borrow::Cow, fmt};

use tungstenite::{error::ProtocolError, protocol::frame::coding::CloseCode};

/// The longest reason that fits a Close frame: 125 bytes of payload minus the code (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// How a connection ended: a close code (RFC 6455, 7.4) and a text for people.
///
/// One rule for clients: after 40xx do not reconnect, after 41xx reconnect with a backoff, after
/// 42xx reconnect at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    code: u16,
    reason: Cow<'static, str>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl CloseReason {
            $($(#[$doc])* pub const $name: CloseReason =
                CloseReason { code: $code, reason: Cow::Borrowed($text) };)*
        }
        /// The codes that have a name here. A peer may send others.
        const KNOWN_CODES: &[u16] = &[$($code),*];
    };
}

reasons! {
    /// Normal end.
    NORMAL = 1000, "";
    /// The server is shutting down.
    GOING_AWAY = 1001, "server is shutting down";
    /// The peer broke RFC 6455.
    PROTOCOL = 1002, "protocol error";
    /// The endpoint does not accept this kind of data.
    UNSUPPORTED = 1003, "unsupported data";
    /// The peer's Close frame had no code. Never sent (RFC 6455, 7.4.1).
    NO_STATUS = 1005, "";
    /// The connection was lost without a Close frame. Never sent (RFC 6455, 7.4.1).
    LOST = 1006, "connection lost";
    /// A text message is not UTF-8, or compressed data is invalid.
    INVALID_UTF8 = 1007, "text is not valid UTF-8";
    /// The peer violated a rule of this server.
    POLICY = 1008, "policy violation";
    /// A message exceeds the size limit.
    TOO_BIG = 1009, "message is too big";
    /// The handler failed.
    INTERNAL = 1011, "internal error";
    /// The server restarts: reconnect after a random delay.
    RESTART = 1012, "server restarts";
    /// The server is overloaded: try again later.
    TRY_AGAIN = 1013, "try again later";
    /// The client is not authenticated.
    UNAUTHORIZED = 4001, "unauthorized";
    /// The client is authenticated but not allowed.
    FORBIDDEN = 4003, "forbidden";
    /// The client made too many errors in a row.
    TOO_MANY_ERRORS = 4008, "too many errors in a row";
    /// The operator closed the connection.
    KICKED = 4009, "closed by the operator";
    /// Another connection has resumed the session.
    TAKEN_OVER = 4010, "the session was resumed elsewhere";
    /// The client sends more messages or bytes than its rate allows.
    RATE_LIMITED = 4101, "rate limited";
    /// The client is too slow for the messages sent to it.
    SLOW_CONSUMER = 4102, "slow consumer";
    /// The user of the client has as many connections as it may have.
    TOO_MANY_CONNECTIONS = 4103, "too many connections of this user";
    /// The peer did not answer pings.
    NO_PONG = 4201, "no pong";
    /// No data was received for too long.
    IDLE = 4202, "idle";
    /// The credentials have expired.
    TOKEN_EXPIRED = 4203, "token expired";
}

impl CloseReason {
    /// Makes a reason with a code of the application.
    ///
    /// `code` must be 1000 or one that RFC 6455, 7.4.2 leaves to applications (3000–4999); any
    /// other becomes 1000. A text over 123 bytes is cut at a character boundary.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        let code = if code == 1000 || (3000..5000).contains(&code) { code } else { 1000 };
        CloseReason { code, reason: reason.into() }
    }

    /// Makes a reason with any code, as received from a peer. Meant for reports: a code that must
    /// not be sent is kept.
    pub fn received(code: u16, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code, reason: reason.into() }
    }

    /// Parses the payload of a peer's Close (RFC 6455, 5.5.1). A code that must not be sent (RFC
    /// 6455, 7.4) becomes 1002, which is also the answer to it.
    ///
    /// # Errors
    ///
    /// The payload is malformed. The error is the reason to close the connection with.
    pub fn parse(payload: &[u8]) -> Result<CloseReason, CloseReason> {
        match payload {
            [] => Ok(CloseReason::NO_STATUS),
            [_] => {
                let error = tungstenite::Error::Protocol(ProtocolError::InvalidCloseSequence);
                Err(CloseReason::PROTOCOL.because(error.to_string()))
            }
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                let reason = std::str::from_utf8(reason).map_err(|_| CloseReason::INVALID_UTF8)?;
                if !CloseCode::from(code).is_allowed() {
                    return Ok(CloseReason::PROTOCOL.because("Protocol violation"));
                }
                Ok(CloseReason { code, reason: Cow::Owned(reason.to_owned()) })
            }
        }
    }

    /// Returns a reason with this code and another text.
    pub fn because(&self, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code: self.code, reason: reason.into() }
    }

    /// Returns the close code (RFC 6455, 7.4).
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the code if it has a name here, so that a table by code stays bounded.
    pub fn known_code(&self) -> Option<u16> {
        KNOWN_CODES.contains(&self.code).then_some(self.code)
    }

    /// Whether a client may resume its session after this end: the connection was lost, or the
    /// server closed it for a temporary reason. `false` if the client closed normally or must not
    /// reconnect.
    pub fn may_resume(&self) -> bool {
        matches!(self.code, 1001 | 1006 | 1011 | 1012 | 1013 | 4100..=4299)
    }

    /// Returns the text; often empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the payload of a Close frame with this reason, which is empty for codes that must
    /// not be sent.
    pub fn payload(&self) -> Vec<u8> {
        if matches!(self.code, 1005 | 1006 | 1015) {
            return Vec::new();
        }
        let end = self.reason.floor_char_boundary(REASON_BYTES_MAX);
        [&self.code.to_be_bytes(), &self.reason.as_bytes()[..end]].concat()
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_ref() {
            "" => write!(f, "{}", self.code),
            reason => write!(f, "{} {reason}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let payload = CloseReason::new(4000, "é".repeat(100)).payload();
        assert_eq!(payload.len(), 2 + 122);
        let read = CloseReason::parse(&payload).expect("a legal Close");
        assert_eq!((read.code(), read.reason()), (4000, "é".repeat(61).as_str()));
    }

    #[test]
    fn codes_that_must_not_be_sent_are_not() {
        assert_eq!(CloseReason::new(1006, "").code(), 1000);
        assert_eq!(CloseReason::LOST.payload(), b"");
        assert_eq!(CloseReason::NO_STATUS.payload(), b"");
    }

    #[test]
    fn a_peers_close_is_read_or_refused() {
        assert_eq!(CloseReason::parse(b""), Ok(CloseReason::NO_STATUS));
        assert_eq!(CloseReason::parse(b"\x03\xe8"), Ok(CloseReason::NORMAL));
        let code = |payload: &[u8]| {
            CloseReason::parse(payload).map(|reason| reason.code()).map_err(|reason| reason.code())
        };
        assert_eq!(code(b"\x03"), Err(1002));
        assert_eq!(code(b"\x03\xe8\xff"), Err(1007));
        for illegal in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535_u16] {
            assert_eq!(code(&illegal.to_be_bytes()), Ok(1002), "{illegal}");
        }
        for legal in [1000, 1003, 1007, 1013, 3000, 4999_u16] {
            assert_eq!(code(&legal.to_be_bytes()), Ok(legal));
        }
    }
}
