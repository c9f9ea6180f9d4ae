//! What waits to be written to one socket: shared frames by reference, own replies gathered in one
//! buffer.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

use bytes::{Buf, Bytes};

use crate::{hub::send_status::SendStatus, ws::frame::first_frame_len};

/// Slices given to one `writev`.
const SLICES_MAX: usize = 64;

/// What is gathered in one buffer, to be written without a vector: with messages of eight rooms in
/// each write, a delivery by vector was measured to cost a tenth more.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// A buffer for own replies is not grown past this; the next reply begins another.
const OWN_CHUNK_BYTES_MAX: usize = 64 << 10;

/// Spare buffers a worker keeps, of each kind.
const SPARE_MAX: usize = 64;

/// How much may wait for one client. A frame that finds more waiting than this is not queued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxBounds {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// The queue in front of one socket. Owned by its connection.
///
/// An empty outbox has no allocation of its own: it borrows from its worker's [`Spare`] when the
/// first byte comes and gives back when the last has left.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    messages: usize,
}

#[derive(Debug)]
enum Chunk {
    /// One frame that others are sent as well.
    Shared(Bytes),
    /// Several whole frames in a row that others are sent as well: those of so many messages, from
    /// the first that is not all written, and how much of that one is.
    Run { frames: Bytes, written: u32, messages: u32 },
    /// This connection's own bytes, how many of them are written, and how many messages they carry.
    Own { bytes: Vec<u8>, written: usize, messages: usize },
}

/// A worker's spare buffers. Used by one thread.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    queues: Vec<VecDeque<Chunk>>,
    buffers: Vec<Vec<u8>>,
    /// Several chunks in one piece, of use within a write alone.
    gathered: Vec<u8>,
}

