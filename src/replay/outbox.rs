//! What waits for one client, queued and written to a socket.

use std::io::{self, IoSlice, Write};

use super::{AFTER_SEQ, Path, Round};
use crate::{
    pool::outbox::{Flushed, Outbox, Spare},
    ws::frame::{Kind, Message, PreparedFrame, encode_frame, message_header},
};

pub(super) const OWN: Path = Path {
    name: "outbox.own",
    unit: "answer",
    units: MESSAGES,
    open: || Queue::open(1, 0, usize::MAX),
};

pub(super) const SHARED: Path = Path {
    name: "outbox.shared",
    unit: "shared frame",
    units: MESSAGES,
    open: || Queue::open(0, 1, usize::MAX),
};

/// Both by turns, to a client that takes less than is there.
pub(super) const PARTIAL: Path = Path {
    name: "outbox.partial",
    unit: "message in parts",
    units: MESSAGES,
    open: || Queue::open(1, 1, 333),
};

const MESSAGES: u64 = 32;

/// Takes `room` bytes, and then none until it is asked again.
struct Sink {
    taken: u64,
    step: usize,
    room: usize,
}

impl Sink {
    fn take(&mut self, bytes: usize) -> io::Result<usize> {
        let taken = bytes.min(self.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.taken += taken as u64;
        Ok(taken)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Own and shared messages by turns, so many of each.
struct Queue {
    own: u64,
    shared: u64,
    frame: PreparedFrame,
    outbox: Outbox,
    spare: Spare,
    sink: Sink,
}

impl Queue {
    fn open(own: u64, shared: u64, step: usize) -> Box<dyn Round> {
        let frame = PreparedFrame::new(Message::Text(AFTER_SEQ));
        let sink = Sink { taken: 0, step, room: 0 };
        let (outbox, spare) = (Outbox::default(), Spare::default());
        Box::new(Queue { own, shared, frame, outbox, spare, sink })
    }
}

impl Round for Queue {
    fn play(&mut self) {
        let Queue { own, shared, frame, outbox, spare, sink } = self;
        for _ in 0..MESSAGES / (*own + *shared) {
            for _ in 0..*own {
                outbox.push_own(1, spare, |out| {
                    encode_frame(out, &message_header(Kind::Text, false), AFTER_SEQ.as_bytes());
                });
            }
            for _ in 0..*shared {
                outbox.push_shared(frame.bytes(), spare);
            }
        }
        loop {
            sink.room = sink.step;
            match outbox.flush(sink, spare) {
                Ok((Flushed::Blocked, _)) => {}
                Ok((Flushed::Empty, _)) | Err(_) => return,
            }
        }
    }

    fn done(&mut self) -> u64 {
        assert!(self.outbox.is_empty(), "something is left");
        std::mem::take(&mut self.sink.taken) / self.frame.len() as u64
    }
}
