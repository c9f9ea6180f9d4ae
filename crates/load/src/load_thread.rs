//! The connections of one thread: opened, held, put to work, closed, and counted.

mod phases;

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use tungstenite::Message;

use super::{
    answer::Answer,
    dialer::Dialer,
    handshake::{self, Handshake},
    held::Held,
    log::Log,
    plan::{Mode, Plan},
    request::RequestForm,
    retry,
    run_state::{Phase, RunState, ThreadEvent},
    tally::Failure,
    ticker::Ticker,
    timers::{Due, Timer, Timers},
    work::{Share, Work},
};

/// The waker's token; connections have their index, which never reaches it.
const WAKER: Token = Token(usize::MAX);

/// How many events one poll takes in; more only wait for the next.
const EVENTS_MAX: usize = 1024;

/// One buffer for all reading, since only one socket is read at a time.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How often the thread tells how it stands.
const PULSE_EVERY: Duration = Duration::from_millis(100);

/// One thread's part of the run. Belongs to that thread; the coordinator reaches it through the
/// [`RunState`] and its waker.
pub(crate) struct LoadThread {
    plan: Arc<Plan>,
    state: Arc<RunState>,
    events: Sender<ThreadEvent>,
    share: Share,
    dialer: Dialer,
    form: RequestForm,
    poll: Poll,
    waker: Arc<Waker>,
    /// All that will ever be; the first `opened` of them have been dialed.
    connections: Vec<Connection>,
    opened: usize,
    /// How many hold a place in the making (`--connecting`), and how many may.
    connecting: u32,
    connecting_max: u32,
    /// Rejected ones whose wait is over, and that want a place in the making again.
    returning: VecDeque<usize>,
    timers: Timers,
    work: Work,
    ticker: Option<Ticker>,
    /// The phase as last seen, and what was said of it.
    phase: Phase,
    reported: Reported,
    pulse_due: Instant,
    log: Log,
    scratch: Vec<u8>,
}

/// One of the N that were asked for, over all its tries.
pub(crate) struct Connection {
    stage: Stage,
    /// When it was first dialed: connect times count from here.
    began: Instant,
    /// How often it was dialed.
    dials: u32,
    /// Whether it holds a place in the making.
    connecting: bool,
}

/// Where a connection is in its life.
enum Stage {
    /// Not dialed, or resting after a refusal.
    NotDialed,
    Asking(Box<Handshake>),
    Held(Box<Held>),
    /// Counted, and its socket closed.
    Gone,
}

/// What the coordinator has been told; each once.
#[derive(Default)]
struct Reported {
    settled: bool,
    ready: bool,
    empty: bool,
    quiet: bool,
}

impl Connection {
    /// The open WebSocket, if it is one.
    pub(crate) fn held(&mut self) -> Option<&mut Held> {
        match &mut self.stage {
            Stage::Held(held) => Some(held),
            Stage::NotDialed | Stage::Asking(_) | Stage::Gone => None,
        }
    }
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
        let not_dialed =
            || Connection { stage: Stage::NotDialed, began, dials: 0, connecting: false };
        let connections = share.of(plan.connections as usize);
        Ok(LoadThread {
            plan: Arc::clone(plan),
            state: Arc::clone(state),
            events,
            share,
            dialer: Dialer::new(plan.address, &plan.sources),
            form: RequestForm::new(plan),
            poll,
            waker,
            connections: (0..connections).map(|_| not_dialed()).collect(),
            opened: 0,
            connecting: 0,
            connecting_max: (share.of(plan.opening.connecting as usize) as u32).max(1),
            returning: VecDeque::new(),
            timers: Timers::default(),
            work: Work::new(plan, share, began),
            ticker: None,
            phase: Phase::Opening,
            reported: Reported::default(),
            pulse_due: began,
            log: Log::new(Arc::clone(state)),
            scratch: vec![0; SCRATCH_BYTES],
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
        if !self.plan.opening.ramp.is_zero() {
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
                self.step(event.token().0);
            }
        }
    }

    // Opening.

