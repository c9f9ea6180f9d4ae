//! A worker's turn: poll, read, letters, timers, flush, reap.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Poll, Token};
use slab::Slab;

use super::{
    admin::Admin,
    bound::BoundToken,
    closing::Closing,
    conn_io::ConnIo,
    connection::{Connection, Phase},
    head::Head,
    pauses::PauseReasons,
    progress::Step,
    run::Gathered,
    shared::Shared,
    socket::{Accepted, Socket},
    stream::Stream,
    timers::Millis,
    worker_cx::WorkerCtx,
};
use crate::hub::{
    conn_id::ConnId,
    mailbox::{MailboxReceiver, SWEEPER},
};
use crate::limits::owners::OwnerToken;
use crate::metrics::Refusals;
use draining::Draining;
use memory_watch::MemoryWatch;
use step_time::StepTime;

mod deliveries;
mod draining;
mod lateness;
mod letters;
mod memory_watch;
mod reading;
mod reap;
mod rechecks;
mod shedding;
mod step_time;
pub(crate) mod stepped;
mod writes;

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

/// How often one worker lets the hub forget what is too old.
const SWEEP_INTERVAL_MS: Millis = 1000;

/// How often a worker sees whether it has drained.
const DRAIN_LOOK_MS: Millis = 50;

/// A socket on its way from the acceptor.
pub(crate) struct Arrival {
    pub(crate) stream: Accepted,
    pub(crate) remote: SocketAddr,
    pub(crate) owner_token: Option<OwnerToken>,
    pub(crate) disposition: Disposition,
}

/// What is to be done with a new socket.
pub(crate) enum Disposition {
    /// Its request is awaited.
    Serve(BoundToken),
    /// Its request is awaited, on the admin listener.
    Admin(BoundToken),
    /// It got its refusal from the acceptor, and lingers so that the client can read it.
    Linger(BoundToken),
}

/// How often refusals and late turns are logged, if there are any.
const REPORT_INTERVAL_MS: Millis = 10_000;

