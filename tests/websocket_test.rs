//! The WebSocket protocol as the shipped server speaks it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{net::Shutdown, thread, time::Duration};

use rusty_socks::{CloseReason, Config, Context, Message as Incoming, Server};
use support::{BusyServer, Random, TestServer, close_frame, config, frame, upgrade_head};
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const BINARY: u8 = 0x82;
const BINARY_BEGINS: u8 = 0x02;
const CONTINUES: u8 = 0x00;
const CONTINUATION_ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Small, so that messages around the limit are cheap.
const MESSAGE_BYTES_MAX: usize = 1000;

fn small_messages() -> Config {
    Config { max_message_bytes: MESSAGE_BYTES_MAX, ..config() }
}

#[test]
fn text_and_binary_are_echoed_as_they_came() {
    let server = TestServer::start(config());
    let mut client = server.connect("/echo");
    for message in [Message::text("grüße"), Message::binary(vec![0, 255, 7]), Message::text("")] {
        client.socket.send(message.clone()).unwrap();
        assert_eq!(client.next(), message);
    }
    client.close();
    server.wait_until_empty();
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let server = TestServer::start(config());
    let mut client = server.connect("/echo");
    // 125 bytes are the most that a control frame carries.
    for payload in [vec![], b"are you there".to_vec(), vec![7; 125]] {
        client.socket.send(Message::Ping(payload.clone().into())).unwrap();
        assert_eq!(client.socket.read().unwrap(), Message::Pong(payload.into()));
    }
}

#[test]
fn each_ping_of_a_segment_is_answered() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&[frame(PING, b"1"), frame(PING, b"2"), frame(TEXT, b"3")].concat());
    assert_eq!(client.frame(), Some((PONG, b"1".to_vec())));
    assert_eq!(client.frame(), Some((PONG, b"2".to_vec())));
    assert_eq!(client.text(), "3");
}

#[test]
fn a_pong_nobody_asked_for_is_passed_over() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&[frame(PONG, b"so there"), frame(TEXT, b"next")].concat());
    assert_eq!(client.text(), "next");
}

#[test]
fn a_ping_between_fragments_is_answered_before_the_message_is_whole() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&[frame(TEXT_BEGINS, b"one "), frame(PING, b"still there?")].concat());
    assert_eq!(client.frame(), Some((PONG, b"still there?".to_vec())));
    client.send(&[frame(CONTINUES, b"two "), frame(PING, b"and now?")].concat());
    assert_eq!(client.frame(), Some((PONG, b"and now?".to_vec())));
    client.send(&frame(CONTINUATION_ENDS, b"three"));
    assert_eq!(client.text(), "one two three");
}

#[test]
fn a_character_may_be_cut_by_a_fragment() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    let (front, back) = "ü".as_bytes().split_at(1);
    client.send(&[frame(TEXT_BEGINS, front), frame(CONTINUATION_ENDS, back)].concat());
    assert_eq!(client.text(), "ü");
}

#[test]
fn a_message_may_be_as_large_as_the_limit() {
    let server = TestServer::start(small_messages());
    let mut client = server.upgrade("/echo");
    let payload = vec![7; MESSAGE_BYTES_MAX];
    client.send(&frame(BINARY, &payload));
    assert_eq!(client.frame(), Some((BINARY, payload.clone())));
    let (front, back) = payload.split_at(MESSAGE_BYTES_MAX / 2);
    client.send(&[frame(BINARY_BEGINS, front), frame(CONTINUATION_ENDS, back)].concat());
    assert_eq!(client.frame(), Some((BINARY, payload)));
}

#[test]
fn a_message_one_byte_larger_is_closed_with_1009() {
    let server = TestServer::start(small_messages());
    let mut client = server.upgrade("/echo");
    client.send(&frame(BINARY, &[7; MESSAGE_BYTES_MAX + 1]));
    assert_eq!(client.close_code(), 1009);
    client.expect_end();
}

#[test]
fn fragments_that_add_up_to_one_byte_more_are_closed_with_1009() {
    let server = TestServer::start(small_messages());
    let mut client = server.upgrade("/echo");
    client.send(&frame(BINARY_BEGINS, &[7; MESSAGE_BYTES_MAX]));
    client.send(&frame(CONTINUATION_ENDS, &[7]));
    assert_eq!(client.close_code(), 1009);
    client.expect_end();
}

