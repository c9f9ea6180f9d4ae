//! The rules of HTTP: what is a request, which route it means, and where one ends and the next
//! begins.

use super::{Answer, Harness, PAGE_BYTES, frame, upgrade};
use crate::config::Config;

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

/// What holds of every answer to what is no proper request: it is HTTP, says why, and is the last
/// one.
fn expect_refused(what: &str, request: &[u8], status: u16, head_only: bool) {
    for step in [1, usize::MAX] {
        let mut harness = Harness::new(Config::default());
        harness.wire.lock().read_step = step;
        // Bytes that stand behind it must not be taken for a request.
        harness.feed(&[request, HEALTH.as_bytes()].concat());
        let written = harness.written();
        let (answer, rest) = Answer::parse(&written, head_only);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(rest));
        assert_eq!(answer.header("Connection"), Some("close"), "{what}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"), "{what}");
        assert!(answer.header("Date").is_some(), "{what}");
        assert!(head_only || answer.body.contains("\"message\":\""), "{what}: {}", answer.body);
        assert!(harness.wire.lock().server_ended, "{what}: the answer is read before the end");
        assert!(!harness.is_gone(), "{what}: unread input would destroy the answer");
        harness.end();
        harness.expect_nothing_left(what);
    }
}

#[test]
fn what_may_mean_two_things_is_refused_and_nothing_behind_it_is_answered() {
    for (what, request) in [
        ("a folded header", "GET /health HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        ("a folded first header", "GET /health HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("a space before the colon", "GET /health HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("a tab before the colon", "GET /health HTTP/1.1\r\nHost\t: a\r\n\r\n"),
        ("no colon", "GET /health HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        ("no name", "GET /health HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        ("a name that is no token", "GET /health HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n"),
        ("NUL in a value", "GET /health HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"),
        ("NUL in a name", "GET /health HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
        ("a bell in a value", "GET /health HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n"),
        ("DEL in a value", "GET /health HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
        ("a vertical tab in a value", "GET /health HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n\r\n"),
        ("CR alone in a value", "GET /health HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
        ("CR alone at the end of a line", "GET /health HTTP/1.1\rHost: a\r\n\r\n"),
        ("LF alone behind the request line", "GET /health HTTP/1.1\nHost: a\r\n\r\n"),
        ("LF alone behind a header", "GET /health HTTP/1.1\r\nHost: a\n\r\n"),
        ("LF alone at the end", "GET /health HTTP/1.1\r\nHost: a\r\n\n"),
        ("LF alone everywhere", "GET /health HTTP/1.1\nHost: a\n\n"),
        ("LF alone before it all", "\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("CR alone before it all", "\rGET /health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a space before it all", " GET /health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces before the target", "GET  /health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces behind the target", "GET /health  HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a tab before the target", "GET\t/health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a space behind the version", "GET /health HTTP/1.1 \r\nHost: a\r\n\r\n"),
        ("NUL in the target", "GET /hea\0lth HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a method that is no token", "G(T /health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no version", "GET /health\r\nHost: a\r\n\r\n"),
        ("another protocol", "GET /health HTCPCP/1.0\r\nHost: a\r\n\r\n"),
        ("a version in small letters", "GET /health http/1.1\r\nHost: a\r\n\r\n"),
        ("version 0.9", "GET /health HTTP/0.9\r\n\r\n"),
        ("version 1.2", "GET /health HTTP/1.2\r\nHost: a\r\n\r\n"),
        ("version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a hello of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
        ("a fragment", "GET /health#x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a target beyond ASCII", "GET /h\u{e4}lth HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an absolute target without a host", "GET http:///health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an absolute target with a user", "GET http://u@a/health HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no Host", "GET /health HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("two Hosts in HTTP/1.0", "GET /health HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("a Host with a space", "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a Host with a path", "GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("a Host with a user", "GET /health HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ] {
        expect_refused(what, request.as_bytes(), 400, false);
    }
    expect_refused(
        "a target that is no text",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
        false,
    );
}

#[test]
fn a_body_is_refused_however_it_is_announced_and_whoever_takes_it() {
    let requests = [
        HEALTH.to_owned(),
        HEALTH.replace("GET", "POST"),
        HEALTH.replace("/health", "/nowhere"),
        HEALTH.replace("HTTP/1.1", "HTTP/1.0"),
        upgrade(""),
    ];
    for announced in [
        "Content-Length: 5",
        "content-length:5",
        "Content-Length: +0",
        "Content-Length: -0",
        "Content-Length: 0x0",
        "Content-Length: 00",
        "Content-Length: 0, 0",
        "Content-Length: 0 0",
        "Content-Length: ",
        "Content-Length: 0\u{a0}",
        "Content-Length: 18446744073709551616",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 5",
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \u{e9}",
        "Transfer-Encoding: ",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\0: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
    ] {
        for request in &requests {
            let at = request.len() - 2;
            let request = format!("{}{announced}\r\n\r\n0\r\n\r\n", &request[..at]);
            expect_refused(&request, request.as_bytes(), 400, false);
        }
    }
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let with = |lines: &str| format!("HEAD /health HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for (request, status) in [
        (with("Content-Length: 5\r\n"), 400),
        (with("Host: b\r\n"), 400),
        (with("X: y\n"), 400),
        (with("").replace("/health", "/ws"), 405),
    ] {
        expect_refused(&request, request.as_bytes(), status, true);
    }
    // Whole and too long.
    let mut harness = Harness::new(Config { max_head_bytes: 512, ..Config::default() });
    harness.feed(with(&format!("X: {}\r\n", "a".repeat(600))).as_bytes());
    let written = harness.written();
    assert_eq!(Answer::parse(&written, true).0.status, 431);
    assert!(written.ends_with(b"\r\n\r\n"));
}

#[test]
fn a_target_means_its_path_alone() {
    for (line, status) in [
        ("GET /health HTTP/1.1", 200),
        ("GET /health?x=/ws HTTP/1.1", 200),
        ("GET http://elsewhere/health HTTP/1.1", 200),
        ("GET HTTP://elsewhere:80/health?x HTTP/1.1", 200),
        ("GET https://[::1]/health HTTP/1.1", 200),
        ("HEAD http://elsewhere/health HTTP/1.1", 200),
        ("GET http://elsewhere/ws HTTP/1.1", 426),
        // The path of these is `/`, which is a WebSocket route here.
        ("GET http://elsewhere HTTP/1.1", 426),
        ("GET http://elsewhere?x HTTP/1.1", 426),
        ("GET / HTTP/1.1", 426),
        // Not decoded, not made simpler.
        ("GET /%68ealth HTTP/1.1", 404),
        ("GET /%77s HTTP/1.1", 404),
        ("GET /ws%3Fx HTTP/1.1", 404),
        ("GET /ws%00 HTTP/1.1", 404),
        ("GET //health HTTP/1.1", 404),
        ("GET /./health HTTP/1.1", 404),
        ("GET /health/ HTTP/1.1", 404),
        ("GET /Health HTTP/1.1", 404),
        ("GET /health; HTTP/1.1", 404),
        ("GET ws://elsewhere/health HTTP/1.1", 404),
        ("GET health HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("GET * HTTP/1.1", 404),
        ("CONNECT elsewhere:80 HTTP/1.1", 404),
        ("OPTIONS /health HTTP/1.1", 405),
        ("get /health HTTP/1.1", 405),
        ("POST /ws HTTP/1.1", 405),
    ] {
        let mut harness = Harness::new(Config::default());
        harness.feed(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        let written = harness.written();
        let (answer, rest) = Answer::parse(&written, line.starts_with("HEAD"));
        assert_eq!((answer.status, rest.len()), (status, 0), "{line}");
    }
}

#[test]
fn hosts_that_may_be_are_taken() {
    for host in ["a", "a:80", "[::1]:80", "127.0.0.1", "a-b.c_d", "a%20b", ""] {
        let mut harness = Harness::new(Config::default());
        harness.feed(HEALTH.replace("Host: a", &format!("host:\t {host} \t")).as_bytes());
        assert_eq!(harness.answer().status, 200, "{host}");
    }
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    for step in [1, usize::MAX] {
        let mut harness = Harness::new(Config::default());
        harness.wire.lock().read_step = step;
        harness.feed(format!("\r\n\r\n{HEALTH}\r\n{HEALTH}").as_bytes());
        let written = harness.written();
        let (first, rest) = Answer::parse(&written, false);
        let (second, rest) = Answer::parse(rest, false);
        assert_eq!((first.status, second.status, rest.len()), (200, 200, 0));
    }
    let mut harness = Harness::new(Config::default());
    harness.feed("\r\n".repeat(5000).as_bytes());
    assert_eq!(harness.answer().status, 431, "but not without end");
}

#[test]
fn a_connection_is_kept_as_the_client_asks() {
    for (request, connection) in [
        (HEALTH.to_owned(), "keep-alive"),
        (HEALTH.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"), "close"),
        (HEALTH.replace("\r\n\r\n", "\r\nConnection: x, Close\r\n\r\n"), "close"),
        (HEALTH.replace("\r\n\r\n", "\r\nConnection: x\r\nConnection: close\r\n\r\n"), "close"),
        (HEALTH.replace("\r\n\r\n", "\r\nConnection: closed\r\n\r\n"), "keep-alive"),
        ("GET /health HTTP/1.0\r\n\r\n".to_owned(), "close"),
        ("GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".to_owned(), "keep-alive"),
    ] {
        let mut harness = Harness::new(Config::default());
        harness.feed(request.as_bytes());
        let answer = harness.answer();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some(connection)));
        assert_eq!(harness.wire.lock().server_ended, connection == "close", "{request}");
    }
}

#[test]
fn requests_before_an_upgrade_and_frames_behind_it_are_all_handled() {
    let nowhere = "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = [HEALTH, nowhere, HEALTH, &upgrade("")].concat().into_bytes();
    stream.extend(frame(0x81, b"right behind"));
    stream.extend(frame(0x89, b"ping"));
    // Once it is a WebSocket, a request is a broken frame.
    stream.extend_from_slice(HEALTH.as_bytes());
    for step in [1, 2, 7, 100, usize::MAX] {
        let mut harness = Harness::new(Config::default());
        harness.wire.lock().read_step = step;
        harness.feed(&stream);
        let written = harness.written();
        let mut rest = &written[..];
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let (answer, behind) = Answer::parse(rest, false);
            statuses.push(answer.status);
            rest = behind;
        }
        assert_eq!(statuses, [200, 404, 200, 101], "in steps of {step}");
        let rest = rest.to_vec();
        harness.wire.lock().from_server = rest;
        let frames = harness.frames();
        assert_eq!(frames[0], (0x81, b"right behind".to_vec()), "in steps of {step}");
        assert_eq!(frames[1], (0x8a, b"ping".to_vec()));
        assert_eq!((frames[2].0, &frames[2].1[..2], frames.len()), (0x88, &[3, 234][..], 3));
    }
}

#[test]
fn a_head_that_does_not_come_is_told_so_in_time() {
    let head = upgrade("");
    for sent in ["", "GET /hea", &head[..head.len() - 1]] {
        let mut harness = Harness::new(Config::default());
        harness.feed(sent.as_bytes());
        harness.pass(4999);
        assert!(harness.written().is_empty() && !harness.is_gone());
        harness.pass(1);
        assert_eq!(harness.answer().status, 408, "{sent}");
        // It never hangs up, and is not waited for.
        harness.pass(3000);
        harness.expect_nothing_left(sent);
    }
    // A byte now and then buys no time.
    let mut harness = Harness::new(Config::default());
    for byte in upgrade("").bytes().take(50) {
        harness.feed(&[byte]);
        harness.pass(100);
    }
    assert_eq!(harness.answer().status, 408);
}

#[test]
fn a_connection_between_requests_ends_without_a_word() {
    let mut harness = Harness::new(Config::default());
    harness.feed(HEALTH.as_bytes());
    assert_eq!(harness.answer().status, 200);
    harness.pass(5000);
    assert!(harness.written().is_empty());
    harness.expect_nothing_left("idle");
}

/// A page is three times what may wait for such a client.
fn for_pages() -> Harness {
    Harness::new(Config { buffer_bytes: PAGE_BYTES / 3, ..Config::default() })
}

#[test]
fn a_page_is_given_whole_to_who_reads_it_slowly() {
    let page = HEALTH.replace("/health", "/page");
    let closing = page.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    for request in [page, closing] {
        let mut harness = for_pages();
        harness.wire.lock().write_room = 0;
        harness.feed(request.as_bytes());
        // Fifty seconds between reads, which is less than the minute of `timeout`.
        for _ in 0..=PAGE_BYTES / 1000 {
            harness.make_room(1000);
            harness.pass(50_000);
        }
        let answer = harness.answer();
        assert_eq!((answer.status, answer.body.len()), (200, PAGE_BYTES), "{request}");
        harness.pass(5000);
        harness.expect_nothing_left(&request);
    }
}

#[test]
fn a_page_is_given_up_on_when_nothing_of_it_is_read() {
    let mut harness = for_pages();
    harness.wire.lock().write_room = 1000;
    harness.feed(HEALTH.replace("/health", "/page").as_bytes());
    harness.pass(59_000);
    assert!(!harness.is_gone());
    // At the next look its patience is over; it is closed, and that has a deadline too.
    harness.pass(10_000);
    harness.expect_nothing_left("unread");
}

#[test]
fn pages_that_are_not_read_are_not_heaped_up() {
    let mut harness = for_pages();
    harness.wire.lock().write_room = 0;
    harness.feed(HEALTH.replace("/health", "/page").repeat(10).as_bytes());
    assert!(harness.owes_at_most(PAGE_BYTES + 1000), "one is beyond the bound already");
    harness.make_room(usize::MAX);
    let written = harness.written();
    assert_eq!(written.windows(15).filter(|it| it == b"HTTP/1.1 200 OK").count(), 10);
}

#[test]
fn an_end_behind_a_request_leaves_it_answered() {
    for (sent, status) in
        [(HEALTH.to_owned(), Some(200)), (upgrade(""), Some(101)), ("GET".into(), None)]
    {
        let mut harness = Harness::new(Config::default());
        harness.wire.lock().client_ended = true;
        harness.feed(sent.as_bytes());
        match status {
            Some(status) => assert_eq!(harness.answer().status, status),
            None => assert!(harness.written().is_empty()),
        }
        harness.expect_nothing_left(&sent);
    }
}

#[test]
fn a_drain_waits_for_a_first_request_for_a_moment() {
    let is_drained = |harness: &Harness| harness.conn.is_drained(harness.cx.now);
    let mut harness = Harness::new(Config::default());
    assert!(!is_drained(&harness), "it may be on its way");
    harness.pass(499);
    harness.feed(b"GET /health HTTP/1.1\r\n");
    harness.pass(499);
    assert!(!is_drained(&harness), "it is on its way");
    harness.feed(b"Host: a\r\n\r\n");
    assert_eq!(harness.answer().status, 200);
    assert!(is_drained(&harness), "another one need not come");

    let mut silent = Harness::new(Config::default());
    silent.pass(500);
    assert!(is_drained(&silent), "nothing came");
}
