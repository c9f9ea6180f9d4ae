//! Bad input costs little: memory stays within its bound, and others get their turn.

use super::{Answer, Harness, READ_BYTES_MAX, close, frame, upgrade};
use crate::{
    config::{Compression, Config},
    pool::costs::MESSAGES_PER_TURN_MAX,
    ws::close::CloseReason,
};

const TEXT: u8 = 0x81;

fn stash_bytes(harness: &Harness) -> usize {
    harness.conn.io.stash.capacity()
}

#[test]
fn a_header_that_promises_too_much_is_refused_at_once() {
    for compression in [Compression::Off, Compression::Shared] {
        for first in [0x81, 0x82, 0x01, 0xc1, 0x89] {
            for promised in [1 << 63, u64::MAX, 1 << 62, 1 << 32, (64 << 10) + 2000] {
                let config = Config { compression, ..Config::default() };
                let mut harness = Harness::new(config);
                let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
                harness.feed(upgrade(offer).as_bytes());
                assert_eq!(harness.answer().status, 101);
                let mut header = vec![first, 0xff];
                header.extend_from_slice(&u64::to_be_bytes(promised));
                header.extend_from_slice(&[1, 2, 3, 4]);
                harness.feed(&header);
                let frames = harness.frames();
                let code = u16::from_be_bytes([frames[0].1[0], frames[0].1[1]]);
                assert!(matches!(code, 1002 | 1009), "{first:x} {promised}: {code}");
                assert!(stash_bytes(&harness) == 0 && harness.wire.lock().server_ended);
                // What is sent on regardless is read away and not kept.
                harness.feed(&[7; 100_000]);
                assert!(stash_bytes(&harness) == 0 && harness.wire.lock().to_server.is_empty());
                harness.end();
                harness.expect_nothing_left("refused");
            }
        }
    }
}

#[test]
fn a_large_frame_may_come_a_byte_at_a_time_and_nothing_is_kept_twice() {
    let payload: Vec<u8> = (0..64 << 10).map(|n| b'a' + (n % 26) as u8).collect();
    let bytes = frame(TEXT, &payload);
    let mut harness = Harness::open(Config::default());
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!((harness.heard(), stash_bytes(&harness)), (0, 0), "at {at}");
        harness.feed(&[*byte]);
        if at % 100 == 0 {
            // A byte a minute less one is still a living client.
            harness.pass(59_999);
        }
    }
    assert_eq!(harness.heard(), 1);
    assert!(harness.is_open());
    let pings = bytes.len() / 100 + 1;
    let echo = harness.written().len() - 2 * pings;
    assert_eq!(echo, 10 + payload.len(), "a ping for each of the pauses, and the echo");
}