#[test]
fn a_large_message_that_is_only_announced_is_closed_with_1009() {
    let server = TestServer::start(small_messages());
    let mut client = server.upgrade("/echo");
    // A header that promises 2^62 bytes, and none of them.
    client.send(&[BINARY, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(client.close_code(), 1009);
    client.expect_end();
}

#[test]
fn a_client_that_goes_on_sending_still_reads_why_it_was_closed() {
    let server = TestServer::start(small_messages());
    let mut client = server.upgrade("/echo");
    // More than the server reads at once, so that unread input is there when it closes.
    client.send(&frame(BINARY, &vec![7; 1 << 20]));
    assert_eq!(client.close_code(), 1009);
    client.expect_end();
}

#[test]
fn text_that_is_not_utf8_is_closed_with_1007() {
    let server = TestServer::start(config());
    for bytes in [
        frame(TEXT, &[0xff]),
        frame(TEXT, &[0xc3]),
        // A surrogate, which UTF-8 must not hold.
        frame(TEXT, &[0xed, 0xa0, 0x80]),
        [frame(TEXT_BEGINS, b"good"), frame(CONTINUATION_ENDS, &[0xff])].concat(),
        frame(CLOSE, &[0x03, 0xe8, 0xff]),
    ] {
        let mut client = server.upgrade("/echo");
        client.send(&bytes);
        assert_eq!(client.close_code(), 1007, "{bytes:02x?}");
        client.expect_end();
    }
}

#[test]
fn what_the_protocol_forbids_is_closed_with_1002() {
    let server = TestServer::start(config());
    let unmasked = vec![TEXT, 1, b'a'];
    let mut cases = vec![
        ("unmasked", unmasked),
        ("a continuation of nothing", frame(CONTINUATION_ENDS, b"a")),
        (
            "a message inside a message",
            [frame(TEXT_BEGINS, b"a"), frame(TEXT_BEGINS, b"b")].concat(),
        ),
        ("a fragmented ping", frame(0x09, b"a")),
        ("a ping that is too long", frame(PING, &[7; 126])),
        ("a close with half a code", frame(CLOSE, &[0x03])),
    ];
    cases.extend((0x3..=0x7).map(|opcode| ("a reserved opcode", frame(0x80 | opcode, b"a"))));
    cases.extend((0xb..=0xf).map(|opcode| ("a reserved opcode", frame(0x80 | opcode, b"a"))));
    cases.extend([0x40, 0x20, 0x10].map(|bit| ("a reserved bit", frame(TEXT | bit, b"a"))));
    // Those that must not be sent, those nobody defined, and those outside of every range.
    for code in [0, 999, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        cases.push(("a close code that must not be sent", close_frame(code)));
    }
    for (what, bytes) in cases {
        let mut client = server.upgrade("/echo");
        client.send(&bytes);
        assert_eq!(client.close_code(), 1002, "{what}: {bytes:02x?}");
        client.expect_end();
    }
}

#[test]
fn what_came_before_an_error_is_answered() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&[frame(TEXT, b"well"), frame(0x83, b"ill"), frame(TEXT, b"late")].concat());
    assert_eq!(client.text(), "well");
    assert!(matches!(client.frame(), Some((CLOSE, _))), "nothing behind the error is answered");
    client.expect_end();
}

#[test]
fn a_clients_close_is_answered_with_its_code() {
    let server = TestServer::start(config());
    for code in [1000, 1001, 3000, 4999] {
        let mut client = server.connect("/echo");
        let frame = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
        client.socket.close(Some(frame)).unwrap();
        assert_eq!(client.closed().map(|frame| u16::from(frame.code)), Some(code));
    }
    server.wait_until_empty();
    assert_eq!(server.closed_with(1000), 1);
}

#[test]
fn a_close_without_a_code_is_answered_without_one() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&frame(CLOSE, b""));
    assert_eq!(client.close_code(), 1005);
    client.expect_end();
}

#[test]
fn messages_before_a_close_are_answered_and_those_behind_it_are_not() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    client.send(&[frame(TEXT, b"before"), close_frame(1000), frame(TEXT, b"after")].concat());
    assert_eq!(client.text(), "before");
    assert!(matches!(client.frame(), Some((CLOSE, _))));
    client.expect_end();
}

