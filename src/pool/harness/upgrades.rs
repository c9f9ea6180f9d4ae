//! The opening handshake: what is a proper upgrade, and what is answered to one that is not.

use super::{Answer, Harness, frame, upgrade};
use crate::config::{Compression, Config};

/// The answer to the upgrade with each `from` replaced, whether it comes whole or byte by byte.
fn answer_to(config: &Config, changes: &[(&str, &str)]) -> Answer {
    let mut head = upgrade("");
    for (from, to) in changes {
        assert!(head.contains(from), "{from}");
        head = head.replacen(from, to, 1);
    }
    let answers = [1, usize::MAX].map(|step| {
        let mut harness = Harness::new(config.clone());
        harness.wire.lock().read_step = step;
        harness.feed(head.as_bytes());
        let answer = harness.answer();
        if answer.status == 101 {
            assert!(harness.is_open());
        } else {
            let connection = if answer.status == 426 { "close, Upgrade" } else { "close" };
            assert_eq!(answer.header("Connection"), Some(connection), "{head}");
            assert!(harness.wire.lock().server_ended, "{head}");
            harness.end();
            harness.expect_nothing_left(&head);
        }
        answer
    });
    let [bytewise, whole] = answers;
    assert_eq!(bytewise.status, whole.status, "{head}");
    whole
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";

#[test]
fn what_the_rfc_allows_is_upgraded() {
    for (from, to) in [
        ("GET /ws", "GET /ws?token=1"),
        ("GET /ws", "GET http://anywhere/ws"),
        ("GET /ws", "GET https://anywhere:443/ws?token=1"),
        (CONNECTION, "Connection: keep-alive, Upgrade\r\n"),
        (CONNECTION, "Connection: keep-alive\r\nConnection: UPGRADE\r\n"),
        (CONNECTION, "connection:upgrade\r\n"),
        (CONNECTION, "Connection: ,, upgrade\t,\r\n"),
        // Who upgrades and says so cannot close as well.
        (CONNECTION, "Connection: close, Upgrade\r\n"),
        (UPGRADE, "Upgrade: WebSocket\r\n"),
        (UPGRADE, "Upgrade: h2c, websocket\r\n"),
        (UPGRADE, "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        (VERSION, "sec-websocket-version:\t13 \r\n"),
        (KEY, "Sec-WebSocket-Key:dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        // The last digit has four bits too many; RFC 4648, 3.5 lets a decoder pass over them.
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZf==\r\n"),
        (KEY, "Sec-WebSocket-Key: ++//AAAAAAAAAAAAAAAAAA==\r\n"),
        ("Host: test", "Host: test\r\nOrigin: https://test"),
        ("Host: test", "Host: test\r\nContent-Length: 0"),
        ("Host: test", "Host: test\r\nX: \u{e4}\u{a0}"),
    ] {
        let answer = answer_to(&Config::default(), &[(from, to)]);
        assert_eq!(answer.status, 101, "{to}: {answer:?}");
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert_eq!(answer.header("Connection"), Some("Upgrade"));
        assert!(answer.header("Content-Length").is_none() && answer.body.is_empty());
        for absent in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
            assert_eq!(answer.header(absent), None, "{to}");
        }
    }
}

#[test]
fn what_is_no_proper_upgrade_is_told_what_would_be() {
    for (from, to, status) in [
        ("GET", "POST", 405),
        ("GET", "get", 405),
        ("GET", "OPTIONS", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        (UPGRADE, "", 426),
        (UPGRADE, "Upgrade: h2c\r\n", 426),
        (UPGRADE, "Upgrade: websocket/13\r\n", 426),
        (UPGRADE, "Upgrade: websocket2\r\n", 426),
        (UPGRADE, "Upgrade: web socket\r\n", 426),
        (UPGRADE, "Upgrade:\r\n", 426),
        (CONNECTION, "", 400),
        (CONNECTION, "Connection: keep-alive\r\n", 400),
        (CONNECTION, "Connection: Upgrades\r\n", 400),
        (CONNECTION, "Connection: keep-alive Upgrade\r\n", 400),
        (VERSION, "", 426),
        (VERSION, "Sec-WebSocket-Version: 8\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 14\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 13, 8\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 013\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: +13\r\n", 426),
        (VERSION, "Sec-WebSocket-Version:\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 400),
        (VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n", 400),
        (VERSION, "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n", 400),
        (KEY, "", 400),
        (KEY, "Sec-WebSocket-Key:\r\n", 400),
        (KEY, "Sec-WebSocket-Key: c2hvcnQ=\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSEh\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-Q==\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZ SBub25jZ==\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x\r\n", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\u{e4}==\r\n", 400),
        (KEY, &KEY.repeat(2), 400),
        ("Host: test\r\n", "", 400),
        ("Host: test\r\n", "Host: a\r\nHost: b\r\n", 400),
        ("Host: test\r\n", "Host: test\r\nContent-Length: 5\r\n", 400),
        ("Host: test\r\n", "Host: test\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        let answer = answer_to(&Config::default(), &[(from, to)]);
        assert_eq!(answer.status, status, "{to}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "{to}");
            assert_eq!(answer.header("Upgrade"), Some("websocket"), "{to}");
        }
        if status == 405 {
            assert_eq!(answer.header("Allow"), Some("GET"), "{to}");
        }
    }
}

#[test]
fn the_first_subprotocol_offered_that_is_spoken_is_confirmed() {
    for (offer, chosen) in [
        ("Sec-WebSocket-Protocol: chat.v1", Some("chat.v1")),
        ("sec-websocket-protocol:chat.v2", Some("chat.v2")),
        // The client's order counts.
        ("Sec-WebSocket-Protocol: chat.v1, chat.v2", Some("chat.v1")),
        ("Sec-WebSocket-Protocol: soap, ,\tchat.v2 ,chat.v1", Some("chat.v2")),
        ("Sec-WebSocket-Protocol: soap\r\nSec-WebSocket-Protocol: chat.v1", Some("chat.v1")),
        ("Sec-WebSocket-Protocol: chat.v1, chat.v1", Some("chat.v1")),
        ("Sec-WebSocket-Protocol: soap, wamp", None),
        // Names are compared as they are.
        ("Sec-WebSocket-Protocol: Chat.v1", None),
        ("Sec-WebSocket-Protocol: chat", None),
        ("Sec-WebSocket-Protocol:", None),
        ("X: y", None),
    ] {
        let answer =
            answer_to(&Config::default(), &[("Host: test", &format!("Host: test\r\n{offer}"))]);
        assert_eq!(
            (answer.status, answer.header("Sec-WebSocket-Protocol")),
            (101, chosen),
            "{offer}"
        );
    }
    for malformed in ["chat v1", "chat.v1;q=1", "chat.v1/2", "\"chat.v1\"", "chat.v1, \u{e4}"] {
        let offer = format!("Host: test\r\nSec-WebSocket-Protocol: {malformed}");
        assert_eq!(answer_to(&Config::default(), &[("Host: test", &offer)]).status, 400, "{offer}");
    }
}

#[test]
fn compression_is_agreed_only_where_the_server_wants_it() {
    let offer = |offer: &str| format!("Host: test\r\nSec-WebSocket-Extensions: {offer}");
    let never = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offered, shared, dedicated) in [
        ("permessage-deflate", Some(never), Some("permessage-deflate")),
        ("x-webkit-deflate-frame", None, None),
        ("permessage-deflate; server_max_window_bits=8", None, None),
        (
            "permessage-deflate; unknown, permessage-deflate",
            Some(never),
            Some("permessage-deflate"),
        ),
        ("", None, None),
    ] {
        for (compression, agreed) in [
            (Compression::Off, None),
            (Compression::Shared, shared),
            (Compression::Dedicated, dedicated),
        ] {
            let config = Config { compression, ..Config::default() };
            let answer = answer_to(&config, &[("Host: test", &offer(offered))]);
            assert_eq!(answer.status, 101, "{offered}");
            assert_eq!(answer.header("Sec-WebSocket-Extensions"), agreed, "{offered}");
        }
    }
    for malformed in ["permessage-deflate;", "a b", "a; b=", "a; b=\"c", "\u{e4}", "a;=c"] {
        for compression in [Compression::Off, Compression::Shared] {
            let config = Config { compression, ..Config::default() };
            let answer = answer_to(&config, &[("Host: test", &offer(malformed))]);
            assert_eq!(answer.status, 400, "{malformed}");
        }
    }
}

#[test]
fn what_comes_before_the_101_waits_in_line_with_its_client() {
    let config = Config { max_conn: 1, ..Config::default() };
    let mut harness = Harness::new(config);
    harness.occupy();
    harness.feed(&[upgrade("").as_bytes(), &frame(0x81, b"early"), &frame(0x89, b"x")].concat());
    harness.feed(&frame(0x81, b"later"));
    harness.pass(1234);
    assert!(harness.written().is_empty() && harness.heard() == 0);
    harness.vacate();
    harness.turns();
    let answer = harness.answer();
    assert_eq!((answer.status, answer.header("Queue-Wait-Ms")), (101, Some("1234")));
    assert_eq!(
        harness.frames(),
        [(0x81, b"early".to_vec()), (0x8a, b"x".to_vec()), (0x81, b"later".to_vec())]
    );
}

#[test]
fn who_finds_no_place_is_told_when_to_come_back() {
    for (queued_max, wait_ms) in [(0, 0), (1, 10_000)] {
        let config = Config { max_conn: 1, max_queued_tasks: queued_max, ..Config::default() };
        let mut harness = Harness::new(config);
        harness.occupy();
        harness.feed(upgrade("").as_bytes());
        harness.pass(wait_ms);
        let answer = harness.answer();
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("3")));
        harness.end();
        harness.vacate();
        harness.turns();
        harness.expect_nothing_left("refused");
    }
}
