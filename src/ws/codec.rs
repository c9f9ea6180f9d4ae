//! One connection's protocol machine: `tungstenite`'s `WebSocketContext`, fed from memory.
//!
//! A context between two messages holds nothing that belongs to its connection, so a connection at
//! rest has none: it borrows one from the worker's [`ContextPool`] when bytes come, and gives it back
//! when the last of them made a whole message. An idle connection thus costs no read buffer at all,
//! and the buffers in use stay few and warm.
//!
//! Most messages are one frame that is all here when it is looked at, and need no context: their mask is
//! removed where they stand. Everything else (fragments, control frames, parts of frames, whatever is wrong) is
//! the context's.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use tungstenite::{
    Error, Message as WireMessage,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::{
    close::CloseReason,
    deflate::{Deflate, Deflaters, Inbound},
    frame::{Kind, Message},
    scanner::Scanner,
    walker,
};

/// How much a context copies from the worker's buffer at a time, in bytes.
const READ_BUFFER_BYTES: usize = 1024;

/// A context that has seen a message above this is not kept, so that one large message does not leave
/// a large buffer in the pool for good.
const POOLED_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Contexts that wait for their next use, at most. Beyond it they are dropped and made anew.
const POOLED_CONTEXTS_MAX: usize = 64;

/// A worker's spare protocol machines. Used by one thread.
pub(crate) struct ContextPool {
    config: WebSocketConfig,
    message_bytes_max: usize,
    pub(crate) deflaters: Deflaters,
    // Boxed, because a machine is large and only changes hands.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Machine>>,
}

/// A context, and what looks ahead of it in the same stream.
struct Machine {
    context: WebSocketContext,
    scanner: Scanner,
    /// Takes the scanner's place where messages come compressed, and its output.
    inbound: Inbound,
    inflated: Inflated,
    /// How much of the input the scanner has seen and the context has not.
    ahead: usize,
    /// Messages and control frames that the context has given out.
    given: u64,
    largest_message: usize,
    /// A Close of ours is on its way, so this machine serves no other connection.
    spent: bool,
}

impl ContextPool {
    /// A pool whose contexts take messages and frames of at most `message_bytes_max` bytes.
    pub(crate) fn new(message_bytes_max: usize, deflaters: Deflaters) -> ContextPool {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // Replies go straight to the outbox, which gathers them.
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        ContextPool { config, message_bytes_max, deflaters, spare: Vec::new() }
    }

    fn take(&mut self) -> Box<Machine> {
        self.spare.pop().unwrap_or_else(|| {
            Box::new(Machine {
                context: WebSocketContext::new(Role::Server, Some(self.config)),
                scanner: Scanner::new(self.message_bytes_max),
                inbound: Inbound::default(),
                inflated: Inflated::default(),
                ahead: 0,
                given: 0,
                largest_message: 0,
                spent: false,
            })
        })
    }

    fn put(&mut self, machine: Box<Machine>) {
        let is_small = machine.largest_message <= POOLED_MESSAGE_BYTES_MAX;
        if is_small && self.spare.len() < POOLED_CONTEXTS_MAX {
            self.spare.push(machine);
        }
    }
}

/// What the bytes amounted to.
pub(crate) enum Event<'i> {
    /// A whole data message, its UTF-8 checked.
    Message(Received<'i>),
    /// A ping, whose pong was written, or a pong.
    Control,
    /// The peer's Close. The reply, if one is due, was written.
    Closed(CloseReason),
    /// The peer broke the protocol, with the code to tell it. The Close was written.
    Failed(CloseReason),
    /// Everything given was used up; nothing happens before more bytes come.
    NeedMore,
}

/// A message that came.
pub(crate) enum Received<'i> {
    /// It lies where it was read.
    InPlace(Message<'i>),
    /// The context has put it together.
    Gathered(WireMessage),
}

impl Received<'_> {
    pub(crate) fn message(&self) -> Message<'_> {
        match self {
            Received::InPlace(message) => *message,
            Received::Gathered(WireMessage::Text(text)) => Message::Text(text.as_str()),
            Received::Gathered(WireMessage::Binary(bytes)) => Message::Binary(bytes),
            // The machine gives out text and binary messages only.
            Received::Gathered(_) => Message::Binary(&[]),
        }
    }
}