    /// Dials as many as the rate and the places in the making allow; those returning come first.
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
        let rate = self.plan.opening.rate;
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
        let dialed = self.dialer.dial(self.share.number(index)).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(stream)
        });
        match dialed {
            Ok(stream) => {
                connection.stage =
                    Stage::Asking(Box::new(Handshake::new(stream, self.form.fill())));
                connection.connecting = true;
                self.connecting += 1;
                self.set_timer(now + self.plan.opening.waited_after, index, Due::InLine);
                self.set_timer(now + self.plan.opening.timeout, index, Due::Overdue);
            }
            Err(error) => self.on_failed(index, Failure::of_dial(&error)),
        }
    }

    // Events and timers.

    /// Lets a connection go as far as its socket allows, and counts what comes of it.
    fn step(&mut self, index: usize) {
        match &mut self.connections[index].stage {
            // An event may still lie in the batch for a socket that was closed a moment ago.
            Stage::NotDialed | Stage::Gone => {}
            Stage::Asking(handshake) => match handshake.step(&mut self.scratch) {
                handshake::Progress::Pending => {}
                handshake::Progress::Answered(answer) => self.on_answer(index, answer),
                handshake::Progress::Failed(failure) => self.on_failed(index, failure),
            },
            Stage::Held(_) => self.step_held(index),
        }
    }

    fn step_held(&mut self, index: usize) {
        let Stage::Held(held) = &mut self.connections[index].stage else { return };
        let (work, log, state) = (&mut self.work, &mut self.log, &self.state);
        held.step(&mut self.scratch, &mut |message, now| match &message {
            Message::Pong(payload) => count_pong(payload, state.began, now, log),
            _ => {
                log.count_received(now);
                work.on_message(index, &message, now, log);
            }
        });
        if !held.has_ended() && matches!(self.phase, Phase::Opening | Phase::Running { .. }) {
            self.work.after_step(index, held, &mut self.log);
        }
        self.note_ending(index);
    }

    /// Counts the end of a held connection once, and lets go of a socket that is of no more use.
    fn note_ending(&mut self, index: usize) {
        let Stage::Held(held) = &mut self.connections[index].stage else {
            return;
        };
        let over = held.is_over();
        if let Some(ending) = held.take_news() {
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

    /// Those whose end was met with while sending.
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
            (Due::InLine, Stage::Asking(_)) => self.free_place(index),
            (Due::Overdue, Stage::Asking(handshake)) => {
                let failure = handshake.timed_out();
                self.on_failed(index, failure);
            }
            (Due::Return, Stage::NotDialed) => self.returning.push_back(index),
            (Due::Say, Stage::Held(_)) => self.say(index),
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
        match retry::after(answer.retry_after) {
            Some(wait) if self.connections[index].dials <= self.plan.opening.retry => {
                self.leave(index, Stage::NotDialed);
                self.log.tally.retries += 1;
                self.set_timer(Instant::now() + wait, index, Due::Return);
            }
            Some(_) | None => {
                self.leave(index, Stage::Gone);
                self.log.count_refused(answer.status, answer.retry_after);
            }
        }
    }

    fn on_served(&mut self, index: usize, answer: Answer) {
        self.free_place(index);
        let connection = &mut self.connections[index];
        let took = connection.began.elapsed();
        let (retried, marked) = (connection.dials > 1, answer.queue_wait.is_some());
        self.log.count_served(took, retried, marked, self.plan.opening.waited_after);
        let busy = self.plan.has_traffic();
        if matches!(self.plan.mode, Mode::Storm { .. } | Mode::Idle { ping: None }) {
            // Where nothing else is timed, the time to connect is what there is to see.
            self.log.note_latency(took, Instant::now());
        }
        connection.stage = match mem::replace(&mut connection.stage, Stage::Gone) {
            Stage::Asking(handshake) => {
                Stage::Held(Box::new(Held::new(handshake.stream, answer.rest, busy)))
            }
            stage @ (Stage::NotDialed | Stage::Held(_) | Stage::Gone) => stage,
        };
        if let Stage::Held(held) = &mut connection.stage {
            self.work.on_served(index, held, &mut self.log);
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
        self.step_held(index);
    }

    fn on_failed(&mut self, index: usize, failure: Failure) {
        self.leave(index, Stage::Gone);
        self.log.count_failed(failure);
    }

    /// Sends what a resting connection says now and then, and sets the time for the next.
    fn say(&mut self, index: usize) {
        let plan = Arc::clone(&self.plan);
        let now = Instant::now();
        let (message, every) = match &plan.mode {
            Mode::Storm { message: Some(text), every } => (Message::text(text.as_str()), *every),
            Mode::Idle { ping: Some(every) } => (ping(self.state.began, now), Some(*every)),
            Mode::Storm { .. } | Mode::Idle { .. } | Mode::Echo(_) | Mode::Fanout(_) => return,
        };
        let Stage::Held(held) = &mut self.connections[index].stage else { return };
        if held.has_ended() {
            return;
        }
        let is_ping = message.is_ping();
        if held.say(message) {
            if is_ping {
                self.log.count_ping(now);
            } else {
                self.log.count_sent(now, now);
            }
        } else {
            self.log.tally.messages_held_back += 1;
        }
        self.note_ending(index);
        if let Some(every) = every {
            self.set_timer(now + every, index, Due::Say);
        }
    }

    /// Closes the socket, if there is one, and frees what the connection held.
    fn leave(&mut self, index: usize, next: Stage) {
        self.free_place(index);
        match mem::replace(&mut self.connections[index].stage, next) {
            Stage::Asking(handshake) => self.forget(handshake.stream),
            Stage::Held(held) => self.forget(held.stream),
            Stage::NotDialed | Stage::Gone => {}
        }
    }

    fn forget(&self, mut stream: TcpStream) {
        // The socket is closed either way, and mostly that ends the watch too.
        let _ = self.poll.registry().deregister(&mut stream);
    }

    fn free_place(&mut self, index: usize) {
        if mem::take(&mut self.connections[index].connecting) {
            self.connecting -= 1;
        }
    }
}

/// A ping that carries its time.
fn ping(began: Instant, now: Instant) -> Message {
    let nanos = now.saturating_duration_since(began).as_nanos() as u64;
    Message::Ping(nanos.to_be_bytes().to_vec().into())
}

/// Times the answer to a ping of ours; any other pong is nobody's.
fn count_pong(payload: &[u8], began: Instant, now: Instant, log: &mut Log) {
    if let Ok(nanos) = <[u8; 8]>::try_from(payload) {
        let sent = began + Duration::from_nanos(u64::from_be_bytes(nanos));
        log.count_answered(sent, now, payload.len());
    }
}