/// What a flush left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is with the kernel.
    Empty,
    /// The kernel takes no more now.
    Blocked,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that it takes, without the frames that others are sent as well. Looks at every chunk:
    /// meant for a client that lets some wait, so that nothing is counted for the others.
    pub(crate) fn held_bytes(&self) -> usize {
        let own: usize = self.chunks.iter().map(Chunk::own_bytes).sum();
        own + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Whether the client is behind: more than half of either bound waits.
    pub(crate) fn status(&self, bounds: &OutboxBounds) -> SendStatus {
        if self.messages > bounds.messages_max / 2 || self.bytes > bounds.bytes_max / 2 {
            SendStatus::Behind
        } else {
            SendStatus::Sent
        }
    }

    /// Whether one more message of `bytes` fits. An empty outbox takes any message.
    pub(crate) fn fits(&self, bytes: usize, bounds: &OutboxBounds) -> bool {
        self.is_empty()
            || (self.messages < bounds.messages_max && self.bytes + bytes <= bounds.bytes_max)
    }

    /// Whether so many more messages fit, of `bytes` together. None of them is taken for being the
    /// first.
    pub(crate) fn fits_run(&self, messages: usize, bytes: usize, bounds: &OutboxBounds) -> bool {
        self.messages + messages <= bounds.messages_max && self.bytes + bytes <= bounds.bytes_max
    }

    /// Whether less than a quarter of the bounds is in use.
    pub(crate) fn is_low(&self, bounds: &OutboxBounds) -> bool {
        self.messages <= bounds.messages_max / 4 && self.bytes <= bounds.bytes_max / 4
    }

    /// Whether more than a quarter of either bound is in use, so that whoever fills the outbox
    /// should send slower.
    pub(crate) fn is_filling(&self, bounds: &OutboxBounds) -> bool {
        self.messages > bounds.messages_max / 4 || self.bytes > bounds.bytes_max / 4
    }

    /// Whether at most an eighth of the bounds is in use, so that there is nothing to wait for.
    pub(crate) fn is_nearly_empty(&self, bounds: &OutboxBounds) -> bool {
        self.messages <= bounds.messages_max / 8 && self.bytes <= bounds.bytes_max / 8
    }

    /// Queues one frame that others are sent as well.
    pub(crate) fn push_shared(&mut self, frame: &Bytes, spare: &mut Spare) {
        self.begin(spare);
        self.bytes += frame.len();
        self.messages += 1;
        self.chunks.push_back(Chunk::Shared(frame.clone()));
    }

    /// Queues the frames of several messages in one piece, which others are sent as well.
    pub(crate) fn push_run(&mut self, frames: &Bytes, messages: usize, spare: &mut Spare) {
        self.begin(spare);
        self.bytes += frames.len();
        self.messages += messages;
        let (frames, messages) = (frames.clone(), messages as u32);
        self.chunks.push_back(Chunk::Run { frames, written: 0, messages });
    }

    /// Queues what `write` appends, counted as `messages` (0 for control frames and HTTP).
    pub(crate) fn push_own(
        &mut self,
        messages: usize,
        spare: &mut Spare,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.begin(spare);
        let has_room = |bytes: &Vec<u8>| bytes.len() < OWN_CHUNK_BYTES_MAX;
        if !matches!(self.chunks.back(), Some(Chunk::Own { bytes, .. }) if has_room(bytes)) {
            let bytes = spare.buffers.pop().unwrap_or_default();
            self.chunks.push_back(Chunk::Own { bytes, written: 0, messages: 0 });
        }
        if let Some(Chunk::Own { bytes, messages: carried, .. }) = self.chunks.back_mut() {
            let before = bytes.len();
            write(bytes);
            *carried += messages;
            self.messages += messages;
            self.bytes += bytes.len() - before;
        }
    }

    fn begin(&mut self, spare: &mut Spare) {
        if self.chunks.capacity() == 0
            && let Some(queue) = spare.queues.pop()
        {
            // There is nothing to free, which the compiler does not know.
            std::mem::forget(std::mem::replace(&mut self.chunks, queue));
        }
    }

    /// Writes as much as the kernel takes, in as few calls as possible. `gathers` says whether
    /// several chunks of a few bytes are to be copied into one piece first. Returns what is left
    /// and how many bytes went.
    pub(crate) fn flush(
        &mut self,
        socket: &mut impl Write,
        gathers: bool,
        spare: &mut Spare,
    ) -> io::Result<(Flushed, usize)> {
        let mut sent = 0;
        while self.bytes > 0 {
            match self.write_once(socket, gathers, spare) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    sent += n;
                    self.consume(n, spare);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((Flushed::Blocked, sent));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.end(spare);
        match socket.flush() {
            Ok(()) => Ok((Flushed::Empty, sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Flushed::Blocked, sent)),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn write_once(
        &self,
        socket: &mut impl Write,
        gathers: bool,
        spare: &mut Spare,
    ) -> io::Result<usize> {
        match self.chunks.front() {
            Some(only) if self.chunks.len() == 1 => socket.write(only.rest()),
            _ => self.write_several(socket, gathers, &mut spare.gathered),
        }
    }

    // Out of the way of most writes, which have one chunk.
    #[inline(never)]
    fn write_several(
        &self,
        socket: &mut impl Write,
        gathers: bool,
        gathered: &mut Vec<u8>,
    ) -> io::Result<usize> {
        if gathers && self.bytes <= GATHERED_BYTES_MAX {
            gathered.clear();
            for chunk in &self.chunks {
                gathered.extend_from_slice(chunk.rest());
            }
            return socket.write(gathered);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.rest());
            used += 1;
        }
        socket.write_vectored(&slices[..used])
    }

    /// Takes `n` written bytes off the front.
    #[inline]
    fn consume(&mut self, n: usize, spare: &mut Spare) {
        self.bytes -= n;
        // As after most writes.
        if self.bytes == 0 {
            self.messages = 0;
            while let Some(chunk) = self.chunks.pop_front() {
                spare.keep(chunk);
            }
        } else {
            self.consume_part(n, spare);
        }
    }

    #[inline(never)]
    fn consume_part(&mut self, mut n: usize, spare: &mut Spare) {
        while let Some(chunk) = self.chunks.front_mut() {
            let rest = chunk.rest().len();
            if n < rest {
                self.messages -= chunk.advance(n);
                return;
            }
            n -= rest;
            if let Some(chunk) = self.chunks.pop_front() {
                self.messages -= chunk.messages();
                spare.keep(chunk);
            }
        }
    }

    fn end(&mut self, spare: &mut Spare) {
        let queue = std::mem::take(&mut self.chunks);
        if queue.capacity() > 0 && queue.capacity() <= SLICES_MAX && spare.queues.len() < SPARE_MAX
        {
            spare.queues.push(queue);
        }
    }

    /// Takes out everything that waits, in one piece.
    pub(crate) fn take_bytes(&mut self, spare: &mut Spare) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.bytes);
        for chunk in self.chunks.drain(..) {
            all.extend_from_slice(chunk.rest());
            spare.keep(chunk);
        }
        (self.bytes, self.messages) = (0, 0);
        all
    }

    /// Throws away all but the first chunk, which may have begun: the peer could make nothing of a
    /// frame that ends in the middle. Returns how many messages that were.
    pub(crate) fn discard_unsent(&mut self, spare: &mut Spare) -> usize {
        let before = self.messages;
        let mut begun = self.chunks.pop_front();
        begun.iter_mut().for_each(Chunk::keep_begun);
        for chunk in self.chunks.drain(..) {
            spare.keep(chunk);
        }
        (self.bytes, self.messages) = (0, 0);
        if let Some(begun) = begun {
            // Where a frame ends inside an own chunk is not known, so the first chunk is kept
            // whole.
            self.bytes = begun.rest().len();
            self.messages = begun.messages();
            self.chunks.push_back(begun);
        }
        before - self.messages
    }
}