/// A server whose connections close themselves when they are told `close`, and echo everything
/// else.
fn closing_server() -> TestServer {
    let handler = |ctx: &mut Context<'_, ()>, message: Incoming<'_>| match message {
        Incoming::Text("close") => ctx.close(CloseReason::new(4000, "as you wish")),
        other => {
            ctx.send(other);
        }
    };
    TestServer::run(Server::builder().config(config()).route("/echo", handler).bind().unwrap())
}

#[test]
fn a_close_of_the_servers_ends_when_the_client_has_answered() {
    let server = closing_server();
    let mut client = server.connect("/echo");
    client.send("close");
    let frame = client.closed().unwrap();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4000, "as you wish"));
    // Answers, and waits for the end.
    while client.socket.read().is_ok() {}
    server.wait_until_empty();
}

#[test]
fn what_comes_behind_the_servers_close_is_discarded() {
    let server = closing_server();
    let mut client = server.upgrade("/echo");
    client.send(&[frame(TEXT, b"close"), frame(TEXT, b"in the same segment")].concat());
    assert_eq!(client.close_code(), 4000);
    client.send(&frame(TEXT, b"in another"));
    client.send(&frame(PING, b"and no pong either"));
    client.send(&close_frame(4000));
    client.expect_end();
    server.wait_until_empty();
    assert_eq!(server.stats().messages_in, 1, "only the one that asked for the close was handled");
}

#[test]
fn a_client_that_never_answers_the_close_is_cut_off() {
    let config = Config { close_timeout: Duration::from_millis(100), ..config() };
    let server = TestServer::start(config);
    let mut client = server.upgrade("/ws");
    let welcome: serde_json::Value = serde_json::from_str(&client.text()).unwrap();
    let id = welcome["client_id"].as_str().unwrap().parse().unwrap();
    server.handle.close(&id, CloseReason::KICKED).unwrap();
    assert_eq!(client.close_code(), 4009);
    client.expect_end();
    server.wait_until_empty();
}

#[test]
fn a_quiet_client_that_answers_pings_stays() {
    // Twenty-five pings take longer than the timeout, and a pong may be late by nineteen.
    let (ping, timeout) = (Duration::from_millis(100), Duration::from_secs(2));
    let server = TestServer::start(Config { ping, timeout, ..config() });
    let mut client = server.connect("/echo");
    for _ in 0..25 {
        // Reading on is what sends the pong.
        assert!(client.socket.read().unwrap().is_ping());
    }
    client.send("still here");
    assert_eq!(client.next(), Message::text("still here"));
}

#[test]
fn a_client_that_answers_no_ping_is_closed_with_4201() {
    let (ping, timeout) = (Duration::from_millis(100), Duration::from_millis(300));
    let server = TestServer::start(Config { ping, timeout, ..config() });
    let mut client = server.upgrade("/echo");
    assert_eq!(client.frame(), Some((PING, vec![])));
    assert_eq!(client.close_code(), 4201);
}

#[test]
fn a_silent_client_is_closed_with_4202_where_nobody_pings() {
    let (ping, timeout) = (Duration::ZERO, Duration::from_millis(300));
    let server = TestServer::start(Config { ping, timeout, ..config() });
    let mut client = server.upgrade("/echo");
    let (first, payload) = client.frame().unwrap();
    assert_eq!((first, &payload[..2]), (CLOSE, &4202_u16.to_be_bytes()[..]), "no ping before it");
}

#[test]
fn many_messages_in_one_segment_are_answered_in_order() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    // Several times what one connection is given in one turn.
    let texts: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let segment: Vec<u8> = texts.iter().flat_map(|text| frame(TEXT, text.as_bytes())).collect();
    client.send(&segment);
    for text in texts {
        assert_eq!(client.text(), text);
    }
}

