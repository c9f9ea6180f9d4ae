//! All connections of a run, on one thread: opened, held, closed, and counted.

use std::{
    collections::VecDeque,
    io, mem,
    net::SocketAddr,
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};

use super::{
    LoadArgs,
    answer::Answer,
    comeback,
    dialer::Dialer,
    handshake::{self, Handshake},
    held::Held,
    progress::Progress,
    request::RequestForm,
    stats::ServerFigures,
    stopper::Stopper,
    tally::{Failure, Tally},
    timers::{Due, Timer, Timers},
};

/// The waker's token; connections have their index, which never reaches it.
const WAKER: Token = Token(usize::MAX);

/// How many events one poll takes in; more only wait for the next.
const EVENTS_MAX: usize = 1024;

/// One buffer for all reading, since only one socket is read at a time.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How long the goodbyes may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// The run. Belongs to one thread; others reach it through a [`Stopper`].
pub(super) struct Fleet<'a> {
    args: &'a LoadArgs,
    address: SocketAddr,
    dialer: Dialer,
    form: RequestForm,
    poll: Poll,
    /// What other threads hold copies of.
    stopper: Stopper,
    /// All that will ever be; the first `opened` of them have been dialed.
    connections: Vec<Connection>,
    opened: usize,
    /// How many hold a place in the making (`--connecting`).
    connecting: u32,
    /// Rejected ones whose wait is over, and that want a place in the making again.
    returning: VecDeque<usize>,
    timers: Timers,
    phase: Phase,
    began: Instant,
    tally: Tally,
    scratch: Vec<u8>,
}

/// One of the N that were asked for, over all its tries.
struct Connection {
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
    /// Not dialed, or resting after a rejection.
    Ashore,
    Asking(Box<Handshake>),
    Held(Box<Held>),
    /// Counted, and its socket closed.
    Gone,
}

/// Where the run is.
enum Phase {
    /// Some have no answer yet.
    Opening,
    /// All have; the server's own figures, unless they have come, are still asked for.
    Holding { until: Instant, figures: Option<Receiver<Option<ServerFigures>>> },
    /// Goodbyes are said.
    Closing { until: Instant },
}

