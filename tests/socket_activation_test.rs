//! Sockets that a service manager passes on, and what it is told.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/activated.rs"]
mod activated;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

use activated::Activated;
use rusty_socks::{BoundListener, Server};
use support::{DEADLINE, TestServer, config};
use tempfile::TempDir;

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The answer to a request that was sent.
fn answer(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn ask(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(HEALTH).unwrap();
    stream
}

#[test]
fn who_comes_between_two_servers_is_served_by_the_second() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let first = Activated::start(&listener, &[]);
    assert_eq!(first.is_told(), "READY=1");
    assert!(first.log_line(" listens on ").contains(&addr.to_string()));
    assert!(answer(ask(addr)).starts_with("HTTP/1.1 200 OK"));
    first.terminate();
    assert_eq!(first.is_told(), "STOPPING=1");
    first.ends();
    let between: Vec<TcpStream> = (0..20).map(|_| ask(addr)).collect();
    let second = Activated::start(&listener, &[]);
    for stream in between {
        assert!(answer(stream).starts_with("HTTP/1.1 200 OK"));
    }
    drop(second);
}

#[test]
fn one_of_two_servers_that_accept_from_a_socket_can_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let servers = [(); 2].map(|()| Activated::start(&listener, &[]));
    for server in &servers {
        assert_eq!(server.is_told(), "READY=1");
    }
    let [first, second] = servers;
    let ending = thread::spawn(move || {
        first.terminate();
        first.ends();
    });
    let mut answers = 0;
    while !ending.is_finished() || answers < 100 {
        let text = answer(ask(addr));
        // Whom the first has accepted before it ends is told so.
        assert!(text.starts_with("HTTP/1.1 200 OK") || text.contains("draining"), "{text}");
        answers += 1;
    }
    ending.join().unwrap();
    drop(second);
}

#[test]
fn the_begin_and_the_end_of_a_reload_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("server.toml");
    std::fs::write(&file, "").unwrap();
    let server = Activated::start(&listener, &[("RUSTY_SOCKS_CONFIG", file.to_str().unwrap())]);
    assert_eq!(server.is_told(), "READY=1");
    for settings in ["max_conn = 7", "max_conn = 0"] {
        std::fs::write(&file, settings).unwrap();
        server.signal("-HUP");
        let told = server.is_told();
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&told);
        assert!(since.parse::<u64>().is_ok(), "{told}");
        assert_eq!(server.is_told(), "READY=1", "whether it is good or bad");
    }
    server.terminate();
    assert_eq!(server.is_told(), "STOPPING=1");
    server.ends();
}

#[test]
fn a_unix_socket_is_passed_on_and_its_file_is_left() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("server.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let server = Activated::start(&listener, &[]);
        assert_eq!(server.is_told(), "READY=1");
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(HEALTH).unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 200 OK"));
        server.terminate();
        server.ends();
        assert!(path.exists());
    }
}

#[test]
fn sockets_that_cannot_be_used_are_named() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Activated::start(&datagrams, &[]);
    let line = server.log_line("rusty_socks: ");
    assert!(line.contains("socket 1 of LISTEN_FDS is neither TCP nor Unix"), "{line}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Activated::start(&listener, &[("LISTEN_FDS", "3")]);
    let line = server.log_line("rusty_socks: ");
    assert!(line.contains("LISTEN_FDS has 3 sockets; there are at most two"), "{line}");
    #[cfg(target_os = "linux")]
    for domain in [socket2::Domain::IPV4, socket2::Domain::UNIX] {
        let silent = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        let server = Activated::start(&silent, &[]);
        let line = server.log_line("rusty_socks: ");
        assert!(line.contains("socket 1 of LISTEN_FDS does not listen"), "{line}");
        server.ends_with(2);
    }
}

#[test]
fn a_drain_that_the_api_asks_for_is_told_too_and_the_server_lives_until_its_end() {
    // A backend that takes events and gives no answer, for which the end waits.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", backend.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = Activated::start(
        &listener,
        &[
            ("WATCHDOG_USEC", "200000"),
            ("RUSTY_SOCKS_ADMIN_PORT", "0"),
            ("RUSTY_SOCKS_API_KEY", "a-key-of-the-api"),
            ("RUSTY_SOCKS_EVENTS_URL", &url),
            ("RUSTY_SOCKS_EVENTS", "connected"),
            ("RUSTY_SOCKS_DRAIN_TIMEOUT", "3"),
        ],
    );
    let line = program.log_line("the admin listener is on ");
    let admin: SocketAddr = line.rsplit(' ').next().unwrap().parse().unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(support::upgrade_head("/ws").as_bytes()).unwrap();
    client.read_exact(&mut [0; 12]).unwrap();
    backend.set_nonblocking(true).unwrap();
    let mut requests = Vec::new();
    support::eventually("a request comes", || {
        requests.push(backend.accept().map_err(|error| error.to_string())?);
        Ok(())
    });
    drop(client);
    let mut ask = TcpStream::connect(admin).unwrap();
    ask.write_all(
        b"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
          Authorization: Bearer a-key-of-the-api\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap();
    assert!(answer(ask).starts_with("HTTP/1.1 2"));
    program.log_line("asked by the admin listener: draining for up to 3 s");
    while program.is_told() != "STOPPING=1" {}
    // The workers have ended long before these.
    for _ in 0..10 {
        assert_eq!(program.is_told(), "WATCHDOG=1");
    }
    let lines = program.ends_with(0);
    assert!(!lines.iter().any(|line| line.contains("a worker hangs")), "{lines:?}");
}

#[test]
fn a_service_manager_that_hangs_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = Activated::start(&listener, &[]);
    assert_eq!(program.is_told(), "READY=1");
    program.hang();
    program.signal("-HUP");
    program.log_line("cannot tell the service manager Reloading: ");
    program.log_line("reloaded: ");
    program.terminate();
    program.ends();
}

#[test]
fn an_embedder_passes_sockets_too_and_the_admin_listener_needs_a_key_where_others_reach_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, admin_addr) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
    let builder = Server::builder().config(config()).listener(listener).admin_listener(admin);
    let server = TestServer::run(builder.bind().unwrap());
    assert_eq!((server.addr, server.handle.admin_addr()), (addr, Some(admin_addr)));
    assert!(answer(ask(admin_addr)).starts_with("HTTP/1.1 200 OK"));

    let open = BoundListener::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let error = Server::builder().config(config()).admin_listener(open).bind().err().unwrap();
    assert!(error.to_string().contains("must be a loopback address unless api_key"), "{error}");
}

#[test]
fn a_service_manager_that_wants_to_know_is_told_that_the_server_is_alive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = Activated::start(&listener, &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(program.is_told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(program.is_told(), "WATCHDOG=1");
    }
}
