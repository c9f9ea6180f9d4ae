//! Event streams over a socket that gives and takes as little as it likes.

use uuid::Uuid;

use super::{EVENTS, Harness, close, frame};
use crate::{
    config::Config,
    hub::{
        conn_id::ConnId,
        mailbox::Letter,
        posted::{PostName, PostOutcome, Posted, Poster},
        stream_key::StreamKey,
    },
};

fn request() -> String {
    format!("GET {EVENTS} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
}

impl Harness {
    /// A connection whose client has no WebSocket, and the name of its stream.
    fn stream(config: Config) -> (Harness, StreamKey) {
        let mut harness = Harness::new(config);
        harness.feed(request().as_bytes());
        let begun = String::from_utf8(harness.written()).expect("UTF-8");
        assert!(begun.starts_with("HTTP/1.1 200 OK\r\n"), "{begun}");
        let key = begun.rsplit('"').nth(1).expect("a name").parse().expect("a key");
        (harness, key)
    }

    /// Posts these frames. The worker has not looked yet.
    fn hand_in(&self, key: StreamKey, nth: u64, frames: Vec<u8>) {
        let from = Poster { node: key.node, conn: self.conn.io.id };
        let posted = Posted { key, nth, frames, from };
        assert!(self.cx.shared.hub.mailboxes.post(0, Letter::Posted(Box::new(posted))));
    }
}

#[test]
fn events_are_the_same_however_little_is_taken_at_a_time() {
    let long = "x".repeat(40_000);
    let said =
        [&frame(0x81, b"{}")[..], &frame(0x81, long.as_bytes()), &close(1000, "bye")].concat();
    let expected = format!(
        "data: {{}}\n\ndata: {long}\n\n\
         event: closed\ndata: {{\"code\":1000,\"reason\":\"bye\"}}\n\n"
    );
    for write_step in [1, 7, 4096, usize::MAX] {
        let (mut harness, key) = Harness::stream(Config::default());
        harness.wire.lock().write_step = write_step;
        harness.hand_in(key, 1, said.clone());
        harness.turns();
        assert!(harness.written() == expected.as_bytes(), "{write_step} at a time");
        assert_eq!(harness.post_outcomes, [PostOutcome::Handled]);
        harness.expect_nothing_left("after the close");
    }
    // A client that reads little by little.
    for room in [1000, 20_000] {
        let (mut harness, key) = Harness::stream(Config::default());
        harness.wire.lock().write_room = 0;
        harness.hand_in(key, 1, said.clone());
        harness.turns();
        let mut read = Vec::new();
        while !harness.is_gone() {
            let before = read.len();
            harness.make_room(room);
            harness.wire.lock().write_room = 0;
            read.extend(harness.written());
            assert!(read.len() > before, "stands still after {before} bytes");
        }
        assert!(read == expected.as_bytes(), "{room} at a time");
        harness.expect_nothing_left("little by little");
    }
}

#[test]
fn what_follows_the_request_on_its_connection_is_no_message() {
    let mut harness = Harness::new(Config::default());
    harness.feed(&[request().as_bytes(), &frame(0x81, b"early")].concat());
    harness.feed(&frame(0x81, b"late"));
    assert!(harness.is_open());
    // It costs what it costs to read.
    harness.send(&[b'x'; 4096]);
    harness.cx.begin_turn();
    while harness.turn() {}
    assert!(harness.cx.spent >= 8, "{}", harness.cx.spent);
    assert_eq!(harness.log.heard.load(std::sync::atomic::Ordering::Relaxed), 0);
    harness.end();
    assert_eq!(*harness.log.closed.lock(), [1006]);
    harness.expect_nothing_left("after the end");
}

#[test]
fn an_answer_that_was_not_read_comes_before_the_events() {
    let health = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut harness = Harness::new(Config::default());
    harness.wire.lock().write_room = 10;
    harness.feed([health, &request()].concat().as_bytes());
    harness.make_room(usize::MAX);
    let written = String::from_utf8(harness.written()).expect("UTF-8");
    assert_eq!(written.matches("HTTP/1.1 200 OK").count(), 2, "{written}");
    assert!(written.ends_with("\"}\n\n") && written.contains("\"status\":\"ok\""), "{written}");
}

#[test]
fn a_post_is_answered_though_its_stream_is_lost() {
    let (mut harness, key) = Harness::stream(Config { buffer: 2, ..Config::default() });
    // Its client reads nothing, so what it says waits.
    harness.wire.lock().write_room = 0;
    let many: Vec<u8> = (0..50).flat_map(|_| frame(0x81, b"echo")).collect();
    harness.hand_in(key, 1, many);
    harness.turns();
    assert!(harness.post_outcomes.is_empty(), "{:?}", harness.post_outcomes);
    harness.hand_in(key, 1, Vec::new());
    harness.hand_in(key, 2, Vec::new());
    harness.turns();
    assert_eq!(harness.post_outcomes, [PostOutcome::OutOfOrder]);
    harness.lose(std::io::ErrorKind::ConnectionReset);
    assert_eq!(harness.post_outcomes, [PostOutcome::OutOfOrder, PostOutcome::Unknown]);
    harness.expect_nothing_left("after the loss");
}

#[test]
fn a_post_is_called_handled_only_if_all_of_it_was() {
    let (closes, quiet) = (frame(0x81, b"close 4000 bye"), frame(0x81, b"quiet"));
    // A frame that says that it is compressed, which nothing was agreed on.
    let bad = frame(0xc1, b"bad");
    for (frames, heard, outcome) in [
        (vec![&quiet, &closes], 2, PostOutcome::Handled),
        (vec![&quiet, &closes, &quiet], 2, PostOutcome::Unknown),
        (vec![&quiet, &bad, &quiet], 1, PostOutcome::Unknown),
    ] {
        let (mut harness, key) = Harness::stream(Config::default());
        harness.hand_in(key, 1, frames.into_iter().flatten().copied().collect());
        harness.turns();
        assert_eq!((harness.heard(), &harness.post_outcomes[..]), (heard, &[outcome][..]));
    }
}

/// Another connection.
const STREAM: ConnId = ConnId { worker: 0, slot: 9, generation: 0 };

/// A post to a stream of another connection, as it comes.
fn post(node: Uuid, nth: u64, messages: &str) -> String {
    let key = StreamKey::new(node, STREAM);
    let body = format!("{{\"connection\":\"{key}\",\"post\":{nth}}}\n{messages}");
    let len = body.len();
    format!("POST {EVENTS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}")
}

#[test]
fn what_came_behind_a_post_is_answered_though_the_post_was_not_handled_in_time() {
    let mut harness = Harness::new(Config::default());
    harness.feed(post(harness.cx.shared.hub.node, 1, "hello").as_bytes());
    harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(harness.written(), b"");
    harness.pass(20_000);
    let written = String::from_utf8(harness.written()).expect("UTF-8");
    let answers = written.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    assert_eq!(answers.collect::<Vec<_>>(), ["503", "200"], "{written}");
}

#[test]
fn a_post_costs_its_sender_what_it_costs() {
    let many = post(Uuid::nil(), 1, &"x\n".repeat(4000));
    let large = post(Uuid::nil(), 1, &"x".repeat(100_000));
    let head = "POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = [head, &"1\r\n{\r\n".repeat(10_000)].concat();
    for (request, cost) in [(many, 250), (large, 100), (chunks, 100)] {
        let mut harness = Harness::new(Config::default());
        harness.send(request.as_bytes());
        harness.cx.begin_turn();
        while harness.turn() {}
        assert!(harness.cx.spent >= cost, "{cost}: {}", harness.cx.spent);
    }
}

#[test]
fn a_post_is_not_waited_for_where_requests_are_many_and_its_stream_is_not_read() {
    for (heads_max, outcomes) in [(8, &[][..]), (1, &[PostOutcome::Busy; 3])] {
        let (mut harness, key) = Harness::stream(Config { buffer: 2, ..Config::default() });
        let heads = std::sync::Arc::clone(&harness.cx.shared.pending_heads);
        let _token = heads.take();
        heads.set_max(heads_max);
        harness.wire.lock().write_room = 0;
        harness.hand_in(key, 1, frame(0x81, b"echo").repeat(9));
        harness.turns();
        // It is the same one again.
        harness.hand_in(key, 1, Vec::new());
        harness.turns();
        harness.hand_in(key, 1, Vec::new());
        harness.turns();
        assert_eq!(harness.post_outcomes, outcomes);
        harness.make_room(usize::MAX);
        harness.hand_in(key, 1, Vec::new());
        harness.turns();
        assert_eq!(harness.heard(), 9, "handled once");
        assert_eq!(harness.post_outcomes.last(), Some(&PostOutcome::Handled));
    }
}

#[test]
fn a_post_that_there_is_no_space_for_comes_again_later_than_others() {
    for (outcome, after_s) in [(Some(PostOutcome::Busy), 5), (None, 1)] {
        let mut harness = Harness::new(Config::default());
        harness.feed(post(harness.cx.shared.hub.node, 1, "hello").as_bytes());
        match outcome {
            Some(outcome) => {
                let name = PostName { stream: STREAM, nth: 1 };
                harness.conn.on_post_answered(name, outcome, &mut harness.cx);
                harness.turns();
            }
            None => harness.pass(20_000),
        }
        let answer = harness.answer();
        let retry_after = answer.header("Retry-After").map(str::to_owned);
        assert_eq!((answer.status, retry_after), (503, Some(after_s.to_string())));
    }
}
