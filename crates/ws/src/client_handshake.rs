//! The opening handshake, client side (RFC 6455, 4.1): makes the request, and checks the answer.

use std::fmt::{self, Write as _};

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::headers::{Headers, is_token};

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// Headers that the upgrade itself sets, besides those that begin with `Sec-WebSocket-`.
const RESERVED: [&str; 4] = ["connection", "upgrade", "content-length", "transfer-encoding"];

/// An upgrade request that can be sent on many connections, each time with a new key.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The value of `Host`, unless a header replaces it.
    authority: String,
    target: String,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

/// A part of a request that is malformed or must not be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRequest {
    /// Not a request target, which begins with `/` and has no spaces or control characters.
    Target(String),
    /// Not a host and port, as in the header `Host`.
    Authority(String),
    /// The header of this name is malformed or reserved for the upgrade.
    HeaderName(String),
    /// The value of the header of this name has control characters.
    HeaderValue(String),
    /// Not the name of a subprotocol.
    Subprotocol(String),
}

impl ClientRequest {
    /// Makes a request for `target` (path and query) to the server `authority` (host and port).
    pub fn new(authority: &str, target: &str) -> Result<ClientRequest, InvalidRequest> {
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !target.starts_with('/') || !is_plain(target) {
            return Err(InvalidRequest::Target(target.to_owned()));
        }
        if !is_plain(authority) {
            return Err(InvalidRequest::Authority(authority.to_owned()));
        }
        Ok(ClientRequest {
            authority: authority.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
        })
    }

    /// Adds a header. `Host` replaces the authority. The headers of the upgrade itself cannot be
    /// set.
    pub fn header(mut self, name: &str, value: &str) -> Result<ClientRequest, InvalidRequest> {
        let lower = name.to_ascii_lowercase();
        let is_reserved = RESERVED.contains(&lower.as_str()) || lower.starts_with("sec-websocket-");
        if is_reserved || !is_token(name) {
            return Err(InvalidRequest::HeaderName(name.to_owned()));
        }
        if value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(InvalidRequest::HeaderValue(name.to_owned()));
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// Offers a subprotocol. Call in order of preference, the preferred one first.
    pub fn subprotocol(mut self, name: &str) -> Result<ClientRequest, InvalidRequest> {
        if !is_token(name) {
            return Err(InvalidRequest::Subprotocol(name.to_owned()));
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Appends the request with a new key to `out`. Feed the server's answer to the returned
    /// handshake.
    pub fn begin(&self, out: &mut Vec<u8>) -> ClientHandshake {
        let key = generate_key();
        out.extend_from_slice(self.text(&key).as_bytes());
        ClientHandshake {
            accept: derive_accept_key(key.as_bytes()),
            subprotocols: self.subprotocols.clone(),
            bytes: Vec::new(),
        }
    }

    fn text(&self, key: &str) -> String {
        let mut text = format!("GET {} HTTP/1.1\r\n", self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            push_line(&mut text, "Host", &self.authority);
        }
        push_line(&mut text, "Connection", "Upgrade");
        push_line(&mut text, "Upgrade", "websocket");
        push_line(&mut text, "Sec-WebSocket-Version", "13");
        push_line(&mut text, "Sec-WebSocket-Key", key);
        if !self.subprotocols.is_empty() {
            push_line(&mut text, "Sec-WebSocket-Protocol", &self.subprotocols.join(", "));
        }
        self.headers.iter().for_each(|(name, value)| push_line(&mut text, name, value));
        text.push_str("\r\n");
        text
    }
}

fn push_line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{name}: {value}\r\n");
}

/// A handshake that waits for its answer. Used by one thread.
#[derive(Debug)]
pub struct ClientHandshake {
    /// The correct value of `Sec-WebSocket-Accept`.
    accept: String,
    subprotocols: Vec<String>,
    /// The received bytes of an incomplete head.
    bytes: Vec<u8>,
}

/// The server's reply to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The server upgrades. The rest of the answer is the first frames.
    Accepted {
        /// The head of the 101.
        answer: Answer,
        /// The subprotocol that the server has chosen from the offers.
        subprotocol: Option<String>,
    },
    /// The server refuses. The rest of the answer is the beginning of the body.
    Refused(Answer),
}

/// The head of an answer, and the bytes that arrived after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The bytes that arrived together with the head, after it.
    pub rest: Vec<u8>,
}

impl Answer {
    /// Returns the first header of this name (in any case), trimmed; an empty text if it is not
    /// UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }
}