impl Chunk {
    fn rest(&self) -> &[u8] {
        match self {
            Chunk::Shared(bytes) => bytes,
            Chunk::Run { frames, written, .. } => &frames[*written as usize..],
            Chunk::Own { bytes, written, .. } => &bytes[*written..],
        }
    }

    /// Takes `n` written bytes off the front, which are not all. Returns how many messages of a run
    /// that ends.
    fn advance(&mut self, n: usize) -> usize {
        match self {
            Chunk::Shared(bytes) => bytes.advance(n),
            Chunk::Own { written, .. } => *written += n,
            Chunk::Run { frames, written, messages } => {
                let (before, mut gone) = (*messages, *written as usize + n);
                loop {
                    let first = first_frame_len(frames);
                    if gone < first {
                        break;
                    }
                    frames.advance(first);
                    gone -= first;
                    *messages -= 1;
                }
                *written = gone as u32;
                return (before - *messages) as usize;
            }
        }
        0
    }

    /// Throws away what of it need not be written once it has begun.
    fn keep_begun(&mut self) {
        if let Chunk::Run { frames, messages, .. } = self {
            frames.truncate(first_frame_len(frames));
            *messages = 1;
        }
    }

    fn messages(&self) -> usize {
        match self {
            Chunk::Shared(_) => 1,
            Chunk::Run { messages, .. } => *messages as usize,
            Chunk::Own { messages, .. } => *messages,
        }
    }

    /// What its buffer takes, if no other connection has it.
    fn own_bytes(&self) -> usize {
        match self {
            Chunk::Shared(_) | Chunk::Run { .. } => 0,
            Chunk::Own { bytes, .. } => bytes.capacity(),
        }
    }
}

