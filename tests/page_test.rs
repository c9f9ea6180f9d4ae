//! Static pages: one program serves its page and its socket on the same port.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{fs, time::Duration};

use program::Program;
use rusty_socks::{Config, Context, Message, Server};
use support::{Answer, RawClient, TestServer, config, eventually};

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
    ask_on(server.raw_client(), method, path, headers)
}

fn ask_on(mut client: RawClient, method: &str, path: &str, headers: &str) -> Answer {
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

#[test]
fn a_page_has_the_headers_that_it_is_given() {
    let headers = [("X-One", "1"), ("Content-Security-Policy", "default-src 'none'")];
    let builder = Server::builder().config(config()).page_with("/", "text/plain", &headers, "a");
    let server = TestServer::run(builder.bind().unwrap());
    let page = ask(&server, "GET", "/", "");
    for (name, value) in headers {
        assert_eq!(page.header(name), Some(value));
    }
    assert_eq!(page.header("Content-Length"), Some("1"));
}

#[test]
fn a_browser_at_the_address_of_the_program_sees_its_first_page() {
    // Full with one client, and still there.
    let settings = [("MAX_CONN", "1"), ("MAX_QUEUED_TASKS", "0")];
    let program = Program::start(&[], &settings);
    let _inside = program.upgrade("/ws");
    let get = |path| ask_on(RawClient::new(program.socket()), "GET", path, "");
    let page = get("/");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains(concat!(">", env!("CARGO_PKG_VERSION"), "</span>")), "no version");
    let policy = page.header("Content-Security-Policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    // The policy forbids scripts in the page, and that it loads from elsewhere.
    assert!(!page.body.contains("<script>") && !page.body.contains(" onclick"), "{}", page.body);
    let client = get("/client.js");
    assert_eq!(client.header("Content-Type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(client.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(page.header("Access-Control-Allow-Origin"), None);
    assert!(client.body.contains("export const { Client"), "no client");
    for module in fs::read_dir("clients/js/src").unwrap() {
        let name = module.unwrap().file_name().into_string().unwrap();
        assert!(client.body.contains(&format!("\n'{name}'(exports) {{\n")), "no {name}");
    }
    assert!(get("/page.js").body.contains("from './client.js'"), "no script");
}

#[test]
fn the_first_page_shows_nothing_of_the_settings_and_can_be_off() {
    let secret = "a-key-that-nobody-may-see";
    let settings = [("ADMIN_PORT", "0"), ("API_KEY", secret), ("DEFAULT_ROOM", "hidden-room")];
    let program = Program::start(&[], &settings);
    let bare = Program::start(&[], &[]);
    let off = Program::start(&[], &[("PAGE", "off")]);
    let get = |at: &Program, path| ask_on(RawClient::new(at.socket()), "GET", path, "");
    for path in ["/", "/page.js", "/client.js"] {
        assert_eq!(get(&program, path).body, get(&bare, path).body, "{path}");
        assert_eq!(get(&off, path).status, 404, "{path}");
    }
    assert_eq!(get(&off, "/health").status, 200);
}
