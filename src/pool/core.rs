//! What a connection has in every phase: its socket, what waits to be written, and whether it is
//! read.

use std::{
    io::{self, IoSlice, Write},
    net::SocketAddr,
};

use super::{
    bound::IpSlot,
    desk::Desk,
    lag::Lag,
    outbox::{Flushed, Outbox},
    stream::Stream,
    timers::{Deadline, Millis},
};
use crate::{
    hub::{conn_id::ConnId, send_status::SendStatus},
    ws::{
        close::CloseReason,
        deflate::Deflate,
        encode::{encode_frame, header_bytes, message_header},
        frame::{Kind, Message, PreparedFrame},
    },
};

/// A message of so many bytes is given to the kernel at once if nothing waits before it: copying it
/// into the outbox would cost more than the write that is saved by gathering.
const WRITE_AT_ONCE_BYTES_MIN: usize = 16 << 10;

/// The part of a connection that outlives its phases. Owned by one worker.
pub(crate) struct Core {
    pub(super) id: ConnId,
    pub(super) stream: Stream,
    pub(super) remote: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) deadline: Deadline,
    /// Input that was read and not used yet: half a head, or what came while this connection was
    /// paused.
    pub(super) stash: Vec<u8>,
    /// When bytes last came.
    pub(super) last_rx: Millis,
    /// When bytes last went.
    pub(super) last_tx: Millis,
    /// Someone asked for this close; it begins at the end of the turn. The first one counts.
    pub(super) close_asked: Option<Box<CloseReason>>,
    /// The socket may have something to read.
    pub(super) readable: bool,
    /// The peer has ended its direction; that is read last, and raises no event of its own.
    pub(super) peer_ended: bool,
    /// What was read may hold messages that were not handled yet.
    pub(super) backlog: bool,
    /// It is in the worker's list of connections to read.
    pub(super) listed_ready: bool,
    /// It is in the worker's list of connections to flush.
    pub(super) listed_dirty: bool,
    /// The kernel took no more when it was last written to.
    pub(super) blocked: bool,
    /// What this client missed for being slow, and will be told.
    pub(super) lag: Option<Box<Lag>>,
    /// Not read, because the client does not read what it is sent.
    pub(super) paused_by_outbox: bool,
    /// Only the end is awaited: it is read whatever waits to be written.
    pub(super) closing: bool,
    /// Not read, because its handler's jobs are behind.
    pub(super) paused_by_jobs: bool,
    /// Compression, where the handshake agreed on it.
    pub(super) deflate: Option<Box<Deflate>>,
    /// Boxed, because most servers set no limit, and each connection would pay for its place.
    pub(super) _ip_slot: Option<Box<IpSlot>>,
}

impl Core {
    pub(super) fn new(
        id: ConnId,
        stream: Stream,
        remote: SocketAddr,
        ip_slot: Option<IpSlot>,
        now: Millis,
    ) -> Core {
        Core {
            id,
            stream,
            remote,
            outbox: Outbox::default(),
            deadline: Deadline::default(),
            stash: Vec::new(),
            last_rx: now,
            last_tx: now,
            close_asked: None,
            readable: false,
            peer_ended: false,
            backlog: false,
            listed_ready: false,
            listed_dirty: false,
            blocked: false,
            lag: None,
            closing: false,
            paused_by_outbox: false,
            paused_by_jobs: false,
            deflate: None,
            _ip_slot: ip_slot.map(Box::new),
        }
    }

    pub(super) fn slot(&self) -> usize {
        self.id.slot as usize
    }

    /// Asks for a close at the end of the turn. Until then nothing more is queued.
    pub(super) fn ask_close(&mut self, reason: CloseReason, desk: &mut Desk) {
        if self.close_asked.is_none() {
            self.close_asked = Some(Box::new(reason));
            self.list_dirty(desk);
        }
    }

    /// Whether a message of `bytes` may be queued. A client that is too far behind is closed for
    /// it; for what its rooms send, the overflow policy decides instead.
    #[inline]
    pub(super) fn may_queue(&mut self, bytes: usize, desk: &mut Desk) -> bool {
        let fits = self.close_asked.is_none() && self.outbox.fits(bytes, &desk.outbox_bounds);
        fits || self.make_place(bytes, desk)
    }

    #[cold]
    fn make_place(&mut self, bytes: usize, desk: &mut Desk) -> bool {
        if self.close_asked.is_some() {
            return false;
        }
        let has_place = self.has_place(bytes, desk);
        if !has_place && self.close_asked.is_none() {
            self.give_up(desk);
        }
        has_place
    }

    /// Whether the outbox takes a message of `bytes`, now or after a write. Asks for the close of a
    /// connection that turns out to be lost.
    pub(super) fn has_place(&mut self, bytes: usize, desk: &mut Desk) -> bool {
        if self.outbox.fits(bytes, &desk.outbox_bounds) {
            return true;
        }
        // It may only look slow because this turn has not flushed yet.
        if self.write(desk).is_err() {
            self.ask_close(CloseReason::LOST, desk);
            return false;
        }
        self.outbox.fits(bytes, &desk.outbox_bounds)
    }

    /// Queues a message for which there is a place.
    // In line for short messages to clients without compression; everything else stays out of the
    // way.
    #[inline(always)]
    pub(super) fn queue(&mut self, message: Message<'_>, desk: &mut Desk) {
        let (kind, payload) = (message.kind(), message.as_bytes());
        if self.deflate.is_some() || payload.len() >= WRITE_AT_ONCE_BYTES_MIN {
            return self.queue_otherwise(kind, payload, desk);
        }
        let header = message_header(kind, false);
        self.outbox.push_own(1, &mut desk.spare, |out| encode_frame(out, &header, payload));
    }

