//! The opening handshake, server side (RFC 6455, 4.2).

use tungstenite::handshake::derive_accept_key;

use super::{
    extension::{self, Agreement, Takeover},
    headers::{Headers, is_token},
};

/// The header lines of every 426 (RFC 9110, 15.5.22; RFC 6455, 4.4).
const WHAT_IS_SPOKEN: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13";

/// A valid upgrade, reduced to what its answer needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: String,
    /// The chosen subprotocol, if any.
    subprotocol: Option<String>,
    /// The negotiated compression, if any.
    pub compression: Option<Agreement>,
}

/// The parts of a request head that decide about an upgrade.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeRequest<'b> {
    /// The method as sent.
    pub method: &'b str,
    /// Whether the request is HTTP/1.1.
    pub is_http_1_1: bool,
    /// The header lines.
    pub headers: Headers<'b>,
}

/// The kind of answer to a request that is not a valid upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeFault {
    /// 405.
    MethodNotAllowed,
    /// 426: the request asks for no upgrade, or for another version of the protocol.
    UpgradeRequired,
    /// 400.
    Malformed,
}

/// The reason why a request to a WebSocket route is not answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnUpgrade {
    /// The kind of answer.
    pub fault: UpgradeFault,
    /// A text for people on what is wrong.
    pub reason: &'static str,
    /// Header lines that state what is supported, without the last line end.
    pub advice: &'static str,
}

impl Upgrade {
    /// Checks the request as RFC 6455, 4.2.1 demands, in the order that gives the most useful
    /// answer. If `takeover` is given, negotiates compression with that policy.
    pub fn check(
        request: UpgradeRequest<'_>,
        takeover: Option<Takeover>,
    ) -> Result<Upgrade, NotAnUpgrade> {
        let UpgradeRequest { method, is_http_1_1, headers } = request;
        let refuse = |fault, reason, advice| Err(NotAnUpgrade { fault, reason, advice });
        let malformed = |reason| refuse(UpgradeFault::Malformed, reason, "");
        if method != "GET" {
            let reason = "the method of an upgrade must be GET";
            return refuse(UpgradeFault::MethodNotAllowed, reason, "Allow: GET");
        }
        if !headers.has_token("Upgrade", "websocket") {
            let reason = "this is a WebSocket endpoint: send Upgrade: websocket";
            return refuse(UpgradeFault::UpgradeRequired, reason, WHAT_IS_SPOKEN);
        }
        if !is_http_1_1 {
            return malformed("an upgrade must be HTTP/1.1");
        }
        if !headers.has_token("Connection", "Upgrade") {
            return malformed("the Connection header must list Upgrade");
        }
        let mut versions = headers.values("Sec-WebSocket-Version");
        match (versions.next(), versions.next()) {
            (Some("13"), None) => {}
            (Some(_), Some(_)) => return malformed("Sec-WebSocket-Version must be given once"),
            _ => {
                let reason = "Sec-WebSocket-Version must be 13";
                return refuse(UpgradeFault::UpgradeRequired, reason, WHAT_IS_SPOKEN);
            }
        }
        let offers = headers.values("Sec-WebSocket-Extensions");
        let Ok(agreed) = extension::negotiate(offers, takeover.unwrap_or(Takeover::Never)) else {
            return malformed("Sec-WebSocket-Extensions must be a list of extensions");
        };
        if !headers.items("Sec-WebSocket-Protocol").all(is_token) {
            return malformed("Sec-WebSocket-Protocol must be a list of names");
        }
        let compression = agreed.filter(|_| takeover.is_some());
        match headers.sole_value("Sec-WebSocket-Key") {
            Some(key) if is_key(key) => {
                let accept = derive_accept_key(key.as_bytes());
                Ok(Upgrade { accept, subprotocol: None, compression })
            }
            _ => malformed("Sec-WebSocket-Key must be given once, as 16 bytes in base64"),
        }
    }

    /// Chooses the first of the client's offers that is in `spoken`. If there is none, the answer
    /// names no subprotocol, and the client decides whether to continue (RFC 6455, 4.2.2).
    pub fn choose_subprotocol(&mut self, headers: Headers<'_>, spoken: &[&str]) {
        let mut offers = headers.items("Sec-WebSocket-Protocol");
        let chosen = offers.find(|offer| spoken.contains(offer));
        self.subprotocol = chosen.map(str::to_owned);
    }

    /// Appends the 101. `waited_ms` adds a header with the time that the client waited in line.
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

/// Whether `key` is 16 bytes in base64: 22 digits and two characters of padding. The unused bits of
/// the last digit are not checked, which RFC 4648, 3.5 permits.
fn is_key(key: &str) -> bool {
    let digits = |part: &[u8]| {
        part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    key.len() == 24 && digits(&key.as_bytes()[..22]) && key.ends_with("==")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn check(head: &str) -> Result<Upgrade, NotAnUpgrade> {
        let mut lines = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut lines);
        assert!(parsed.parse(head.as_bytes()).expect("a legal head").is_complete());
        let request = UpgradeRequest {
            method: parsed.method.expect("it is whole"),
            is_http_1_1: parsed.version == Some(1),
            headers: Headers(parsed.headers),
        };
        Upgrade::check(request, None)
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
        for (from, to, fault) in [
            ("GET", "POST", UpgradeFault::MethodNotAllowed),
            ("Upgrade: WebSocket", "Upgrade: h2c", UpgradeFault::UpgradeRequired),
            ("keep-alive, Upgrade", "keep-alive", UpgradeFault::Malformed),
            ("Version: 13", "Version: 8", UpgradeFault::UpgradeRequired),
            ("HTTP/1.1", "HTTP/1.0", UpgradeFault::Malformed),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", UpgradeFault::Malformed),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!==", UpgradeFault::Malformed),
        ] {
            let refused = check(&GOOD.replace(from, to)).expect_err(to);
            assert_eq!(refused.fault, fault, "{to}");
        }
    }
}
