//! The run as a whole: the coordinator starts the load threads, sets the phases, asks the server
//! how it is, shows the progress and adds up the logs.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use mio::Waker;

use super::{
    load_thread::LoadThread,
    log::Log,
    plan::{Mode, Plan},
    progress::{LiveLine, Progress},
    report::Report,
    run_state::{AskedAt, Phase, RunState, ThreadEvent},
    share::Share,
    stats::ServerFigures,
};

/// How long what is on its way may take to come in.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long the closing handshakes may take.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// How often the server is asked how it is.
const FIGURES_EVERY: Duration = Duration::from_secs(1);

/// Far enough for a run that is ended by a count.
const NO_END: Duration = Duration::from_secs(24 * 60 * 60);

struct Coordinator<'a> {
    plan: Arc<Plan>,
    state: Arc<RunState>,
    wakers: Vec<Arc<Waker>>,
    events: Receiver<ThreadEvent>,
    /// For the threads that ask the server.
    sender: Sender<ThreadEvent>,
    live: LiveLine,
    tell: &'a mut dyn FnMut(Progress),
    /// How many threads have sent which event.
    settled: usize,
    ready: usize,
    empty: usize,
    quiet: usize,
    over: usize,
    stopped: bool,
    /// When all had their answer.
    settled_at: Option<Instant>,
    figures: Figures,
    /// When anything last came in, and how much had by then: a run that is ended by a count is
    /// given up when nothing comes any more.
    moved_at: Instant,
    received: u64,
    stage: Stage,
}

/// The asking of the server.
struct Figures {
    before: Option<ServerFigures>,
    samples: Vec<(Duration, ServerFigures)>,
    /// The one asked for when all had their answer: `Some(None)` when there is none to be had.
    settled: Option<Option<ServerFigures>>,
    after: Option<ServerFigures>,
    /// A sample is on its way; and so are the last figures.
    sampling: bool,
    asking_after: bool,
    next_at: Instant,
}

/// Where the coordinator is: its stages are finer than the phases of the threads.
#[derive(Clone, Copy)]
enum Stage {
    Opening,
    Running {
        from: Instant,
        until: Instant,
    },
    Draining {
        from: Instant,
        ended: Instant,
    },
    /// The last look at the server, before it is left.
    Asking {
        from: Instant,
        ended: Instant,
    },
    Closing {
        from: Instant,
        ended: Instant,
    },
}

/// A way to end a run early, as if its time were up. May be used from any thread.
#[derive(Debug, Clone)]
pub struct StopHandle(Sender<ThreadEvent>);

impl StopHandle {
    /// Asks the run to end. After its end nothing happens.
    pub fn stop(&self) {
        // When nobody listens the run is over anyway.
        let _ = self.0.send(ThreadEvent::Stop);
    }
}

/// Runs the plan to its end and returns it with what came of it. `on_start` is given a way to end
/// the run early; `tell` is called `every` so often with how things stand. Blocks; the connections
/// are on threads of their own. Fails only if sockets cannot be watched at all.
pub fn run(
    plan: Plan,
    every: Duration,
    on_start: impl FnOnce(StopHandle),
    mut tell: impl FnMut(Progress),
) -> io::Result<(Arc<Plan>, Report)> {
    let plan = Arc::new(plan);
    let before = ServerFigures::ask(&plan);
    let state = RunState::new(&plan);
    let began = Utc::now();
    let (sender, events) = mpsc::channel();
    on_start(StopHandle(sender.clone()));
    let share = |thread| Share { thread, threads: plan.threads };
    let threads = (0..plan.threads)
        .map(|thread| LoadThread::new(&plan, &state, sender.clone(), share(thread)))
        .collect::<io::Result<Vec<LoadThread>>>()?;
    let wakers = threads.iter().map(LoadThread::waker).collect();
    let threads = threads
        .into_iter()
        .map(|thread| start(thread, sender.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    let now = Instant::now();
    let coordinator = Coordinator {
        plan: Arc::clone(&plan),
        live: LiveLine::new(&plan, every),
        tell: &mut tell,
        wakers,
        events,
        sender,
        settled: 0,
        ready: 0,
        empty: 0,
        quiet: 0,
        over: 0,
        stopped: false,
        settled_at: None,
        figures: Figures {
            before,
            samples: Vec::new(),
            settled: None,
            after: None,
            sampling: false,
            asking_after: false,
            next_at: now + FIGURES_EVERY,
        },
        moved_at: now,
        received: 0,
        stage: Stage::Opening,
        state,
    };
    let report = coordinator.command(threads, began)?;
    Ok((plan, report))
}

type Running = JoinHandle<io::Result<Log>>;

fn start(thread: LoadThread, sender: Sender<ThreadEvent>) -> io::Result<Running> {
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let outcome = thread.run();
        // The coordinator listens until all are over.
        let _ = sender.send(ThreadEvent::Over);
        outcome
    })
}

