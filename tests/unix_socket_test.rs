//! A server on a Unix socket.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/who.rs"]
mod who;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use program::outcome;
use rusty_socks::{Config, ErrorKind, ListenAddr, Server, ServerHandle};
use support::{DEADLINE, config, eventually, upgrade_head};
use tempfile::TempDir;
use who::Who;

/// A server on a socket in a directory of its own.
struct UnixServer {
    handle: ServerHandle,
    path: PathBuf,
    _dir: TempDir,
}

impl UnixServer {
    fn start(config: Config) -> UnixServer {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("server.sock");
        let handle = bind(&path, config).unwrap().spawn().unwrap();
        UnixServer { handle, path, _dir: dir }
    }

    fn socket(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends `request` and reads to the end.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.socket();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn stop(&self) {
        self.handle.shutdown(Duration::from_secs(1));
        self.handle.join();
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(path: &Path, config: Config) -> Result<Server, rusty_socks::Error> {
    let host = format!("unix:{}", path.display());
    Server::builder().config(Config { host, ..config }).route("/", Who).bind()
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

type Socket = tungstenite::WebSocket<UnixStream>;

/// Connects behind `headers`, and returns the client and what its handler sees of its address; or
/// the status of the refusal.
fn seen(server: &UnixServer, headers: &[(&'static str, &str)]) -> Result<(Socket, String), u16> {
    use tungstenite::{HandshakeError, client::IntoClientRequest};
    let mut request = "ws://localhost/".into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    match tungstenite::client(request, server.socket()) {
        Ok((mut socket, _)) => {
            socket.send(tungstenite::Message::text("who am I?")).unwrap();
            let told = socket.read().unwrap().to_text().unwrap().to_owned();
            let (first, second) = told.split_once(' ').unwrap();
            assert_eq!(first, second, "the upgrade and the connection differ");
            Ok((socket, first.to_owned()))
        }
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn it_serves_and_drains_and_leaves_nothing() {
    let server = UnixServer::start(config());
    assert_eq!(*server.handle.listen_addr(), ListenAddr::Unix(server.path.clone()));
    assert_eq!(server.handle.listen_addr().to_string(), format!("unix:{}", server.path.display()));
    let metadata = fs::metadata(&server.path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert!(server.ask(HEALTH).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(server.ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));

    let (mut socket, _) = seen(&server, &[]).unwrap();
    // More than the kernel takes at once, in both directions.
    let large = "a".repeat(60_000);
    for _ in 0..50 {
        socket.send(tungstenite::Message::text(large.as_str())).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), "0.0.0.0:0 0.0.0.0:0");
    }
    server.handle.shutdown(DEADLINE);
    match socket.read().unwrap() {
        tungstenite::Message::Close(close) => assert_eq!(u16::from(close.unwrap().code), 1001),
        other => panic!("{other:?}"),
    }
    while socket.read().is_ok() {}
    server.handle.join();
    assert!(!server.path.exists(), "its file is gone");
}

#[test]
fn its_peer_is_believed_and_has_no_limit_by_address() {
    let server = UnixServer::start(Config { max_conn_per_ip: 1, ..config() });
    let _peers: Vec<Socket> = (0..3)
        .map(|_| {
            let (socket, address) = seen(&server, &[]).unwrap();
            assert_eq!(address, "0.0.0.0:0");
            socket
        })
        .collect();
    let behind = |hops: &str| seen(&server, &[("X-Forwarded-For", hops)]);
    let (first, address) = behind("6.6.6.6, 203.0.113.7").unwrap();
    assert_eq!(address, "203.0.113.7:0");
    let _second = behind("203.0.113.8").unwrap();
    assert_eq!(behind("203.0.113.7").err(), Some(503));
    drop(first);
    eventually("the place is free", || match behind("203.0.113.7") {
        Ok(_) => Ok(()),
        Err(status) => Err(status.to_string()),
    });
}

#[test]
fn its_peer_is_believed_in_a_proxy_header() {
    let server = UnixServer::start(Config { proxy_protocol: true, ..config() });
    let mut stream = server.socket();
    let upgrade = upgrade_head("/");
    let header = "PROXY TCP4 203.0.113.7 10.0.0.1 4567 443\r\n";
    stream.write_all(format!("{header}{upgrade}").as_bytes()).unwrap();
    stream.write_all(&support::frame(0x81, b"who am I?")).unwrap();
    let mut told = Vec::new();
    let mut piece = [0; 1024];
    while !String::from_utf8_lossy(&told).contains("203.0.113.7:4567 203.0.113.7:4567") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&piece[..count]);
    }
    assert!(server.ask(HEALTH).contains("\"proxy_header\""));
}

#[test]
fn the_admin_listener_may_be_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("admin.sock");
    let admin_host = format!("unix:{}", path.display());
    let server = UnixServer::start(Config { admin_host, ..config() });
    assert_eq!(server.handle.admin_listen_addr(), Some(&ListenAddr::Unix(path.clone())));
    for (request, status) in [("/stats", 200), ("/metrics", 200)] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head =
            format!("GET {request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    server.stop();
    assert!(!path.exists(), "its file is gone");
}

#[test]
fn the_program_and_the_client_connect_to_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("server.sock");
    let host = format!("unix:{}", path.display());
    let server = rusty_socks::chat::server(Config { host: host.clone(), ..config() }).unwrap();
    let handle = server.spawn().unwrap();

    let (code, text) = outcome(&["health"], &[("HOST", &host)], "");
    assert!(code == Some(0) && text.contains("\"ok\""), "{text}");
    let (code, text) = outcome(&["health", "--url", &host], &[], "hello\n");
    assert!(code == Some(0) && text.contains("\"ok\""), "{text}");
    let echo = format!("{host}:/echo");
    let (code, text) = outcome(&["connect", "--raw", &echo, "--count", "1"], &[], "hello\n");
    assert!(code == Some(0) && text.contains("hello"), "{text}");
    let (code, text) = outcome(&["load", "echo", &echo], &[], "hello\n");
    assert!(code != Some(0) && text.contains("a Unix socket has no address"), "{text}");

    let client = rusty_socks_client::Client::connect(&echo).unwrap();
    let large = "a".repeat(60_000);
    client.send(&large).unwrap();
    let echoed = client.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(echoed.as_text(), Some(large.as_str()));
    handle.shutdown(DEADLINE);
    handle.join();
    let (code, text) = outcome(&["health"], &[("HOST", &host)], "");
    assert!(code == Some(1) && text.contains("cannot ask unix:/"), "{text}");
}

#[test]
fn refusals_are_read_whole() {
    let server = UnixServer::start(Config { max_pending_heads: 1, ..config() });
    let _silent = server.socket();
    eventually("the silent one is there", || match server.handle.stats().pending_heads {
        1 => Ok(()),
        heads => Err(heads.to_string()),
    });
    let answer = server.ask("");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("pending_heads"), "{answer}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_taken_over() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("server.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as a crash leaves it");
    let server = bind(&path, config()).unwrap();
    // Not yet running, and still a server that may not be robbed.
    let error = bind(&path, config()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddressInUse);
    assert!(error.to_string().ends_with("another server listens there"), "{error}");
    drop(server);
    assert!(!path.exists(), "a server that never ran removes its file too");

    fs::write(&path, "precious").unwrap();
    let error = bind(&path, config()).err().unwrap().to_string();
    assert!(error.contains("a file that is not a socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let error = bind(&dir.path().join("missing/server.sock"), config()).err().unwrap();
    assert!(error.to_string().starts_with("cannot listen on unix:/"), "{error}");
}

#[test]
fn it_stops_though_its_file_is_gone_or_anothers() {
    let server = UnixServer::start(config());
    let other_name = server.path.with_extension("link");
    fs::hard_link(&server.path, &other_name).unwrap();
    fs::remove_file(&server.path).unwrap();
    server.stop();
    UnixStream::connect(&other_name).expect_err("nobody should listen any more");

    let server = UnixServer::start(config());
    fs::remove_file(&server.path).unwrap();
    let other = bind(&server.path, config()).unwrap();
    server.stop();
    assert!(server.path.exists(), "the other's file stays");
    drop(other);
    assert!(!server.path.exists());
}
