//! HTTP on the same port: what is answered to requests that are no upgrade, or not a proper one.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{net::Shutdown, time::Duration};

use rusty_socks::{Config, config::LimitedAddresses};
use support::{Answer, BusyServer, RawClient, TestServer, config, eventually, frame, upgrade_head};

const GET_HEALTH: &str = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";

/// For tests in which a deadline must pass.
const SHORT: Duration = Duration::from_millis(200);

/// Sends one request on a connection of its own, and reads the answer and the end.
fn only_answer(server: &TestServer, request: &str) -> Answer {
    let mut client = server.raw_client();
    client.send(request.as_bytes());
    let answer = client.answer();
    client.expect_end();
    answer
}

/// The upgrade request with one thing changed.
fn upgrade_with(from: &str, to: &str) -> String {
    let head = upgrade_head("/ws");
    assert!(head.contains(from), "{from}");
    head.replace(from, to)
}

/// What holds for every answer.
fn check(answer: &Answer) {
    let date = answer.header("Date").unwrap_or_else(|| panic!("no Date: {answer:?}"));
    assert!(
        chrono::NaiveDateTime::parse_from_str(date, "%a, %d %b %Y %H:%M:%S GMT").is_ok(),
        "{date}"
    );
    assert!(answer.header("Content-Length").is_some(), "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/json"), "{answer:?}");
    assert!(
        matches!(answer.header("Connection"), Some("close" | "close, Upgrade" | "keep-alive")),
        "{answer:?}"
    );
}

/// An answer to what was refused, whose body says why in a word and in a sentence.
fn check_refusal(answer: &Answer, status: u16, error: &str) {
    check(answer);
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error"], error, "{answer:?}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{answer:?}");
}

#[test]
fn health_says_ok() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    client.send(GET_HEALTH.as_bytes());
    let answer = client.answer();
    check(&answer);
    assert_eq!(answer.status, 200);
    // In the order in which it is documented: people read it, too.
    let (fields, uptime) = answer.body.split_once("\"uptime_s\":").unwrap();
    assert_eq!(
        fields,
        r#"{"status":"ok","active_connections":0,"max_connections":100,"queued":0,"#
    );
    assert!(uptime.trim_end_matches('}').parse::<f64>().unwrap() >= 0.0);
}

/// Whichever worker answers, and however often it was asked.
#[test]
fn stats_never_go_back_in_time() {
    let server = TestServer::start(config());
    let mut latest = 0.0;
    for _ in 0..200 {
        let (_, body) = server.get("/stats");
        let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
        let uptime = stats["uptime_s"].as_f64().unwrap();
        assert!(uptime >= latest, "{uptime} s after {latest} s");
        latest = uptime;
    }
}

#[test]
fn stats_have_the_promised_fields() {
    let server = TestServer::start(config());
    let _inside = server.chat();
    let (status, body) = server.get("/stats");
    assert_eq!(status, 200);
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    for number in [
        "worker_threads",
        "active_connections",
        "max_connections",
        "queued",
        "max_queued_tasks",
        "accepted_total",
        "rejected_total",
        "messages_in",
        "messages_out",
        "bytes_in",
        "bytes_out",
        "rooms",
        "sessions",
        "uptime_s",
    ] {
        assert!(stats[number].is_number(), "{number} in {stats:#}");
    }
    assert_eq!(stats["cpu_seconds"].as_f64().is_some_and(|spent| spent > 0.0), cfg!(unix));
    assert!(stats["version"].is_string());
    assert_eq!(stats["workers"].as_array().unwrap().len(), 2, "each worker by itself");
    for timing in ["turn_us", "queue_wait_ms"] {
        assert!(stats[timing]["p99"].is_number(), "{timing} in {stats:#}");
    }
    assert_eq!(stats["active_connections"], 1);
    assert_eq!(stats["accepted_total"], 1);
    assert_eq!(stats["rejected"]["full"], 0, "every reason is there from the start");
}

