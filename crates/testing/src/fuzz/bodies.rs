//! Bodies of requests to the admin listener.

use rusty_socks::{Config, Server, chat::Api, config::Secret};

const KEY: &str = "0123456789abcdef";

/// The largest body, in bytes: small, so that inputs reach it.
const BODY_BYTES_MAX: usize = 1024;

/// Fuzzes what follows the head of a request with a body, whole and in pieces: the answers are
/// equal, and each is whole.
///
/// The first byte selects the head, the next two where the input is cut; the rest is the input.
pub fn bodies(data: &[u8]) {
    let Some(([choice, cuts @ ..], body)) = data.split_first_chunk::<3>() else { return };
    let path = ["/v1/publish", "/v1/batch"][usize::from(choice & 1)];
    let length = match choice & 2 {
        0 => "Transfer-Encoding: chunked".to_owned(),
        _ => format!("Content-Length: {}", body.len().saturating_sub(usize::from(choice >> 4))),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{length}\r\n\r\n"
    );
    let bytes = [head.as_bytes(), body].concat();
    let whole = statuses(&[&bytes]);
    for cut in cuts {
        let (one, other) = bytes.split_at(head.len() + usize::from(*cut) * body.len() / 255);
        assert_eq!(statuses(&[one, other]), whole, "cut at {}", one.len());
    }
    let each: Vec<&[u8]> = bytes.chunks(1 + usize::from(choice >> 2)).collect();
    assert_eq!(statuses(&each), whole, "in pieces");
}

/// Returns the statuses of the server's answers.
fn statuses(pieces: &[&[u8]]) -> Vec<u16> {
    let config = Config {
        api_key: Secret::new(KEY),
        api_body_bytes: BODY_BYTES_MAX,
        thread_pool_size: 1,
        ..Config::default()
    };
    let builder = Server::builder().admin(Api::new(&config)).config(config);
    let mut server = builder.stepped().expect("a server");
    let client = server.connect_admin().expect("a place");
    for piece in pieces {
        client.write(piece);
        server.settle();
    }
    assert!(server.handle().stats().api_bodies <= 1, "one connection reads one body");
    let written = client.read();
    let (mut rest, mut statuses) = (&written[..], Vec::new());
    while !rest.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(rest).expect("an answer is HTTP");
        let httparse::Status::Complete(used) = parsed else { panic!("half an answer") };
        let length = response.headers.iter().find(|header| header.name == "Content-Length");
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
        statuses.push(response.code.expect("it is complete"));
        rest = rest.get(used + length.unwrap_or(0)..).expect("a whole body");
    }
    statuses
}
