//! Whose address a connection has that comes through a proxy.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/who.rs"]
mod who;

use rusty_socks::{Config, Server};
use support::{RawClient, TestServer, config, eventually, frame, upgrade_head};
use who::Who;

fn serve(config: Config) -> TestServer {
    TestServer::run(Server::builder().config(config).route("/", Who).bind().unwrap())
}

fn trusting(proxies: &[&str]) -> Config {
    Config { trusted_proxies: proxies.iter().map(|&proxy| proxy.into()).collect(), ..config() }
}

fn upgrade(headers: &str) -> String {
    upgrade_head("/").replace("Host: test\r\n", &format!("Host: test\r\n{headers}"))
}

/// Sends an upgrade behind `preamble`, and returns the client and the address that its handler
/// sees.
fn seen(server: &TestServer, preamble: &[u8], headers: &str) -> (RawClient, String) {
    let mut client = server.raw_client();
    client.send(&[preamble, upgrade(headers).as_bytes()].concat());
    assert_eq!(client.answer().status, 101);
    client.send(&frame(0x81, b"who am I?"));
    let header = client.take(2);
    let told = String::from_utf8(client.take(usize::from(header[1]))).unwrap();
    let (first, second) = told.split_once(' ').unwrap();
    assert_eq!(first, second, "the upgrade and the connection differ");
    (client, first.to_owned())
}

#[test]
fn a_trusted_proxy_says_who_its_client_is() {
    let server = serve(trusting(&["127.0.0.0/8", "10.0.0.1"]));
    let seen = |headers: &str| seen(&server, b"", headers).1;
    assert_eq!(seen("X-Forwarded-For: 203.0.113.7\r\n"), "203.0.113.7:0");
    assert_eq!(seen("X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.1\r\n"), "203.0.113.7:0");
    let two = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: [2001:db8::9]:55\r\n";
    assert_eq!(seen(two), "[2001:db8::9]:55");
    assert!(seen("X-Forwarded-For: unknown\r\n").starts_with("127.0.0.1:"));
    assert!(seen("").starts_with("127.0.0.1:"));
}

#[test]
fn a_stranger_is_not_believed() {
    for config in [config(), trusting(&["10.0.0.0/8"])] {
        let server = serve(config);
        let (_client, address) = seen(&server, b"", "X-Forwarded-For: 203.0.113.7\r\n");
        assert!(address.starts_with("127.0.0.1:"), "{address}");
    }
}

#[test]
fn clients_behind_a_proxy_are_counted_apart() {
    let server = serve(Config { max_conn_per_ip: 1, ..trusting(&["127.0.0.1"]) });
    let (first, _) = seen(&server, b"", "X-Forwarded-For: 203.0.113.7\r\n");
    let _second = seen(&server, b"", "X-Forwarded-For: 203.0.113.8\r\n");
    let mut third = server.raw_client();
    third.send(upgrade("X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n").as_bytes());
    let answer = third.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("per_ip")));
    third.expect_end();
    // The proxy itself has no limit: it asks after the health of the server.
    let health = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut checks: Vec<RawClient> = (0..3).map(|_| server.raw_client()).collect();
    for check in &mut checks {
        check.send(health);
        assert_eq!(check.answer().status, 200);
    }
    drop(first);
    eventually("the place is free", || {
        let mut client = server.raw_client();
        client.send(upgrade("X-Forwarded-For: 203.0.113.7\r\n").as_bytes());
        match client.answer().status {
            101 => Ok(()),
            status => Err(status.to_string()),
        }
    });
}

const VERSION_1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 4567 443\r\n";

#[test]
fn a_proxy_header_says_who_the_client_is() {
    let server = serve(Config { proxy_protocol: true, ..trusting(&["127.0.0.1"]) });
    let seen = |preamble: &[u8], headers| seen(&server, preamble, headers).1;
    assert_eq!(seen(VERSION_1, ""), "203.0.113.7:4567");
    let mut version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version_2.extend([203, 0, 113, 9, 10, 0, 0, 1, 0, 80, 1, 187]);
    assert_eq!(seen(&version_2, ""), "203.0.113.9:80");
    // That client is no trusted proxy, and so may not name another.
    assert_eq!(seen(VERSION_1, "X-Forwarded-For: 6.6.6.6\r\n"), "203.0.113.7:4567");
    assert!(seen(b"PROXY UNKNOWN\r\n", "").starts_with("127.0.0.1:"));

    // In pieces, as a slow network brings it.
    let mut client = server.raw_client();
    for byte in [VERSION_1, b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_proxy_header_is_believed_from_trusted_proxies_alone() {
    let server = serve(Config { proxy_protocol: true, ..config() });
    let (_client, address) = seen(&server, VERSION_1, "");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
}

#[test]
fn without_its_proxy_header_a_connection_is_refused() {
    let silence = std::time::Duration::from_millis(300);
    let server = serve(Config {
        proxy_protocol: true,
        handshake_timeout: silence,
        ..trusting(&["127.0.0.1"])
    });
    for wrong in [&b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"[..], b"PROXY TCP9 1 2 3 4\r\n"] {
        let mut client = server.raw_client();
        client.send(wrong);
        let answer = client.answer();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("proxy_header")));
        client.expect_end();
    }
    let mut half = server.raw_client();
    half.send(&VERSION_1[..20]);
    assert_eq!(half.answer().status, 408);
    assert_eq!(server.stats().rejected["proxy_header"], 2);
}

#[test]
fn a_proxy_header_counts_for_the_limit_by_address() {
    let server =
        serve(Config { proxy_protocol: true, max_conn_per_ip: 1, ..trusting(&["127.0.0.1"]) });
    let _first = seen(&server, VERSION_1, "");
    let mut second = server.raw_client();
    second.send(VERSION_1);
    let answer = second.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("per_ip")));
}