/// A connection's side of the protocol.
#[derive(Default)]
pub(crate) struct Codec {
    machine: Option<Box<Machine>>,
}

impl Codec {
    /// Advances by at most one message or control frame. What must be answered at once (pong, Close) is appended to
    /// `out`. Consumed bytes are taken off the front of `input`; what is left of it must come first the
    /// next time.
    // In line for the messages that need no machine: handing them out through a call costs as much as finding them.
    #[inline(always)]
    pub(crate) fn next<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        out: &mut Vec<u8>,
        deflate: Option<&mut Deflate>,
        pool: &mut ContextPool,
    ) -> Event<'i> {
        if self.machine.is_none() {
            if input.is_empty() {
                return Event::NeedMore;
            }
            if deflate.is_none()
                && let Some(whole) = walker::whole_message(input, pool.message_bytes_max)
            {
                return self.take_whole(whole, input, out, pool);
            }
        }
        self.step(input, out, deflate, pool)
    }

    /// Advances with a protocol machine.
    #[inline(never)]
    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        out: &mut Vec<u8>,
        deflate: Option<&mut Deflate>,
        pool: &mut ContextPool,
    ) -> Event<'i> {
        let machine = self.machine.get_or_insert_with(|| pool.take());
        let mut rest = &**input;
        let event = match deflate {
            None => machine.next(&mut rest, out),
            Some(deflate) => machine.next_inflated(&mut rest, out, deflate, pool),
        };
        let used = input.len() - rest.len();
        *input = &mut std::mem::take(input)[used..];
        if matches!(event, Event::NeedMore)
            && machine.is_at_rest()
            && let Some(machine) = self.machine.take()
        {
            pool.put(machine);
        }
        event
    }

    /// Takes a message off the front of `input` that is all there.
    #[inline(always)]
    fn take_whole<'i>(
        &mut self,
        (kind, payload, mask): (Kind, Range<usize>, [u8; 4]),
        input: &mut &'i mut [u8],
        out: &mut Vec<u8>,
        pool: &mut ContextPool,
    ) -> Event<'i> {
        let (frame, rest) = std::mem::take(input).split_at_mut(payload.end);
        *input = rest;
        let payload = &mut frame[payload.start..];
        walker::unmask(payload, mask, 0);
        let message = match kind {
            Kind::Binary => Message::Binary(payload),
            Kind::Text => match std::str::from_utf8(payload) {
                Ok(text) => Message::Text(text),
                Err(_) => {
                    let machine = self.machine.get_or_insert_with(|| pool.take());
                    return machine.fail(CloseReason::INVALID_UTF8, out);
                }
            },
        };
        Event::Message(Received::InPlace(message))
    }

    /// Starts the closing handshake: appends a Close to `out`. Later calls append nothing.
    pub(crate) fn close(
        &mut self,
        reason: &CloseReason,
        out: &mut Vec<u8>,
        pool: &mut ContextPool,
    ) {
        self.machine.get_or_insert_with(|| pool.take()).close(reason, out);
    }

    /// Whether a message has begun and is not whole yet.
    #[cfg(test)]
    fn is_resting(&self) -> bool {
        self.machine.is_none()
    }
}

