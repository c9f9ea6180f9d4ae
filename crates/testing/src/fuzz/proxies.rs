//! What proxies say about their clients: PROXY headers and `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use rusty_socks::{Config, Context, Message, Server};

use crate::frames::upgrade;

/// Where in-memory clients come from, whom the server trusts.
const PROXY: &str = "127.0.0.1";

/// Fuzzes a PROXY header and the value of an `X-Forwarded-For`, whole and in pieces: the server
/// finds the same client, and one whose address is in what it was told.
///
/// The first byte selects whether the server asks for a PROXY header, the next two where the input
/// is cut; the rest is the header, and after a byte 0xFF the value.
pub fn proxies(data: &[u8]) {
    let Some(([choice, cuts @ ..], told)) = data.split_first_chunk::<3>() else { return };
    let proxy_protocol = choice & 1 == 1;
    let mut parts = told.splitn(2, |byte| *byte == 0xff);
    let (header, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let begin = if proxy_protocol { header } else { &[] };
    let upgrade = upgrade("/", "");
    let bytes =
        [begin, upgrade.trim_end().as_bytes(), b"\r\nX-Forwarded-For: ", value, b"\r\n\r\n"]
            .concat();
    let whole = client(proxy_protocol, &[&bytes]);
    for cut in cuts {
        let (one, other) = bytes.split_at(usize::from(*cut) * bytes.len() / 255);
        assert_eq!(client(proxy_protocol, &[one, other]), whole, "cut at {}", one.len());
    }
    let each: Vec<&[u8]> = bytes.chunks(1 + usize::from(choice >> 2)).collect();
    assert_eq!(client(proxy_protocol, &each), whole, "in pieces");
    let Some(whole) = whole else { return };
    let ip = whole.parse::<SocketAddr>().expect("an address").ip();
    assert!(!ip.is_unspecified(), "{ip} is the address of nobody");
    let is_told =
        begin.starts_with(b"\r\n\r\n") || names(begin, b' ', ip) || names(value, b',', ip);
    assert!(ip.to_string() == PROXY || is_told, "{ip} was not told");
}

/// Whether `ip` stands in `text`, where it is not in a list of another kind.
fn names(text: &[u8], separator: u8, ip: IpAddr) -> bool {
    text.split(|byte| *byte == separator || *byte == b'\n').any(|word| {
        let word = String::from_utf8_lossy(word);
        let bare = word.trim().trim_start_matches('[').trim_end_matches(']');
        let with_port = || word.trim().parse::<SocketAddr>().map(|address| address.ip());
        bare.parse::<IpAddr>().or_else(|_| with_port()).is_ok_and(|told| told.to_canonical() == ip)
    })
}

/// Returns whom the server takes for the client, or `None` if it does not let it in.
fn client(proxy_protocol: bool, pieces: &[&[u8]]) -> Option<String> {
    let who = |ctx: &mut Context<'_, ()>, _: Message<'_>| {
        let address = ctx.remote_addr().to_string();
        ctx.send(Message::Text(&address));
    };
    let trusted_proxies = vec![PROXY.to_owned()];
    let config =
        Config { thread_pool_size: 1, proxy_protocol, trusted_proxies, ..Config::default() };
    let mut server = Server::builder().route("/", who).config(config).stepped().expect("a server");
    let client = server.connect().expect("a place");
    for piece in pieces {
        client.write(piece);
        server.settle();
    }
    let answer = client.read();
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return None;
    }
    client.write(b"\x82\x80\0\0\0\0");
    server.settle();
    let frame = client.read();
    Some(String::from_utf8(frame[2..].to_vec()).expect("text"))
}