    #[inline(never)]
    fn queue_otherwise(&mut self, kind: Kind, payload: &[u8], desk: &mut Desk) {
        let Desk { deflaters, spare, deflated, compression_threshold, .. } = desk;
        match &mut self.deflate {
            Some(deflate) if payload.len() >= *compression_threshold => {
                self.outbox.push_own(1, spare, |out| {
                    deflate.write_frame(kind, payload, deflaters, deflated, out);
                });
            }
            _ if payload.len() >= WRITE_AT_ONCE_BYTES_MIN => self.queue_large(kind, payload, desk),
            _ => {
                let header = message_header(kind, false);
                self.outbox.push_own(1, spare, |out| encode_frame(out, &header, payload));
            }
        }
    }

    fn queue_large(&mut self, kind: Kind, payload: &[u8], desk: &mut Desk) {
        let (header, used) = header_bytes(&message_header(kind, false), payload.len());
        let mut parts = [&header[..used], payload];
        if !self.write_at_once(&mut parts, desk) {
            self.outbox.push_own(1, &mut desk.spare, |out| {
                out.reserve(parts[0].len() + parts[1].len());
                parts.iter().for_each(|part| out.extend_from_slice(part));
            });
        }
    }

    /// Gives the kernel what it takes of a frame if nothing waits before it, and takes that off the
    /// parts. Returns whether it took all. An error is left for the next write to find.
    fn write_at_once(&mut self, parts: &mut [&[u8]; 2], desk: &mut Desk) -> bool {
        if self.blocked || !self.outbox.is_empty() {
            return false;
        }
        let Ok(sent) = self.stream.write_vectored(&parts.map(IoSlice::new)) else { return false };
        self.on_sent(sent, desk);
        let of_header = sent.min(parts[0].len());
        *parts = [&parts[0][of_header..], &parts[1][sent - of_header..]];
        parts[1].is_empty()
    }

    /// Queues a frame that others are sent as well: compressed once for all of them where that is
    /// agreed.
    pub(super) fn queue_prepared(&mut self, frame: &PreparedFrame, desk: &mut Desk) {
        let is_short = frame.payload().len() < desk.compression_threshold;
        let Some(deflate) = self.deflate.as_ref().filter(|_| !is_short) else {
            return self.outbox.push_shared(frame.bytes(), &mut desk.spare);
        };
        let bits = deflate.shared_window_bits();
        match bits.and_then(|bits| frame.shared(bits, &mut desk.deflaters)) {
            Some(shared) => self.outbox.push_shared(shared, &mut desk.spare),
            None => self.queue(frame.message(), desk),
        }
    }

    /// Counts a message that was just queued.
    pub(super) fn sent(&mut self, desk: &mut Desk) -> SendStatus {
        desk.metrics().messages_out.add(1);
        self.list_dirty(desk);
        self.outbox.status(&desk.outbox_bounds)
    }

    pub(super) fn list_dirty(&mut self, desk: &mut Desk) {
        if !std::mem::replace(&mut self.listed_dirty, true) {
            desk.dirty.push(self.slot());
        }
    }

    /// Puts this connection on the list of those to read, unless it is paused.
    pub(super) fn list_ready(&mut self, desk: &mut Desk) {
        if !self.is_paused() && !std::mem::replace(&mut self.listed_ready, true) {
            desk.ready.push(self.slot());
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_by_outbox || self.paused_by_jobs
    }

    /// Whether the peer has more to read and has read on lately: an answer that takes it longer
    /// than the next deadline is not cut off.
    pub(super) fn is_reading(&self, desk: &Desk) -> bool {
        let timeout = desk.config().timeout.as_millis() as Millis;
        !self.outbox.is_empty() && desk.now < self.last_tx + timeout
    }

    /// Queues the control frames that the endpoint wants sent. They know no overflow.
    #[inline]
    pub(super) fn queue_control(&mut self, desk: &mut Desk) {
        if !desk.control.is_empty() {
            let Desk { control, spare, .. } = desk;
            self.outbox.push_own(0, spare, |out| out.append(control));
            self.list_dirty(desk);
        }
    }

    /// The kernel took `sent` bytes.
    fn on_sent(&mut self, sent: usize, desk: &mut Desk) {
        if sent == 0 {
            return;
        }
        desk.metrics().bytes_out.add(sent as u64);
        self.last_tx = desk.now;
        if let Some(lag) = &mut self.lag {
            lag.wrote(sent);
            // There may be room now for what was held back.
            self.list_dirty(desk);
        }
    }

    /// Gives the kernel what it takes, and pauses or resumes reading accordingly.
    pub(super) fn write(&mut self, desk: &mut Desk) -> io::Result<Flushed> {
        let (flushed, sent) = self.outbox.flush(&mut self.stream, &mut desk.spare)?;
        let was_blocked = std::mem::replace(&mut self.blocked, flushed == Flushed::Blocked);
        if was_blocked && sent > 0 {
            // Who takes what it could not take before is alive, though it may be too slow to say
            // so.
            self.last_rx = desk.now;
        }
        self.on_sent(sent, desk);
        if self.paused_by_outbox {
            if self.outbox.is_low(&desk.outbox_bounds) {
                self.paused_by_outbox = false;
                self.list_ready(desk);
            }
        } else if !self.closing && self.outbox.status(&desk.outbox_bounds) == SendStatus::Behind {
            self.paused_by_outbox = true;
            desk.metrics().read_pauses.add(1);
        }
        Ok(flushed)
    }
}
