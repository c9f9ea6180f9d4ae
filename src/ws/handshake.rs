//! The opening handshake, server side (RFC 6455, 4.2).

use tungstenite::handshake::derive_accept_key;

use super::extension::{self, Agreement, Takeover};
use crate::http::{head::Request, response::Status};

/// A proper upgrade, reduced to what its answer needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    accept: String,
    /// How messages will be compressed, if they will.
    pub(crate) compression: Option<Agreement>,
}

/// Why a request to a WebSocket route is not answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAnUpgrade {
    pub(crate) status: Status,
    pub(crate) reason: &'static str,
    /// A header line that tells the client what would be right, without its line end.
    pub(crate) advice: &'static str,
}

impl Upgrade {
    /// Checks what RFC 6455, 4.2.1 demands of the request, in the order that gives the most useful answer.
    /// With `takeover`, an offer of compression is accepted in its terms.
    pub(crate) fn check(
        request: &Request<'_>,
        takeover: Option<Takeover>,
    ) -> Result<Upgrade, NotAnUpgrade> {
        let refuse = |status, reason, advice| Err(NotAnUpgrade { status, reason, advice });
        if request.method() != "GET" {
            return refuse(Status::MethodNotAllowed, "only GET can be upgraded", "Allow: GET");
        }
        if !request.has_token("Upgrade", "websocket") {
            let reason = "this is a WebSocket endpoint: send Upgrade: websocket";
            return refuse(Status::UpgradeRequired, reason, "Upgrade: websocket");
        }
        if !request.is_http_1_1() {
            return refuse(Status::BadRequest, "an upgrade needs HTTP/1.1", "");
        }
        if !request.has_token("Connection", "Upgrade") {
            return refuse(Status::BadRequest, "the Connection header must list Upgrade", "");
        }
        if request.header("Sec-WebSocket-Version") != Some("13") {
            let reason = "only version 13 of the protocol is spoken";
            return refuse(Status::UpgradeRequired, reason, "Sec-WebSocket-Version: 13");
        }
        let offers = request.values("Sec-WebSocket-Extensions");
        let Ok(agreed) = extension::negotiate(offers, takeover.unwrap_or(Takeover::Never)) else {
            let reason = "Sec-WebSocket-Extensions must be a list of extensions";
            return refuse(Status::BadRequest, reason, "");
        };
        let compression = agreed.filter(|_| takeover.is_some());
        match request.sole_header("Sec-WebSocket-Key") {
            Some(key) if is_key(key) => {
                Ok(Upgrade { accept: derive_accept_key(key.as_bytes()), compression })
            }
            _ => {
                let reason = "Sec-WebSocket-Key must be given once, as 16 bytes in base64";
                refuse(Status::BadRequest, reason, "")
            }
        }
    }

    /// Appends the 101. A client that waited in line is told for how long.
    pub(crate) fn respond(&self, out: &mut Vec<u8>, waited_ms: Option<u64>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(self.accept.as_bytes());
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

/// Whether `key` is the base64 form of 16 bytes: 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let digits = |part: &[u8]| {
        part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    key.len() == 24 && digits(&key.as_bytes()[..22]) && key.ends_with("==")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{HeaderSpace, Request};

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