impl Machine {
    fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Event<'static> {
        if let Some(unseen) = input.get(self.ahead..) {
            self.scanner.skim(unseen);
        }
        if input.is_empty() && self.given == self.scanner.whole() && self.is_at_rest() {
            // Asking the context would make it clear a buffer to find nothing.
            return Event::NeedMore;
        }
        let event = self.advance(&mut Wire { input, out });
        self.ahead = input.len();
        match event {
            Event::NeedMore if self.scanner.is_bad_text() => {
                self.fail(CloseReason::INVALID_UTF8, out)
            }
            event => event,
        }
    }

    /// The same where messages come compressed: a frame at a time is inflated and given to the context,
    /// so no more than one message is held inflated.
    fn next_inflated(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        deflate: &mut Deflate,
        pool: &mut ContextPool,
    ) -> Event<'static> {
        let (deflaters, bytes_max) = (&mut pool.deflaters, pool.message_bytes_max);
        loop {
            let mut inflated = std::mem::take(&mut self.inflated);
            let mut rest = &inflated.bytes[inflated.read..];
            let event = self.advance(&mut Wire { input: &mut rest, out });
            inflated.read = inflated.bytes.len() - rest.len();
            inflated.forget_read();
            self.inflated = inflated;
            if !matches!(event, Event::NeedMore) {
                return event;
            }
            let plain = &mut self.inflated.bytes;
            match self.inbound.step(input, plain, deflate, deflaters, bytes_max) {
                Ok(true) => {}
                Ok(false) => return Event::NeedMore,
                Err(reason) => return self.fail(reason, out),
            }
        }
    }

    fn advance(&mut self, wire: &mut Wire<'_, '_>) -> Event<'static> {
        match self.context.read(wire) {
            Ok(WireMessage::Close(frame)) => {
                let reason = CloseReason::from_peer(frame);
                // Reading once more is how the context sends the Close it owes.
                let _ = self.context.read(wire);
                Event::Closed(reason)
            }
            Ok(message @ (WireMessage::Text(_) | WireMessage::Binary(_))) => {
                self.given += 1;
                self.largest_message = self.largest_message.max(message.len());
                Event::Message(Received::Gathered(message))
            }
            Ok(WireMessage::Ping(_) | WireMessage::Pong(_) | WireMessage::Frame(_)) => {
                self.given += 1;
                // Writing to memory cannot fail, and a pong that is owed goes out now.
                let _ = self.context.flush(wire);
                Event::Control
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Event::NeedMore,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Event::Closed(CloseReason::NO_STATUS)
            }
            Err(error) => self.fail(failure(&error), wire.out),
        }
    }

    /// The context answers nothing to what it refuses; the code is ours to send.
    fn fail(&mut self, reason: CloseReason, out: &mut Vec<u8>) -> Event<'static> {
        self.close(&reason, out);
        Event::Failed(reason)
    }

    fn close(&mut self, reason: &CloseReason, out: &mut Vec<u8>) {
        self.spent = true;
        let _ = self.context.close(&mut Wire { input: &mut &[][..], out }, reason.frame());
    }

    /// Whether nothing of this connection is left inside.
    fn is_at_rest(&self) -> bool {
        let is_used_up = self.ahead == 0 && self.inflated.bytes.is_empty();
        is_used_up && !self.spent && self.scanner.is_at_rest() && self.inbound.is_at_rest()
    }
}

/// Plain frames on their way from the inflater to the context.
#[derive(Default)]
struct Inflated {
    bytes: Vec<u8>,
    read: usize,
}

impl Inflated {
    /// Lets go of what was read, and of the memory of a large message.
    fn forget_read(&mut self) {
        if self.read == self.bytes.len() {
            self.read = 0;
            self.bytes.clear();
            if self.bytes.capacity() > POOLED_MESSAGE_BYTES_MAX {
                self.bytes = Vec::new();
            }
        }
    }
}

/// The close code for what `tungstenite` refused.
fn failure(error: &Error) -> CloseReason {
    match error {
        Error::Utf8(_) => CloseReason::INVALID_UTF8,
        Error::Capacity(_) => CloseReason::TOO_BIG,
        other => CloseReason::PROTOCOL.because(other.to_string()),
    }
}

/// A stream that is all memory: it never blocks on writing, so a frame is never queued twice.
struct Wire<'a, 'i> {
    input: &'a mut &'i [u8],
    out: &'a mut Vec<u8>,
}

impl Read for Wire<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(into)
    }
}

