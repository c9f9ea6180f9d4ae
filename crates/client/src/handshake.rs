//! The opening handshake on a socket: one request, one answer, one deadline for both.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant, SystemTime},
};

use rusty_socks_ws::client_handshake::{Answer, ClientRequest, InvalidRequest, Reply};

use crate::{
    error::{Error, ErrorKind, Refused},
    stream::Stream,
    target::{Target, left},
};

/// Read at once from the socket.
const CHUNK_BYTES: usize = 4 << 10;

/// As much of a refusal's body as is kept.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long the body of a refusal is waited for once its head is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// A `Retry-After` beyond this is taken as this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a caller adds to the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestOptions {
    pub(crate) headers: Vec<(String, String)>,
    /// The most wanted first.
    pub(crate) subprotocols: Vec<String>,
}

impl RequestOptions {
    /// The request to `target`. A header or a subprotocol that would break it, or change what it
    /// asks for, is refused as [`ErrorKind::InvalidInput`].
    pub(crate) fn request(&self, target: &Target) -> Result<ClientRequest, Error> {
        let build = || {
            let mut request = ClientRequest::new(&target.authority(), target.path())?;
            for (name, value) in &self.headers {
                request = request.header(name, value)?;
            }
            for name in &self.subprotocols {
                request = request.subprotocol(name)?;
            }
            Ok(request)
        };
        build().map_err(|invalid: InvalidRequest| {
            Error::new(ErrorKind::InvalidInput, invalid.to_string())
        })
    }
}

/// A server that upgrades.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) subprotocol: Option<String>,
    /// What came behind the head: the first frames.
    pub(crate) rest: Vec<u8>,
}

/// Asks for the upgrade and reads the answer. All of it ends by `deadline`.
pub(crate) fn shake(
    stream: &mut Stream<TcpStream>,
    target: &Target,
    request: &ClientRequest,
    deadline: Instant,
) -> Result<Accepted, Error> {
    let failed = |error: io::Error| match error.kind() {
        // A read that is late is told as one that would block, which means nothing to people.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            let text = format!("{target} takes the connection, and does not answer in time");
            Error::new(ErrorKind::Timeout, text)
        }
        _ => Error::io(&format!("{target} does not answer the upgrade"), error),
    };
    let mut head = Vec::new();
    let mut handshake = request.begin(&mut head);
    stream.socket().set_write_timeout(Some(at_least_one_ms(left(deadline)))).map_err(failed)?;
    stream.write_all(&head).map_err(failed)?;

    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let len = read(stream, &mut chunk, deadline).map_err(failed)?;
        if len == 0 {
            let text = format!("{target} ends the connection without an answer to the upgrade");
            return Err(Error::new(ErrorKind::Lost, text));
        }
        match handshake.feed(&chunk[..len]) {
            Ok(None) => {}
            Ok(Some(Reply::Accepted { answer, subprotocol })) => {
                return Ok(Accepted { subprotocol, rest: answer.rest });
            }
            Ok(Some(Reply::Refused(answer))) => return Err(refusal(stream, answer, deadline)),
            Err(bad) => {
                let text = format!("this is no WebSocket server: {bad}");
                return Err(Error::new(ErrorKind::Misbehaved, text));
            }
        }
    }
}

/// The answer of a server that does not upgrade, with as much of its body as is kept.
fn refusal(stream: &mut Stream<TcpStream>, mut answer: Answer, deadline: Instant) -> Error {
    let body_end = deadline.min(Instant::now() + BODY_TIMEOUT);
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let wanted = length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let mut body = std::mem::take(&mut answer.rest);
    let mut chunk = [0; CHUNK_BYTES];
    while body.len() < wanted {
        // A body that does not come is no reason to forget the status.
        let Ok(len @ 1..) = read(stream, &mut chunk, body_end) else { break };
        body.extend_from_slice(&chunk[..len]);
    }
    body.truncate(wanted);
    let now = SystemTime::now();
    Error::refusal(Refused {
        status: answer.status,
        retry_after: answer.header("retry-after").and_then(|value| retry_after(value, now)),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Reads once. A deadline for one read would be none for a peer that sends a byte at a time.
fn read(stream: &mut Stream<TcpStream>, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = left(deadline);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.socket().set_read_timeout(Some(at_least_one_ms(left)))?;
        match stream.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A zero timeout would mean none.
fn at_least_one_ms(time: Duration) -> Duration {
    time.max(Duration::from_millis(1))
}

/// The wait that `Retry-After` asks for: in seconds, or until a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More digits than a number has are no less of a wait.
        Err(_) if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            RETRY_AFTER_MAX
        }
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Thu, 01 Jan 2026 00:00:00 GMT").unwrap();
        let after = |value| retry_after(value, now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Thu, 01 Jan 2026 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(after("Thu, 01 Jan 2015 00:00:09 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("999999999999999999999999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("soon"), None);
        assert_eq!(after(""), None);
    }
}
