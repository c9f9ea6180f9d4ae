//! Why a connection ended, in the one vocabulary that client, handler, log and `/stats` share.

use std::{borrow::Cow, fmt};

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

    /// What a peer said, with any code: one that must not be sent stays what it is here, for telling.
    pub fn received(code: u16, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code, reason: reason.into() }
    }

    /// What a peer's Close frame said.
    pub(crate) fn from_peer(frame: Option<tungstenite::protocol::CloseFrame>) -> CloseReason {
        match frame {
            None => CloseReason::NO_STATUS,
            Some(frame) => CloseReason {
                code: frame.code.into(),
                reason: Cow::Owned(frame.reason.as_str().to_owned()),
            },
        }
    }

    /// The same code, with a text that says more.
    pub(crate) fn because(&self, reason: impl Into<Cow<'static, str>>) -> CloseReason {
        CloseReason { code: self.code, reason: reason.into() }
    }

    /// The close code (RFC 6455, 7.4).
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The code if it has a name here, so that counting by code needs no more places than there are names.
    pub(crate) fn known_code(&self) -> Option<u16> {
        KNOWN_CODES.contains(&self.code).then_some(self.code)
    }

    /// Whether a client whose connection ended like this is expected back: it was lost, or the server
    /// ended it for reasons that pass. Who closes by its own will, or was told to stay away, is not.
    pub(crate) fn may_resume(&self) -> bool {
        matches!(self.code, 1001 | 1006 | 1011 | 1012 | 1013 | 4100..=4299)
    }

    /// The text beside the code; often empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// As a frame to send: the codes that must not appear on the wire give an empty Close.
    pub(crate) fn frame(&self) -> Option<tungstenite::protocol::CloseFrame> {
        if matches!(self.code, 1005 | 1006 | 1015) {
            return None;
        }
        let mut end = self.reason.len().min(REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        Some(tungstenite::protocol::CloseFrame {
            code: self.code.into(),
            reason: self.reason[..end].into(),
        })
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
        let frame = CloseReason::new(4000, "é".repeat(100)).frame().expect("4000 may be sent");
        assert_eq!(frame.reason.len(), 122);
    }

    #[test]
    fn codes_that_must_not_be_sent_are_not() {
        assert_eq!(CloseReason::new(1006, "").code(), 1000);
        assert_eq!(CloseReason::LOST.frame(), None);
        assert_eq!(CloseReason::NO_STATUS.frame(), None);
    }
}
