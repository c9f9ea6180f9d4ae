//! What can go wrong for a client: one opaque error that says whose fault it is.

use std::{error, fmt, io, sync::Arc, time::Duration};

use rusty_socks_ws::causes::with_causes;

use crate::CloseReason;

/// What went wrong, with the chain of causes behind it. Cheap to clone.
///
/// Printed with `{}` it reads "outer: cause" on one line, and so it does with `{:?}`: a `main` that
/// returns it ends with a sentence. `{:#?}` shows its fields. Ask [`kind`](Error::kind) whose fault
/// it was.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
    detail: Detail,
}

/// What goes with some kinds of error.
#[derive(Debug)]
enum Detail {
    None,
    Refused(Refused),
    Closed(CloseReason),
    Rejected(String),
}

/// Whose fault an [`Error`] is, and so what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, a header or a value given by the caller cannot be used.
    InvalidInput,
    /// Nobody answers there: no such name, nobody listens, no way.
    Unreachable,
    /// The server answered the upgrade with another status than 101; see [`Error::refused`].
    Refused,
    /// The server broke HTTP or RFC 6455.
    Misbehaved,
    /// The certificate of the server cannot be trusted, or is another one's.
    Untrusted,
    /// It took longer than allowed. Nothing that came in the meantime is lost.
    Timeout,
    /// The connection was lost without a close frame.
    Lost,
    /// The connection is closed; see [`Error::close_reason`].
    Closed,
    /// A queue of this client is full. What was given was not taken.
    Full,
    /// The server answered a command with an error; see [`Error::code`].
    Rejected,
    /// A message was sent, and its answer will never come: it was published, or it was not. It is
    /// not sent again, because it might be published twice.
    Unknown,
    /// The operating system refused a thread or a poll.
    System,
}

/// The HTTP answer of a server that does not upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The status, such as 503.
    pub status: u16,
    /// What `Retry-After` says, at most an hour.
    pub retry_after: Option<Duration>,
    /// The body, cut at 4 KiB.
    pub body: String,
}

impl Refused {
    /// Whether the same request may be granted later: 408, 425, 429 and 5xx. Any other status is
    /// the answer to a mistake of the request, and stays the same.
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..=599)
    }
}

/// The part of a refusal's body that is for people.
#[derive(serde::Deserialize)]
struct Told {
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::with(kind, message.into(), Detail::None)
    }

    fn with(kind: ErrorKind, message: String, detail: Detail) -> Error {
        Error { inner: Arc::new(Inner { kind, message, source: None, detail }) }
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Error {
        let (message, source) = (message.into(), Some(source.into()));
        Error { inner: Arc::new(Inner { kind, message, source, detail: Detail::None }) }
    }

    /// An operating-system error while talking to the server: too late, or the end of the
    /// connection.
    pub(crate) fn io(doing: &str, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::Timeout,
            _ => ErrorKind::Lost,
        };
        Error::caused(kind, doing, error)
    }

    pub(crate) fn refusal(refused: Refused) -> Error {
        let mut message = format!("the server answers {}", refused.status);
        // Our own server, and others, say in JSON why.
        let told = serde_json::from_str::<Told>(&refused.body).map(|told| told.message);
        let body = told.unwrap_or_else(|_| refused.body.trim().to_owned());
        let line: String = body.chars().take(200).collect();
        if !line.is_empty() && !line.contains(char::is_control) {
            message.push_str(": ");
            message.push_str(&line);
        }
        Error::with(ErrorKind::Refused, message, Detail::Refused(refused))
    }

    pub(crate) fn closed(reason: CloseReason) -> Error {
        let message = format!("the connection is closed: {reason}");
        Error::with(ErrorKind::Closed, message, Detail::Closed(reason))
    }

    pub(crate) fn rejected(code: &str, text: &str) -> Error {
        let message = format!("the server refuses: {text} ({code})");
        Error::with(ErrorKind::Rejected, message, Detail::Rejected(code.to_owned()))
    }

    /// Whether it says something of a message that was to be sent, and not of the connection or
    /// session that was to send it.
    pub(crate) fn is_of_the_message(&self) -> bool {
        match self.kind() {
            ErrorKind::InvalidInput
            | ErrorKind::Rejected
            | ErrorKind::Full
            | ErrorKind::Unknown => true,
            ErrorKind::Unreachable
            | ErrorKind::Refused
            | ErrorKind::Misbehaved
            | ErrorKind::Untrusted
            | ErrorKind::Timeout
            | ErrorKind::Lost
            | ErrorKind::Closed
            | ErrorKind::System => false,
        }
    }

    /// What became of a message is not known, for this reason.
    pub(crate) fn unknown(cause: Error) -> Error {
        Error::caused(ErrorKind::Unknown, "the message may or may not be published", cause)
    }

    /// Whose fault it was.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether it is only that nothing came in time.
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// The HTTP answer of a server that refused the upgrade.
    pub fn refused(&self) -> Option<&Refused> {
        match &self.inner.detail {
            Detail::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// Why the connection was closed, if it was.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match &self.inner.detail {
            Detail::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// The stable code of a command that the server refused, such as `not_member`.
    pub fn code(&self) -> Option<&str> {
        match &self.inner.detail {
            Detail::Rejected(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(&self.inner.message, self))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.alternate() {
            true => f.debug_tuple("Error").field(&self.inner).finish(),
            false => fmt::Display::fmt(self, f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.inner.source.as_deref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_prints_is_a_sentence_that_says_each_cause_once() {
        let cause = || io::Error::other("broken pipe");
        let error = Error::caused(ErrorKind::Lost, "the connection is lost", cause());
        assert_eq!(format!("{error:?}"), "the connection is lost: broken pipe");
        assert!(format!("{error:#?}").contains("kind: Lost"), "{error:#?}");
        let outer = Error::caused(ErrorKind::Lost, "outer: broken pipe", cause());
        assert_eq!(outer.to_string(), "outer: broken pipe");
    }

    #[test]
    fn a_refusal_says_what_its_body_says_to_people() {
        let says = |body: &str| {
            let body = body.to_owned();
            Error::refusal(Refused { status: 503, retry_after: None, body }).to_string()
        };
        assert_eq!(
            says(r#"{"error":"full","message":"no place"}"#),
            "the server answers 503: no place"
        );
        assert_eq!(says("busy\n"), "the server answers 503: busy");
        assert_eq!(says(r#"{"message":7}"#), r#"the server answers 503: {"message":7}"#);
        for nothing in ["", "<html>\n<body>", r#"{"message":"\u001b[2J"}"#] {
            assert_eq!(says(nothing), "the server answers 503", "{nothing}");
        }
    }

    #[test]
    fn a_refusal_is_temporary_or_final_by_its_status() {
        let refused = |status| Refused { status, retry_after: None, body: String::new() };
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(refused(status).is_temporary(), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 407, 410, 426, 499, 600] {
            assert!(!refused(status).is_temporary(), "{status}");
        }
    }
}
