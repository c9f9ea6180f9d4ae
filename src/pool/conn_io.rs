//! What a connection has in every phase: its socket, its outbox, its deadline, and whether it is
//! read.

use std::{io, net::SocketAddr, time::Duration};

use bitflags::bitflags;

use super::{
    access::Access,
    blocked::Blocked,
    event_stream::EventStream,
    holds::HoldRecord,
    outbox::{Flushed, Outbox, OutboxBounds},
    pauses::{PauseReasons, Pauses},
    stream::{Stream, StreamWriter},
    timers::{Deadline, Millis},
    worker_cx::{WorkLists, WorkerCtx},
};
use crate::{
    hub::{conn_id::ConnId, mailbox::Letter, send_status::SendStatus, session::Session},
    limits::owners::{OwnerToken, TooMany},
    ws::{
        close::CloseReason,
        decoder::Event,
        deflate::{Deflate, Inflater},
        endpoint::Endpoint,
        frame::{Message, PreparedFrame},
    },
};

mod counts;
mod queue;

bitflags! {
    /// What is known of a socket without trying.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Readiness: u8 {
        /// There may be something to read.
        const READABLE = 1;
        /// The peer has ended its direction. That is read last, and raises no event of its own.
        const READ_CLOSED = 1 << 1;
        /// The kernel took all it was given at the last write.
        const WRITABLE = 1 << 2;
    }

    /// The lists of its worker that a connection is in.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Listed: u8 {
        const READY = 1;
        const DIRTY = 1 << 1;
    }
}

/// What a turn's requests of one connection cost at least that are heavy: those of some thirty
/// messages, or of one that takes as long.
const HEAVY_COST: usize = 32;

/// How often whoever has sent heavy ones is then read among others who have: a light one between
/// two of them changes nothing.
const HEAVY_READS: u8 = 16;

/// What a connection is counted with in [`WorkerCtx::held`], in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    outbox: u32,
    input: u32,
    blocked: Blocked,
}

/// The part of a connection that outlives its phases. Owned by one worker.
pub(crate) struct ConnIo {
    pub(super) id: ConnId,
    pub(super) stream: Stream,
    pub(super) remote: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) deadline: Deadline,
    /// Input that was read and not used yet: half a head, or what came while this connection was
    /// paused.
    pub(super) stash: Vec<u8>,
    /// The stash may hold messages that were not handled yet.
    pub(super) has_backlog: bool,
    pub(super) readiness: Readiness,
    pub(super) listed: Listed,
    /// How often it is still read among those who ask for much.
    pub(super) heavy_reads: u8,
    pub(super) pauses: Pauses,
    // These two are of the open phase alone, and stand here because there is space for them.
    /// How many answers of the engine its handler waits for.
    pub(super) answers_due: u32,
    /// What the client made of its earlier holds.
    pub(super) hold_record: HoldRecord,
    /// When bytes last came.
    pub(super) last_rx: Millis,
    /// When bytes last went.
    pub(super) last_tx: Millis,
    /// Bytes that the kernel took so far.
    pub(super) bytes_sent: u64,
    /// A close that was asked for; it begins at the end of the turn. The first one counts.
    pub(super) close_asked: Option<Box<CloseReason>>,
    /// Compression, where the handshake agreed on it.
    pub(super) deflate: Option<Box<Deflate>>,
    /// The largest message that the client was told of, which it may send whatever a reload says.
    pub(super) message_bytes_promised: u32,
    /// Whether it speaks HTTP, whose answers have a bound of their own.
    pub(super) is_http: bool,
    counted: Counted,
    /// What the access log is to say of a WebSocket connection, if there is one.
    pub(super) access: Option<Box<Access>>,
    /// Boxed, because most servers set no limit, and each connection would pay for the space.
    _owner_token: Option<Box<OwnerToken>>,
}

impl ConnIo {
    pub(super) fn new(
        id: ConnId,
        stream: Stream,
        remote: SocketAddr,
        owner_token: Option<OwnerToken>,
        now: Millis,
    ) -> ConnIo {
        ConnIo {
            id,
            stream,
            remote,
            outbox: Outbox::default(),
            deadline: Deadline::default(),
            stash: Vec::new(),
            has_backlog: false,
            readiness: Readiness::WRITABLE,
            listed: Listed::empty(),
            heavy_reads: 0,
            pauses: Pauses::NONE,
            answers_due: 0,
            hold_record: HoldRecord::None,
            last_rx: now,
            last_tx: now,
            bytes_sent: 0,
            close_asked: None,
            deflate: None,
            message_bytes_promised: 0,
            is_http: true,
            counted: Counted::default(),
            access: None,
            _owner_token: owner_token.map(Box::new),
        }
    }

