//! Request heads.

use rusty_socks::{Context, Message, Server};
use rusty_socks_ws::{
    extension::Takeover,
    handshake::{Upgrade, UpgradeRequest},
    headers::Headers,
};

/// The WebSocket routes.
const SOCKETS: [&str; 2] = ["/ws", "/echo"];

/// Fuzzes request heads, whole and in pieces: the answers are equal, and well-formed.
///
/// The first three bytes select where the input is cut; the rest is the input.
pub fn head(data: &[u8]) {
    let Some((cuts, bytes)) = data.split_first_chunk::<3>() else { return };
    let whole = statuses(&[bytes]);
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let chosen = cuts.iter().map(|cut| usize::from(*cut) * (bytes.len() + 1) / 256);
    for cut in line_ends.take(2).flat_map(|at| [at, at + 1]).chain(chosen) {
        let (one, other) = bytes.split_at(cut.min(bytes.len()));
        // The answers do not depend on how the bytes are cut.
        assert_eq!(statuses(&[one, other]), whole, "cut at {cut}");
    }
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut lines);
    let Ok(httparse::Status::Complete(_)) = request.parse(bytes) else { return };
    assert!(!whole.is_empty(), "a whole request is answered");
    let has_body = request.headers.iter().any(|line| {
        line.name.eq_ignore_ascii_case("Transfer-Encoding")
            || line.name.eq_ignore_ascii_case("Content-Length") && line.value != b"0"
    });
    assert!(!has_body || whole == [400], "a body would be read as the next request");
    for takeover in [None, Some(Takeover::Never), Some(Takeover::Allowed)] {
        check_upgrade(&request, takeover, &whole);
    }
}

/// Checks that every upgraded request is valid in itself.
fn check_upgrade(request: &httparse::Request<'_, '_>, takeover: Option<Takeover>, whole: &[u16]) {
    let headers = Headers(request.headers);
    let (method, is_http_1_1) = (request.method.unwrap_or_default(), request.version == Some(1));
    match Upgrade::check(UpgradeRequest { method, is_http_1_1, headers }, takeover) {
        Ok(upgrade) => {
            assert_eq!((method, is_http_1_1), ("GET", true));
            assert!(headers.sole_value("Sec-WebSocket-Key").is_some());
            assert!(takeover.is_some() || upgrade.compression.is_none());
            let mut out = Vec::new();
            upgrade.respond(&mut out, Some(7));
            assert_eq!(status_of(&out), Some((101, out.len())));
        }
        Err(_) => assert_ne!(whole.first(), Some(&101), "upgraded though it is not proper"),
    }
}

/// Returns the statuses of the server's answers, up to the upgrade.
fn statuses(pieces: &[&[u8]]) -> Vec<u16> {
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let builder = Server::builder().route(SOCKETS[0], echo).route(SOCKETS[1], echo);
    let mut server = builder.page("/", "text/html", "hello").stepped().expect("a server");
    let client = server.connect().expect("a place");
    for piece in pieces {
        client.write(piece);
        server.settle();
    }
    let (written, mut statuses) = (client.read(), Vec::new());
    let mut rest = &written[..];
    while let Some((status, used)) = status_of(rest) {
        statuses.push(status);
        if status == 101 {
            return statuses;
        }
        rest = &rest[used.min(rest.len())..];
    }
    statuses
}

/// Returns the status and the length of the answer at the front of `bytes`, or `None` if there is
/// none. An answer to a HEAD has no body.
fn status_of(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes).expect("an answer is HTTP") {
        httparse::Status::Complete(used) => used,
        httparse::Status::Partial => {
            assert!(bytes.is_empty(), "half an answer");
            return None;
        }
    };
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    let length = length.map_or(0, |header| {
        let text = std::str::from_utf8(header.value).expect("a number is text");
        text.parse().expect("a length is a number")
    });
    let is_body_there = !bytes[used..].starts_with(b"HTTP/1.1 ") && bytes.len() > used;
    let length = if is_body_there { length } else { 0 };
    assert!(used + length <= bytes.len(), "a whole body");
    Some((response.code.expect("it is complete"), used + length))
}