#[test]
fn a_query_does_not_change_the_route() {
    let server = TestServer::start(config());
    assert_eq!(server.get("/health?verbose=1").0, 200);
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let server = TestServer::start(config());
    for path in ["/health", "/stats", "/nothing"] {
        let mut client = server.raw_client();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        let head = client.answer_head();
        check(&head);
        client.send(
            format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        // Were there a body, this answer would not begin where it should.
        let whole = client.answer();
        client.expect_end();
        assert_eq!(head.status, whole.status, "{path}");
        let length =
            |answer: &Answer| answer.header("Content-Length").unwrap().parse::<i64>().unwrap();
        // It is the length of the GET; but figures move between the two, and get or lose some
        // digits.
        assert!((length(&head) - length(&whole)).abs() < 100, "{path}");
        assert!(length(&head) > 30, "{path}");
    }
}

#[test]
fn head_of_a_websocket_route_gets_no_body() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    client.send(b"HEAD /ws HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = client.answer_head();
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, POST")));
    // RFC 9110, 9.3.2: the answer to a HEAD has no content, whatever its status.
    client.expect_end();
}

#[test]
fn an_unknown_path_is_404_in_json() {
    let server = TestServer::start(config());
    for path in ["/", "/ws/", "/healthy", "*"] {
        let mut client = server.raw_client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        check_refusal(&client.answer(), 404, "not_found");
    }
}

#[test]
fn another_method_is_405_with_allow() {
    let server = TestServer::start(config());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let mut client = server.raw_client();
        client.send(format!("{method} /stats HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        let answer = client.answer();
        check_refusal(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD"), "{method}");
    }
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    for _ in 0..3 {
        client.send(GET_HEALTH.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("keep-alive")));
    }
    // The kept connection may even become a WebSocket.
    client.send(upgrade_head("/echo").as_bytes());
    assert_eq!(client.answer().status, 101);
    client.send(&frame(0x81, b"hello"));
    assert_eq!(client.text(), "hello");
    assert_eq!(server.stats().sockets_total, 1);
}

#[test]
fn requests_of_one_segment_are_answered_in_order() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    let mut segment = String::new();
    for path in ["/health", "/nothing", "/stats", "/health"] {
        segment += &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    client.send((segment + &upgrade_head("/echo")).as_bytes());
    let first = client.answer();
    assert_eq!((first.status, &first.json()["status"]), (200, &"ok".into()));
    assert_eq!(client.answer().status, 404);
    assert!(client.answer().json()["version"].is_string());
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 101);
}

#[test]
fn pipelined_requests_whose_answers_fill_the_outbox_are_all_answered() {
    // One answer of /stats is more than this, so each must leave before the next is made.
    let config = Config { max_message_bytes: 125, buffer_bytes: 256, ..config() };
    let server = TestServer::start(config);
    let mut client = server.raw_client();
    client.send("GET /stats HTTP/1.1\r\nHost: test\r\n\r\n".repeat(10).as_bytes());
    for _ in 0..10 {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn a_client_that_pipelines_without_reading_is_answered_in_full_when_it_reads() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    let mut writer = client.stream.try_clone().unwrap();
    // Their answers are more than the kernel and the outbox hold together.
    const REQUESTS: usize = 10_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let requests = "GET /stats HTTP/1.1\r\nHost: t\r\n\r\n".repeat(REQUESTS);
            std::io::Write::write_all(&mut writer, requests.as_bytes()).unwrap();
        });
        server.wait_for("the server stops reading", |stats| stats.read_pauses > 0);
        for _ in 0..REQUESTS {
            assert_eq!(client.answer().status, 200);
        }
    });
}

#[test]
fn nothing_is_answered_behind_connection_close() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    let last = "GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    client.send([GET_HEALTH, last, GET_HEALTH].concat().as_bytes());
    assert_eq!(client.answer().header("Connection"), Some("keep-alive"));
    assert_eq!(client.answer().header("Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn http_1_0_closes_unless_told_otherwise() {
    let server = TestServer::start(config());
    let answer = only_answer(&server, "GET /health HTTP/1.0\r\n\r\n");
    check(&answer);
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    let mut client = server.raw_client();
    for _ in 0..2 {
        client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().header("Connection"), Some("keep-alive"));
    }
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    for byte in [GET_HEALTH, GET_HEALTH].concat().as_bytes().chunks(1) {
        client.send(byte);
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_client_that_ends_its_direction_behind_a_request_is_answered() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    client.send(GET_HEALTH.as_bytes());
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer().status, 200);
    client.expect_end();
    server.wait_until_empty();
}

#[test]
fn an_end_that_comes_together_with_a_request_is_seen() {
    let server = BusyServer::start(config());
    let blocker = server.occupy(server.blocker());
    let mut client = server.raw_client();
    client.send(GET_HEALTH.as_bytes());
    client.stream.shutdown(Shutdown::Write).unwrap();
    let blocker = blocker.release();
    assert_eq!(client.answer().status, 200);
    client.expect_end();
    blocker.close();
    server.wait_until_empty();
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let server = TestServer::start(Config { max_head_bytes: 512, ..config() });
    let head = |filling: usize| {
        let filling = "a".repeat(filling);
        format!("GET /health HTTP/1.1\r\nHost: test\r\nX: {filling}\r\nConnection: close\r\n\r\n")
    };
    let overhead = head(0).len();
    let just = only_answer(&server, &head(512 - overhead));
    assert_eq!(just.status, 200, "{just:?}");
    check_refusal(&only_answer(&server, &head(513 - overhead)), 431, "bad_request");
}

