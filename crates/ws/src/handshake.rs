//! The opening handshake, server side (RFC 6455, 4.2).

use tungstenite::handshake::derive_accept_key;

use super::extension::{self, Agreement, Takeover};
use crate::{
    head::{Request, trim},
    status::Status,
};

/// What every 426 says (RFC 9110, 15.5.22; RFC 6455, 4.4).
const WHAT_IS_SPOKEN: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13";

/// A proper upgrade, reduced to what its answer needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: String,
    /// The subprotocol that the client offers and the route speaks.
    subprotocol: Option<String>,
    /// How messages will be compressed, if they will.
    pub compression: Option<Agreement>,
}

/// Why a request to a WebSocket route is not answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnUpgrade {
    /// The status of the answer.
    pub status: Status,
    /// What is wrong, for people.
    pub reason: &'static str,
    /// Header lines that tell the client what would be right, without the last line end.
    pub advice: &'static str,
}

impl Upgrade {
    /// Checks what RFC 6455, 4.2.1 demands of the request, in the order that gives the most useful answer.
    /// With `takeover`, an offer of compression is accepted in its terms.
    pub fn check(
        request: &Request<'_>,
        takeover: Option<Takeover>,
    ) -> Result<Upgrade, NotAnUpgrade> {
        let refuse = |status, reason, advice| Err(NotAnUpgrade { status, reason, advice });
        let malformed = |reason| refuse(Status::BadRequest, reason, "");
        if request.method() != "GET" {
            return refuse(Status::MethodNotAllowed, "only GET can be upgraded", "Allow: GET");
        }
        if !request.has_token("Upgrade", "websocket") {
            let reason = "this is a WebSocket endpoint: send Upgrade: websocket";
            return refuse(Status::UpgradeRequired, reason, WHAT_IS_SPOKEN);
        }
        if !request.is_http_1_1() {
            return malformed("an upgrade needs HTTP/1.1");
        }
        if !request.has_token("Connection", "Upgrade") {
            return malformed("the Connection header must list Upgrade");
        }
        let mut versions = request.values("Sec-WebSocket-Version");
        match (versions.next(), versions.next()) {
            (Some("13"), None) => {}
            (Some(_), Some(_)) => return malformed("Sec-WebSocket-Version must be given once"),
            _ => {
                let reason = "only version 13 of the protocol is spoken";
                return refuse(Status::UpgradeRequired, reason, WHAT_IS_SPOKEN);
            }
        }
        let offers = request.values("Sec-WebSocket-Extensions");
        let Ok(agreed) = extension::negotiate(offers, takeover.unwrap_or(Takeover::Never)) else {
            return malformed("Sec-WebSocket-Extensions must be a list of extensions");
        };
        if !offered_subprotocols(request).all(extension::is_token) {
            return malformed("Sec-WebSocket-Protocol must be a list of names");
        }
        let compression = agreed.filter(|_| takeover.is_some());
        match request.sole_header("Sec-WebSocket-Key") {
            Some(key) if is_key(key) => {
                let accept = derive_accept_key(key.as_bytes());
                Ok(Upgrade { accept, subprotocol: None, compression })
            }
            _ => malformed("Sec-WebSocket-Key must be given once, as 16 bytes in base64"),
        }
    }

    /// Takes the first of the client's offers that is among those `spoken`. Without one the answer names
    /// none, and whether to go on is the client's decision (RFC 6455, 4.2.2).
    pub fn choose_subprotocol(&mut self, request: &Request<'_>, spoken: &[&str]) {
        let chosen = offered_subprotocols(request).find(|offer| spoken.contains(offer));
        self.subprotocol = chosen.map(str::to_owned);
    }

    /// Appends the 101. A client that waited in line is told for how long.
    pub fn respond(&self, out: &mut Vec<u8>, waited_ms: Option<u64>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(self.accept.as_bytes());
        if let Some(subprotocol) = &self.subprotocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(subprotocol.as_bytes());
        }
        if let Some(agreement) = &self.compression {
            out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
            out.extend_from_slice(agreement.header().as_bytes());
        }
        if let Some(waited_ms) = waited_ms {
            out.extend_from_slice(format!("\r\nQueue-Wait-Ms: {waited_ms}").as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// What the client would speak on top of WebSocket, what it likes best first. Empty items of the list are
/// passed over (RFC 9110, 5.6.1.2).
fn offered_subprotocols<'b>(request: &Request<'b>) -> impl Iterator<Item = &'b str> {
    let values = request.values("Sec-WebSocket-Protocol");
    values.flat_map(|value| value.split(',')).map(trim).filter(|offer| !offer.is_empty())
}

/// Whether `key` is the base64 form of 16 bytes: 22 digits and two signs of padding. The bits that the last
/// digit has too many are not looked at, which RFC 4648, 3.5 leaves to us.
fn is_key(key: &str) -> bool {
    let digits = |part: &[u8]| {
        part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    key.len() == 24 && digits(&key.as_bytes()[..22]) && key.ends_with("==")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{HeaderSpace, Request};

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn check(head: &str) -> Result<Upgrade, NotAnUpgrade> {
        let mut headers = HeaderSpace::default();
        let (request, _) = Request::parse(head.as_bytes(), &mut headers)
            .expect("a legal head")
            .expect("a whole head");
        Upgrade::check(&request, None)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let upgrade = check(GOOD).expect("a proper upgrade");
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        upgrade.respond(&mut out, Some(1200));
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.ends_with("Queue-Wait-Ms: 1200\r\n\r\n"), "{text}");
    }

    #[test]
    fn what_is_not_an_upgrade_is_told_why() {
        for (from, to, status) in [
            ("GET", "POST", Status::MethodNotAllowed),
            ("Upgrade: WebSocket", "Upgrade: h2c", Status::UpgradeRequired),
            ("keep-alive, Upgrade", "keep-alive", Status::BadRequest),
            ("Version: 13", "Version: 8", Status::UpgradeRequired),
            ("HTTP/1.1", "HTTP/1.0", Status::BadRequest),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", Status::BadRequest),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!==", Status::BadRequest),
        ] {
            let refused = check(&GOOD.replace(from, to)).expect_err(to);
            assert_eq!(refused.status, status, "{to}");
        }
    }
}
