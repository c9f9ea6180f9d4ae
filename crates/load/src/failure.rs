//! Why a connection got neither service nor an HTTP status.

use std::{error, fmt, io};

use serde::Serialize;

/// A failure, as it is met.
#[derive(Debug)]
pub struct Failure {
    pub(crate) cause: Cause,
    pub(crate) detail: String,
}

/// Why a connection got neither service nor an HTTP status. The names in JSON are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    ConnectRefused,
    ConnectTimeout,
    Unreachable,
    Reset,
    ClosedBeforeAnswer,
    AnswerTimeout,
    BadAnswer,
    Tls,
    ClientOutOfFiles,
    ClientOutOfPorts,
    Other,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: &str) -> Failure {
        Failure { cause, detail: detail.to_owned() }
    }

    /// An error while the connection was being made.
    pub fn of_dial(error: &io::Error) -> Failure {
        let cause = match error.kind() {
            // Binding to a source whose ports are all taken says "in use", connecting says "not
            // available".
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Cause::ClientOutOfPorts,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Cause::Unreachable
            }
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => return Failure::of_socket(error),
        };
        Failure { cause, detail: error.to_string() }
    }

    /// An error on a socket that was connected.
    pub(crate) fn of_socket(error: &io::Error) -> Failure {
        let cause = match error.kind() {
            // What the socket itself never says.
            io::ErrorKind::InvalidData => Cause::Tls,
            _ if is_out_of_files(error) => Cause::ClientOutOfFiles,
            io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Cause::Reset,
            _ => Cause::Other,
        };
        Failure { cause, detail: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause.meaning() {
            meaning if meaning == self.detail => f.write_str(meaning),
            meaning => write!(f, "{meaning}: {}", self.detail),
        }
    }
}

impl error::Error for Failure {}

impl Cause {
    /// The line in the table.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Cause::ConnectRefused => "connection refused",
            Cause::ConnectTimeout => "no connection in time",
            Cause::Unreachable => "network or host unreachable",
            Cause::Reset => "reset before an answer",
            Cause::ClosedBeforeAnswer => "closed before an answer",
            Cause::AnswerTimeout => "no answer in time",
            Cause::BadAnswer => "bad answer",
            Cause::Tls => "no TLS",
            Cause::ClientOutOfFiles => "client out of file descriptors",
            Cause::ClientOutOfPorts => "client out of ports",
            Cause::Other => "other",
        }
    }
}

/// Whether an error says that this process (`EMFILE`) or this machine (`ENFILE`) has no file
/// descriptor left.
///
/// The standard library has no stable name for either, hence the numbers, which all Unixes share.
fn is_out_of_files(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(windows) { &[10024] } else { &[23, 24] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