impl Spare {
    fn keep(&mut self, chunk: Chunk) {
        if let Chunk::Own { mut bytes, .. } = chunk
            && self.buffers.len() < SPARE_MAX
            && bytes.capacity() <= 2 * OWN_CHUNK_BYTES_MAX
        {
            bytes.clear();
            self.buffers.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ws::frame::{Message, PreparedFrame, join_frames};

    /// Takes at most `room` bytes, `step` at a time, then blocks.
    struct Socket {
        got: Vec<u8>,
        room: usize,
        step: usize,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.step).min(self.room);
            if n == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.got.extend_from_slice(&bytes[..n]);
            self.room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const BOUNDS: OutboxBounds = OutboxBounds { messages_max: 4, bytes_max: 100 };

    #[test]
    fn short_writes_keep_order_and_counts() {
        for step in [1, 3, 1000] {
            let mut spare = Spare::default();
            let mut outbox = Outbox::default();
            let frame = PreparedFrame::new(Message::Text("shared"));
            outbox.push_own(1, &mut spare, |out| out.extend_from_slice(b"own1"));
            outbox.push_own(0, &mut spare, |out| out.extend_from_slice(b"own2"));
            outbox.push_shared(frame.bytes(), &mut spare);
            outbox.push_own(1, &mut spare, |out| out.extend_from_slice(b"own3"));
            let mut socket = Socket { got: Vec::new(), room: 10, step };
            let left = outbox.flush(&mut socket, true, &mut spare).expect("no error");
            assert_eq!(left, (Flushed::Blocked, 10));
            assert_eq!((outbox.bytes, outbox.messages), (10, 2));
            socket.room = 1000;
            let left = outbox.flush(&mut socket, true, &mut spare).expect("no error");
            assert_eq!(left, (Flushed::Empty, 10));
            assert_eq!((outbox.is_empty(), outbox.messages), (true, 0));
            assert_eq!(outbox.held_bytes(), 0);
            assert_eq!(socket.got, b"own1own2\x81\x06sharedown3");
            assert_eq!(outbox.chunks.capacity(), 0, "an empty outbox holds nothing");
        }
    }

    #[test]
    fn bounds_are_told_before_they_are_passed() {
        let mut spare = Spare::default();
        let mut outbox = Outbox::default();
        assert!(outbox.fits(1000, &BOUNDS), "an empty outbox takes any message");
        for _ in 0..4 {
            assert!(outbox.fits(8, &BOUNDS));
            outbox.push_shared(PreparedFrame::new(Message::Text("shared")).bytes(), &mut spare);
        }
        assert!(!outbox.fits(8, &BOUNDS));
        assert_eq!(outbox.status(&BOUNDS), SendStatus::Behind);
        assert!(!outbox.is_low(&BOUNDS));
    }

    #[test]
    fn a_run_is_counted_message_by_message_and_cut_behind_the_one_that_has_begun() {
        let frames =
            ["first", "second", "third"].map(|text| PreparedFrame::new(Message::Text(text)));
        let run = join_frames(frames.iter().map(PreparedFrame::bytes), &Arc::default());
        for room in 0..run.len() {
            for step in [1, 4, 1000] {
                let (mut spare, mut outbox) = (Spare::default(), Outbox::default());
                assert!(outbox.fits_run(3, run.len(), &BOUNDS));
                outbox.push_run(&run, 3, &mut spare);
                outbox.push_shared(frames[0].bytes(), &mut spare);
                assert!(!outbox.fits_run(1, 8, &BOUNDS), "four are as many as fit");
                let mut socket = Socket { got: Vec::new(), room, step };
                outbox.flush(&mut socket, true, &mut spare).expect("no error");
                let ends = [7, 15, 22];
                let gone = ends.iter().filter(|end| **end <= room).count();
                assert_eq!(outbox.messages, 4 - gone, "{room} bytes are written");
                let discarded = outbox.discard_unsent(&mut spare);
                assert_eq!((discarded, outbox.messages), (4 - gone - 1, 1));
                socket.room = 100;
                outbox.flush(&mut socket, true, &mut spare).expect("no error");
                assert_eq!(socket.got, run[..ends[gone]], "to the end of the one that had begun");
            }
        }
    }

    #[test]
    fn discarding_keeps_a_frame_that_has_begun() {
        let mut spare = Spare::default();
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push_shared(PreparedFrame::new(Message::Text("shared")).bytes(), &mut spare);
        }
        let mut socket = Socket { got: Vec::new(), room: 3, step: 3 };
        outbox.flush(&mut socket, true, &mut spare).expect("no error");
        outbox.push_own(1, &mut spare, |out| out.extend_from_slice(&[0; 1000]));
        assert!(outbox.held_bytes() > 1000);
        assert_eq!(outbox.discard_unsent(&mut spare), 3);
        assert!(outbox.held_bytes() < 1000, "what it gave back is not its own any more");
        outbox.push_own(0, &mut spare, |out| out.extend_from_slice(b"close"));
        socket.room = 100;
        outbox.flush(&mut socket, true, &mut spare).expect("no error");
        assert_eq!(socket.got, b"\x81\x06sharedclose");
    }
}
