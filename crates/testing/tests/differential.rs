//! Compares our endpoint with plain `tungstenite` on equal streams, ours cut at random: messages,
//! answers and close codes must be equal.

use std::io::{self, Cursor, Read, Write};

use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext, frame::FrameHeader},
};

use rusty_socks_testing::{
    fuzz::streams::{MESSAGE_BYTES_MAX, Receiver, Worker, without_masks},
    random::{Random, Streams},
};

/// Number of streams.
const STREAMS: u64 = 4000;

/// The result of plain `tungstenite` for a stream.
#[derive(Debug, Default)]
struct Reference {
    messages: Vec<(bool, Vec<u8>)>,
    /// Whether the peer ended the stream, and the code.
    end: Option<(bool, u16)>,
    /// Pongs and the answer to a Close, without masks. tungstenite sends no Close after a failure.
    out: Vec<u8>,
}

/// An in-memory stream.
struct Wire<'a> {
    input: Cursor<&'a [u8]>,
    out: &'a mut Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reference {
    fn of(stream: &[u8], role: Role) -> Reference {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let mut context = WebSocketContext::new(role, Some(config));
        let Reference { mut messages, mut out, .. } = Reference::default();
        let mut wire = Wire { input: Cursor::new(stream), out: &mut out };
        let end = loop {
            match context.read(&mut wire) {
                Ok(Message::Close(frame)) => {
                    // Its answer is written by reading on.
                    let after = context.read(&mut wire);
                    let is_server = role == Role::Server;
                    assert!(
                        !is_server || matches!(after, Err(Error::ConnectionClosed)),
                        "{after:?}"
                    );
                    break Some((true, frame.map_or(1005, |frame| frame.code.into())));
                }
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    messages.push((message.is_text(), message.into_data().to_vec()));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(_)) => break None,
                Err(Error::Utf8(_)) => break Some((false, 1007)),
                Err(Error::Capacity(_)) => break Some((false, 1009)),
                Err(Error::Protocol(_)) => break Some((false, 1002)),
                Err(other) => panic!("{other:?}"),
            }
        };
        Reference { messages, end, out: without_masks(&out, role) }
    }
}

/// Returns the stream with the payload of its last frame completed.
fn completed(stream: &[u8]) -> Vec<u8> {
    let (mut rest, mut missing) = (stream, 0);
    while !rest.is_empty() && missing == 0 {
        let mut cursor = Cursor::new(rest);
        let Ok(Some((_, len))) = FrameHeader::parse(&mut cursor) else { break };
        let payload = &rest[cursor.position() as usize..];
        let len = len as usize;
        missing = len.saturating_sub(payload.len());
        rest = &payload[len.min(payload.len())..];
    }
    let mut whole = stream.to_vec();
    whole.resize(stream.len() + missing.min(MESSAGE_BYTES_MAX), b' ');
    whole
}

/// Runs our endpoint, fed in chunks of at most `chunk_max` bytes.
fn ours(stream: &[u8], chunk_max: usize, random: &mut Random, worker: &mut Worker) -> Receiver {
    let mut receiver = Receiver::new(None);
    let mut rest = stream;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at((1 + random.below(chunk_max)).min(rest.len()));
        receiver.feed(chunk, worker);
        rest = after;
    }
    receiver
}

/// Panics unless both results are equal.
fn compare(stream: &[u8], ours: &Receiver, role: Role) {
    let theirs = Reference::of(stream, role);
    let ours = &ours.outcome;
    assert_eq!(ours.messages, theirs.messages);
    let end = ours.end.as_ref().map(|(by_peer, reason)| (*by_peer, reason.code()));
    if end != theirs.end {
        // Our endpoint fails before the end of an invalid frame; tungstenite must fail at its end.
        assert!(matches!(end, Some((false, _))) && theirs.end.is_none(), "{end:?}, {theirs:?}");
        let later = Reference::of(&completed(stream), role);
        assert_eq!((&ours.messages, end), (&later.messages, later.end));
    }
    // Our endpoint adds only its own Close after a failure.
    assert!(ours.out.starts_with(&theirs.out));
    let added = &ours.out[theirs.out.len()..];
    assert_eq!(added.first().copied(), matches!(end, Some((false, _))).then_some(0x88));
}

#[test]
fn any_stream_is_the_same_to_us_and_to_tungstenite() {
    for role in [Role::Server, Role::Client] {
        compare_streams(role);
    }
}

fn compare_streams(role: Role) {
    let seed = Random::seed();
    // One worker for all: what one connection leaves behind would show in the next.
    let mut worker = Worker::new(role);
    let streams = Streams { compresses: false, role, message_bytes: MESSAGE_BYTES_MAX };
    let mut ends = [0; 5];
    for case in 0..STREAMS {
        let seed = seed.wrapping_add(case);
        let mut random = Random::new(seed);
        let stream = streams.stream(&mut random);
        let chunk_max = *random.one_of(&[1, 2, 7, 60, 600, 10_000]);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ours = ours(&stream, chunk_max, &mut random, &mut worker);
            compare(&stream, &ours, role);
            ours.outcome.end.map(|(by_peer, reason)| (by_peer, reason.code()))
        }));
        let Ok(end) = told else {
            panic!("TEST_SEED={seed}: {role:?}, chunks of at most {chunk_max} of {stream:02x?}");
        };
        ends[match end {
            None => 0,
            Some((true, _)) => 1,
            Some((false, 1002)) => 2,
            Some((false, 1007)) => 3,
            Some((false, _)) => 4,
        }] += 1;
    }
    println!("{role:?}: open, closed, 1002, 1007, 1009: {ends:?}");
    assert!(ends.iter().all(|count| *count > STREAMS / 100), "every end is reached: {ends:?}");
}

/// What the random streams have found, and what is near it.
#[test]
fn a_frame_that_is_wrong_behind_a_message_fails_its_own_connection_alone() {
    let mut worker = Worker::new(Role::Server);
    let message = [0x82, 0x80, 1, 2, 3, 4];
    // A continuation of nothing, open and last; an open ping; reserved bits; unmasked; bad text
    // unmasked.
    let wrong: [&[u8]; 6] = [
        &[0x00, 0x80, 0, 0, 0, 0],
        &[0x80, 0x80, 0, 0, 0, 0],
        &[0x09, 0x80, 0, 0, 0, 0],
        &[0x92, 0x80, 0, 0, 0, 0],
        &[0x82, 0x00],
        &[0x81, 0x02, 0xff, 0xff],
    ];
    for wrong in wrong {
        let stream = [&message[..], wrong, &message].concat();
        for size in [1, 3, stream.len()] {
            let mut receiver = Receiver::new(None);
            stream.chunks(size).for_each(|chunk| receiver.feed(chunk, &mut worker));
            compare(&stream, &receiver, Role::Server);
            let code = receiver.outcome.end.map(|(_, reason)| reason.code());
            assert_eq!(code, Some(1002), "{wrong:02x?} in steps of {size}");
            let mut neighbour = Receiver::new(None);
            neighbour.feed(&message, &mut worker);
            assert_eq!(neighbour.outcome.messages.len(), 1, "behind {wrong:02x?}");
            assert_eq!(neighbour.outcome.end, None, "behind {wrong:02x?} in steps of {size}");
        }
    }
}