/// What a look at the clock and the counts has changed.
enum Advance {
    None,
    Phase,
    Over,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(args: &'a LoadArgs, address: SocketAddr) -> io::Result<Fleet<'a>> {
        let poll = Poll::new()?;
        let stopper = Stopper::new(Waker::new(poll.registry(), WAKER)?);
        let began = Instant::now();
        let ashore = || Connection { stage: Stage::Ashore, began, dials: 0, connecting: false };
        Ok(Fleet {
            args,
            address,
            dialer: Dialer::new(address, &args.source),
            form: RequestForm::new(args),
            poll,
            stopper,
            connections: (0..args.connections).map(|_| ashore()).collect(),
            opened: 0,
            connecting: 0,
            returning: VecDeque::new(),
            timers: Timers::default(),
            phase: Phase::Opening,
            began,
            tally: Tally::new(),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// A handle by which another thread can end the run.
    pub(super) fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Runs to the end and hands over the count. Fails only if sockets cannot be watched at all.
    pub(super) fn run(mut self, mut progress: Progress) -> io::Result<Tally> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.began = Instant::now();
        loop {
            let now = Instant::now();
            self.fire_timers(now);
            self.dial_those_due(now);
            match self.advance(now, &progress) {
                Advance::None => {}
                // The new phase may have nothing to wait for, so it is not slept upon.
                Advance::Phase => continue,
                Advance::Over => return Ok(self.tally),
            }
            if progress.is_due(now) {
                progress.show(now, &self.doing(now), &self.tally);
            }
            match self.poll.poll(&mut events, Some(self.time_to_sleep(&progress))) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.step(event.token().0);
            }
        }
    }

    /// What the run is at, for the live line.
    fn doing(&self, now: Instant) -> String {
        match &self.phase {
            Phase::Opening => {
                format!("opening, {} of {} answered", self.tally.settled(), self.args.connections)
            }
            Phase::Holding { until, .. } => {
                format!(
                    "holding for {:.0} s",
                    until.saturating_duration_since(now).as_secs_f64().ceil()
                )
            }
            Phase::Closing { .. } => "closing".to_owned(),
        }
    }

    // Opening.

    /// Dials as many as the rate and the places in the making allow; those returning come first.
    fn dial_those_due(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Opening) {
            return;
        }
        while self.connecting < self.args.connecting {
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
        let wait = match self.args.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(self.opened as f64 / f64::from(rate)),
        };
        Some(self.began + wait)
    }

    fn dial(&mut self, index: usize) {
        let now = Instant::now();
        let connection = &mut self.connections[index];
        if connection.dials == 0 {
            connection.began = now;
        }
        connection.dials += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let dialed = self.dialer.dial().and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(stream)
        });
        match dialed {
            Ok(stream) => {
                connection.stage =
                    Stage::Asking(Box::new(Handshake::new(stream, self.form.fill())));
                connection.connecting = true;
                self.connecting += 1;
                self.set_timer(now + self.args.waited_after, index, Due::InLine);
                self.set_timer(now + self.args.timeout, index, Due::Overdue);
            }
            Err(error) => self.on_failed(index, Failure::of_dial(&error)),
        }
    }

    // Events and timers.

    /// Lets a connection go as far as its socket allows, and counts what comes of it.
    fn step(&mut self, index: usize) {
        match &mut self.connections[index].stage {
            // An event may still lie in the batch for a socket that was closed a moment ago.
            Stage::Ashore | Stage::Gone => {}
            Stage::Asking(handshake) => match handshake.step(&mut self.scratch) {
                handshake::Progress::Pending => {}
                handshake::Progress::Answered(answer) => self.on_answer(index, answer),
                handshake::Progress::Failed(failure) => self.on_failed(index, failure),
            },
            Stage::Held(_) => self.step_held(index),
        }
    }

    fn step_held(&mut self, index: usize) {
        if let Stage::Held(held) = &mut self.connections[index].stage {
            self.tally.messages_received += held.step(&mut self.scratch);
            self.note_ending(index);
        }
    }

    /// Counts the end of a held connection once, and lets go of a socket that is of no more use.
    fn note_ending(&mut self, index: usize) {
        let Stage::Held(held) = &mut self.connections[index].stage else {
            return;
        };
        let over = held.is_over();
        match (held.take_news(), &self.phase) {
            (None, _) => {}
            (Some(ending), Phase::Opening | Phase::Holding { .. }) => {
                self.tally.count_closed_by_server(ending);
            }
            (Some(ending), Phase::Closing { .. }) => self.tally.count_goodbye(&ending),
        }
        if over {
            self.leave(index, Stage::Gone);
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
            || matches!(self.phase, Phase::Closing { .. })
        {
            return;
        }
        match (timer.due, &mut self.connections[index].stage) {
            (Due::InLine, Stage::Asking(_)) => self.free_place(index),
            (Due::Overdue, Stage::Asking(handshake)) => {
                let failure = handshake.timed_out();
                self.on_failed(index, failure);
            }
            (Due::Return, Stage::Ashore) => self.returning.push_back(index),
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
        match comeback::after(answer.retry_after) {
            Some(wait) if self.connections[index].dials <= self.args.retry => {
                self.leave(index, Stage::Ashore);
                self.tally.retries += 1;
                self.set_timer(Instant::now() + wait, index, Due::Return);
            }
            Some(_) | None => {
                self.leave(index, Stage::Gone);
                self.tally.count_rejected(answer.status, answer.retry_after);
            }
        }
    }

    fn on_served(&mut self, index: usize, answer: Answer) {
        self.free_place(index);
        let connection = &mut self.connections[index];
        let took = connection.began.elapsed();
        if connection.dials > 1 {
            self.tally.count_served_after_retry(took);
        } else {
            self.tally.count_served(took, answer.queue_wait.is_some(), self.args.waited_after);
        }
        connection.stage = match mem::replace(&mut connection.stage, Stage::Gone) {
            Stage::Asking(handshake) => {
                Stage::Held(Box::new(Held::new(handshake.stream, answer.rest)))
            }
            stage @ (Stage::Ashore | Stage::Held(_) | Stage::Gone) => stage,
        };
        if self.args.message.is_some() {
            self.say(index);
        }
        // What came right behind the answer will not be announced by another event.
        self.step_held(index);
    }

    fn on_failed(&mut self, index: usize, failure: Failure) {
        self.leave(index, Stage::Gone);
        self.tally.count_failed(failure);
    }

    /// Sends the message, and sets the time for the next.
    fn say(&mut self, index: usize) {
        let (Some(text), Stage::Held(held)) =
            (&self.args.message, &mut self.connections[index].stage)
        else {
            return;
        };
        if held.has_ended() {
            return;
        }
        if held.say(text) {
            self.tally.messages_sent += 1;
        } else {
            self.tally.messages_held_back += 1;
        }
        self.note_ending(index);
        if let Some(every) = self.args.every {
            self.set_timer(Instant::now() + every, index, Due::Say);
        }
    }

    /// Closes the socket, if there is one, and frees what the connection held.
    fn leave(&mut self, index: usize, next: Stage) {
        self.free_place(index);
        match mem::replace(&mut self.connections[index].stage, next) {
            Stage::Asking(handshake) => self.forget(handshake.stream),
            Stage::Held(held) => self.forget(held.stream),
            Stage::Ashore | Stage::Gone => {}
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

    // Phases.

    /// Goes on to the next phase when it is time.
    fn advance(&mut self, now: Instant, progress: &Progress) -> Advance {
        let stopped = self.stopper.is_stopped();
        match &mut self.phase {
            Phase::Opening if stopped => self.give_up_opening(now),
            Phase::Opening if self.tally.settled() == u64::from(self.args.connections) => {
                self.tally.settled_after = now.duration_since(self.began);
                self.phase = Phase::Holding {
                    until: now + self.args.hold,
                    figures: Some(self.ask_for_figures()),
                };
            }
            Phase::Opening => return Advance::None,
            Phase::Holding { until, figures } => {
                let answer =
                    figures.as_ref().map_or(Err(TryRecvError::Disconnected), Receiver::try_recv);
                match answer {
                    Ok(server) => {
                        *figures = None;
                        if let Some(server) = &server {
                            progress.note(&format!("the server: {server}"));
                        }
                        self.tally.server = server;
                    }
                    Err(TryRecvError::Disconnected) => {}
                    Err(TryRecvError::Empty) if stopped => {}
                    // The hold is not over before the figures are in, lest they tell of a server
                    // already left.
                    Err(TryRecvError::Empty) => return Advance::None,
                }
                if !stopped && now < *until && self.tally.open > 0 {
                    return Advance::None;
                }
                self.say_goodbye(now);
            }
            Phase::Closing { until } => {
                let waits = self
                    .connections
                    .iter()
                    .any(|connection| matches!(connection.stage, Stage::Held(_)));
                return if waits && now < *until { Advance::None } else { Advance::Over };
            }
        }
        Advance::Phase
    }

    /// Interrupted before all had their answer: those without one are given up, the others closed
    /// as usual.
    fn give_up_opening(&mut self, now: Instant) {
        self.tally.settled_after = now.duration_since(self.began);
        for index in 0..self.connections.len() {
            if matches!(self.connections[index].stage, Stage::Ashore | Stage::Asking(_)) {
                self.leave(index, Stage::Gone);
                self.tally.interrupted += 1;
            }
        }
        self.say_goodbye(now);
    }

    fn say_goodbye(&mut self, now: Instant) {
        self.tally.held_for = now.duration_since(self.began) - self.tally.settled_after;
        self.tally.held_to_the_end = self.tally.open;
        self.phase = Phase::Closing { until: now + GOODBYE_MAX };
        for index in 0..self.connections.len() {
            if let Stage::Held(held) = &mut self.connections[index].stage {
                held.close();
                self.note_ending(index);
            }
        }
    }

    /// Asks for `/stats` on a thread of its own, which wakes this one when it is done.
    fn ask_for_figures(&self) -> Receiver<Option<ServerFigures>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (address, authority) = (self.address, self.args.target.authority());
        let stopper = self.stopper();
        thread::spawn(move || {
            // The receiver is gone when the run was interrupted: nobody wants the figures then.
            let _ = sender.send(ServerFigures::ask(address, &authority));
            stopper.wake();
        });
        receiver
    }

    /// How long the poll may sleep: until something is due.
    fn time_to_sleep(&self, progress: &Progress) -> Duration {
        let phase_end = match &self.phase {
            Phase::Opening => None,
            Phase::Holding { figures: Some(_), .. } => None,
            Phase::Holding { until, figures: None } | Phase::Closing { until } => Some(*until),
        };
        let place_free = self.connecting < self.args.connecting;
        let opening =
            self.next_opening().filter(|_| place_free && matches!(self.phase, Phase::Opening));
        let timer = self.timers.next_at().filter(|_| !matches!(self.phase, Phase::Closing { .. }));
        let soonest =
            [phase_end, opening, timer].into_iter().flatten().fold(progress.due(), Instant::min);
        soonest.saturating_duration_since(Instant::now())
    }
}
