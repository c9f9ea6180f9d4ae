//! Why a connection ended, in the one vocabulary that client, handler, log and `/stats` share.

use std::{borrow::Cow, fmt};

use tungstenite::{error::ProtocolError, protocol::frame::coding::CloseCode};

/// The longest reason that fits a Close frame: 125 bytes of payload less the code (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// How a connection ended: a close code (RFC 6455, 7.4) and a reason a person can read.
///
/// One rule for clients: 40xx do not come back as you are, 41xx come back after a backoff,
/// 42xx come back at once.
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
        /// The codes that have a name here. A peer may send any other.
        const KNOWN_CODES: &[u16] = &[$($code),*];
    };
}

reasons! {
    /// Done, as agreed.
    NORMAL = 1000, "";
    /// The server is shutting down.
    GOING_AWAY = 1001, "server is shutting down";
    /// The peer broke RFC 6455.
    PROTOCOL = 1002, "protocol error";
    /// A kind of data that this endpoint does not take.
    UNSUPPORTED = 1003, "unsupported data";
    /// A Close frame came without a code. Never sent (RFC 6455, 7.4.1).
    NO_STATUS = 1005, "";
    /// The connection was lost without a Close frame. Never sent (RFC 6455, 7.4.1).
    LOST = 1006, "connection lost";
    /// Text that is not UTF-8.
    INVALID_UTF8 = 1007, "text is not valid UTF-8";
    /// Against the rules of this server.
    POLICY = 1008, "policy violation";
    /// A message beyond the size limit.
    TOO_BIG = 1009, "message is too big";
    /// The handler failed.
    INTERNAL = 1011, "internal error";
    /// The server restarts: come back, at a moment of your own.
    RESTART = 1012, "server restarts";
    /// The server cannot take more now.
    TRY_AGAIN = 1013, "try again later";
    /// Not authenticated.
    UNAUTHORIZED = 4001, "unauthorized";
    /// Authenticated, and not allowed.
    FORBIDDEN = 4003, "forbidden";
    /// Too many errors in a row.
    TOO_MANY_ERRORS = 4008, "too many errors in a row";
    /// Closed by the operator.
    KICKED = 4009, "closed by the operator";
    /// Another connection has resumed the session.
    TAKEN_OVER = 4010, "the session was resumed elsewhere";
    /// More messages or bytes than the rate allows.
    RATE_LIMITED = 4101, "rate limited";
    /// The client reads more slowly than it is sent to.
    SLOW_CONSUMER = 4102, "slow consumer";
    /// Pings went unanswered.
    NO_PONG = 4201, "no pong";
    /// Nothing was received for too long.
    IDLE = 4202, "idle";
    /// The credentials ran out.
    TOKEN_EXPIRED = 4203, "token expired";
}

impl CloseReason {
    /// A reason of the application's own.
    ///
    /// `code` is one that RFC 6455, 7.4.2 leaves to applications (3000–4999) or 1000; any other
    /// becomes 1000, because a peer must fail the connection when it reads one. A text over 123
    /// bytes is cut at a character.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        let code = if code == 1000 || (3000..5000).contains(&code) { code } else { 1000 };
        CloseReason { code, reason: reason.into() }
    }

    /// What a peer said, with any code: one that must not be sent stays what it is here, for
    /// telling.
    pub fn received(code: u16, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code, reason: reason.into() }
    }

    /// Reads the payload of a peer's Close (RFC 6455, 5.5.1). An error is the reason to close for.
    /// A code that must not be sent (7.4) reads as 1002: it ends the connection too, and that
    /// is the answer to it.
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

    /// The same code, with a text that says more.
    pub fn because(&self, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code: self.code, reason: reason.into() }
    }

    /// The close code (RFC 6455, 7.4).
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The code if it has a name here, so that counting by code needs no more places than there are
    /// names.
    pub fn known_code(&self) -> Option<u16> {
        KNOWN_CODES.contains(&self.code).then_some(self.code)
    }

    /// Whether a client whose connection ended like this is expected back: it was lost, or the
    /// server ended it for reasons that pass. Who closes by its own will, or was told to stay
    /// away, is not.
    pub fn may_resume(&self) -> bool {
        matches!(self.code, 1001 | 1006 | 1011 | 1012 | 1013 | 4100..=4299)
    }

    /// The text beside the code; often empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The payload of a Close frame that says so, which is empty for the codes that must not appear
    /// on the wire.
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
