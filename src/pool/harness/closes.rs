//! The closing handshake in both directions, and connections that end without one.

use super::{Harness, close, frame, lags};
use crate::{
    config::Config,
    handler::{Context, Handler},
    hub::{history::Replay, names::RoomName},
    ws::{close::CloseReason, frame::Message},
};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const CONTINUES: u8 = 0x00;
const ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// The Close frame that the server is expected to send.
fn told(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// The code of a Close that must be the only frame written.
fn only_close(harness: &mut Harness, what: &str) -> u16 {
    let frames = harness.frames();
    assert!(matches!(frames[..], [(CLOSE, ref said)] if said.len() >= 2), "{what}: {frames:?}");
    u16::from_be_bytes([frames[0].1[0], frames[0].1[1]])
}

#[test]
fn every_code_that_may_be_sent_is_answered_with_itself() {
    let named = (1000..=1003).chain(1007..=1013);
    for code in named.chain([3000, 3001, 3999, 4000, 4102, 4999]) {
        for reason in ["", "bye", &"x".repeat(123)] {
            let mut harness = Harness::open(Config::default());
            harness.feed(&close(code, reason));
            assert_eq!(harness.frames(), [told(code, reason)]);
            assert_eq!(harness.closed(), [code]);
            harness.expect_nothing_left("closed by the client");
        }
    }
}

#[test]
fn every_code_that_must_not_be_sent_is_a_protocol_error() {
    let ranges = [0, 1, 999, 1016, 1100, 2000, 2999, 5000, 9999, 65_535];
    // 1014 was registered after the RFC, and `tungstenite` does not know it.
    for code in ranges.into_iter().chain([1004, 1005, 1006, 1014, 1015]) {
        let mut harness = Harness::open(Config::default());
        harness.feed(&close(code, "bye"));
        assert_eq!(only_close(&mut harness, &code.to_string()), 1002, "{code}");
        assert_eq!(harness.closed(), [1002], "{code}");
        harness.end();
        harness.expect_nothing_left(&code.to_string());
    }
}

#[test]
fn a_close_that_is_none_is_told_why() {
    for (what, bytes, code) in [
        ("half a code", frame(CLOSE, &[3]), 1002),
        ("a reason of 124 bytes", close(1000, &"x".repeat(124)), 1002),
        ("a fragmented Close", frame(0x08, &[3, 232]), 1002),
        ("a Close with RSV1", frame(0xc8, &[3, 232]), 1002),
        ("an unmasked Close", vec![CLOSE, 2, 3, 232], 1002),
        ("a reason that is not UTF-8", frame(CLOSE, &[3, 232, 0xff]), 1007),
        ("a reason cut inside a character", frame(CLOSE, &[3, 232, 0xc3]), 1007),
    ] {
        let mut harness = Harness::open(Config::default());
        harness.feed(&bytes);
        assert_eq!(only_close(&mut harness, what), code, "{what}");
        assert_eq!(harness.closed(), [code], "{what}");
        assert!(harness.wire.lock().server_ended, "{what}");
        harness.end();
        harness.expect_nothing_left(what);
    }
    let mut harness = Harness::open(Config::default());
    harness.feed(&frame(CLOSE, b""));
    assert_eq!((harness.frames(), harness.closed()), (vec![(CLOSE, vec![])], vec![1005]));
    harness.expect_nothing_left("a Close without a code is one");
}

#[test]
fn our_reason_is_cut_at_a_character() {
    for (said, sent) in [
        ("".to_owned(), "".to_owned()),
        ("x".repeat(123), "x".repeat(123)),
        ("x".repeat(500), "x".repeat(123)),
        ("é".repeat(100), "é".repeat(61)),
        ("x".to_owned() + &"é".repeat(61), "x".to_owned() + &"é".repeat(61)),
        ("🦀".repeat(31), "🦀".repeat(30)),
        ("xx".to_owned() + &"語".repeat(41), "xx".to_owned() + &"語".repeat(40)),
    ] {
        let mut harness = Harness::open(Config::default());
        harness.feed(&frame(TEXT, format!("close 4000 {said}").as_bytes()));
        assert_eq!(harness.frames(), [told(4000, &sent)]);
        harness.feed(&close(4000, &sent));
        assert!(harness.frames().is_empty(), "a Close is sent once");
        assert_eq!(harness.closed(), [4000]);
        harness.expect_nothing_left("closed by us");
    }
}

#[test]
fn a_handler_cannot_send_what_must_not_be_sent() {
    for code in [0, 999, 1001, 1004, 1005, 1006, 1015, 2999, 5000] {
        let mut harness = Harness::open(Config::default());
        harness.feed(&frame(TEXT, format!("close {code} ").as_bytes()));
        assert_eq!(only_close(&mut harness, "as we are told"), 1000);
    }
}

#[test]
fn closes_that_cross_are_one_close() {
    // In one segment; in two; with ours still unwritten when theirs comes.
    let ask = frame(TEXT, b"close 4000 ours");
    let theirs = close(1001, "theirs");
    for (what, room) in [("together", None), ("apart", None), ("unwritten", Some(0))] {
        let mut harness = Harness::open(Config::default());
        if let Some(room) = room {
            harness.wire.lock().write_room = room;
        }
        match what {
            "together" => harness.feed(&[&ask[..], &theirs].concat()),
            _ => {
                harness.feed(&ask);
                harness.feed(&theirs);
            }
        }
        if room.is_some() {
            assert!(!harness.is_gone() && harness.written().is_empty());
            harness.make_room(1000);
        }
        assert_eq!(harness.frames(), [told(4000, "ours")], "{what}");
        assert_eq!(harness.closed(), [4000], "{what}: the first counts");
        harness.expect_nothing_left(what);
    }
}

#[test]
fn a_message_may_be_cut_off_by_a_close_of_either_side() {
    let half = frame(TEXT, b"a message");
    for (what, begun, rest) in [
        ("a fragment", frame(TEXT_BEGINS, b"one"), vec![]),
        ("two fragments", [frame(TEXT_BEGINS, b"1"), frame(CONTINUES, b"2")].concat(), vec![]),
        ("a frame", half[..8].to_vec(), half[8..].to_vec()),
        ("a header", half[..1].to_vec(), half[1..].to_vec()),
        ("a mask", half[..4].to_vec(), half[4..].to_vec()),
    ] {
        if rest.is_empty() {
            let mut harness = Harness::open(Config::default());
            harness.feed(&begun);
            harness.feed(&close(1000, ""));
            assert_eq!((harness.frames(), harness.heard()), (vec![told(1000, "")], 0), "{what}");
            harness.expect_nothing_left(what);
        }
        let mut harness = Harness::open(Config::default());
        harness.feed(&begun);
        harness.ask_close(CloseReason::KICKED);
        harness.turns();
        assert_eq!(only_close(&mut harness, what), 4009, "{what}");
        harness.feed(&rest);
        if rest.is_empty() {
            harness.feed(&frame(ENDS, b"three"));
        }
        assert!(!harness.is_gone(), "{what}: the client's Close is due");
        harness.feed(&close(4009, ""));
        assert_eq!((harness.written(), harness.heard()), (vec![], 0), "{what}");
        harness.expect_nothing_left(what);
    }
}

#[test]
fn what_comes_behind_a_close_is_nobodys() {
    let behind = [frame(TEXT, b"late"), frame(PING, b"late"), vec![0xff; 100]].concat();
    // Theirs, in the same segment and in a later one that finds the answer unwritten.
    let mut harness = Harness::open(Config::default());
    harness.wire.lock().write_room = 0;
    harness.feed(&[close(1000, ""), behind.clone()].concat());
    harness.feed(&behind);
    harness.make_room(1000);
    assert_eq!((harness.frames(), harness.heard()), (vec![told(1000, "")], 0));
    harness.expect_nothing_left("behind theirs");
    // Ours: what is legal is passed over, and what is not ends the wait.
    let mut harness = Harness::open(Config::default());
    harness.feed(&[frame(TEXT, b"close 4000 x"), frame(TEXT, b"late"), frame(PING, b"?")].concat());
    harness.feed(&[frame(TEXT, b"later"), frame(PING, b"?")].concat());
    assert_eq!((harness.frames(), harness.heard()), (vec![told(4000, "x")], 1));
    assert!(!harness.is_gone());
    harness.feed(&behind);
    assert!(harness.written().is_empty());
    harness.expect_nothing_left("behind ours");
}

#[test]
fn the_answer_to_our_close_is_read_while_a_mailbox_is_behind() {
    let mut harness = Harness::open(Config::default());
    harness.cx.on_backpressure();
    harness.feed(&frame(TEXT, b"not read before the close"));
    assert!(harness.conn.io.pauses.is_paused() && harness.heard() == 0);
    harness.ask_close(CloseReason::KICKED);
    harness.turns();
    assert_eq!(only_close(&mut harness, "parked"), 4009);
    harness.feed(&close(4009, ""));
    harness.expect_nothing_left("closed while parked");
}

#[test]
fn who_never_answers_our_close_is_not_waited_for() {
    let mut harness = Harness::open(Config::default());
    harness.feed(&frame(TEXT, b"close 4000 x"));
    harness.pass(2000);
    harness.feed(&frame(PING, b"going on buys no time"));
    harness.pass(999);
    assert!(!harness.is_gone());
    harness.pass(1);
    assert_eq!(harness.frames(), [told(4000, "x")]);
    harness.expect_nothing_left("after the close timeout");
}

#[test]
fn who_does_not_hang_up_is_not_waited_for() {
    let mut harness = Harness::open(Config::default());
    harness.feed(&frame(0x83, b""));
    assert_eq!(only_close(&mut harness, "a reserved opcode"), 1002);
    assert!(harness.wire.lock().server_ended);
    for _ in 0..29 {
        harness.pass(100);
        harness.feed(b"and on and on");
        assert!(harness.written().is_empty() && !harness.is_gone());
    }
    harness.pass(100);
    harness.expect_nothing_left("after the close timeout");
}

#[test]
fn an_end_without_a_close_is_1006() {
    for (what, sent, echoed) in [
        ("at rest", vec![], 0),
        ("behind a message", frame(TEXT, b"last words"), 1),
        ("behind many messages", frame(TEXT, b"last words").repeat(1000), 1000),
        ("inside a header", frame(TEXT, b"x")[..3].to_vec(), 0),
        ("inside a frame", frame(TEXT, b"last words")[..9].to_vec(), 0),
        ("inside a message", frame(TEXT_BEGINS, b"last"), 0),
    ] {
        let mut harness = Harness::open(Config::default());
        harness.wire.lock().write_room = 0;
        harness.send(&sent);
        harness.end();
        // What was asked for before the end is answered, as long as the client reads.
        harness.make_room(usize::MAX);
        assert_eq!(harness.frames().len(), echoed, "{what}");
        assert_eq!(harness.closed(), [1006], "{what}");
        harness.expect_nothing_left(what);
    }
    let mut harness = Harness::open(Config::default());
    harness.wire.lock().write_room = 0;
    harness.send(&frame(TEXT, b"unread"));
    harness.end();
    harness.pass(3000);
    harness.expect_nothing_left("who ended and does not read");
}

#[test]
fn silence_is_noticed() {
    let config = Config::default();
    let (ping, timeout) = (config.ping.as_millis() as u64, config.timeout.as_millis() as u64);
    // Answers nothing.
    let mut harness = Harness::open(config);
    harness.pass(ping - 1);
    assert!(harness.written().is_empty());
    harness.pass(1);
    assert_eq!(harness.frames(), [(PING, vec![])]);
    harness.pass(timeout - ping - 1);
    assert!(harness.is_open());
    harness.pass(1);
    let code = harness.frames().pop().map(|(_, said)| said[..2].to_vec());
    assert_eq!(code, Some(4201_u16.to_be_bytes().to_vec()));
    harness.pass(3000);
    harness.expect_nothing_left("silent");
    // A pong a minute keeps it, and so does half a frame.
    let mut harness = Harness::open(Config::default());
    let slow = frame(TEXT, &[b'x'; 50]);
    for byte in slow.iter().take(20) {
        harness.pass(timeout - 1);
        harness.feed(&[*byte]);
    }
    harness.feed(&slow[20..]);
    for _ in 0..20 {
        harness.pass(timeout - 1);
        harness.feed(&frame(0x8a, b""));
    }
    assert!(harness.is_open());
    // Where nobody pings.
    let mut harness =
        Harness::open(Config { ping: std::time::Duration::ZERO, ..Config::default() });
    harness.pass(timeout);
    assert_eq!(only_close(&mut harness, "idle"), 4202);
}

/// Joins a room, and may have had a session before.
struct Lodger;

impl Handler for Lodger {
    type State = ();

    fn resumable(&self) -> bool {
        true
    }

    fn on_open(&self, ctx: &mut Context<'_, ()>) {
        let room = RoomName::new("room").expect("a legal name");
        ctx.join(&room, Replay::Nothing).then(|_, joined| drop(joined.expect("a place")));
    }

    fn on_message(&self, _: &mut Context<'_, ()>, _: Message<'_>) {}
}

#[test]
fn a_silent_newcomer_is_shown_after_a_second() {
    let config = Config::default();
    let ping = config.ping.as_millis() as u64;
    let unshown = |harness: &Harness| {
        let room = harness.cx.shared.hub.rooms.find("room").expect("it is in there");
        room.state.lock().unshown()
    };
    let mut harness = lags::open(config.clone(), Lodger);
    harness.pass(999);
    assert_eq!(unshown(&harness), 1);
    harness.pass(1);
    assert_eq!(unshown(&harness), 0);
    // It is a deadline like the others, and moves none of them.
    harness.pass(ping - 1001);
    assert!(harness.written().is_empty());
    harness.pass(1);
    assert_eq!(harness.frames(), [(PING, vec![])]);
    // Who speaks is shown at once, whatever comes of the deadline.
    let mut harness = lags::open(config, Lodger);
    harness.feed(&frame(TEXT, b"hi"));
    assert_eq!(unshown(&harness), 0);
    harness.pass(ping - 1);
    assert!(harness.is_open() && harness.written().is_empty());
}
