//! Handlers that block: a bounded pool of threads of their own, and a lane for each connection.
//!
//! A lane keeps a connection's calls in order, one at a time. A lane that is behind pauses the reading of
//! its connection, so the pressure reaches the client as TCP backpressure.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    error::Error,
    handler::{
        Peer, SendStatus,
        calls::{BoxState, Calls, Link},
    },
    hub::{
        Hub,
        mailbox::{ConnId, Letter},
        rooms::Room,
        seats::Door,
        sessions::Session,
    },
    metrics::Counter,
    ws::{
        close::CloseReason,
        frame::{Kind, Message, PreparedFrame},
    },
};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

/// Messages of one connection that may wait, so that one client cannot fill the queue for all.
const LANE_MESSAGES_MAX: usize = 32;

/// Calls made for one lane before the others get their turn.
const CALLS_PER_TURN_MAX: usize = 16;

/// The threads of one blocking handler. Usable from any thread.
#[derive(Clone)]
pub(crate) struct JobPool(Arc<Pool>);

struct Pool {
    threads: usize,
    /// Messages waiting in all lanes together.
    queued: AtomicUsize,
    queue_max: usize,
    /// Lanes with something to do, each at most once; so at most one entry for each connection.
    work: (Sender<Work>, Receiver<Work>),
    /// Paused lanes that wait for the queue to get shorter.
    waiting: Mutex<VecDeque<Weak<Lane>>>,
}

enum Work {
    Run(Arc<Lane>),
    Stop,
}

/// One connection's calls, in order. Shared by its worker, which adds, and one job thread at a time.
pub(crate) struct Lane {
    pool: JobPool,
    hub: Arc<Hub>,
    panics: Arc<Counter>,
    calls: Arc<dyn Calls>,
    conn: ConnId,
    remote: SocketAddr,
    inner: Mutex<Inner>,
}

struct Inner {
    events: VecDeque<Event>,
    messages: usize,
    /// A thread has it, or it is in the work queue.
    scheduled: bool,
    /// It is behind by its own messages, so its connection is not read.
    full: bool,
    /// Its handler, or a panic, asked for a close: no message comes after that.
    closing: bool,
    /// `None` while a thread has it.
    job: Option<Job>,
}

/// What travels with the thread that runs a lane.
struct Job {
    state: BoxState,
    session: Arc<Session>,
    /// No message was handled yet.
    is_fresh: bool,
}

enum Event {
    Open,
    Message(Kind, Box<[u8]>),
    Drain,
    Close(CloseReason),
}

impl JobPool {
    /// A pool without threads yet; [`JobPool::start`] brings them.
    pub(crate) fn new(threads: usize, queue_max: usize) -> JobPool {
        JobPool(Arc::new(Pool {
            threads: threads.max(1),
            queued: AtomicUsize::new(0),
            queue_max: queue_max.max(1),
            work: crossbeam_channel::unbounded(),
            waiting: Mutex::default(),
        }))
    }

    /// Starts the threads. Each holds `alive` until it ends.
    pub(crate) fn start(&self, alive: &Sender<()>) -> Result<(), Error> {
        for index in 0..self.0.threads {
            let (pool, alive) = (self.clone(), alive.clone());
            let run = move || {
                pool.run();
                drop(alive);
            };
            thread::Builder::new()
                .name(format!("rusty-socks-job-{index}"))
                .spawn(run)
                .map_err(|error| Error::io("cannot start a job thread", error))?;
        }
        Ok(())
    }

    /// Ends the threads once what was queued before is done.
    pub(crate) fn stop(&self) {
        (0..self.0.threads).for_each(|_| self.stop_one());
    }

    fn stop_one(&self) {
        let _ = self.0.work.0.send(Work::Stop);
    }

    fn run(&self) {
        let work = &self.0.work.1;
        while let Ok(Work::Run(lane)) = work.recv() {
            lane.run();
        }
        // A lane with many calls comes back behind the sign to stop; its last call is still owed.
        while let Ok(next) = work.try_recv() {
            match next {
                Work::Run(lane) => lane.run(),
                Work::Stop => return self.stop_one(),
            }
        }
    }

