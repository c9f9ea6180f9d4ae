//! A worker's turn: poll, read, letters, timers, flush, reap.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use slab::Slab;

use super::{
    bound::{IpSlot, Slot},
    closing::{Closing, Stage},
    connection::{Connection, Phase},
    core::Core,
    desk::{Desk, Shared},
    lag::Delivery,
    stream::Stream,
    timers::Millis,
};
use crate::hub::{
    conn_id::ConnId,
    mailbox::{Letter, MailboxReceiver, SWEEPER},
    room::RoomKey,
    roster::WINDOW_MS,
};
use crate::metrics::Refusals;
use crate::ws::frame::PreparedFrame;

pub(crate) mod stepped;

/// The token of the waker; slots count up from 0 and never come near it.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// What one read takes from a socket at most, in bytes; one buffer serves all connections of a
/// worker.
const READ_BYTES_MAX: usize = 128 << 10;

/// What that buffer is aligned to.
const PAGE_BYTES: usize = 4096;

/// Events taken from one poll.
const EVENTS_MAX: usize = 1024;

/// New sockets taken in one turn, so that a storm of them does not delay those inside.
const ARRIVALS_PER_TURN_MAX: usize = 256;

/// Letters taken in one turn, and messages they may put into outboxes, before sockets are written.
const LETTERS_PER_TURN_MAX: usize = 256;
const DELIVERIES_PER_TURN_MAX: usize = 16_384;

/// Rounds of the flush: a close that begins in one is written in the next.
const FLUSH_ROUNDS_MAX: usize = 4;

/// How often one worker lets the hub forget what is too old.
const SWEEP_INTERVAL_MS: Millis = 1000;

/// A socket on its way from the acceptor.
pub(crate) struct Arrival {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) remote: SocketAddr,
    pub(crate) ip_slot: Option<IpSlot>,
    pub(crate) fate: Fate,
}

/// What becomes of a new socket.
pub(crate) enum Fate {
    /// Its request is awaited.
    Serve(Slot),
    /// It got its refusal from the acceptor, and lingers so that the client can read it.
    Linger(Slot),
}

/// How often the operator is told what was refused, if anything was.
const REPORT_INTERVAL_MS: Millis = 10_000;

/// One thread of the pool and everything it owns.
pub(crate) struct Worker {
    poll: Poll,
    mailbox: MailboxReceiver,
    arrivals: Receiver<Arrival>,
    conns: Slab<Connection>,
    desk: Desk,
    started: Instant,
    next_generation: u32,
    next_sweep: Millis,
    next_report: Millis,
    reported: Refusals,
    draining: bool,
    /// Nobody is left but those who watch.
    drained: bool,
    stopped: bool,
}

impl Worker {
    pub(crate) fn new(
        poll: Poll,
        mailbox: MailboxReceiver,
        arrivals: Receiver<Arrival>,
        shared: Arc<Shared>,
        worker: usize,
    ) -> Worker {
        Worker {
            poll,
            mailbox,
            arrivals,
            conns: Slab::new(),
            desk: Desk::new(shared, worker),
            started: Instant::now(),
            next_generation: 0,
            next_sweep: 0,
            next_report: 0,
            reported: Refusals::default(),
            draining: false,
            drained: false,
            stopped: false,
        }
    }

