//! Connections that are reset or end at every stage of their lives: nothing of them is left.

use std::io::ErrorKind;

use super::{Harness, close, frame, upgrade};
use crate::{config::Config, pool::admission::Permit, ws::close::CloseReason};

const TEXT: u8 = 0x81;

/// A stage: how to get there, and the code its handler is told if it is lost there.
struct Stage {
    name: &'static str,
    reach: fn(&mut Harness) -> Option<Permit>,
    told: Option<u16>,
}

fn blocked(harness: &mut Harness) {
    harness.wire.lock().write_room = 0;
}

fn open(harness: &mut Harness) {
    harness.feed(upgrade("").as_bytes());
    assert_eq!(harness.answer().status, 101);
}

const STAGES: &[Stage] = &[
    Stage { name: "before a byte", reach: |_| None, told: None },
    Stage {
        name: "inside a head",
        reach: |harness| {
            harness.feed(b"GET /ws HT");
            None
        },
        told: None,
    },
    Stage {
        name: "between requests",
        reach: |harness| {
            harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
            None
        },
        told: None,
    },
    Stage {
        name: "with an answer unwritten",
        reach: |harness| {
            blocked(harness);
            harness.feed(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
            None
        },
        told: None,
    },
    Stage {
        name: "refused and unwritten",
        reach: |harness| {
            blocked(harness);
            harness.feed(b"GET /health HTTP/2.0\r\n\r\n");
            None
        },
        told: None,
    },
    Stage {
        name: "refused and lingering",
        reach: |harness| {
            harness.feed(b"GET /health HTTP/2.0\r\n\r\n");
            assert_eq!(harness.answer().status, 400);
            None
        },
        told: None,
    },
    Stage {
        name: "in the line",
        reach: |harness| {
            let permit = harness.occupy();
            harness.feed(upgrade("").as_bytes());
            harness.feed(&frame(TEXT, b"early"));
            assert_eq!(harness.cx.shared.admission.gauges(), (1, 1));
            Some(permit)
        },
        told: None,
    },
    Stage {
        name: "in the line with a permit set aside",
        reach: |harness| {
            let permit = harness.occupy();
            harness.feed(upgrade("").as_bytes());
            drop(permit);
            assert_eq!(harness.cx.shared.admission.gauges(), (1, 0));
            None
        },
        told: None,
    },
    Stage {
        name: "with the 101 unwritten",
        reach: |harness| {
            blocked(harness);
            harness.feed(upgrade("").as_bytes());
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "open and idle",
        reach: |harness| {
            open(harness);
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "inside a header",
        reach: |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"text")[..3]);
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "inside a frame",
        reach: |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"text")[..8]);
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "inside a message",
        reach: |harness| {
            open(harness);
            harness.feed(&frame(0x01, b"text"));
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "with messages unwritten",
        reach: |harness| {
            open(harness);
            blocked(harness);
            harness.feed(&frame(TEXT, b"text").repeat(10));
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "paused, because it does not read",
        reach: |harness| {
            open(harness);
            blocked(harness);
            harness.feed(&frame(TEXT, b"text").repeat(5000));
            assert!(harness.conn.io.pauses.is_paused());
            None
        },
        told: Some(1006),
    },
    Stage {
        name: "with our Close unwritten",
        reach: |harness| {
            open(harness);
            blocked(harness);
            harness.feed(&frame(TEXT, b"close 4000 x"));
            None
        },
        told: Some(4000),
    },
    Stage {
        name: "with their Close due",
        reach: |harness| {
            open(harness);
            harness.feed(&frame(TEXT, b"close 4000 x"));
            None
        },
        told: Some(4000),
    },
    Stage {
        name: "with their Close unanswered",
        reach: |harness| {
            open(harness);
            blocked(harness);
            harness.feed(&close(1000, ""));
            None
        },
        told: Some(1000),
    },
    Stage {
        name: "failed and unwritten",
        reach: |harness| {
            open(harness);
            blocked(harness);
            harness.feed(&frame(0x83, b""));
            None
        },
        told: Some(1002),
    },
    Stage {
        name: "failed and lingering",
        reach: |harness| {
            open(harness);
            harness.feed(&frame(0x83, b""));
            None
        },
        told: Some(1002),
    },
];

/// Takes a connection to each stage, ends it there, and looks at what is left.
fn at_every_stage(what: &str, end: impl Fn(&mut Harness)) {
    for Stage { name, reach, told } in STAGES {
        let mut harness = Harness::new(Config { max_conn: 1, ..Config::default() });
        let permit = reach(&mut harness);
        assert!(!harness.is_gone(), "{name}");
        end(&mut harness);
        drop(permit);
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
    for Stage { name, reach, .. } in STAGES {
        let mut harness = Harness::new(Config { max_conn: 1, ..Config::default() });
        let permit = reach(&mut harness);
        harness.conn.stop(&mut harness.cx);
        drop(permit);
        harness.turns();
        harness.expect_nothing_left(name);
    }
}