    /// Messages that wait for the threads now.
    pub(crate) fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.queued() >= self.0.queue_max
    }

    /// A message was handled: as many connections may be read again as there are places, the longest
    /// waiting first. Not all of them will have something to say, so an empty queue lets everyone in.
    fn message_done(&self) {
        let left = self.0.queued.fetch_sub(1, Ordering::Relaxed) - 1;
        let places = if left == 0 { usize::MAX } else { self.0.queue_max.saturating_sub(left) };
        for _ in 0..places {
            let Some(lane) = self.0.waiting.lock().pop_front() else { return };
            if let Some(lane) = lane.upgrade() {
                lane.resume();
            }
        }
    }
}

impl Lane {
    pub(super) fn new(
        pool: &JobPool,
        hub: &Arc<Hub>,
        panics: &Arc<Counter>,
        calls: &Arc<dyn Calls>,
        (conn, remote): (ConnId, SocketAddr),
        session: &Arc<Session>,
        state: BoxState,
    ) -> Arc<Lane> {
        let inner = Inner {
            events: VecDeque::new(),
            messages: 0,
            scheduled: false,
            full: false,
            closing: false,
            job: Some(Job { state, session: Arc::clone(session), is_fresh: true }),
        };
        Arc::new(Lane {
            pool: pool.clone(),
            hub: Arc::clone(hub),
            panics: Arc::clone(panics),
            calls: Arc::clone(calls),
            conn,
            remote,
            inner: Mutex::new(inner),
        })
    }

    /// The handler whose calls these are.
    pub(super) fn calls(&self) -> &dyn Calls {
        &*self.calls
    }

    pub(super) fn open(self: &Arc<Lane>) {
        self.push(Event::Open);
    }

    /// Queues a message. `false` when the connection must not be read until it hears that jobs are done;
    /// so each connection may be one message over the bound.
    pub(super) fn message(self: &Arc<Lane>, message: Message<'_>) -> bool {
        self.pool.0.queued.fetch_add(1, Ordering::Relaxed);
        let full = {
            let mut inner = self.inner.lock();
            inner.messages += 1;
            inner.full = inner.messages >= LANE_MESSAGES_MAX;
            inner.full
        };
        self.push(Event::Message(message.kind(), message.as_bytes().into()));
        if full {
            return false;
        }
        !self.pool.is_full() || self.wait()
    }

    pub(super) fn drain(self: &Arc<Lane>) {
        self.push(Event::Drain);
    }

    pub(super) fn close(self: &Arc<Lane>, reason: CloseReason) {
        self.push(Event::Close(reason));
    }

    fn push(self: &Arc<Lane>, event: Event) {
        let mut inner = self.inner.lock();
        inner.events.push_back(event);
        if !std::mem::replace(&mut inner.scheduled, true) {
            drop(inner);
            self.schedule();
        }
    }

    fn schedule(self: &Arc<Lane>) {
        let _ = self.pool.0.work.0.send(Work::Run(Arc::clone(self)));
    }

    /// Joins those who wait for the queue; `true` when there is no need to after all.
    fn wait(self: &Arc<Lane>) -> bool {
        self.pool.0.waiting.lock().push_back(Arc::downgrade(self));
        // The queue may have emptied before we stood in it; then nobody would call us.
        if self.pool.0.queued.load(Ordering::Relaxed) == 0 {
            self.resume();
        }
        false
    }

    fn resume(&self) {
        let letter = Letter::JobsDone { conn: self.conn };
        self.hub.post.tell(usize::from(self.conn.worker), letter);
    }

