//! The opening handshake, client side (RFC 6455, 4.1): the request, and whether the answer agrees
//! to it.

use std::fmt::{self, Write as _};

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::headers::{Headers, is_token};

/// No server has more to say in the head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header lines of an answer.
const HEADERS_MAX: usize = 64;

/// What the upgrade itself is made of, beside the names that begin with `Sec-WebSocket-`.
const RESERVED: [&str; 4] = ["connection", "upgrade", "content-length", "transfer-encoding"];

/// An upgrade request, the same for each connection but for its key. Immutable once it is made.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// Where it goes, as `Host` says it, unless a header says something else.
    authority: String,
    target: String,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

/// A part of a request that would break it, or would change what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidRequest {
    /// This cannot stand in the request line: a target begins with `/` and has no spaces or control
    /// characters.
    Target(String),
    /// This cannot be in the header `Host`.
    Authority(String),
    /// No header of this name can be set.
    HeaderName(String),
    /// The value of the header of this name has control characters.
    HeaderValue(String),
    /// This is no name of a subprotocol.
    Subprotocol(String),
}

impl ClientRequest {
    /// A request for `target`, path and query, of the server `authority`, host and port.
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

    /// Adds a header. `Host` replaces the authority; those that make the upgrade cannot be set.
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

    /// Offers a subprotocol, the most wanted first.
    pub fn subprotocol(mut self, name: &str) -> Result<ClientRequest, InvalidRequest> {
        if !is_token(name) {
            return Err(InvalidRequest::Subprotocol(name.to_owned()));
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Appends the request with a new key to `out`. What comes back is for the handshake to read.
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

/// A handshake whose answer is due. Used by one thread.
#[derive(Debug)]
pub struct ClientHandshake {
    /// The only right value of `Sec-WebSocket-Accept`.
    accept: String,
    subprotocols: Vec<String>,
    /// What has come of a head that is not whole.
    bytes: Vec<u8>,
}

/// What a server made of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It upgrades. What is left over are the first frames.
    Accepted {
        /// The head of the 101.
        answer: Answer,
        /// Which of the subprotocols that were offered it has chosen.
        subprotocol: Option<String>,
    },
    /// It does not. What is left over is the beginning of the body.
    Refused(Answer),
}

/// The head of an answer, and what came behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// What came in one piece with the head.
    pub rest: Vec<u8>,
}

impl Answer {
    /// The first header of that name (in any case), trimmed; empty if it is no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }
}

/// An answer that is none to this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAnswer {
    /// The head is longer than 16 KiB.
    HeadTooLong,
    /// The head is no HTTP.
    Malformed(httparse::Error),
    /// A 101 without `Upgrade: websocket`.
    NoUpgrade,
    /// A 101 without `Connection: Upgrade`.
    NoConnectionUpgrade,
    /// `Sec-WebSocket-Accept` does not answer the key.
    WrongAccept,
    /// The subprotocol was not offered.
    SubprotocolNotOffered,
    /// An extension was chosen, and none was offered.
    ExtensionNotOffered,
}

impl ClientHandshake {
    /// Takes what came next. `None` while the head is not whole; interim answers (RFC 9110, 15.2)
    /// announce another one and are passed over.
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

    /// Whether anything at all has come.
    pub fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// What a client must see before it believes in the upgrade (RFC 6455, 4.1). The subprotocol,
    /// if one was chosen.
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
                write!(f, "{target:?} is no request target: it begins with / and has no spaces")
            }
            InvalidRequest::Authority(authority) => {
                write!(f, "{authority:?} is no host and port")
            }
            InvalidRequest::HeaderName(name) => write!(f, "{name:?} is no header that can be set"),
            InvalidRequest::HeaderValue(name) => {
                write!(f, "the value of the header {name} has control characters")
            }
            InvalidRequest::Subprotocol(name) => write!(f, "{name:?} is no name of a subprotocol"),
        }
    }
}

impl std::error::Error for InvalidRequest {}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadAnswer::HeadTooLong => "the head of the answer is too long",
            BadAnswer::Malformed(error) => return write!(f, "the answer is no HTTP: {error}"),
            BadAnswer::NoUpgrade => "the answer has no Upgrade: websocket",
            BadAnswer::NoConnectionUpgrade => "the answer has no Connection: Upgrade",
            BadAnswer::WrongAccept => "Sec-WebSocket-Accept does not answer the key",
            BadAnswer::SubprotocolNotOffered => "it chose a subprotocol that was not offered",
            BadAnswer::ExtensionNotOffered => "it chose an extension that was not offered",
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

    /// What our own server answers, with `subprotocols` spoken.
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