impl Write for Wire<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame, masked with zeros so that the payload can be read in the test.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 126, "test frames are short");
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    struct Harness {
        codec: Codec,
        pool: ContextPool,
        out: Vec<u8>,
        texts: Vec<String>,
        ended: Option<CloseReason>,
    }

    impl Harness {
        fn new() -> Harness {
            Harness {
                codec: Codec::default(),
                pool: ContextPool::new(1000, Deflaters::new(6)),
                out: Vec::new(),
                texts: Vec::new(),
                ended: None,
            }
        }

        fn feed(&mut self, bytes: &[u8]) {
            let mut bytes = bytes.to_vec();
            let mut rest = &mut bytes[..];
            loop {
                match self.codec.next(&mut rest, &mut self.out, None, &mut self.pool) {
                    Event::Message(received) => {
                        self.texts.push(received.message().as_text().expect("text").to_owned());
                    }
                    Event::Closed(reason) | Event::Failed(reason) => {
                        self.ended = Some(reason);
                        return;
                    }
                    Event::Control => {}
                    Event::NeedMore => return,
                }
            }
        }
    }

    #[test]
    fn whole_and_byte_by_byte_give_the_same() {
        let mut stream = Vec::new();
        stream.extend(client_frame(0x81, b"one"));
        stream.extend(client_frame(0x89, b"ping"));
        stream.extend(client_frame(0x01, b"frag"));
        stream.extend(client_frame(0x80, b"ment"));
        stream.extend(client_frame(0x81, b""));
        stream.extend(client_frame(0x88, &[0x03, 0xe8]));
        let mut whole = Harness::new();
        whole.feed(&stream);
        let mut bytewise = Harness::new();
        for byte in &stream {
            bytewise.feed(&[*byte]);
        }
        for harness in [whole, bytewise] {
            assert_eq!(harness.texts, ["one", "fragment", ""]);
            assert_eq!(harness.out, [b"\x8a\x04ping".as_slice(), b"\x88\x02\x03\xe8"].concat());
            assert_eq!(harness.ended, Some(CloseReason::NORMAL));
        }
    }

    #[test]
    fn a_connection_at_rest_holds_no_context() {
        let mut harness = Harness::new();
        harness.feed(&client_frame(0x81, b"hello"));
        assert!(harness.codec.is_resting());
        assert_eq!(harness.pool.spare.len(), 0, "what is whole needs none");
        let frame = client_frame(0x81, b"hello");
        harness.feed(&frame[..3]);
        assert!(!harness.codec.is_resting(), "half a header belongs to this connection");
        harness.feed(&frame[3..]);
        assert!(harness.codec.is_resting());
        assert_eq!(harness.pool.spare.len(), 1);
        harness.feed(&client_frame(0x01, b"open"));
        assert!(!harness.codec.is_resting(), "an open fragment belongs to this connection");
        harness.feed(&client_frame(0x80, b"end"));
        assert_eq!(harness.texts, ["hello", "hello", "openend"]);
    }

    #[test]
    fn a_fragmented_message_leaves_nothing_behind() {
        let mut harness = Harness::new();
        harness.feed(&client_frame(0x01, b"one"));
        harness.feed(&client_frame(0x80, b"two"));
        assert!(harness.codec.is_resting());
    }

    #[test]
    fn text_fails_before_its_frame_is_whole() {
        let mut harness = Harness::new();
        let frame = client_frame(0x81, b"\xf4\x90\x80\x80 and much more");
        harness.feed(&frame[..10]);
        assert_eq!(harness.ended.map(|reason| reason.code()), Some(1007));
    }

    #[test]
    fn failures_send_their_code() {
        for (bytes, code) in [
            (client_frame(0x83, b""), 1002),
            (client_frame(0xc1, b""), 1002),
            (client_frame(0x81, &[0xff]), 1007),
            (vec![0x81, 0xfe, 0x10, 0, 0, 0, 0, 0], 1009),
            (vec![0x81, 0x01, b'a'], 1002),
        ] {
            let mut harness = Harness::new();
            harness.feed(&bytes);
            assert_eq!(harness.ended.map(|reason| reason.code()), Some(code), "{bytes:?}");
            assert_eq!(harness.out[0], 0x88, "a Close was sent");
            assert_eq!(u16::from_be_bytes([harness.out[2], harness.out[3]]), code);
        }
    }

    #[test]
    fn our_close_is_sent_once_and_answered() {
        let mut harness = Harness::new();
        let Harness { codec, pool, out, .. } = &mut harness;
        codec.close(&CloseReason::SLOW_CONSUMER, out, pool);
        codec.close(&CloseReason::SLOW_CONSUMER, out, pool);
        assert_eq!(harness.out.iter().filter(|byte| **byte == 0x88).count(), 1);
        harness.feed(&client_frame(0x81, b"late"));
        harness.feed(&client_frame(0x88, &[0x10, 0x06]));
        assert_eq!(harness.ended.map(|reason| reason.code()), Some(4102));
    }
}