    pub(super) fn slot(&self) -> usize {
        self.id.slot as usize
    }

    /// Makes the one deadline of this connection come at `at`, unless it comes earlier.
    pub(super) fn bring_forward(&mut self, at: Millis, cx: &mut WorkerCtx) {
        if self.deadline.at().is_none_or(|before| at < before) {
            cx.timers.set(self.slot(), &mut self.deadline, at);
        }
    }

    /// Makes `client` the address of this connection, which a trusted proxy opened for it. `Err` if
    /// that address may not have another connection now.
    pub(super) fn set_client(&mut self, client: SocketAddr, cx: &WorkerCtx) -> Result<(), TooMany> {
        let hub = &cx.shared.hub;
        self.remote = client;
        self._owner_token = hub.owners.admit(client.ip(), hub.now_ms())?.map(Box::new);
        Ok(())
    }

    /// Makes `wait` from now the one deadline of this connection.
    pub(super) fn set_deadline(&mut self, wait: Duration, cx: &mut WorkerCtx) {
        let at = cx.after(wait);
        cx.timers.set(self.slot(), &mut self.deadline, at);
    }

    /// Asks for a close at the end of the turn. Until then nothing more is queued.
    pub(super) fn ask_close(&mut self, reason: CloseReason, work: &mut WorkLists) {
        if self.close_asked.is_none() {
            self.close_asked = Some(Box::new(reason));
            self.list_dirty(work);
        }
    }

    /// Whether a message of `bytes` may be queued. A client that is too far behind is closed for
    /// it; for what its rooms send, the overflow policy decides instead.
    #[inline]
    fn may_queue(&mut self, bytes: usize, cx: &mut WorkerCtx) -> bool {
        let fits = self.close_asked.is_none() && self.outbox.fits(bytes, &cx.limits.outbox);
        fits || self.may_queue_after_write(bytes, cx)
    }

    #[cold]
    fn may_queue_after_write(&mut self, bytes: usize, cx: &mut WorkerCtx) -> bool {
        if self.close_asked.is_some() {
            return false;
        }
        let fits = self.fits(bytes, cx);
        if !fits && self.close_asked.is_none() {
            self.close_slow(cx);
        }
        fits
    }

    /// Whether the outbox takes a message of `bytes`, now or after a write. Asks for the close of a
    /// connection that turns out to be lost.
    #[inline]
    pub(super) fn fits(&mut self, bytes: usize, cx: &mut WorkerCtx) -> bool {
        self.outbox.fits(bytes, &cx.limits.outbox) || self.fits_after_write(bytes, cx)
    }

    #[cold]
    fn fits_after_write(&mut self, bytes: usize, cx: &mut WorkerCtx) -> bool {
        // It may only look slow because this turn has not flushed yet.
        if self.write(cx).is_err() {
            self.ask_close(CloseReason::LOST, &mut cx.work);
            return false;
        }
        self.outbox.fits(bytes, &cx.limits.outbox)
    }

    /// Closes a client that is too far behind, for a message that was just dropped.
    pub(super) fn close_slow(&mut self, cx: &mut WorkerCtx) {
        cx.metrics().dropped.add(1);
        self.ask_close(CloseReason::SLOW_CONSUMER, &mut cx.work);
    }

    /// Queues a message, or drops it and closes a client that is too far behind.
    #[inline]
    pub(super) fn send(&mut self, message: Message<'_>, cx: &mut WorkerCtx) -> SendStatus {
        if !self.may_queue(message.as_bytes().len(), cx) {
            return SendStatus::Dropped;
        }
        self.count_message_out();
        self.queue(message, cx);
        self.on_queued(cx)
    }

    /// Queues a message that is encoded already, or drops it as [`ConnIo::send`] does.
    pub(super) fn send_prepared(
        &mut self,
        frame: &PreparedFrame,
        cx: &mut WorkerCtx,
    ) -> SendStatus {
        if !self.may_queue(frame.len(), cx) {
            return SendStatus::Dropped;
        }
        self.queue_prepared(frame, cx);
        self.on_queued(cx)
    }

