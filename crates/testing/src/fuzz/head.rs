//! Request heads.

use rusty_socks::{Context, Message, SendStatus, Server};
use rusty_socks_ws::{
    extension::Takeover,
    handshake::Upgrade,
    head::{BadHead, HeaderSpace, Request},
    status::Status,
};

/// The routes that are upgraded.
const SOCKETS: [&str; 2] = ["/ws", "/echo"];

/// A request head, whole and cut: the same answer, and one that a client can read.
///
/// The first three bytes choose where it is cut; the rest is the head.
pub fn head(data: &[u8]) {
    let Some((cuts, bytes)) = data.split_first_chunk::<3>() else { return };
    let whole = parsed(bytes);
    let line_ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let chosen = cuts.iter().map(|cut| usize::from(*cut) * (bytes.len() + 1) / 256);
    for cut in line_ends.take(8).flat_map(|at| [at, at + 1]).chain(chosen) {
        let part = parsed(&bytes[..cut.min(bytes.len())]);
        // What is decided stays decided, and nothing is decided before the last byte has come.
        match (&part, &whole) {
            (Ok(None), _) => {}
            (Ok(Some(part)), Ok(Some(whole))) => assert_eq!(part, whole),
            (Err(part), Err(whole)) => assert_eq!(part, whole),
            _ => panic!("{part:?} at {cut} bytes, and then {whole:?}"),
        }
        if let Ok(Some(seen)) = &whole {
            assert_eq!(part.is_ok_and(|part| part.is_some()), cut >= seen.used);
        }
    }
    let Ok(Some(seen)) = whole else { return };
    assert!(seen.used <= bytes.len());
    let text = String::from_utf8_lossy(&bytes[..seen.used]);
    let has_body =
        text.lines().skip(1).filter_map(|line| line.split_once(':')).any(|(name, value)| {
            let name = name.trim();
            name.eq_ignore_ascii_case("Transfer-Encoding")
                || name.eq_ignore_ascii_case("Content-Length") && value.trim() != "0"
        });
    assert!(!has_body, "a body would be read as the next request");
    // A server answers the same however the bytes come.
    let cut = usize::from(cuts[0]) * (bytes.len() + 1) / 256;
    let statuses = statuses(&[bytes]);
    assert_eq!(statuses, self::statuses(&[&bytes[..cut], &bytes[cut..]]));
    assert!(!statuses.is_empty(), "a whole request is answered");
    assert_eq!(statuses[0] == 101, SOCKETS.contains(&seen.path()) && seen.upgrades[0].is_ok());
}

/// What is made of a head.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    used: usize,
    /// Method, path and query.
    line: [String; 3],
    keeps_alive: bool,
    upgrades: Vec<Result<Vec<u8>, Status>>,
}

impl Seen {
    fn path(&self) -> &str {
        &self.line[1]
    }
}

fn parsed(bytes: &[u8]) -> Result<Option<Seen>, BadHead> {
    let mut space = HeaderSpace::default();
    let Some((request, used)) = Request::parse(bytes, &mut space)? else { return Ok(None) };
    let takeovers = [None, Some(Takeover::Never), Some(Takeover::Allowed)];
    Ok(Some(Seen {
        used,
        line: [request.method(), request.path(), request.query()].map(str::to_owned),
        keeps_alive: request.keeps_alive(),
        upgrades: takeovers.map(|takeover| answer(&request, takeover)).into(),
    }))
}

/// The answer to an upgrade, once it is known to be well-formed.
fn answer(request: &Request<'_>, takeover: Option<Takeover>) -> Result<Vec<u8>, Status> {
    let upgrade = Upgrade::check(request, takeover).map_err(|refusal| refusal.status)?;
    assert_eq!(request.method(), "GET");
    assert!(request.is_http_1_1() && request.sole_header("Sec-WebSocket-Key").is_some());
    assert!(takeover.is_some() || upgrade.compression.is_none());
    let mut out = Vec::new();
    upgrade.respond(&mut out, Some(7));
    assert_eq!(status_of(&out), Some((101, out.len())));
    Ok(out)
}

/// The statuses that a server answers with, up to the upgrade.
fn statuses(pieces: &[&[u8]]) -> Vec<u16> {
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        let _: SendStatus = ctx.send(message);
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

/// The status of the answer at the front of `bytes`, and its length; none if there is none. The body of
/// an answer to a HEAD is not there, and what looks like an answer behind it is one.
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
