//! The connections of one thread: opened, held, put to work, closed, and counted.

mod phases;

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use chrono::Utc;
use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use rusty_socks_client::Stream;
use rusty_socks_ws::{client_handshake::Answer, encode::Kind};

use super::{
    connection::{Connection, Stage},
    dial::dial,
    echo::Echo,
    failure::Failure,
    fanout::Fanout,
    handshake::Handshake,
    log::Log,
    plan::{Mode, Plan},
    read_buffer::ReadBuffer,
    retry_after,
    run_state::{Phase, RunState, ThreadEvent},
    share::Share,
    ticker::Ticker,
    timers::{Due, Timer, Timers},
    websocket::{Incoming, WebSocket},
    work::{Rest, Work},
};

/// The waker's token; connections have their index, which never reaches it.
const WAKER: Token = Token(usize::MAX);

/// How many events one poll takes in; more only wait for the next.
const EVENTS_MAX: usize = 1024;

/// One buffer for all reading, since only one socket is read at a time.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The header by which Rusty Socks says that an upgrade waited in line, and how many milliseconds.
const QUEUE_WAIT: &str = "Queue-Wait-Ms";

/// How often the thread tells how it stands.
const COUNTS_EVERY: Duration = Duration::from_millis(100);

/// One thread's part of the run. Belongs to that thread; the coordinator reaches it through the
/// [`RunState`] and its waker.
pub(crate) struct LoadThread {
    plan: Arc<Plan>,
    state: Arc<RunState>,
    events: Sender<ThreadEvent>,
    share: Share,
    poll: Poll,
    waker: Arc<Waker>,
    /// All that will ever be; the first `opened` of them have been dialed.
    connections: Vec<Connection>,
    opened: usize,
    /// How many count against `--connecting`, and how many may.
    connecting: u32,
    connecting_max: u32,
    /// Refused ones whose wait is over, which are dialed again as soon as `--connecting` allows.
    returning: VecDeque<usize>,
    timers: Timers,
    work: Box<dyn Work>,
    ticker: Option<Ticker>,
    /// The phase as last seen, and what was said of it.
    phase: Phase,
    reported: Reported,
    counts_due: Instant,
    log: Log,
    scratch: ReadBuffer,
}

/// What the coordinator has been told; each once.
#[derive(Default)]
struct Reported {
    settled: bool,
    ready: bool,
    empty: bool,
    quiet: bool,
}