    /// Counts a message to the client for the access log.
    fn count_message_out(&mut self) {
        if let Some(access) = &mut self.access {
            access.messages_out += 1;
        }
    }

    /// Counts a message that was just queued.
    fn on_queued(&mut self, cx: &mut WorkerCtx) -> SendStatus {
        cx.metrics().messages_out.add(1);
        self.list_dirty(&mut cx.work);
        self.outbox.status(&cx.limits.outbox)
    }

    /// Queues bytes that count as no message (HTTP, control frames). They know no overflow.
    pub(super) fn queue_bytes(&mut self, bytes: &mut Vec<u8>, cx: &mut WorkerCtx) {
        self.outbox.push_own(0, &mut cx.scratch.spare, |out| out.append(bytes));
        self.list_dirty(&mut cx.work);
    }

    /// Queues the control frames that the endpoint wants sent.
    #[inline]
    pub(super) fn queue_control(&mut self, cx: &mut WorkerCtx) {
        if !cx.scratch.control.is_empty() {
            let scratch = &mut cx.scratch;
            self.outbox.push_own(0, &mut scratch.spare, |out| out.append(&mut scratch.control));
            self.list_dirty(&mut cx.work);
        }
    }

    /// Takes the next message or control frame off `input`, and queues what must be answered to it.
    #[inline(always)]
    pub(super) fn next_event<'i>(
        &mut self,
        endpoint: &mut Endpoint,
        input: &mut &'i mut [u8],
        cx: &mut WorkerCtx,
    ) -> Event<'i> {
        let scratch = &mut cx.scratch;
        let deflate = self.deflate.as_deref_mut();
        let inflater =
            deflate.map(|deflate| Inflater { deflate, deflaters: &mut scratch.deflaters });
        let protocol = cx.limits.protocol(self.message_bytes_promised);
        let event = endpoint.next(input, &mut scratch.control, &protocol, inflater);
        self.queue_control(cx);
        event
    }

    /// Has the connection flushed at the end of the turn.
    pub(super) fn list_dirty(&mut self, work: &mut WorkLists) {
        if !self.listed.contains(Listed::DIRTY) {
            self.listed.insert(Listed::DIRTY);
            work.dirty.push(self.slot());
        }
    }

    /// Has the connection read, unless it is paused.
    pub(super) fn list_ready(&mut self, work: &mut WorkLists) {
        if !self.pauses.is_paused() && !self.listed.contains(Listed::READY) {
            self.listed.insert(Listed::READY);
            let list = if self.heavy_reads > 0 { &mut work.heavy } else { &mut work.ready };
            list.push(self.slot());
        }
    }

    /// Notes what it cost to read from it: whoever asks for much is read, for a while, after those
    /// who ask for little.
    #[inline(always)]
    pub(super) fn note_cost(&mut self, cost: usize, work: &mut WorkLists) {
        if cost >= HEAVY_COST || self.heavy_reads > 0 {
            self.note_heavy(cost, work);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_heavy(&mut self, cost: usize, work: &mut WorkLists) {
        if cost >= HEAVY_COST {
            self.heavy_reads = HEAVY_READS;
            // It is ready for the next turn already if it has not handled all that came.
            if work.ready.pop_if(|last| *last == self.slot()).is_some() {
                work.heavy.push(self.slot());
            }
        } else if cost > 0 {
            // To read a part of something says nothing of its sender.
            self.heavy_reads = self.heavy_reads.saturating_sub(1);
        }
    }

    /// Leaves the connection unread until its worker is free of backpressure.
    pub(super) fn park(&mut self, work: &mut WorkLists) {
        if self.pauses.set(PauseReasons::MAILBOX) {
            work.parked.push(self.slot());
        }
    }

    /// Leaves the connection unread until there is memory for the rest of its message.
    pub(super) fn starve(&mut self, work: &mut WorkLists) {
        if self.pauses.set(PauseReasons::MEMORY) {
            work.starved.push(self.slot());
        }
    }

    /// Leaves the connection unread until the deliveries that `session` has caused are made.
    pub(super) fn await_deliveries(&mut self, session: &Session, cx: &mut WorkerCtx) {
        let wait = session.traffic().in_flight.begin_wait(self.id);
        if let Some(conn) = wait.replaced {
            cx.shared.hub.mailboxes.send_control(conn.worker(), Letter::Resume { conn });
        }
        if wait.is_needed && self.pauses.set(PauseReasons::DELIVERIES) {
            cx.metrics().publish_pauses.add(1);
        }
    }

    /// Takes away a reason for which the connection was not read, and has it read if none is left.
    pub(super) fn resume(&mut self, reason: PauseReasons, work: &mut WorkLists) {
        if self.pauses.clear(reason) {
            self.list_ready(work);
        }
    }

    /// Whether the kernel took no more when it was last written to.
    pub(super) fn is_blocked(&self) -> bool {
        !self.readiness.contains(Readiness::WRITABLE)
    }

    /// Whether the peer has more to read and has read on lately: an answer that takes it longer
    /// than the next deadline is not cut off.
    pub(super) fn is_reading(&self, cx: &WorkerCtx) -> bool {
        let timeout = cx.config().timeout.as_millis() as Millis;
        self.has_unsent() && cx.now < self.last_tx + timeout
    }

    /// Whether something waits to be written.
    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty() || self.stream.has_unsent()
    }

    /// Counts `sent` bytes that went out.
    fn on_sent(&mut self, sent: usize, cx: &mut WorkerCtx) {
        if sent > 0 {
            cx.metrics().bytes_out.add(sent as u64);
            self.bytes_sent += sent as u64;
        }
    }

    /// Gives the kernel what it takes, and pauses or resumes reading accordingly.
    pub(super) fn write(&mut self, cx: &mut WorkerCtx) -> io::Result<Flushed> {
        let (flushed, sent, has_progress) = match &mut self.stream {
            Stream::Plain(socket) => {
                let (flushed, sent) = self.outbox.flush(socket, true, &mut cx.scratch.spare)?;
                (flushed, sent, sent > 0)
            }
            Stream::Tls(_) | Stream::Events(_) => self.write_layered(cx)?,
        };
        if has_progress {
            self.last_tx = cx.now;
            if self.is_blocked() {
                // A blocked socket that accepts bytes again proves that its peer is alive, though
                // it may be too slow to say so.
                self.last_rx = cx.now;
            }
        }
        self.readiness.set(Readiness::WRITABLE, flushed == Flushed::Empty);
        self.on_sent(sent, cx);
        // Most writes empty an outbox that nothing was paused for.
        if flushed == Flushed::Blocked || self.pauses.is_paused() || self.counted.outbox > 0 {
            self.update_outbox_pause(cx);
            self.count_outbox(self.outbox.held_bytes() + self.stream.unsent_bytes(), cx);
        }
        Ok(flushed)
    }

    /// Gives a stream with TLS, or one of events, what it takes. Returns what is left, how many
    /// bytes went out of the outbox, and whether the kernel took any.
    // Out of the way of plain streams.
    #[inline(never)]
    fn write_layered(&mut self, cx: &mut WorkerCtx) -> io::Result<(Flushed, usize, bool)> {
        let stream = &mut self.stream;
        // What went since the last write, with the handshake, proves nothing about this one.
        stream.take_progress();
        let mut writer = StreamWriter { stream, cx: &mut cx.tls };
        let (flushed, sent) = self.outbox.flush(&mut writer, false, &mut cx.scratch.spare)?;
        let (has_progress, is_worn) = (stream.take_progress(), stream.take_is_worn());
        if stream.events().is_some_and(EventStream::take_left_out) {
            let reason = CloseReason::UNSUPPORTED.because("an event stream carries text alone");
            self.ask_close(reason, &mut cx.work);
        }
        // An HTTP connection ends with its next answer.
        if is_worn && !self.is_http {
            // Its clients come back, with a new key.
            self.ask_close(CloseReason::GOING_AWAY, &mut cx.work);
        }
        Ok((flushed, sent, has_progress))
    }

    /// The bounds of its outbox.
    pub(super) fn outbox_bounds(&self, cx: &WorkerCtx) -> OutboxBounds {
        if self.is_http { cx.limits.http_outbox } else { cx.limits.outbox }
    }

    fn update_outbox_pause(&mut self, cx: &mut WorkerCtx) {
        let bounds = self.outbox_bounds(cx);
        if self.pauses.has(PauseReasons::OUTBOX) {
            if self.outbox.is_low(&bounds) {
                self.resume(PauseReasons::OUTBOX, &mut cx.work);
            }
        } else if self.outbox.status(&bounds) == SendStatus::Behind
            && self.pauses.set(PauseReasons::OUTBOX)
        {
            cx.metrics().read_pauses.add(1);
        }
    }
}

fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