    /// Makes the calls that wait, on a job thread.
    fn run(self: &Arc<Lane>) {
        for _ in 0..CALLS_PER_TURN_MAX {
            let (event, is_unwanted, mut job) = {
                let mut inner = self.inner.lock();
                let Some(event) = inner.events.pop_front() else {
                    inner.scheduled = false;
                    return;
                };
                let Some(job) = inner.job.take() else { return };
                (event, inner.closing, job)
            };
            let is_message = matches!(event, Event::Message(..));
            let is_last = matches!(event, Event::Close(_));
            if !(is_message && is_unwanted) {
                self.call(&mut job, event);
            }
            if is_last {
                return;
            }
            let caught_up = {
                let mut inner = self.inner.lock();
                inner.job = Some(job);
                inner.messages -= usize::from(is_message);
                inner.full
                    && inner.messages <= LANE_MESSAGES_MAX / 2
                    && std::mem::replace(&mut inner.full, false)
            };
            if is_message {
                self.pool.message_done();
            }
            if caught_up {
                if self.pool.is_full() {
                    self.wait();
                } else {
                    self.resume();
                }
            }
        }
        self.schedule();
    }

    fn call(&self, job: &mut Job, event: Event) {
        let Job { state, session, is_fresh } = job;
        let mut link = JobLink { lane: self, session };
        let calls = &self.calls;
        let is_drain = matches!(event, Event::Drain);
        let begins = matches!(event, Event::Message(..)) && std::mem::take(is_fresh);
        let outcome = catch_unwind(AssertUnwindSafe(|| match &event {
            Event::Open => calls.open(state, &mut link),
            Event::Message(Kind::Text, bytes) => {
                let text = std::str::from_utf8(bytes).unwrap_or_default();
                calls.message(state, &mut link, Message::Text(text));
            }
            Event::Message(Kind::Binary, bytes) => {
                calls.message(state, &mut link, Message::Binary(bytes));
            }
            Event::Drain => calls.drain(state, &mut link),
            Event::Close(reason) => calls.close(state, &mut link, reason),
        }));
        if outcome.is_err() {
            log::error!("{} {}: the handler panicked", self.remote, link.session.client_id);
            self.panics.add_shared();
            link.close(CloseReason::INTERNAL);
        }
        if begins {
            link.session.set_begun();
            self.hub.confirm(link.session);
        }
        if let Event::Close(reason) = &event {
            self.hub.depart(link.session, self.conn, reason);
        }
        if is_drain {
            link.close(CloseReason::GOING_AWAY);
        }
    }
}

/// A handler's way to its connection from a job thread: by letter.
struct JobLink<'a> {
    lane: &'a Lane,
    session: &'a mut Arc<Session>,
}

impl JobLink<'_> {
    fn put(&self, letter: Letter) {
        self.lane.hub.post.put(usize::from(self.lane.conn.worker), letter);
    }

    fn peer(&self) -> Peer {
        let (conn, client_id) = (self.lane.conn, self.session.client_id);
        Peer { conn, client_id, post: self.lane.hub.post.clone() }
    }
}

// Whoever opens the door wakes its worker, once nothing is locked.
impl Door for JobLink<'_> {
    fn conn(&self) -> ConnId {
        self.lane.conn
    }

    fn enter(&mut self, room: &Arc<Room>, from_seq: u64) {
        let (conn, room) = (self.lane.conn, Arc::clone(room));
        self.put(Letter::Enter { conn, room, from_seq });
    }

    fn exit(&mut self, room: &Arc<Room>) {
        self.put(Letter::Exit { conn: self.lane.conn, room: room.key });
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.put(Letter::Attach { conn: self.lane.conn, session: Arc::clone(session) });
        *self.session = Arc::clone(session);
    }

    // The sockets that feed these threads are paused by their lanes.
    fn feel_pressure(&mut self) {}
}

impl Link for JobLink<'_> {
    fn hub(&self) -> &Arc<Hub> {
        &self.lane.hub
    }

    fn session(&self) -> &Arc<Session> {
        self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        self.lane.remote
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        self.peer().send(message)
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.peer().send_prepared(frame)
    }

    fn own_room(&self, name: &str) -> Option<Arc<Room>> {
        self.session.room(name)
    }

    fn close(&mut self, reason: CloseReason) {
        self.lane.inner.lock().closing = true;
        self.peer().close(reason);
    }
}
