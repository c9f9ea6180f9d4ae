//! The opaque error for everything that can go wrong outside a connection's life.
//!
//! The end of a *connection* is not an error but a [`CloseReason`](crate::CloseReason).

use std::{fmt, io};

use rusty_socks_ws::causes::with_causes;

/// A failure, with the chain of its causes.
///
/// Both `{}` and `{:?}` print "outer: cause: cause" on one line, so a log line needs nothing else
/// and a `main` that returns the error prints well. `{:#?}` shows the fields. [`kind`](Error::kind)
/// says whose fault the error is.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The cause of an [`Error`], and so what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong: correct the value that the message names.
    Config,
    /// Another process holds the address: choose another port, or stop that process.
    AddressInUse,
    /// The operating system refused something the server needs: a socket, a thread, a poll.
    System,
    /// A room name, a path or a bound given by the caller is not legal.
    InvalidInput,
    /// The server is shutting down or has stopped.
    Stopped,
    /// A bound was reached. Nothing was stored or sent; try again later.
    Overloaded,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// Makes a configuration error. Public, so that a program can report errors in its own keys the
    /// same way.
    pub fn config(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Puts `whose` before the message.
    pub(crate) fn of(mut self, whose: &str) -> Error {
        self.message.insert_str(0, whose);
        self
    }

    /// Makes an operating-system error. `what` says what failed, such as "cannot listen on
    /// 0.0.0.0:80".
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::AddrInUse => ErrorKind::AddressInUse,
            _ => ErrorKind::System,
        };
        Error::new(kind, what).with_source(error)
    }

    /// Returns whose fault the error is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the configuration is wrong.
    pub fn is_config(&self) -> bool {
        self.kind == ErrorKind::Config
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(&self.message, self))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let Error { kind, message, source } = self;
        let mut fields = f.debug_struct("Error");
        fields.field("kind", kind).field("message", message).field("source", source).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_whole_chain_on_one_line() {
        let cause = io::Error::new(io::ErrorKind::AddrInUse, "in use");
        let error = Error::io("cannot listen on 127.0.0.1:80", cause);
        assert_eq!(error.to_string(), "cannot listen on 127.0.0.1:80: in use");
        assert_eq!(error.kind(), ErrorKind::AddressInUse);
    }

    #[test]
    fn what_main_prints_is_that_line_and_the_fields_are_for_those_who_ask() {
        let error = Error::io("cannot listen", io::Error::other("in use"));
        assert_eq!(format!("{error:?}"), "cannot listen: in use");
        assert!(format!("{error:#?}").contains("kind: System"), "{error:#?}");
        let twice =
            Error::config("no").with_source(Error::config("a").with_source(io::Error::other("b")));
        assert_eq!(twice.to_string(), "no: a: b", "each cause once");
    }
}