/// An answer that is malformed or does not fit the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAnswer {
    /// The head is longer than 16 KiB.
    HeadTooLong,
    /// The head is not HTTP.
    Malformed(httparse::Error),
    /// A 101 without `Upgrade: websocket`.
    NoUpgrade,
    /// A 101 without `Connection: Upgrade`.
    NoConnectionUpgrade,
    /// `Sec-WebSocket-Accept` does not answer the key.
    WrongAccept,
    /// The answer chose a subprotocol that was not offered.
    SubprotocolNotOffered,
    /// The answer chose an extension, but none was offered.
    ExtensionNotOffered,
}

impl ClientHandshake {
    /// Reads the next bytes of the answer. Returns `None` while the head is incomplete. Interim
    /// answers (RFC 9110, 15.2) are skipped.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Reply>, BadAnswer> {
        self.bytes.extend_from_slice(bytes);
        loop {
            let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut lines);
            let parsed = head.parse(&self.bytes).map_err(BadAnswer::Malformed)?;
            let httparse::Status::Complete(len) = parsed else {
                let is_too_long = self.bytes.len() > HEAD_BYTES_MAX;
                return if is_too_long { Err(BadAnswer::HeadTooLong) } else { Ok(None) };
            };
            let (status, headers) = (head.code.unwrap_or_default(), Headers(head.headers));
            if status != 101 && status < 200 {
                self.bytes.drain(..len);
                continue;
            }
            let accepted = if status == 101 { Some(self.judge(headers)?) } else { None };
            let headers = headers.lines().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let (headers, rest) = (headers.collect(), self.bytes[len..].to_vec());
            let answer = Answer { status, headers, rest };
            return Ok(Some(match accepted {
                Some(subprotocol) => Reply::Accepted { answer, subprotocol },
                None => Reply::Refused(answer),
            }));
        }
    }

    /// Whether any byte of the answer has arrived.
    pub fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Checks the headers of a 101 as RFC 6455, 4.1 demands. Returns the chosen subprotocol, if
    /// any.
    fn judge(&self, headers: Headers<'_>) -> Result<Option<String>, BadAnswer> {
        if !headers.has_token("Upgrade", "websocket") {
            return Err(BadAnswer::NoUpgrade);
        }
        if !headers.has_token("Connection", "Upgrade") {
            return Err(BadAnswer::NoConnectionUpgrade);
        }
        if headers.sole_value("Sec-WebSocket-Accept") != Some(&self.accept) {
            return Err(BadAnswer::WrongAccept);
        }
        if headers.items("Sec-WebSocket-Extensions").next().is_some() {
            return Err(BadAnswer::ExtensionNotOffered);
        }
        let mut chosen = headers.values("Sec-WebSocket-Protocol");
        match (chosen.next(), chosen.next()) {
            (None, _) => Ok(None),
            (Some(name), None) if self.subprotocols.iter().any(|offer| offer == name) => {
                Ok(Some(name.to_owned()))
            }
            _ => Err(BadAnswer::SubprotocolNotOffered),
        }
    }
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidRequest::Target(target) => {
                write!(
                    f,
                    "{target:?} is not a request target: it must begin with / and have no spaces or control characters"
                )
            }
            InvalidRequest::Authority(authority) => {
                write!(f, "{authority:?} is not a host and port")
            }
            InvalidRequest::HeaderName(name) => write!(f, "the header {name:?} cannot be set"),
            InvalidRequest::HeaderValue(name) => {
                write!(f, "the value of the header {name} must not have control characters")
            }
            InvalidRequest::Subprotocol(name) => {
                write!(f, "{name:?} is not the name of a subprotocol")
            }
        }
    }
}

impl std::error::Error for InvalidRequest {}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadAnswer::HeadTooLong => "the head of the answer is longer than 16 KiB",
            BadAnswer::Malformed(error) => return write!(f, "the answer is not HTTP: {error}"),
            BadAnswer::NoUpgrade => "the answer has no Upgrade: websocket",
            BadAnswer::NoConnectionUpgrade => "the answer has no Connection: Upgrade",
            BadAnswer::WrongAccept => "Sec-WebSocket-Accept does not answer the key",
            BadAnswer::SubprotocolNotOffered => {
                "the answer chose a subprotocol that was not offered"
            }
            BadAnswer::ExtensionNotOffered => "the answer chose an extension that was not offered",
        })
    }
}

impl std::error::Error for BadAnswer {}

#[cfg(test)]
mod tests {
    use super::{
        super::handshake::{Upgrade, UpgradeRequest},
        *,
    };

    fn request() -> ClientRequest {
        let request = ClientRequest::new("h:81", "/ws?a=b").expect("legal");
        request.subprotocol("one").and_then(|request| request.subprotocol("two")).expect("legal")
    }