#[test]
fn a_head_that_never_ends_is_431_before_it_is_whole() {
    let server = TestServer::start(Config { max_head_bytes: 512, ..config() });
    let endless = format!("GET /health HTTP/1.1\r\nHost: test\r\nX: {}", "a".repeat(600));
    check_refusal(&only_answer(&server, &endless), 431, "bad_request");
}

#[test]
fn too_many_headers_are_431() {
    let server = TestServer::start(config());
    let head = |headers: usize| {
        // `Host` and `Connection` are two of them.
        let more = "A: b\r\n".repeat(headers - 2);
        format!("GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{more}\r\n")
    };
    assert_eq!(only_answer(&server, &head(64)).status, 200);
    check_refusal(&only_answer(&server, &head(65)), 431, "bad_request");
}

#[test]
fn a_slow_head_is_408() {
    let server = TestServer::start(Config { handshake_timeout: SHORT, ..config() });
    check_refusal(&only_answer(&server, "GET /health HTTP/1.1\r\nHo"), 408, "head_timeout");
    assert_eq!(server.stats().rejected["head_timeout"], 1);
    server.wait_until_empty();
}

#[test]
fn a_slow_second_head_is_408_too() {
    let server = TestServer::start(Config { handshake_timeout: SHORT, ..config() });
    let mut client = server.raw_client();
    client.send([GET_HEALTH, "GET /hea"].concat().as_bytes());
    assert_eq!(client.answer().status, 200);
    check_refusal(&client.answer(), 408, "head_timeout");
    client.expect_end();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = TestServer::start(Config { handshake_timeout: SHORT, ..config() });
    let mut client = server.raw_client();
    client.send(GET_HEALTH.as_bytes());
    assert_eq!(client.answer().status, 200);
    client.expect_end();
    server.wait_until_empty();
    assert_eq!(server.stats().rejected_total, 0);
}

#[test]
fn what_is_no_request_is_400() {
    let server = TestServer::start(config());
    for request in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost test\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: te\0st\r\n\r\n",
    ] {
        check_refusal(&only_answer(&server, request), 400, "bad_request");
    }
}

#[test]
fn http_1_1_needs_exactly_one_host() {
    let server = TestServer::start(config());
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let request = format!("GET /health HTTP/1.1\r\n{hosts}\r\n");
        check_refusal(&only_answer(&server, &request), 400, "bad_request");
    }
}

#[test]
fn a_body_is_refused_and_never_taken_for_the_next_request() {
    let server = TestServer::start(config());
    for header in ["Content-Length: 42", "Transfer-Encoding: chunked"] {
        let request = format!("GET /health HTTP/1.1\r\nHost: test\r\n{header}\r\n\r\n{GET_HEALTH}");
        check_refusal(&only_answer(&server, &request), 400, "bad_request");
    }
    let empty =
        "GET /health HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(only_answer(&server, empty).status, 200);
}

#[test]
fn a_plain_get_of_a_websocket_route_is_426_with_the_protocol_to_use() {
    let server = TestServer::start(config());
    let answer = only_answer(&server, "GET /ws HTTP/1.1\r\nHost: test\r\n\r\n");
    check_refusal(&answer, 426, "bad_request");
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
}

#[test]
fn another_version_of_the_protocol_is_426_with_the_one_spoken() {
    let server = TestServer::start(config());
    let version = "Sec-WebSocket-Version: 13\r\n";
    for other in ["Sec-WebSocket-Version: 8\r\n", ""] {
        let answer = only_answer(&server, &upgrade_with(version, other));
        check_refusal(&answer, 426, "bad_request");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
}

#[test]
fn an_upgrade_that_lacks_something_is_400() {
    let server = TestServer::start(config());
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (from, to) in [
        (key, String::new()),
        (key, key.repeat(2)),
        (key, "Sec-WebSocket-Key: c2hvcnQ=\r\n".to_owned()),
        ("Connection: Upgrade", "Connection: keep-alive".to_owned()),
        ("HTTP/1.1", "HTTP/1.0".to_owned()),
    ] {
        check_refusal(&only_answer(&server, &upgrade_with(from, &to)), 400, "bad_request");
    }
}

#[test]
fn a_post_to_a_websocket_route_is_405() {
    let server = TestServer::start(config());
    let head = upgrade_with("GET", "POST").replace(" /ws ", " /echo ");
    let answer = only_answer(&server, &head);
    check_refusal(&answer, 405, "bad_request");
    assert_eq!(answer.header("Allow"), Some("GET"));
}

#[test]
fn the_accept_key_is_the_one_of_the_rfc() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    client.send(upgrade_head("/ws").as_bytes());
    // RFC 6455, 1.3 gives the key and this answer to it.
    let answer = client.answer();
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    assert_eq!(answer.header("Connection"), Some("Upgrade"));
}