/// One thread of the pool and everything it owns.
pub(crate) struct Worker {
    poll: Poll,
    mailbox: MailboxReceiver,
    arrivals: Receiver<Arrival>,
    conns: Slab<Connection>,
    cx: WorkerCtx,
    started: Instant,
    /// The time that this worker was stopped or starved: its clock stands still then.
    paused_ms: Millis,
    next_generation: u32,
    next_sweep: Millis,
    next_report: Millis,
    next_stall_report: Millis,
    memory: MemoryWatch,
    reported: Refusals,
    step_time: StepTime,
    /// What the deliveries of this turn have cost so far, without the writes.
    deliveries: usize,
    /// Messages of a room that were taken and not delivered yet; none between two turns.
    gathered: Gathered,
    /// The next slot whose client's permissions are checked anew, while some are.
    rechecking: Option<usize>,
    is_draining: bool,
    draining: Draining,
    /// No connection is left to wait for.
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
        let step_time = StepTime::new(shared.hub.clock.is_machine());
        Worker {
            poll,
            mailbox,
            arrivals,
            conns: Slab::new(),
            cx: WorkerCtx::new(shared, worker),
            started: Instant::now(),
            paused_ms: 0,
            next_generation: 0,
            next_sweep: 0,
            next_report: 0,
            next_stall_report: 0,
            memory: MemoryWatch::default(),
            reported: Refusals::default(),
            step_time,
            deliveries: 0,
            gathered: Gathered::default(),
            rechecking: None,
            is_draining: false,
            draining: Draining::default(),
            drained: false,
            stopped: false,
        }
    }

    /// Makes turns until the server stops. Reports once, through `drained`, that no connection is
    /// left to wait for.
    pub(crate) fn run(mut self, drained: &Sender<()>) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        // The kernel copies into a buffer that begins on a page up to twice as fast.
        let mut storage = vec![0; READ_BYTES_MAX + PAGE_BYTES];
        let start = storage.as_ptr().align_offset(PAGE_BYTES);
        let buffer = &mut storage[start..][..READ_BYTES_MAX];
        let mut ended = Instant::now();
        while !self.stopped {
            let now = self.clock_ms(ended);
            let timeout = self.timeout(now);
            let latest = timeout.map(|timeout| now + timeout.as_millis() as Millis);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                // A process that goes on after a stop is told so by an interruption.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            self.mailbox.woke();
            let began = Instant::now();
            self.cx.now = self.clock_ms(began);
            if let Some(latest) = latest {
                self.forget_pause(latest);
            }
            let since_start = began.saturating_duration_since(self.cx.shared.started);
            self.cx.progress.begin_turn(since_start.as_millis() as u64);
            self.turn(&events, buffer);
            self.cx.metrics().turns.add(1);
            let took = began.elapsed();
            ended = began + took;
            self.cx.metrics().turn.record(took);
            self.forget_turn(took);
            self.cx.progress.end_turn();
            if !self.drained && self.is_drained() {
                self.drained = true;
                // The server counts these; it is there for as long as its workers are.
                let _ = drained.send(());
            }
        }
        Ok(())
    }

    /// What follows a poll.
    fn turn(&mut self, events: &Events, buffer: &mut [u8]) {
        self.cx.follow_settings();
        self.take_events(events);
        self.begin_step(Step::Arrivals).take_arrivals();
        self.begin_step(Step::Read).read(buffer);
        self.begin_step(Step::Letters).take_letters();
        self.recheck_permissions();
        self.begin_step(Step::Timers).expire();
        self.begin_step(Step::Flush).flush();
        self.begin_step(Step::Reap).reap();
        self.begin_step(Step::Memory).look_at_memory();
    }

    /// The milliseconds that this worker had run at that moment.
    fn clock_ms(&self, at: Instant) -> Millis {
        let elapsed = at.saturating_duration_since(self.started).as_millis() as Millis;
        elapsed.saturating_sub(self.paused_ms)
    }

    /// How long this worker may sleep from `now` on: not at all while there is work for it.
    fn timeout(&mut self, now: Millis) -> Option<Duration> {
        if self.is_busy() || !self.mailbox.may_sleep() {
            return Some(Duration::ZERO);
        }
        if !self.arrivals.is_empty() {
            self.mailbox.woke();
            return Some(Duration::ZERO);
        }
        let sweep = self.sweeps().then_some(self.next_sweep);
        let memory = self.next_look_at_memory();
        // Whether all is drained depends on the time, too.
        let look = (self.is_draining && !self.drained).then(|| self.cx.now + DRAIN_LOOK_MS);
        let drain = self.draining.next_at().into_iter().chain(look).min();
        let next =
            self.cx.timers.next().into_iter().chain(sweep).chain(memory).chain(drain).min()?;
        Some(Duration::from_millis(next.saturating_sub(now)))
    }

    /// Whether the next turn has something to do that no event or letter brings.
    fn is_busy(&self) -> bool {
        let work = &self.cx.work;
        let has_work = work.has_ready() || work.has_unwritten() || !work.gone.is_empty();
        has_work || !self.cx.fanouts.is_empty() || self.rechecking.is_some()
    }

    /// Whether a drain need not wait for a connection of this worker.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_draining && self.conns.iter().all(|(_, conn)| conn.is_drained(self.cx.now))
    }

    /// Whether this worker sweeps the rooms, for all workers.
    fn sweeps(&self) -> bool {
        self.cx.worker == SWEEPER
    }

    fn take_events(&mut self, events: &Events) {
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Some(conn) = self.conns.get_mut(event.token().0) {
                conn.on_event(event, &mut self.cx);
            }
        }
    }

    fn take_arrivals(&mut self) {
        // As in most turns: this costs less than an attempt to take one.
        if self.arrivals.is_empty() {
            return;
        }
        for _ in 0..ARRIVALS_PER_TURN_MAX {
            let Ok(arrival) = self.arrivals.try_recv() else { return };
            self.accept(arrival);
        }
    }

    fn accept(&mut self, arrival: Arrival) {
        let Arrival { stream, remote, owner_token, disposition } = arrival;
        let token = Token(self.conns.vacant_key());
        match Socket::watched(stream, self.poll.registry(), token) {
            Ok(socket) => self.insert(socket, remote, owner_token, disposition),
            Err(error) => {
                log::error!("cannot watch the socket of {remote}: {error}");
                self.cx.shared.sockets[self.cx.worker].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Gives a socket that is watched the next slot.
    fn insert(
        &mut self,
        socket: Socket,
        remote: SocketAddr,
        owner_token: Option<OwnerToken>,
        disposition: Disposition,
    ) {
        // What was refused by the acceptor got its answer without TLS.
        let tls = self.cx.shared.tls.as_ref();
        let tls = tls.filter(|_| matches!(disposition, Disposition::Serve(_)));
        let stream = match Stream::new(socket, tls, self.cx.config().proxy_protocol) {
            Ok(stream) => stream,
            Err(error) => {
                log::error!("cannot begin TLS with {remote}: {error}");
                self.cx.shared.sockets[self.cx.worker].fetch_sub(1, Ordering::Relaxed);
                return;
            }
        };
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        let id = ConnId {
            worker: self.cx.worker as u16,
            slot: slot as u32,
            generation: self.next_generation,
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        let (mut io, cx) =
            (ConnIo::new(id, stream, remote, owner_token, self.cx.now), &mut self.cx);
        let phase = match disposition {
            Disposition::Serve(token) => Phase::Head(Head::new(token, &mut io, cx)),
            Disposition::Admin(token) => Phase::Admin(Box::new(Admin::new(token, &mut io, cx))),
            Disposition::Linger(token) => Phase::Closing(Closing::refused(token, &mut io, cx)),
        };
        entry.insert(Connection { io, phase });
        self.cx.held.conns += 1;
    }

    /// Reads again from the connections that were parked for a mailbox.
    fn end_backpressure(&mut self) {
        self.cx.work.has_backpressure = false;
        for slot in std::mem::take(&mut self.cx.work.parked) {
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.io.resume(PauseReasons::MAILBOX, &mut self.cx.work);
            }
        }
    }

    /// Begins to close all connections: what is open within `spread_ms`, and the rest now.
    fn drain(&mut self, spread_ms: Millis) {
        self.is_draining = true;
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.accept(arrival);
        }
        let mut open = Vec::new();
        for (slot, conn) in &mut self.conns {
            match conn.is_open() {
                true => open.push((slot, conn.io.id.generation)),
                false => conn.on_drain(&mut self.cx),
            }
        }
        self.draining = Draining::new(open, self.cx.now, spread_ms);
        self.drain_due();
    }

    /// Closes the connections whose time has come.
    fn drain_due(&mut self) {
        while let Some((slot, generation)) = self.draining.due(self.cx.now) {
            let conn = self.conns.get_mut(slot);
            if let Some(conn) = conn.filter(|conn| conn.io.id.generation == generation) {
                conn.on_drain(&mut self.cx);
            }
        }
    }

    fn stop(&mut self) {
        for (_, conn) in &mut self.conns {
            conn.stop(&mut self.cx);
        }
        self.stopped = true;
    }

    fn expire(&mut self) {
        while let Some(slot) = self.cx.timers.expired(self.cx.now) {
            match self.conns.get_mut(slot) {
                Some(conn) => conn.on_deadline(&mut self.cx),
                None => {
                    debug_assert!(false, "a reaped connection has no deadline");
                    return;
                }
            }
        }
        self.drain_due();
        if self.sweeps() && self.cx.now >= self.next_sweep {
            let swept = self.cx.shared.hub.sweep();
            self.next_sweep = self.cx.now + if swept.has_more { 0 } else { SWEEP_INTERVAL_MS };
            if swept.behind {
                self.cx.on_backpressure();
            }
            self.cx.shared.compare_memory();
            self.report();
        }
    }

    /// Logs what was refused: at once when refusals begin, and then at intervals, so that
    /// a storm of refusals is no storm of log lines.
    fn report(&mut self) {
        if self.cx.now >= self.next_report
            && let Some(refused) = self.cx.shared.metrics.refusals_since(&mut self.reported)
        {
            log::warn!("refused: {refused}");
            self.next_report = self.cx.now + REPORT_INTERVAL_MS;
        }
    }
}
