//! Bytes come and go in pieces of every size: what is said stays the same.

use flate2::{Compress, Compression as Level, FlushCompress};

use super::{Harness, close, frame, upgrade};
use crate::config::{Compression, Config};

/// Steps that end inside of headers, masks and codes, and one that takes all there is.
const STEPS: [usize; 6] = [1, 2, 3, 7, 50, usize::MAX];

/// A client's compressed message, and its RSV1 frame of `first`.
fn compressed(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Level::new(6), false);
    let mut bytes = Vec::with_capacity(payload.len() + 100);
    compress.compress_vec(payload, &mut bytes, FlushCompress::Sync).expect("into memory");
    bytes.truncate(bytes.len() - 4);
    frame(first | 0x40, &bytes)
}

/// Everything a client may say in a life, and how its server is configured.
fn dialogue(compression: Compression) -> (Config, Vec<u8>) {
    let long: Vec<u8> = (0..150).flat_map(|n: u32| n.to_string().into_bytes()).collect();
    let (offer, is_compressed) = match compression {
        Compression::Off => ("", false),
        _ => ("Sec-WebSocket-Extensions: permessage-deflate\r\n", true),
    };
    let message = |first: u8, payload: &[u8]| match is_compressed {
        true => compressed(first, payload),
        false => frame(first, payload),
    };
    let mut stream = upgrade(offer).into_bytes();
    stream.extend(frame(0x81, "grüße".as_bytes()));
    stream.extend(message(0x82, &long));
    stream.extend(frame(0x89, b"ping"));
    stream.extend(frame(0x01, "gr\u{fc}".as_bytes().split_at(3).0));
    stream.extend(frame(0x89, b"between"));
    stream.extend(frame(0x00, b"\xbc\xc3"));
    stream.extend(frame(0x8a, b"unasked"));
    stream.extend(frame(0x80, b"\x9fe"));
    stream.extend(message(0x81, &long));
    stream.extend(frame(0x81, b""));
    stream.extend(message(0x81, &long));
    for number in 0..30 {
        stream.extend(frame(0x81, number.to_string().as_bytes()));
    }
    stream.extend(close(1000, "bye"));
    // So few may wait for the client that it is paused and read again many times.
    let config = Config { compression, buffer: 4, ..Config::default() };
    (config, stream)
}

/// Lives a life at once, and gives its configuration, input and output to `lives`, which must come
/// to the same in another way.
fn is_the_same_life(compression: Compression, lives: impl FnOnce(&Config, &[u8], &[u8])) {
    let (config, stream) = dialogue(compression);
    let mut harness = Harness::new(config.clone());
    harness.feed(&stream);
    harness.expect_nothing_left("at once");
    assert_eq!((harness.heard(), harness.closed()), (36, vec![1000]));
    let expected = harness.written();
    assert!(expected.ends_with(b"\x88\x05\x03\xe8bye"), "whole to its end");
    lives(&config, &stream, &expected);
}

const COMPRESSIONS: [Compression; 3] =
    [Compression::Off, Compression::Shared, Compression::Dedicated];

#[test]
fn reads_and_writes_of_every_size_say_the_same() {
    for compression in COMPRESSIONS {
        is_the_same_life(compression, |config, stream, expected| {
            for read_step in STEPS {
                for write_step in STEPS {
                    let mut harness = Harness::new(config.clone());
                    harness.wire.lock().read_step = read_step;
                    harness.wire.lock().write_step = write_step;
                    harness.feed(stream);
                    assert!(harness.written() == expected, "{read_step} in, {write_step} out");
                    harness.expect_nothing_left("in steps");
                }
            }
        });
    }
}

#[test]
fn a_client_that_reads_little_by_little_reads_the_same() {
    for compression in COMPRESSIONS {
        is_the_same_life(compression, |config, stream, expected| {
            for read_step in STEPS {
                for room in STEPS {
                    let mut harness = Harness::new(config.clone());
                    harness.wire.lock().read_step = read_step;
                    harness.wire.lock().write_room = 0;
                    harness.feed(stream);
                    while !harness.is_gone() {
                        let before = harness.wire.lock().from_server.len();
                        harness.make_room(room);
                        let after = harness.wire.lock().from_server.len();
                        assert!(before < after, "stands still after {after} bytes");
                        harness.wire.lock().write_room = 0;
                    }
                    assert!(harness.written() == expected, "{read_step} in, {room} at a time out");
                    harness.expect_nothing_left("little by little");
                }
            }
        });
    }
}

#[test]
fn a_block_at_any_byte_of_either_direction_changes_nothing() {
    for compression in COMPRESSIONS {
        // Making a compressor is most of a compressed life, so not every byte of those is tried.
        let step = if compression == Compression::Off { 1 } else { 19 };
        is_the_same_life(compression, |config, stream, expected| {
            for cut in (0..stream.len()).step_by(step) {
                let mut harness = Harness::new(config.clone());
                harness.feed(&stream[..cut]);
                // Being looked at for nothing is no harm.
                harness.feed(b"");
                harness.feed(&stream[cut..]);
                assert!(harness.written() == expected, "cut at {cut} in");
            }
            for cut in (0..expected.len()).step_by(step) {
                let mut harness = Harness::new(config.clone());
                harness.wire.lock().write_room = cut;
                harness.feed(stream);
                assert!(harness.wire.lock().from_server == expected[..cut], "{cut} bytes out");
                harness.make_room(usize::MAX / 2);
                assert!(harness.written() == expected, "cut at {cut} out");
            }
        });
    }
}

/// A message this large is given to the kernel as it stands, without waiting for the end of the
/// turn.
#[test]
fn a_large_message_goes_out_whole_wherever_the_kernel_stops() {
    let payload: Vec<u8> = (0..40_000).map(|n: u32| n as u8).collect();
    let [small, large] = [frame(0x82, b"small"), frame(0x82, &payload)];
    let echoes = [b"\x82\x05small".as_slice(), b"\x82\x7e\x9c\x40", &payload];
    // Alone, and behind what the turn has queued already.
    let lives: [(&[&[u8]], Vec<u8>); 2] = [
        (&[&large, &small], [echoes[1], echoes[2], echoes[0]].concat()),
        (
            &[&small, &large, &large],
            [echoes[0], echoes[1], echoes[2], echoes[1], echoes[2]].concat(),
        ),
    ];
    for (sent, expected) in lives {
        for room in [0, 1, 3, 4, 5, 20_000, 40_003, 40_004, 40_010] {
            let mut harness = Harness::open(Config::default());
            harness.wire.lock().write_room = room;
            harness.feed(&sent.concat());
            assert!(harness.wire.lock().from_server == expected[..room], "{room} bytes");
            harness.make_room(usize::MAX / 2);
            assert!(harness.written() == expected, "{room} bytes, then the rest");
        }
    }
}