impl Coordinator<'_> {
    fn command(mut self, threads: Vec<Running>, began: DateTime<Utc>) -> io::Result<Report> {
        while self.over < self.wakers.len() {
            let now = Instant::now();
            self.advance(now);
            self.ask_now_and_then(now);
            if now >= self.live.due() {
                let doing = self.doing(now);
                (self.tell)(self.live.show(now, &doing, &self.state));
            }
            match self.events.recv_timeout(self.time_to_wait(now)) {
                Ok(event) => self.on_event(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.add_up(threads, began)
    }

    /// What the run is at, for the live line.
    fn doing(&self, now: Instant) -> String {
        let left = |until: Instant| until.saturating_duration_since(now).as_secs_f64().ceil();
        match self.stage {
            Stage::Opening if self.settled_at.is_some() => "getting ready".to_owned(),
            Stage::Opening => {
                let settled = self.state.counts().settled;
                format!("opening, {settled} of {} answered", self.plan.connections)
            }
            Stage::Running { from, .. } if now < from => "warming up".to_owned(),
            Stage::Running { .. } if self.plan.messages().is_some() => "measuring".to_owned(),
            Stage::Running { until, .. } if self.plan.has_traffic() => {
                format!("measuring for {:.0} s", left(until))
            }
            Stage::Running { until, .. } => format!("holding for {:.0} s", left(until)),
            Stage::Draining { .. } | Stage::Asking { .. } => "waiting for the rest".to_owned(),
            Stage::Closing { .. } => "closing".to_owned(),
        }
    }

    fn on_event(&mut self, event: ThreadEvent) {
        match event {
            ThreadEvent::Settled => {
                self.settled += 1;
                if self.settled == self.wakers.len() {
                    self.settled_at = Some(Instant::now());
                    self.ask(AskedAt::Settled);
                }
            }
            ThreadEvent::Ready => self.ready += 1,
            ThreadEvent::Empty => self.empty += 1,
            ThreadEvent::Quiet => self.quiet += 1,
            ThreadEvent::Over => self.over += 1,
            ThreadEvent::Stop => self.stopped = true,
            ThreadEvent::Figures(wanted, at, figures) => self.on_figures(wanted, at, figures),
        }
    }

    /// Goes on to the next stage when it is time.
    fn advance(&mut self, now: Instant) {
        let all = self.wakers.len();
        match self.stage {
            Stage::Opening if self.stopped => {
                self.close(now, now, now);
            }
            Stage::Opening => {
                let Some(settled_at) = self.settled_at else { return };
                // A connection that is never let into a room shall not hold up the others for ever.
                if self.ready < all && now < settled_at + self.plan.common.timeout {
                    return;
                }
                let from = now + self.plan.warmup;
                let until = from + self.plan.messages().map_or(self.plan.hold, |_| NO_END);
                self.moved_at = from;
                self.set_phase(Phase::Running { from, until });
                self.stage = Stage::Running { from, until };
            }
            Stage::Running { from, until } => {
                // The run is not over before the figures are in, lest they tell of a server already
                // left.
                if self.figures.settled.is_none() && !self.stopped {
                    return;
                }
                let done = self.quiet == all || self.empty == all || self.is_stalled(now);
                if !done && !self.stopped && now < until {
                    return;
                }
                let ended = now.min(until).max(from);
                self.set_phase(Phase::Draining { ended });
                if matches!(self.plan.mode, Mode::Storm { .. }) {
                    // Nothing is on its way that a storm would wait for.
                    self.ask_after(now, from, ended);
                } else {
                    self.stage = Stage::Draining { from, ended };
                }
            }
            Stage::Draining { from, ended } => {
                let counts = self.state.counts();
                let all_in = self.quiet == all && counts.expected <= counts.answered;
                if all_in || self.empty == all || now >= ended + DRAIN_MAX {
                    self.ask_after(now, from, ended);
                }
            }
            Stage::Asking { from, ended } => {
                if !self.figures.asking_after {
                    self.close(now, from, ended);
                }
            }
            Stage::Closing { .. } => {}
        }
    }

    /// Takes the last look at the server, unless it never answered and would only be waited for.
    fn ask_after(&mut self, now: Instant, from: Instant, ended: Instant) {
        if self.figures.before.is_none() {
            return self.close(now, from, ended);
        }
        self.figures.asking_after = true;
        self.ask(AskedAt::After);
        self.stage = Stage::Asking { from, ended };
    }

    fn close(&mut self, now: Instant, from: Instant, ended: Instant) {
        self.set_phase(Phase::Closing { until: now + CLOSING_MAX });
        self.stage = Stage::Closing { from, ended };
    }

    fn set_phase(&self, phase: Phase) {
        self.state.set_phase(phase);
        for waker in &self.wakers {
            // A waker fails only when the poll is gone, and then nobody is left to be woken.
            let _ = waker.wake();
        }
    }

    /// Whether a run that is ended by a count waits for what does not come.
    fn is_stalled(&mut self, now: Instant) -> bool {
        if self.plan.messages().is_none() {
            return false;
        }
        let received = self.state.counts().received;
        if received != self.received {
            self.received = received;
            self.moved_at = now;
        }
        now > self.moved_at + self.plan.common.timeout
    }

    // The server's own figures.

    fn ask_now_and_then(&mut self, now: Instant) {
        if self.figures.before.is_some() && now >= self.figures.next_at {
            self.figures.next_at = now + FIGURES_EVERY;
            if !self.figures.sampling && !matches!(self.stage, Stage::Closing { .. }) {
                self.figures.sampling = true;
                self.ask(AskedAt::Sample);
            }
        }
    }

    /// Asks on a thread of its own, which sends an event when it is done.
    fn ask(&mut self, wanted: AskedAt) {
        let plan = Arc::clone(&self.plan);
        let sender = self.sender.clone();
        thread::spawn(move || {
            let figures = ServerFigures::ask(&plan);
            // Nobody listens when the run was interrupted: nobody wants the figures then.
            let _ = sender.send(ThreadEvent::Figures(wanted, Instant::now(), figures));
        });
    }

    fn on_figures(&mut self, wanted: AskedAt, at: Instant, figures: Option<ServerFigures>) {
        if let Some(figures) = &figures {
            let since = at.saturating_duration_since(self.state.began);
            self.figures.samples.push((since, figures.clone()));
        }
        match wanted {
            AskedAt::Sample => self.figures.sampling = false,
            AskedAt::Settled => {
                if let Some(figures) = &figures {
                    (self.tell)(Progress::Note(format!("the server: {figures}")));
                }
                self.figures.settled = Some(figures);
            }
            AskedAt::After => {
                self.figures.asking_after = false;
                self.figures.after = figures;
            }
        }
    }

    fn time_to_wait(&self, now: Instant) -> Duration {
        let end = match self.stage {
            Stage::Opening => self.settled_at.map(|at| at + self.plan.common.timeout),
            Stage::Running { until, .. } if self.figures.settled.is_some() => Some(until),
            Stage::Draining { ended, .. } => Some(ended + DRAIN_MAX),
            Stage::Running { .. } | Stage::Asking { .. } | Stage::Closing { .. } => None,
        };
        let asking = self.figures.before.as_ref().map(|_| self.figures.next_at);
        // What is on its way comes in without an event, so the drain is looked at more often.
        let look =
            matches!(self.stage, Stage::Draining { .. }).then(|| now + Duration::from_millis(20));
        let ends = [end, asking, look].into_iter().flatten();
        let soonest = ends.filter(|end| *end > now).fold(self.live.due(), Instant::min);
        soonest.saturating_duration_since(now).max(Duration::from_millis(1))
    }

    /// The logs of all threads as one.
    fn add_up(self, threads: Vec<Running>, began: DateTime<Utc>) -> io::Result<Report> {
        let mut loads = Vec::new();
        let mut sum = Log::new(Arc::clone(&self.state));
        for thread in threads {
            match thread.join() {
                Ok(log) => sum.add(log?, &mut loads),
                Err(_) => return Err(io::Error::other("a thread of the load test panicked")),
            }
        }
        let start = self.state.began;
        let (from, ended) = match self.stage {
            Stage::Closing { from, ended } => (from, ended),
            // The threads end only after they were told to close.
            Stage::Opening
            | Stage::Running { .. }
            | Stage::Draining { .. }
            | Stage::Asking { .. } => (start, start),
        };
        let settled_at = self.settled_at.unwrap_or(ended);
        // A quiet end is a part of the run too.
        sum.series.at(ended);
        let mut tally = sum.tally;
        tally.settled_after = settled_at.saturating_duration_since(start);
        tally.held_for = ended.saturating_duration_since(settled_at);
        tally.open_max = self.state.open_max();
        tally.server = self.figures.settled.flatten();
        Ok(Report {
            tally,
            traffic: sum.traffic,
            series: sum.series,
            loads,
            server_before: self.figures.before,
            server_samples: self.figures.samples,
            server_after: self.figures.after,
            measured_from: from.saturating_duration_since(start),
            measured: ended.saturating_duration_since(from),
            began,
            stopped: self.stopped,
        })
    }
}
