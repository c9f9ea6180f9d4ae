//! How the program ends: its exit codes and its one error prefix.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use rusty_socks::{Error, ErrorKind};

/// What every line on standard error begins with, apart from the log.
pub(crate) const PREFIX: &str = "rusty_socks: ";

/// The exit codes, which scripts and supervisors may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Clean = 0,
    /// It could not: a port in use, an unhealthy server, a second signal.
    Failure = 1,
    /// The configuration or the command line is wrong. Trying again will not help.
    BadConfig = 2,
    /// `connect`, `load`: nobody answers there.
    Unreachable = 3,
    /// `connect`, `load`: the server answered the upgrade with another status than 101.
    Refused = 4,
    /// `connect`, `load`: the server ended the connection with an error code, or it was lost, or
    /// messages were.
    Closed = 5,
    /// `load`: an expectation of the command line was not met.
    Unmet = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Tells an error on standard error, one prefixed line a problem, and chooses the code for it.
pub(crate) fn report(outcome: Result<Exit, Error>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::AddressInUse => ": end what listens there, or set another port",
                _ => "",
            };
            for line in error.to_string().lines() {
                say(&format!("{PREFIX}{line}{advice}"));
            }
            if error.is_config() { Exit::BadConfig } else { Exit::Failure }
        }
    }
}

/// Chooses the code for what was written to standard output: a reader that has seen enough and hung
/// up (`| head`) is no failure, and a disk that is full is one.
pub(crate) fn printed(outcome: io::Result<()>) -> Exit {
    match outcome.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("{PREFIX}cannot write to standard output: {error}"));
            Exit::Failure
        }
        _ => Exit::Clean,
    }
}

/// Writes a line to standard error. Where that cannot be written nobody can be told, and the exit
/// code has to do.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
