//! The opening handshake from the client's side: one request, one answer, one deadline for both.
//!
//! `tungstenite` makes the key and the accept value. Its own reader is not used: it has no deadline
//! for the whole head, loses a refusal's body beyond the first read, and keeps what came behind the
//! head.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    error::{Error, ErrorKind, Refused},
    target::{Target, left},
};

/// No server has more to say in the head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Headers in an answer.
const HEADERS_MAX: usize = 64;

/// As much of a refusal's body as is kept.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long the body of a refusal is waited for once its head is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// A `Retry-After` beyond this is taken as this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What the upgrade itself is made of, and the caller may not set.
const RESERVED: [&str; 4] = ["connection", "upgrade", "content-length", "transfer-encoding"];

/// What a caller wants said in the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) subprotocols: Vec<String>,
}

/// A server that upgrades.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) subprotocol: Option<String>,
    /// What came behind the head: the first frames.
    pub(crate) rest: Vec<u8>,
}

impl Wishes {
    /// A header or a subprotocol that would break the request, or change what it asks, is refused.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            let reserved =
                RESERVED.contains(&lower.as_str()) || lower.starts_with("sec-websocket-");
            if !is_token(name) || reserved {
                let text = format!("{name:?} is no header that can be set");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            if value.contains(|c: char| c.is_control() && c != '\t') {
                let text = format!("the value of the header {name} has control characters");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        match self.subprotocols.iter().find(|name| !is_token(name)) {
            Some(name) => {
                let text = format!("{name:?} is no name of a subprotocol");
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            None => Ok(()),
        }
    }

    fn request(&self, target: &Target, key: &str) -> String {
        let mut text = format!("GET {} HTTP/1.1\r\n", target.path());
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {}\r\n", target.authority()));
        }
        text.push_str(&format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n"
        ));
        if !self.subprotocols.is_empty() {
            let names = self.subprotocols.join(", ");
            text.push_str(&format!("Sec-WebSocket-Protocol: {names}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text
    }
}

fn is_token(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

/// Asks for the upgrade and reads the answer. All of it ends by `deadline`.
pub(crate) fn shake(
    stream: &mut TcpStream,
    target: &Target,
    wishes: &Wishes,
    deadline: Instant,
) -> Result<Accepted, Error> {
    let key = generate_key();
    let failed = |error: io::Error| match error.kind() {
        // A read that is late is told as one that would block, which means nothing to people.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            let text = format!("{target} takes the connection, and does not answer in time");
            Error::new(ErrorKind::Timeout, text)
        }
        _ => Error::io(&format!("{target} does not answer the upgrade"), error),
    };
    stream.set_write_timeout(Some(at_least_one_ms(left(deadline)))).map_err(failed)?;
    stream.write_all(wishes.request(target, &key).as_bytes()).map_err(failed)?;

    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = Head::parse(&bytes)? {
            break head;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(misbehaved("the head of the answer is too long"));
        }
        if more(stream, &mut bytes, deadline).map_err(failed)? == 0 {
            let text = format!("{target} ends the connection without an answer to the upgrade");
            return Err(Error::new(ErrorKind::Lost, text));
        }
    };
    let mut rest = bytes.split_off(head.bytes);
    if head.status != 101 {
        let body_end = deadline.min(Instant::now() + BODY_TIMEOUT);
        let wanted = head.length.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
        // A body that does not come is no reason to forget the status.
        while rest.len() < wanted && more(stream, &mut rest, body_end).is_ok_and(|n| n > 0) {}
        rest.truncate(wanted);
        return Err(Error::refusal(Refused {
            status: head.status,
            retry_after: head.retry_after,
            body: String::from_utf8_lossy(&rest).into_owned(),
        }));
    }
    head.judge(&derive_accept_key(key.as_bytes()), wishes)?;
    Ok(Accepted { subprotocol: head.subprotocol, rest })
}

/// Reads once. A deadline for one read would be none for a peer that sends a byte at a time.
fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    loop {
        let left = left(deadline);
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too late"));
        }
        stream.set_read_timeout(Some(at_least_one_ms(left)))?;
        match stream.read(&mut chunk) {
            Ok(n) => {
                bytes.extend_from_slice(&chunk[..n]);
                return Ok(n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A zero timeout would mean none.
fn at_least_one_ms(time: Duration) -> Duration {
    time.max(Duration::from_millis(1))
}

fn misbehaved(what: &str) -> Error {
    Error::new(ErrorKind::Misbehaved, format!("this is no WebSocket server: {what}"))
}

/// What of an answer's head matters here.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    status: u16,
    length: Option<usize>,
    retry_after: Option<Duration>,
    upgrade: String,
    connection: String,
    accept: Option<String>,
    subprotocol: Option<String>,
    extensions: Option<String>,
}

impl Head {
    /// The head, once it is whole.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(misbehaved(&error.to_string())),
        };
        let mut head = Head { bytes: len, status: response.code.unwrap_or(0), ..Head::default() };
        for header in response.headers.iter() {
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "retry-after" => head.retry_after = retry_after(&value, Utc::now()),
                "upgrade" => head.upgrade = value,
                "connection" => head.connection = value,
                "sec-websocket-accept" => head.accept = Some(value),
                "sec-websocket-protocol" => head.subprotocol = Some(value),
                "sec-websocket-extensions" => head.extensions = Some(value),
                _ => {}
            }
        }
        Ok(Some(head))
    }

    /// RFC 6455, 4.1: what a client must see before it believes in the upgrade.
    fn judge(&self, accept: &str, wishes: &Wishes) -> Result<(), Error> {
        if !self.upgrade.eq_ignore_ascii_case("websocket") {
            return Err(misbehaved("the answer has no Upgrade: websocket"));
        }
        let mut tokens = self.connection.split(',').map(str::trim);
        if !tokens.any(|token| token.eq_ignore_ascii_case("upgrade")) {
            return Err(misbehaved("the answer has no Connection: Upgrade"));
        }
        if self.accept.as_deref() != Some(accept) {
            return Err(misbehaved("Sec-WebSocket-Accept does not answer the key"));
        }
        if let Some(chosen) = &self.subprotocol
            && !wishes.subprotocols.contains(chosen)
        {
            return Err(misbehaved("it chose a subprotocol that was not offered"));
        }
        if self.extensions.as_ref().is_some_and(|extensions| !extensions.is_empty()) {
            return Err(misbehaved("it chose an extension that was not offered"));
        }
        Ok(())
    }
}

/// Seconds, or a date.
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(value).ok()?;
            (date.to_utc() - now).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().to_utc();
        let after = |value| retry_after(value, now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Thu, 01 Jan 2026 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(after("Thu, 01 Jan 2015 00:00:09 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_head_is_judged_by_the_rules() {
        let good = "HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                    Sec-WebSocket-Accept: a=\r\n\r\n";
        for end in 0..good.len() {
            assert!(Head::parse(&good.as_bytes()[..end]).unwrap().is_none(), "{end}");
        }
        let judge = |text: &str| {
            let wishes = Wishes { subprotocols: vec!["a".into()], ..Wishes::default() };
            Head::parse(text.as_bytes()).unwrap().unwrap().judge("a=", &wishes)
        };
        judge(good).unwrap();
        judge(&good.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\n\r\n")).unwrap();
        for (from, to) in [
            ("WebSocket\r", "h2c\r"),
            ("Upgrade\r", "close\r"),
            ("a=\r", "b=\r"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"),
        ] {
            let error = judge(&good.replace(from, to)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misbehaved, "{to}");
        }
    }

    #[test]
    fn what_would_break_the_request_is_refused() {
        let header = |name: &str, value: &str| Wishes {
            headers: vec![(name.into(), value.into())],
            ..Wishes::default()
        };
        header("Authorization", "Bearer x").check().unwrap();
        header("Host", "example.org").check().unwrap();
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("X", "a\r\nY: b"),
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Key", "x"),
        ] {
            assert_eq!(header(name, value).check().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
