//! Why `connect` ends before its time.

use std::io;

use rusty_socks_client::{Error, ErrorKind};

use crate::exit::Exit;

/// Why it ends before its time.
pub(super) enum Failure {
    Io(io::Error),
    Client(Error),
    /// What to say, and how to end.
    Ended(String, Exit),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Client(error)
    }
}

/// The exit code that goes with the end of a connection or session.
pub(super) fn exit_of(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::InvalidInput => Exit::BadConfig,
        ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Untrusted => Exit::Unreachable,
        ErrorKind::Refused => Exit::Refused,
        ErrorKind::Misbehaved | ErrorKind::Lost | ErrorKind::Closed => Exit::Closed,
        _ => Exit::Failure,
    }
}