/// Every kind of frame, and what the echo of it is.
fn varied_stream(count: usize) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    for number in 0..count {
        let text = format!("message {number}").into_bytes();
        // The three forms that a length is written in begin at 0, 126 and 65,536.
        let blob = vec![number as u8; [0, 125, 126, 300, 70_000][number % 5]];
        stream.extend(frame(TEXT, &text));
        expected.push((TEXT, text.clone()));
        stream.extend(frame(BINARY, &blob));
        expected.push((BINARY, blob));
        stream.extend(frame(TEXT_BEGINS, &text[..3]));
        stream.extend(frame(PING, &[number as u8]));
        expected.push((PONG, vec![number as u8]));
        stream.extend(frame(CONTINUATION_ENDS, &text[3..]));
        expected.push((TEXT, text));
    }
    (stream, expected)
}

#[test]
fn a_stream_that_comes_byte_by_byte_means_the_same() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    let mut stream = upgrade_head("/echo").into_bytes();
    let (frames, expected) = varied_stream(4);
    stream.extend(frames);
    for byte in stream.chunks(1) {
        client.send(byte);
    }
    assert_eq!(client.answer().status, 101);
    for expected in expected {
        assert_eq!(client.frame(), Some(expected));
    }
}

#[test]
fn a_stream_cut_anywhere_means_the_same() {
    let server =
        TestServer::start(Config { max_message_bytes: 100_000, buffer_bytes: 1 << 20, ..config() });
    let mut random = Random::seeded();
    let (frames, expected) = varied_stream(50);
    let mut client = server.upgrade("/echo");
    let mut writer = client.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = &frames[..];
            while !rest.is_empty() {
                // Often within a frame's header, sometimes across many frames.
                let largest = [3, 30, 3_000, 200_000][random.below(4)];
                let (piece, behind) = rest.split_at(rest.len().min(1 + random.below(largest)));
                std::io::Write::write_all(&mut writer, piece).unwrap();
                rest = behind;
            }
        });
        for expected in expected {
            assert_eq!(client.frame(), Some(expected));
        }
    });
}

#[test]
fn frames_right_behind_the_upgrade_request_are_handled() {
    let server = TestServer::start(config());
    let mut client = server.raw_client();
    let mut segment = upgrade_head("/echo").into_bytes();
    for number in 0..300 {
        segment.extend(frame(TEXT, number.to_string().as_bytes()));
    }
    segment.extend(close_frame(1000));
    client.send(&segment);
    assert_eq!(client.answer().status, 101);
    for number in 0..300 {
        assert_eq!(client.text(), number.to_string());
    }
    assert_eq!(client.close_code(), 1000);
    client.expect_end();
}

#[test]
fn three_thousand_messages_sent_before_any_is_read_all_come_back() {
    // Fewer than half of them fit an outbox, so its bound must hold the client back, not cost it.
    let server = TestServer::start(Config { buffer: 64, ..config() });
    let mut client = server.upgrade("/echo");
    let stream: Vec<u8> =
        (0..3000).flat_map(|number| frame(TEXT, number.to_string().as_bytes())).collect();
    client.send(&stream);
    for number in 0..3000 {
        assert_eq!(client.text(), number.to_string());
    }
    assert_eq!(server.stats().dropped, 0);
    client.send(&close_frame(1000));
    assert_eq!(client.close_code(), 1000);
}

#[test]
fn large_messages_come_back_whole_and_in_order() {
    let server = TestServer::start(config());
    let mut client = server.upgrade("/echo");
    let mut writer = client.stream.try_clone().unwrap();
    thread::scope(|scope| {
        // 19 MiB are more than the kernel holds for one connection.
        const MESSAGES: usize = 300;
        let blob = |number: usize| vec![number as u8; 64 << 10];
        scope.spawn(move || {
            for number in 0..MESSAGES {
                std::io::Write::write_all(&mut writer, &frame(BINARY, &blob(number))).unwrap();
            }
        });
        for number in 0..MESSAGES {
            assert!(client.frame() == Some((BINARY, blob(number))), "message {number}");
        }
    });
}

#[test]
fn an_end_that_comes_together_with_a_message_is_seen() {
    let server = BusyServer::start(config());
    let blocker = server.occupy(server.blocker());
    let mut client = server.raw_client();
    client.send(upgrade_head("/echo").as_bytes());
    client.send(&frame(TEXT, b"last words"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    let blocker = blocker.release();
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.text(), "last words");
    // Far sooner than the timeout of a silent client, which is a minute.
    client.expect_end();
    blocker.close();
    server.wait_until_empty();
}
