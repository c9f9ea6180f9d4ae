//! Static pages: one program serves its page and its socket on the same port.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::time::Duration;

use rusty_socks::{Config, Context, Message, Server};
use support::{Answer, TestServer, config, eventually};

const HTML: &str = "<!doctype html><title>a page</title>";

/// Larger than what may wait for one client, and than what the kernel keeps for one socket.
const LARGE_BYTES: usize = 24 << 20;

fn echo(ctx: &mut Context<'_, ()>, message: Message<'_>) {
    ctx.send(message);
}

fn large() -> Vec<u8> {
    // A prime period, so that a piece that is missing or comes twice shows.
    (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect()
}

fn start(config: Config) -> TestServer {
    let server = Server::builder()
        .config(config)
        .route("/echo", echo)
        .page("/", "text/html; charset=utf-8", HTML)
        .page("/empty", "text/plain", "")
        .page("/large", "application/octet-stream", large())
        .bind()
        .unwrap();
    TestServer::run(server)
}

fn ask(server: &TestServer, method: &str, path: &str, headers: &str) -> Answer {
    let mut client = server.raw_client();
    client.send(
        format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n")
            .as_bytes(),
    );
    let mut answer = client.answer_head();
    if method != "HEAD" && answer.status != 304 {
        client.read_body(&mut answer);
    }
    client.expect_end();
    answer
}

#[test]
fn a_page_and_its_socket_share_a_port() {
    let server = start(config());
    let page = ask(&server, "GET", "/", "");
    assert_eq!((page.status, page.body.as_str()), (200, HTML));
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("Cache-Control"), Some("no-cache"));
    assert!(page.header("Date").is_some());
    let mut client = server.connect("/echo");
    client.send("beside");
    assert_eq!(client.next().to_text().unwrap(), "beside");
    assert_eq!(ask(&server, "GET", "/?a=1", "").status, 200, "a query changes nothing");
    assert_eq!(ask(&server, "GET", "/empty", "").header("Content-Length"), Some("0"));
    for path in ["/index.html", "//", "/empty/", "/Empty"] {
        assert_eq!(ask(&server, "GET", path, "").status, 404, "{path}");
    }
}

#[test]
fn a_page_has_get_and_head_and_nothing_else() {
    let server = start(config());
    let head = ask(&server, "HEAD", "/", "");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Length").unwrap(), HTML.len().to_string());
    let posted = ask(&server, "POST", "/", "");
    assert_eq!((posted.status, posted.header("Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn who_has_the_body_is_not_sent_it_again() {
    let server = start(config());
    let page = ask(&server, "GET", "/", "");
    let etag = page.header("ETag").unwrap();
    let again = ask(&server, "GET", "/", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((again.status, again.header("ETag")), (304, Some(etag)));
    assert_eq!(ask(&server, "GET", "/", "If-None-Match: \"other\"\r\n").status, 200);
}

#[test]
fn a_connection_is_kept_for_page_after_page_and_the_upgrade() {
    let server = start(config());
    let mut client = server.raw_client();
    let request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let upgrade = support::upgrade_head("/echo");
    client.send(format!("{request}{request}{upgrade}").as_bytes());
    for _ in 0..2 {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_str()), (200, HTML));
        assert_eq!(answer.header("Connection"), Some("keep-alive"));
    }
    assert_eq!(client.answer().status, 101);
    client.send(&support::frame(0x81, b"here"));
    assert_eq!(client.text(), "here");
}

#[test]
fn a_page_needs_no_place() {
    let server = start(Config { max_conn: 1, max_queued_tasks: 0, ..config() });
    let _inside = server.connect("/echo");
    assert!(server.try_connect("/echo").is_err(), "the server is full");
    assert_eq!(ask(&server, "GET", "/", "").status, 200);
}

#[test]
fn a_page_larger_than_every_buffer_comes_whole() {
    // Shorter than the time the client leaves it unread: what it has to read is no reason to hang
    // up.
    let wait = Duration::from_millis(200);
    let server = start(Config { handshake_timeout: wait, close_timeout: wait, ..config() });
    for connection in ["keep-alive", "close"] {
        let mut client = server.raw_client();
        let head = format!("GET /large HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
        client.send(head.as_bytes());
        let before = server.stats().uptime_s;
        eventually("a few of the server's deadlines have passed", || {
            let waited = server.stats().uptime_s - before;
            if waited > 5.0 * wait.as_secs_f64() { Ok(()) } else { Err(waited.to_string()) }
        });
        let answer = client.answer_head();
        assert_eq!(answer.header("Content-Length").unwrap(), LARGE_BYTES.to_string());
        assert!(client.take(LARGE_BYTES) == large(), "another body");
    }
    server.wait_until_empty();
}

#[test]
fn a_large_page_that_nobody_reads_is_given_up_on() {
    let wait = Duration::from_millis(200);
    let config = Config { timeout: wait, handshake_timeout: wait, close_timeout: wait, ..config() };
    let server = start(config);
    let mut client = server.raw_client();
    client.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    server.wait_until_empty();
}

#[test]
fn what_is_no_page_is_refused_at_bind() {
    let builder = || Server::builder().config(config()).route("/echo", echo);
    for (path, content_type, told) in [
        ("", "text/html", "begin with '/'"),
        ("page", "text/html", "begin with '/'"),
        ("/a b", "text/html", "begin with '/'"),
        ("/a?b", "text/html", "begin with '/'"),
        ("/health", "text/html", "reserved for the server"),
        ("/stats", "text/html", "reserved for the server"),
        ("/echo", "text/html", "taken"),
        ("/twice", "text/html", "taken"),
        ("/x", "text/html\r\nSet-Cookie: a=b", "content type"),
        ("/x", "", "content type"),
    ] {
        let bound =
            builder().page("/twice", "text/html", HTML).page(path, content_type, HTML).bind();
        let error = bound.err().unwrap_or_else(|| panic!("{path} {content_type:?}"));
        assert_eq!(error.kind(), rusty_socks::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}