#[test]
fn a_page_of_another_origin_is_403() {
    let allowed_origins = vec!["https://good.example".to_owned()];
    let server = TestServer::start(Config { allowed_origins, ..config() });
    let from = |origin: &str| upgrade_with("Host: test", &format!("Host: test\r\n{origin}"));
    check_refusal(&only_answer(&server, &from("Origin: https://bad.example")), 403, "origin");
    check_refusal(&only_answer(&server, &from("Origin: null")), 403, "origin");
    for allowed in ["Origin: https://good.example", "X-No-Browser: yes"] {
        let mut client = server.raw_client();
        client.send(from(allowed).as_bytes());
        assert_eq!(client.answer().status, 101, "{allowed}");
    }
    assert_eq!(server.stats().rejected["origin"], 2);
}

#[test]
fn by_default_only_pages_of_the_same_host_and_of_this_machine_connect() {
    let server = TestServer::start(config());
    let from = |host: &str, origin: &str| {
        upgrade_with("Host: test", &format!("Host: {host}\r\nOrigin: {origin}"))
    };
    let refused = only_answer(&server, &from("a.example", "https://evil.example"));
    check_refusal(&refused, 403, "origin");
    assert!(refused.body.contains("allowed_origins"), "{}", refused.body);
    for (host, origin) in
        [("a.example", "https://a.example"), ("localhost:3030", "http://localhost:8080")]
    {
        let mut client = server.raw_client();
        client.send(from(host, origin).as_bytes());
        assert_eq!(client.answer().status, 101, "{origin} to {host}");
    }
}

/// Reads a refusal that comes without a request.
fn refusal(mut client: RawClient, error: &str) {
    let answer = client.answer();
    check_refusal(&answer, 503, error);
    assert!(answer.header("Retry-After").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(answer.header("Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn more_connections_than_an_address_may_have_are_503() {
    let server = TestServer::start(Config {
        max_conn_per_ip: 2,
        limited_addresses: LimitedAddresses::All,
        ..config()
    });
    let (first, _second) = (server.chat(), server.upgrade("/echo"));
    let mut third = server.raw_client();
    // The request is there before the refusal, unread: it must not turn the answer into a reset.
    third.send(upgrade_head("/ws").as_bytes());
    refusal(third, "per_ip");
    assert_eq!(server.stats().rejected["per_ip"], 1);
    first.close();
    eventually("the first one's place is free", || match server.try_connect("/echo") {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    });
}

#[test]
fn silent_sockets_beyond_their_bound_are_503_and_delay_nobody() {
    let server = TestServer::start(Config { max_pending_heads: 4, ..config() });
    let mut inside = server.connect("/echo");
    let mut kept = server.raw_client();
    kept.send(GET_HEALTH.as_bytes());
    assert_eq!(kept.answer().header("Connection"), Some("keep-alive"));
    let silent: Vec<RawClient> = (0..3).map(|_| server.raw_client()).collect();
    server.wait_for("all places are taken", |stats| stats.pending_heads == 4);
    for _ in 0..3 {
        refusal(server.raw_client(), "pending_heads");
    }
    assert_eq!(server.stats().rejected["pending_heads"], 3);
    inside.send("still well");
    assert_eq!(inside.next().to_text().unwrap(), "still well");
    kept.send(GET_HEALTH.as_bytes());
    let answer = kept.answer();
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    drop(silent);
    server.wait_for("the places are free", |stats| stats.pending_heads == 0);
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn connections_that_are_kept_leave_room_for_others() {
    let server = TestServer::start(Config { max_pending_heads: 8, ..config() });
    let ask = |_| {
        let mut client = server.raw_client();
        client.send(GET_HEALTH.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        (client, answer.header("Connection") == Some("close"))
    };
    let squatters: Vec<(RawClient, bool)> = (0..20).map(ask).collect();
    let kept = squatters.iter().filter(|(_, closes)| !closes).count();
    assert!((1..=5).contains(&kept), "{kept} of 8 places are kept");
    assert_eq!(server.stats().rejected["pending_heads"], 0);
}

#[test]
fn a_refused_socket_that_never_ends_is_cut_off() {
    let config = Config { max_pending_heads: 1, close_timeout: SHORT, ..config() };
    let server = TestServer::start(config);
    let silent = server.raw_client();
    server.wait_for("the place is taken", |stats| stats.pending_heads == 1);
    let mut refused = server.raw_client();
    assert_eq!(refused.answer().status, 503);
    server.wait_for("nobody lingers", |stats| stats.lingering == 0 && stats.sockets == 1);
    drop(silent);
    server.wait_until_empty();
}
