//! TLS records, as they come from the network.

use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rusty_socks::{Config, Context, Message, Server, stepped::MemoryClient};
use tempfile::TempDir;

use crate::{
    certificates::Authority,
    frames::upgrade,
    tls_client::{TlsClient, client_config},
};

/// A certificate for the server, and the client that trusts it.
struct Trust {
    _dir: TempDir,
    paths: [String; 2],
    client: Arc<ClientConfig>,
}

fn trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("fuzz");
        let paths = authority.server(&["localhost"]).write(dir.path(), "server");
        let paths = paths.map(|path| path.to_str().expect("a path in UTF-8").to_owned());
        let client = client_config(&authority.pem(), rustls::ALL_VERSIONS, None);
        Trust { _dir: dir, paths, client }
    })
}

/// Fuzzes what a client sends through TLS: a handshake, an upgrade and messages, in pieces of any
/// length. The answers are what they are without TLS. If a byte of it is changed on its way, none
/// of the answers is wrong, and the server serves others.
///
/// The first byte says whether a byte is changed, the next two which and how; each byte after them
/// is the length of a piece, over and over.
pub fn records(data: &[u8]) {
    let Some(([choice, place, change], lengths)) = data.split_first_chunk::<3>() else { return };
    let Trust { paths: [tls_cert, tls_key], client: config, .. } = trust();
    let (tls_cert, tls_key) = (tls_cert.clone(), tls_key.clone());
    let server_config = Config { thread_pool_size: 1, tls_cert, tls_key, ..Config::default() };
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let builder = Server::builder().route("/", echo).config(server_config);
    let mut server = builder.stepped().expect("a server");

    let mut lengths = lengths.iter().map(|length| usize::from(*length) + 1).cycle();
    let mut take = || lengths.next().unwrap_or(usize::MAX);
    // Where in the stream a byte is changed.
    let changed = (choice & 1 == 1).then(|| usize::from(*place) * (usize::from(choice >> 1) + 1));
    let mut sent = 0;
    let mut tls = TlsClient::new(Arc::clone(config), "localhost");
    let wire = server.connect().expect("a place");
    let mut plain = Vec::new();
    tls.send(&request());
    for _ in 0..8 {
        let mut out = tls.output();
        for (at, byte) in out.iter_mut().enumerate() {
            if changed == Some(sent + at) {
                *byte ^= change | 1;
            }
        }
        sent += out.len();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(take().min(rest.len()));
            wire.write(piece);
            server.settle();
            rest = after;
        }
        match tls.input(&wire.read()) {
            Ok(bytes) => plain.extend(bytes),
            Err(error) => assert!(changed.is_some(), "the server's TLS is wrong: {error}"),
        }
    }
    let expected = answers();
    if changed.is_some_and(|at| at < sent) {
        // Records before it count, and nothing after.
        assert!(expected.starts_with(&plain), "an answer to what nobody sent");
        assert!(plain.len() < expected.len(), "a changed byte went unseen");
        assert!(wire.is_ended(), "the connection goes on");
    } else {
        assert_eq!(plain, expected);
    }
    assert_eq!(health(&mut server, config), 200);
}

/// An upgrade, and two messages of which one takes several records.
fn request() -> Vec<u8> {
    let head = upgrade("/", "");
    let long = [&[0x82, 0xfe, 0x7d, 0, 0, 0, 0, 0][..], &[7; 0x7d00]].concat();
    [head.as_bytes(), b"\x82\x85\0\0\0\0hello", &long].concat()
}

/// What a server without TLS answers to that.
fn answers() -> Vec<u8> {
    static ANSWERS: OnceLock<Vec<u8>> = OnceLock::new();
    let plain = || {
        let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
            ctx.send(message);
        };
        let mut server = Server::builder().route("/", echo).stepped().expect("a server");
        let client: MemoryClient = server.connect().expect("a place");
        client.write(&request());
        server.settle();
        client.read()
    };
    ANSWERS.get_or_init(plain).clone()
}

/// Asks for `/health` on a connection of its own. Returns the status.
fn health(server: &mut rusty_socks::stepped::SteppedServer, config: &Arc<ClientConfig>) -> u16 {
    let mut tls = TlsClient::new(Arc::clone(config), "localhost");
    let wire = server.connect().expect("a place");
    tls.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut plain = Vec::new();
    for _ in 0..4 {
        wire.write(&tls.output());
        server.settle();
        plain.extend(tls.input(&wire.read()).expect("TLS"));
    }
    let status = plain.strip_prefix(b"HTTP/1.1 ").expect("an answer");
    String::from_utf8_lossy(&status[..3]).parse().expect("a status")
}