    /// Turns until it is told to stop. Says once, through `drained`, that nobody is left to wait
    /// for.
    pub(crate) fn run(mut self, drained: &Sender<()>) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        // The kernel copies into a buffer that begins on a page up to twice as fast.
        let mut storage = vec![0; READ_BYTES_MAX + PAGE_BYTES];
        let start = storage.as_ptr().align_offset(PAGE_BYTES);
        let buffer = &mut storage[start..][..READ_BYTES_MAX];
        while !self.stopped {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.mailbox.woke();
            let began = Instant::now();
            self.desk.now = began.duration_since(self.started).as_millis() as Millis;
            self.turn(&events, buffer);
            self.desk.metrics().turns.add(1);
            self.desk.metrics().turn.record(began.elapsed());
            if self.draining && !self.drained && self.conns.iter().all(|(_, conn)| conn.is_http()) {
                self.drained = true;
                // The server counts these; it is there for as long as its workers are.
                let _ = drained.send(());
            }
        }
        Ok(())
    }

    /// What follows a poll.
    fn turn(&mut self, events: &Events, buffer: &mut [u8]) {
        self.take_events(events);
        self.take_arrivals();
        self.read(buffer);
        self.take_letters();
        self.expire();
        self.flush();
        self.reap();
    }

    /// How long this worker may sleep: not at all while something waits for it.
    fn timeout(&mut self) -> Option<Duration> {
        let waits = !self.desk.ready.is_empty() || !self.desk.dirty.is_empty();
        if waits || !self.mailbox.may_sleep() {
            return Some(Duration::ZERO);
        }
        if !self.arrivals.is_empty() {
            self.mailbox.woke();
            return Some(Duration::ZERO);
        }
        let sweep = self.sweeps().then_some(self.next_sweep);
        let next = self.desk.timers.next().into_iter().chain(sweep).min()?;
        let now = self.started.elapsed().as_millis() as Millis;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// One worker does it for all.
    fn sweeps(&self) -> bool {
        self.desk.worker == SWEEPER
    }

    fn take_events(&mut self, events: &Events) {
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Some(conn) = self.conns.get_mut(event.token().0) {
                conn.on_event(event, &mut self.desk);
            }
        }
    }

    fn take_arrivals(&mut self) {
        for _ in 0..ARRIVALS_PER_TURN_MAX {
            let Ok(arrival) = self.arrivals.try_recv() else { return };
            self.settle_in(arrival);
        }
    }

    fn settle_in(&mut self, arrival: Arrival) {
        let Arrival { stream, remote, ip_slot, fate } = arrival;
        let token = Token(self.conns.vacant_key());
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            log::error!("cannot watch the socket of {remote}: {error}");
            self.desk.shared.sockets[self.desk.worker].fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.seat(Stream::Tcp(stream), remote, ip_slot, fate);
    }

    /// Gives a socket that is watched the next slot.
    fn seat(&mut self, stream: Stream, remote: SocketAddr, ip_slot: Option<IpSlot>, fate: Fate) {
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let id = ConnId {
            worker: self.desk.worker as u16,
            slot: slot as u32,
            generation: self.next_generation,
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        let mut core = Core::new(id, stream, remote, ip_slot, self.desk.now);
        let config = self.desk.config();
        let (phase, due) = match fate {
            Fate::Serve(slot) => (
                Phase::Head { _slot: slot, answered: false, last: false },
                config.handshake_timeout,
            ),
            Fate::Linger(slot) => {
                let stage = Stage::FlushThenLinger;
                let closing = Closing { stage, _permit: None, _lingering: Some(slot) };
                (Phase::Closing(closing), config.close_timeout)
            }
        };
        let at = self.desk.after(due);
        self.desk.timers.set(slot, &mut core.deadline, at);
        if matches!(phase, Phase::Closing(_)) {
            core.list_dirty(&mut self.desk);
        }
        entry.insert(Connection { core, phase });
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let mut ready = std::mem::take(&mut self.desk.ready);
        for slot in ready.drain(..) {
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.on_ready(&mut self.desk, buffer);
            }
        }
        if self.desk.ready.is_empty() {
            // Keeps the allocation for the next turn.
            self.desk.ready = ready;
        }
    }

    fn take_letters(&mut self) {
        let mut deliveries = 0;
        for _ in 0..LETTERS_PER_TURN_MAX {
            if deliveries >= DELIVERIES_PER_TURN_MAX {
                return;
            }
            let Some(letter) = self.mailbox.take() else { return };
            match letter {
                Letter::Deliver { room, seq, frame, except } => {
                    deliveries += self.deliver(room, seq, &frame, except);
                }
                Letter::DeliverMany { rooms, frame, except } => {
                    deliveries += self.deliver_many(&rooms, &frame, except);
                }
                Letter::Broadcast { route, frame, except } => {
                    deliveries += self.broadcast(route, &frame, except);
                }
                Letter::Send { conn, frame } => {
                    let (conn, desk) = self.find(conn);
                    if conn.is_some_and(|conn| conn.send(&frame, desk)) {
                        self.desk.metrics().messages_out.add(1);
                    }
                }
                Letter::Enter { conn, room, from_seq } => match self.find(conn) {
                    (Some(conn), desk) if conn.is_open() => {
                        desk.members.add(conn.core.slot(), room, from_seq);
                    }
                    (_, desk) => desk.shared.hub.uncount(&room, desk.worker),
                },
                Letter::Exit { conn, room } => {
                    if let (Some(conn), desk) = self.find(conn) {
                        desk.leave(conn.core.slot(), room);
                    }
                }
                Letter::Attach { conn, session } => {
                    if let (Some(conn), desk) = self.find(conn) {
                        conn.on_attach(session, desk);
                    }
                }
                Letter::Matched { room, waiting } => {
                    deliveries += waiting.len();
                    for conn in waiting {
                        match self.find(conn) {
                            (Some(conn), desk) => conn.on_matched(&room, desk),
                            (None, desk) => desk.shared.hub.uncount(&room, desk.worker),
                        }
                    }
                }
                Letter::Close { conn, reason } => {
                    if let (Some(conn), desk) = self.find(conn) {
                        conn.ask_close(reason, desk);
                    }
                }
                Letter::Admitted { conn } => {
                    if let (Some(conn), desk) = self.find(conn) {
                        conn.on_admitted(desk);
                    }
                }
                Letter::JobsDone { conn } => {
                    if let (Some(conn), desk) = self.find(conn) {
                        conn.on_jobs_done(desk);
                    }
                }
                Letter::PressureOff => self.pressure_off(),
                Letter::SweepSoon => {
                    self.next_sweep = self.next_sweep.min(self.desk.now + WINDOW_MS);
                }
                Letter::Drain => self.drain(),
                Letter::Stop => return self.stop(),
            }
        }
    }

    /// The connection of that name, unless it is gone and its slot is somebody else's now.
    fn find(&mut self, id: ConnId) -> (Option<&mut Connection>, &mut Desk) {
        let conn = self.conns.get_mut(id.slot as usize).filter(|conn| conn.core.id == id);
        (conn, &mut self.desk)
    }

    /// Puts a room's message into the outboxes of this worker's members. Nothing is written or
    /// closed here.
    fn deliver(
        &mut self,
        room: RoomKey,
        seq: u64,
        frame: &PreparedFrame,
        except: Option<ConnId>,
    ) -> usize {
        let members = std::mem::take(&mut self.desk.members);
        let mut delivered = 0;
        if let Some((room, members)) = members.of(room, seq) {
            for member in members {
                let Some(conn) = self.conns.get_mut(member.slot as usize) else { continue };
                // Its own message is no loss to a client that did not ask for it.
                if Some(conn.core.id) != except
                    && conn.deliver(frame, room, member, seq, &mut self.desk)
                {
                    delivered += 1;
                }
            }
        }
        self.desk.members = members;
        self.count_deliveries(delivered)
    }

    /// The same for a message of several rooms: who is in more than one of them gets it once.
    fn deliver_many(
        &mut self,
        rooms: &[(RoomKey, u64)],
        frame: &PreparedFrame,
        except: Option<ConnId>,
    ) -> usize {
        let members = std::mem::take(&mut self.desk.members);
        let in_room = |(room, seq): &(RoomKey, u64)| {
            let seq = *seq;
            let (room, members) = members.of(*room, seq)?;
            Some(members.map(move |member| Delivery { room, member, seq }))
        };
        let mut deliveries: Vec<Delivery<'_>> =
            rooms.iter().filter_map(in_room).flatten().collect();
        deliveries.sort_unstable_by_key(|delivery| delivery.member.slot);
        let mut delivered = 0;
        for of_member in deliveries.chunk_by(|one, other| one.member.slot == other.member.slot) {
            let slot = of_member[0].member.slot as usize;
            if let Some(conn) = self.conns.get_mut(slot)
                && Some(conn.core.id) != except
                && conn.deliver_once(frame, of_member, &mut self.desk)
            {
                delivered += 1;
            }
        }
        drop(deliveries);
        self.desk.members = members;
        self.count_deliveries(delivered)
    }

    /// Puts a message into the outboxes of all open connections of a route but one.
    fn broadcast(&mut self, route: u16, frame: &PreparedFrame, except: ConnId) -> usize {
        let mut delivered = 0;
        for (_, conn) in &mut self.conns {
            let is_meant = conn.route() == Some(route) && conn.core.id != except;
            if is_meant && conn.send(frame, &mut self.desk) {
                delivered += 1;
            }
        }
        self.count_deliveries(delivered)
    }

    fn count_deliveries(&self, delivered: usize) -> usize {
        self.desk.metrics().deliveries.add(delivered as u64);
        self.desk.metrics().messages_out.add(delivered as u64);
        delivered
    }

    fn pressure_off(&mut self) {
        self.desk.pressured = false;
        let parked = std::mem::take(&mut self.desk.parked);
        self.desk.ready.extend(parked);
    }

    fn drain(&mut self) {
        self.draining = true;
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.settle_in(arrival);
        }
        for (_, conn) in &mut self.conns {
            conn.on_drain(&mut self.desk);
        }
    }

    fn stop(&mut self) {
        for (_, conn) in &mut self.conns {
            conn.stop(&mut self.desk);
        }
        self.stopped = true;
    }

    fn expire(&mut self) {
        while let Some(slot) = self.desk.timers.expired(self.desk.now) {
            match self.conns.get_mut(slot) {
                Some(conn) => conn.on_deadline(&mut self.desk),
                None => {
                    debug_assert!(false, "a reaped connection has no deadline");
                    return;
                }
            }
        }
        if self.sweeps() && self.desk.now >= self.next_sweep {
            let swept = self.desk.shared.hub.sweep();
            self.next_sweep = self.desk.now + if swept.has_more { 0 } else { SWEEP_INTERVAL_MS };
            if swept.behind {
                self.desk.on_backpressure();
            }
            self.report();
        }
    }

    /// Tells the operator what was refused: at once when it begins, and then at intervals, so that
    /// a storm of refusals is no storm of log lines.
    fn report(&mut self) {
        if self.desk.now >= self.next_report
            && let Some(refused) = self.desk.shared.metrics.refusals_since(&mut self.reported)
        {
            log::warn!("refused: {refused}");
            self.next_report = self.desk.now + REPORT_INTERVAL_MS;
        }
    }

    /// One write for each socket that has something to send.
    fn flush(&mut self) {
        for _ in 0..FLUSH_ROUNDS_MAX {
            if self.desk.dirty.is_empty() {
                return;
            }
            let mut dirty = std::mem::take(&mut self.desk.dirty);
            for slot in dirty.drain(..) {
                if let Some(conn) = self.conns.get_mut(slot) {
                    conn.settle(&mut self.desk);
                }
            }
            if self.desk.dirty.is_empty() {
                self.desk.dirty = dirty;
            }
        }
    }

    /// Frees what is over, now that nobody looks at it any more.
    fn reap(&mut self) {
        while let Some(slot) = self.desk.gone.pop() {
            let Some(mut conn) = self.conns.try_remove(slot) else { continue };
            self.desk.timers.clear(slot, &mut conn.core.deadline);
            self.desk.leave_all(slot);
            // Drops its permit, which lets the next in line come in, and its other places.
            drop(conn);
            self.desk.shared.sockets[self.desk.worker].fetch_sub(1, Ordering::Relaxed);
        }
    }
}