#[test]
fn empty_fragments_without_end_cost_nothing() {
    for compression in [Compression::Off, Compression::Shared] {
        for first in [0x01, 0x41] {
            if first == 0x41 && compression == Compression::Off {
                continue;
            }
            let mut harness = Harness::new(Config { compression, ..Config::default() });
            harness.feed(upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n").as_bytes());
            assert_eq!(harness.answer().status, 101);
            harness.feed(&frame(first, b""));
            let fragments = frame(0x00, b"").repeat(1000);
            for _ in 0..50 {
                harness.feed(&fragments);
                assert!(stash_bytes(&harness) == 0 && harness.owes_at_most(0));
            }
            harness.feed(&frame(0x80, b""));
            assert_eq!(harness.frames(), [(TEXT, vec![])]);
            assert_eq!(harness.heard(), 1);
        }
    }
}

#[test]
fn who_pings_without_reading_is_not_read() {
    let config = Config { buffer_bytes: 20_000, ..Config::default() };
    let mut harness = Harness::open(config);
    harness.wire.lock().write_room = 0;
    let ping = frame(0x89, &[b'p'; 125]);
    harness.feed(&ping.repeat(10_000));
    assert!(harness.conn.io.pauses.is_paused());
    // Half of the bound, and what one read may add.
    assert!(harness.owes_at_most(10_000 + READ_BYTES_MAX));
    assert!(stash_bytes(&harness) <= READ_BYTES_MAX);
    assert!(harness.wire.lock().to_server.len() > ping.len() * 9_000, "it stays with the client");
    harness.make_room(usize::MAX / 2);
    let frames = harness.frames();
    assert_eq!(frames.len(), 10_000);
    assert!(frames.iter().all(|(first, payload)| *first == 0x8a && payload.len() == 125));
    assert!(harness.is_open());
}

#[test]
fn a_flood_of_tiny_messages_leaves_others_their_turn() {
    let count = READ_BYTES_MAX / frame(TEXT, b"").len();
    assert!(count > MESSAGES_PER_TURN_MAX);
    for (what, message) in [("whole", frame(TEXT, b"")), ("answered", frame(TEXT, b"x"))] {
        let mut harness = Harness::open(Config::default());
        harness.send(&message.repeat(5000));
        let mut heard = 0;
        for turn in 0..10 {
            assert!(harness.turn(), "{what}: turn {turn}");
            assert!(harness.heard() - heard <= MESSAGES_PER_TURN_MAX, "{what}: turn {turn}");
            assert!(stash_bytes(&harness) <= READ_BYTES_MAX, "{what}: turn {turn}");
            heard = harness.heard();
            // What others send meanwhile comes in the very next turn.
            let written = harness.written();
            assert!(turn == 0 || written.ends_with(b"from another"), "{what}: turn {turn}");
            harness.post("from another");
        }
        assert!(heard < 5000, "{what}: it takes more turns than these");
        harness.turns();
        assert_eq!(harness.heard(), 5000, "{what}");
    }
}

#[test]
fn who_pipelines_without_reading_is_not_read() {
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut harness = Harness::new(Config { buffer_bytes: 10_000, ..Config::default() });
    harness.wire.lock().write_room = 0;
    harness.feed(request.repeat(2000).as_bytes());
    assert!(harness.conn.io.pauses.is_paused());
    assert!(harness.owes_at_most(10_000 + 1000) && stash_bytes(&harness) <= 2 * READ_BYTES_MAX);
    assert!(!harness.wire.lock().to_server.is_empty(), "it stays with the client");
    harness.make_room(usize::MAX / 2);
    let written = harness.written();
    let (mut rest, mut answers) = (&written[..], 0);
    while !rest.is_empty() {
        rest = Answer::parse(rest, false).1;
        answers += 1;
    }
    assert_eq!(answers, 2000);
}

#[test]
fn who_does_not_read_what_others_send_is_told_so_and_let_go() {
    for overflow in ["messages", "bytes"] {
        let config = match overflow {
            "messages" => Config { buffer: 100, ..Config::default() },
            _ => Config { buffer_bytes: 5000, ..Config::default() },
        };
        let mut harness = Harness::open(config);
        harness.wire.lock().write_room = 0;
        for _ in 0..200 {
            harness.post(&"x".repeat(100));
            harness.turns();
            assert!(harness.owes_at_most(100 * 103));
        }
        assert_eq!(harness.closed(), [4102], "{overflow}");
        // It may still read the message that has begun, and why it was closed.
        harness.make_room(usize::MAX / 2);
        let frames = harness.frames();
        let Some((0x88, reason)) = frames.last() else { panic!("{frames:?}") };
        assert_eq!(reason[..2], 4102_u16.to_be_bytes());
        harness.feed(&close(4102, ""));
        harness.expect_nothing_left(overflow);
    }
}

#[test]
fn a_bomb_costs_its_bound_and_the_next_client_nothing() {
    use flate2::{Compress, Compression as Level, FlushCompress};
    let mut compress = Compress::new(Level::new(9), false);
    let (zeros, mut part) = (vec![0; 1 << 20], Vec::with_capacity(2000));
    // A full flush begins anew, so its output may be repeated.
    compress.compress_vec(&zeros, &mut part, FlushCompress::Full).expect("into memory");
    let bomb = part.repeat(50);
    assert!(bomb.len() < 64 << 10, "50 MiB in less than a message may have");
    for compression in [Compression::Shared, Compression::Dedicated] {
        let mut harness = Harness::new(Config { compression, ..Config::default() });
        harness.feed(upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n").as_bytes());
        assert_eq!(harness.answer().status, 101);
        harness.feed(&frame(0xc2, &bomb));
        let frames = harness.frames();
        assert_eq!((frames[0].0, &frames[0].1[..2]), (0x88, &1009_u16.to_be_bytes()[..]));
        assert_eq!((harness.heard(), harness.closed()), (0, vec![1009]));
        harness.end();
        harness.expect_nothing_left("bombed");
    }
}

#[test]
fn a_wait_without_end_is_none_that_is_over() {
    let mut harness = Harness::open(Config::default());
    harness.pass(5);
    assert_eq!(harness.cx.after(std::time::Duration::MAX), u64::MAX);
}

#[test]
fn what_comes_after_our_close_leaves_others_their_turn_too() {
    let mut harness = Harness::open(Config::default());
    harness.ask_close(CloseReason::KICKED);
    harness.turns();
    harness.send(&frame(TEXT, b"").repeat(2 * MESSAGES_PER_TURN_MAX));
    harness.send(&close(4009, ""));
    assert!(harness.turn() && !harness.is_gone(), "some are left for the next turn");
    harness.turns();
    assert!(harness.is_gone());
}