impl LoadThread {
    pub(crate) fn new(
        plan: &Arc<Plan>,
        state: &Arc<RunState>,
        events: Sender<ThreadEvent>,
        share: Share,
    ) -> io::Result<LoadThread> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let began = state.began;
        let connections = share.of(plan.connections as usize);
        Ok(LoadThread {
            plan: Arc::clone(plan),
            state: Arc::clone(state),
            events,
            share,
            poll,
            waker,
            connections: (0..connections).map(|_| Connection::new(began)).collect(),
            opened: 0,
            connecting: 0,
            connecting_max: (share.of(plan.common.connecting as usize) as u32).max(1),
            returning: VecDeque::new(),
            timers: Timers::default(),
            work: match &plan.mode {
                Mode::Storm { .. } | Mode::Idle { .. } => Box::new(Rest),
                Mode::Echo(echo) => Box::new(Echo::new(plan, echo, share)),
                Mode::Fanout(fanout) => Box::new(Fanout::new(plan, fanout, share, state)),
            },
            ticker: None,
            phase: Phase::Opening,
            reported: Reported::default(),
            counts_due: began,
            log: Log::new(Arc::clone(state)),
            scratch: ReadBuffer::new(SCRATCH_BYTES),
        })
    }

    /// By which the coordinator wakes this thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Runs to the end and hands over the log. Fails only if sockets cannot be watched at all.
    pub(crate) fn run(mut self) -> io::Result<Log> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        if !self.plan.has_traffic() {
            self.log.busy.start(Instant::now());
        }
        if !self.plan.common.ramp.is_zero() {
            self.begin_work(self.state.began);
        }
        loop {
            let now = Instant::now();
            self.follow_phase(now);
            if self.is_over(now) {
                self.ticker = None;
                return Ok(self.log);
            }
            self.fire_timers(now);
            self.dial_those_due(now);
            if matches!(self.phase, Phase::Opening | Phase::Running { .. } | Phase::Draining { .. })
            {
                self.work.tick(now, &mut self.connections, &mut self.log);
            }
            self.note_endings();
            self.watch_the_clock(now);
            self.tell(now);
            let slept_from = Instant::now();
            let polled = self.poll.poll(&mut events, Some(self.time_to_sleep(slept_from)));
            self.log.busy.slept(slept_from.elapsed());
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.step(event.token().0, event.is_read_closed());
            }
        }
    }

    // Opening.

    /// Dials as many as the rate and `--connecting` allow; those returning come first.
    fn dial_those_due(&mut self, now: Instant) {
        if self.phase != Phase::Opening {
            return;
        }
        while self.connecting < self.connecting_max {
            if let Some(index) = self.returning.pop_front() {
                self.dial(index);
            } else if self.next_opening().is_some_and(|at| at <= now) {
                self.opened += 1;
                self.dial(self.opened - 1);
            } else {
                break;
            }
        }
    }

    /// When the next connection is to be dialed for the first time; `None` when all have been.
    fn next_opening(&self) -> Option<Instant> {
        if self.opened == self.connections.len() {
            return None;
        }
        let rate = self.plan.rate;
        let number = self.share.number(self.opened) as f64;
        let wait = if rate > 0.0 { Duration::from_secs_f64(number / rate) } else { Duration::ZERO };
        Some(self.state.began + wait)
    }

    fn dial(&mut self, index: usize) {
        let now = Instant::now();
        let connection = &mut self.connections[index];
        if connection.dials == 0 {
            connection.began = now;
        }
        connection.dials += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let (sources, number) = (&self.plan.common.source, self.share.number(index));
        let source = sources.get(number % sources.len().max(1));
        let server = self.plan.server_of(number);
        let dialed = dial(server.address, source.copied()).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            match &server.tls {
                None => Ok(Stream::Plain(stream)),
                Some(tls) => match tls.begin(stream, &server.target) {
                    Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
                    Err(error) => Err(io::Error::other(error)),
                },
            }
        });
        match dialed {
            Ok(stream) => {
                let handshake = Handshake::new(stream, &server.request);
                connection.stage = Stage::Asking(Box::new(handshake));
                connection.connecting = true;
                self.connecting += 1;
                self.set_timer(now + self.plan.common.waited_after, index, Due::InLine);
                self.set_timer(now + self.plan.common.timeout, index, Due::Overdue);
            }
            Err(error) => self.on_failed(index, Failure::of_dial(&error)),
        }
    }

    // Events and timers.

    /// Lets a connection go as far as its socket allows, and counts what comes of it.
    /// `to_the_end` as in [`WebSocket::step`].
    fn step(&mut self, index: usize, to_the_end: bool) {
        match &mut self.connections[index].stage {
            // An event may still lie in the batch for a socket that was closed a moment ago.
            Stage::NotDialed | Stage::Gone => {}
            Stage::Asking(handshake) => match handshake.step(&mut self.scratch) {
                Ok(None) => {}
                Ok(Some(answer)) => self.on_answer(index, answer),
                Err(failure) => self.on_failed(index, failure),
            },
            Stage::Open(_) => self.step_open(index, to_the_end),
        }
    }

    fn step_open(&mut self, index: usize, to_the_end: bool) {
        let Stage::Open(socket) = &mut self.connections[index].stage else { return };
        let (work, log, state) = (&mut self.work, &mut self.log, &self.state);
        socket.step(&mut self.scratch, to_the_end, |incoming, now| match incoming {
            Incoming::Pong(payload) => count_pong(payload, state.began, now, log),
            Incoming::Message(message) => {
                log.count_received(now);
                work.on_message(index, message, now, log);
            }
        });
        if !socket.has_ended() && matches!(self.phase, Phase::Opening | Phase::Running { .. }) {
            self.work.after_step(index, socket, &mut self.log);
        }
        self.note_ending(index);
    }

    /// Counts the end of a held connection once, and lets go of a socket that is of no more use.
    fn note_ending(&mut self, index: usize) {
        let Stage::Open(socket) = &mut self.connections[index].stage else {
            return;
        };
        let over = socket.is_over();
        if let Some(ending) = socket.take_ending() {
            self.work.on_ended(index);
            if matches!(self.phase, Phase::Closing { .. }) {
                self.log.count_closed_by_us(&ending);
            } else {
                self.log.count_closed_by_server(ending);
            }
        }
        if over {
            self.leave(index, Stage::Gone);
        }
    }

    /// Counts the ends that were met with while sending.
    fn note_endings(&mut self) {
        for index in mem::take(&mut self.log.ended) {
            self.note_ending(index);
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            self.fire(&timer);
        }
    }

    fn fire(&mut self, timer: &Timer) {
        let index = timer.index;
        if self.connections[index].dials != timer.dial
            || matches!(self.phase, Phase::Draining { .. } | Phase::Closing { .. })
        {
            return;
        }
        match (timer.due, &mut self.connections[index].stage) {
            (Due::InLine, Stage::Asking(_)) => self.stop_connecting(index),
            (Due::Overdue, Stage::Asking(handshake)) => {
                let failure = handshake.timed_out();
                self.on_failed(index, failure);
            }
            (Due::Return, Stage::NotDialed) => self.returning.push_back(index),
            (Due::Say, Stage::Open(_)) => self.say(index),
            (Due::InLine | Due::Overdue | Due::Return | Due::Say, _) => {}
        }
    }

    fn set_timer(&mut self, at: Instant, index: usize, due: Due) {
        let dial = self.connections[index].dials;
        self.timers.set(Timer { at, index, dial, due });
    }

    // What can come of a dial.

    fn on_answer(&mut self, index: usize, answer: Answer) {
        if answer.status == 101 {
            self.on_served(index, answer);
            return;
        }
        let advice = answer.header("Retry-After");
        let advice = advice.and_then(|value| retry_after::parse(value, Utc::now()));
        match retry_after::wait(advice) {
            Some(wait) if self.connections[index].dials <= self.plan.retry => {
                self.leave(index, Stage::NotDialed);
                self.log.tally.retries += 1;
                self.set_timer(Instant::now() + wait, index, Due::Return);
            }
            Some(_) | None => {
                self.leave(index, Stage::Gone);
                self.log.count_refused(answer.status, advice);
            }
        }
    }

    fn on_served(&mut self, index: usize, answer: Answer) {
        self.stop_connecting(index);
        let connection = &mut self.connections[index];
        let took = connection.began.elapsed();
        let (retried, marked) = (connection.dials > 1, waited_in_line(&answer));
        self.log.count_served(took, retried, marked, self.plan.common.waited_after);
        if matches!(self.plan.mode, Mode::Storm { .. } | Mode::Idle { ping: None }) {
            // Where nothing else is timed, the time to connect is what there is to see.
            self.log.note_latency(took, Instant::now());
        }
        connection.stage = match mem::replace(&mut connection.stage, Stage::Gone) {
            Stage::Asking(handshake) => {
                Stage::Open(Box::new(WebSocket::new(handshake.stream, answer.rest)))
            }
            stage @ (Stage::NotDialed | Stage::Open(_) | Stage::Gone) => stage,
        };
        if let Stage::Open(socket) = &mut connection.stage {
            self.work.on_served(index, socket, &mut self.log);
        }
        match &self.plan.mode {
            Mode::Storm { message: Some(_), .. } => self.say(index),
            Mode::Idle { ping: Some(every) } => {
                // Spread over the interval, so that the pings are not a storm of their own.
                let place = self.share.number(index) as f64 / f64::from(self.plan.connections);
                self.set_timer(Instant::now() + every.mul_f64(place), index, Due::Say);
            }
            Mode::Storm { .. } | Mode::Idle { .. } | Mode::Echo(_) | Mode::Fanout(_) => {}
        }
        // What came right behind the answer will not be announced by another event.
        self.step_open(index, true);
    }

    fn on_failed(&mut self, index: usize, failure: Failure) {
        self.leave(index, Stage::Gone);
        self.log.count_failed(failure);
    }

    /// Sends what a resting connection says now and then, and sets the time for the next.
    fn say(&mut self, index: usize) {
        let plan = Arc::clone(&self.plan);
        let now = Instant::now();
        let Stage::Open(socket) = &mut self.connections[index].stage else { return };
        if socket.has_ended() {
            return;
        }
        let every = match &plan.mode {
            Mode::Storm { message: Some(text), every } => {
                if socket.send_alone(Kind::Text, text.as_bytes()) {
                    self.log.count_sent(now, now);
                } else {
                    self.log.tally.messages_held_back += 1;
                }
                *every
            }
            Mode::Idle { ping: Some(every) } => {
                if socket.ping(&stamp(self.state.began, now)) {
                    self.log.count_ping(now);
                } else {
                    self.log.tally.messages_held_back += 1;
                }
                Some(*every)
            }
            Mode::Storm { .. } | Mode::Idle { .. } | Mode::Echo(_) | Mode::Fanout(_) => return,
        };
        self.note_ending(index);
        if let Some(every) = every {
            self.set_timer(now + every, index, Due::Say);
        }
    }

    /// Closes the socket, if there is one, and frees what the connection held.
    fn leave(&mut self, index: usize, next: Stage) {
        self.stop_connecting(index);
        match mem::replace(&mut self.connections[index].stage, next) {
            Stage::Asking(mut handshake) => self.forget(handshake.stream.socket_mut()),
            Stage::Open(mut socket) => self.forget(socket.stream()),
            Stage::NotDialed | Stage::Gone => {}
        }
    }

    fn forget(&self, stream: &mut TcpStream) {
        // The socket is closed either way, and mostly that ends the watch too.
        let _ = self.poll.registry().deregister(stream);
    }

    fn stop_connecting(&mut self, index: usize) {
        if mem::take(&mut self.connections[index].connecting) {
            self.connecting -= 1;
        }
    }
}

/// Whether the server says that the upgrade waited in its line.
fn waited_in_line(answer: &Answer) -> bool {
    answer.header(QUEUE_WAIT).is_some_and(|wait| wait.parse::<u64>().is_ok())
}

/// The payload of a ping: its time.
fn stamp(began: Instant, now: Instant) -> [u8; 8] {
    (now.saturating_duration_since(began).as_nanos() as u64).to_be_bytes()
}

/// Times the answer to a ping of ours; any other pong is nobody's.
fn count_pong(payload: &[u8], began: Instant, now: Instant, log: &mut Log) {
    if let Ok(nanos) = <[u8; 8]>::try_from(payload) {
        let sent = began + Duration::from_nanos(u64::from_be_bytes(nanos));
        log.count_answered(sent, now, payload.len());
    }
}