    /// Returns the answer of our own server, which speaks `subprotocols`.
    fn answer(sent: &[u8], subprotocols: &[&str]) -> String {
        let mut lines = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut lines);
        assert!(head.parse(sent).expect("HTTP").is_complete());
        assert_eq!((head.method, head.path), (Some("GET"), Some("/ws?a=b")));
        let headers = Headers(head.headers);
        assert_eq!(headers.sole_value("Host"), Some("h:81"));
        let request = UpgradeRequest { method: "GET", is_http_1_1: true, headers };
        let mut upgrade = Upgrade::check(request, None).expect("a proper upgrade");
        upgrade.choose_subprotocol(headers, subprotocols);
        let mut out = Vec::new();
        upgrade.respond(&mut out, Some(12));
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn our_own_server_accepts_and_is_believed() {
        for (spoken, chosen) in [(&["two"][..], Some("two")), (&["three"], None)] {
            let mut sent = Vec::new();
            let mut handshake = request().begin(&mut sent);
            let answer = answer(&sent, spoken);
            for byte in answer.as_bytes() {
                match handshake.feed(&[*byte]).expect("legal") {
                    None => {}
                    Some(Reply::Accepted { answer, subprotocol }) => {
                        assert_eq!((answer.status, subprotocol.as_deref()), (101, chosen));
                        assert_eq!(answer.header("queue-wait-ms"), Some("12"));
                    }
                    Some(Reply::Refused(answer)) => panic!("{answer:?}"),
                }
            }
        }
    }

    #[test]
    fn each_connection_has_its_own_key() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let handshakes = [request().begin(&mut one), request().begin(&mut other)];
        assert_ne!((&one, &handshakes[0].accept), (&other, &handshakes[1].accept));
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_no_answer_to_the_request_is_not_believed() {
        for (from, to, bad) in [
            ("websocket\r", "h2c\r", BadAnswer::NoUpgrade),
            ("Connection: Upgrade", "Connection: close", BadAnswer::NoConnectionUpgrade),
            ("Accept: ", "Accept: x", BadAnswer::WrongAccept),
            ("Accept: ", "Accept: x\r\nSec-WebSocket-Accept: ", BadAnswer::WrongAccept),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Protocol: one\r\n\r\n",
                BadAnswer::SubprotocolNotOffered,
            ),
            ("Protocol: two", "Protocol: three", BadAnswer::SubprotocolNotOffered),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", BadAnswer::ExtensionNotOffered),
            ("HTTP/1.1", "HTTQ/1.1", BadAnswer::Malformed(httparse::Error::Version)),
        ] {
            let mut sent = Vec::new();
            let mut handshake = request().begin(&mut sent);
            let answer = answer(&sent, &["two"]).replace(from, to);
            assert_eq!(handshake.feed(answer.as_bytes()), Err(bad), "{to:?}");
        }
        let mut handshake = request().begin(&mut Vec::new());
        let line = format!("A: {}\r\n", "b".repeat(1000));
        let mut fed = handshake.feed(b"HTTP/1.1 101 x\r\n");
        for _ in 0..17 {
            assert_eq!(fed, Ok(None));
            fed = handshake.feed(line.as_bytes());
        }
        assert_eq!(fed, Err(BadAnswer::HeadTooLong));
    }

    #[test]
    fn a_refusal_is_told_with_its_head_and_what_came_of_its_body() {
        let mut handshake = request().begin(&mut Vec::new());
        assert!(!handshake.has_begun());
        let refusal =
            b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 503 Service Unavailable\r\n\
            Retry-After: 7\r\n\r\n{\"error\"";
        let (cut, reply) = (40, |reply| match reply {
            Ok(Some(Reply::Refused(answer))) => answer,
            other => panic!("{other:?}"),
        });
        assert_eq!(handshake.feed(&refusal[..cut]), Ok(None));
        assert!(handshake.has_begun());
        let answer = reply(handshake.feed(&refusal[cut..]));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
        assert_eq!((answer.header("a"), answer.rest.as_slice()), (None, &b"{\"error\""[..]));
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_request() {
        let new = || ClientRequest::new("h", "/").expect("legal");
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("X", "a\r\nY: b"),
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Key", "x"),
        ] {
            assert!(new().header(name, value).is_err(), "{name:?}: {value:?}");
        }
        assert!(new().subprotocol("a, b").is_err() && new().subprotocol("").is_err());
        for (authority, target) in [("h", "ws"), ("h", "/a b"), ("h", "/\r\n"), ("h\r\nA: b", "/")]
        {
            assert!(ClientRequest::new(authority, target).is_err(), "{authority:?} {target:?}");
        }
        let mut sent = Vec::new();
        new().header("Host", "example.org").expect("legal").begin(&mut sent);
        let text = String::from_utf8(sent).expect("ASCII");
        assert_eq!(text.matches("Host: ").count(), 1);
        assert!(text.contains("\r\nHost: example.org\r\n"));
    }
}
