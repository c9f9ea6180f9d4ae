//! Connections that are reset or end at every stage of their lives: nothing of them is left.

use std::io::ErrorKind;

use super::{Harness, close, frame, upgrade};
use crate::{config::Config, ws::close::CloseReason};

const TEXT: u8 = 0x81;

/// A stage: its name, how to get there, and the code its handler is told if it is lost there.
type Stage = (&'static str, fn(&mut Harness), Option<u16>);

fn blocked(harness: &mut Harness) {
    harness.wire.lock().write_room = 0;
}

fn open(harness: &mut Harness) {
    harness.feed(upgrade("").as_bytes());
    assert_eq!(harness.answer().status, 101);
}

fn open_and_blocked(harness: &mut Harness) {
    open(harness);
    blocked(harness);
}

const STAGES: &[Stage] = &[
    ("before a byte", |_| {}, None),
    ("inside a head", |harness| harness.feed(b"GET /ws HT"), None),
    ("between requests", |harness| harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"), None),
    (
        "with an answer unwritten",
        |harness| {
            blocked(harness);
            harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        },
        None,
    ),
    (
        "refused and unwritten",
        |harness| {
            blocked(harness);
            harness.feed(b"GET /health HTTP/2.0\r\n\r\n");
        },
        None,
    ),
    (
        "refused and lingering",
        |harness| {
            harness.feed(b"GET /health HTTP/2.0\r\n\r\n");
            assert_eq!(harness.answer().status, 400);
        },
        None,
    ),
    (
        "in the line",
        |harness| {
            harness.occupy();
            harness.feed(upgrade("").as_bytes());
            harness.feed(&frame(TEXT, b"early"));
            assert_eq!(harness.cx.shared.admission.gauges(), (1, 1));
        },
        None,
    ),
    (
        "in the line with a permit set aside",
        |harness| {
            harness.occupy();
            harness.feed(upgrade("").as_bytes());
            harness.vacate();
            assert_eq!(harness.cx.shared.admission.gauges(), (1, 0));
        },
        None,
    ),
    (
        "with the 101 unwritten",
        |harness| {
            blocked(harness);
            harness.feed(upgrade("").as_bytes());
        },
        Some(1006),
    ),
    ("open and idle", open, Some(1006)),
    (
        "inside a header",
        |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"text")[..3]);
        },
        Some(1006),
    ),
    (
        "inside a frame",
        |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"text")[..8]);
        },
        Some(1006),
    ),
    (
        "inside a message",
        |harness| {
            open(harness);
            harness.feed(&frame(0x01, b"text"));
        },
        Some(1006),
    ),
    (
        "with messages unwritten",
        |harness| {
            open_and_blocked(harness);
            harness.feed(&frame(TEXT, b"text").repeat(10));
        },
        Some(1006),
    ),
    (
        "paused, because it does not read",
        |harness| {
            open_and_blocked(harness);
            harness.feed(&frame(TEXT, b"text").repeat(5000));
            assert!(harness.conn.io.pauses.is_paused());
        },
        Some(1006),
    ),
    (
        "with our Close unwritten",
        |harness| {
            open_and_blocked(harness);
            harness.feed(&frame(TEXT, b"close 4000 x"));
        },
        Some(4000),
    ),
    (
        "with their Close due",
        |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"close 4000 x"));
        },
        Some(4000),
    ),
    (
        "with their Close unanswered",
        |harness| {
            open_and_blocked(harness);
            harness.feed(&close(1000, ""));
        },
        Some(1000),
    ),
    (
        "failed and unwritten",
        |harness| {
            open_and_blocked(harness);
            harness.feed(&frame(0x83, b""));
        },
        Some(1002),
    ),
    (
        "failed and lingering",
        |harness| {
            open(harness);
            harness.feed(&frame(0x83, b""));
        },
        Some(1002),
    ),
];

/// Takes a connection to each stage, ends it there, and looks at what is left.
fn at_every_stage(what: &str, end: impl Fn(&mut Harness)) {
    for (name, reach, told) in STAGES {
        let mut harness = Harness::new(Config { max_conn: 1, ..Config::default() });
        reach(&mut harness);
        assert!(!harness.is_gone(), "{name}");
        end(&mut harness);
        harness.vacate();
        harness.turns();
        harness.expect_nothing_left(&format!("{what}, {name}"));
        // Whoever is let in at the last moment is told as well.
        let told = if harness.closed().is_empty() { *told } else { told.or(Some(1006)) };
        assert_eq!(harness.closed(), Vec::from_iter(told), "{what}, {name}");
        // Its name is a letter's to nobody.
        harness.post("late");
        harness.turns();
        harness.expect_nothing_left(&format!("{what}, {name}, and a late letter"));
    }
}

#[test]
fn a_reset_leaves_nothing() {
    for error in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::TimedOut] {
        at_every_stage(&error.to_string(), |harness| harness.lose(error));
    }
}

#[test]
fn a_loss_that_only_writing_notices_leaves_nothing() {
    at_every_stage("found by a write", |harness| {
        harness.wire.lock().error = Some(ErrorKind::BrokenPipe);
        harness.post("to be written");
        harness.turns();
        // Whoever had nothing to write learns of it from the poll.
        harness.lose(ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_loss_that_meets_our_close_leaves_nothing() {
    at_every_stage("closed and lost", |harness| {
        harness.wire.lock().error = Some(ErrorKind::ConnectionReset);
        if harness.is_open() {
            // Lost before the handler hears of the close it is about to get.
            harness.lose(ErrorKind::ConnectionReset);
        }
        harness.ask_close(CloseReason::KICKED);
        harness.turns();
        harness.lose(ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_end_leaves_nothing_when_what_was_owed_is_written() {
    at_every_stage("ended and read", |harness| {
        harness.end();
        harness.make_room(1 << 20);
    });
}

#[test]
fn an_end_leaves_nothing_when_what_was_owed_is_never_read() {
    at_every_stage("ended", |harness| {
        harness.end();
        if harness.conn.io.pauses.is_paused() {
            // It is not read, so the end is noticed when it has been silent for long enough.
            harness.make_room(1 << 20);
        }
        harness.pass(3000);
    });
}

#[test]
fn a_server_that_stops_leaves_nothing() {
    for (name, reach, _) in STAGES {
        let mut harness = Harness::new(Config { max_conn: 1, ..Config::default() });
        reach(&mut harness);
        harness.conn.stop(&mut harness.cx);
        harness.vacate();
        harness.turns();
        harness.expect_nothing_left(name);
    }
}
