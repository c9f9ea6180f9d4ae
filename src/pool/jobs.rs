//! Handlers that block: a bounded pool of threads of their own, and a queue for each connection.
//!
//! A queue keeps a connection's calls in order, one at a time. A queue that is behind pauses the
//! reading of its connection, so the pressure reaches the client as TCP backpressure.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    bound::{Bound, BoundToken},
    queued_call::QueuedCall,
};
use crate::{
    error::Error,
    handler::{
        Refusal,
        erased::{BoxState, Call, DynHandler, ask_upgrade},
        instance::HandlerInstance,
    },
    http::head::{HeaderSpace, Request},
    hub::{
        Hub,
        conn_handle::{ConnHandle, Continuation},
        conn_id::ConnId,
        mailbox::Letter,
        question::{Outcome, Question},
        room::{Entry, Room},
        send_status::SendStatus,
        session::Session,
    },
    identity::Permissions,
    metrics::Counter,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

/// Messages of one connection that may wait, so that one client cannot fill the pool for all.
const QUEUE_MESSAGES_MAX: usize = 32;

/// How long a call waits before it goes on, when its session has too much on its way.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Calls made for one queue before the others get their turn.
const CALLS_PER_TURN_MAX: usize = 16;

/// The threads of one blocking handler. Usable from any thread.
#[derive(Clone)]
pub(crate) struct JobPool(Arc<Pool>);

struct Pool {
    threads: usize,
    /// Messages waiting in all queues together.
    queued: AtomicUsize,
    queue_max: usize,
    /// Upgrades that wait for an answer, as many as messages.
    upgrades: Arc<Bound>,
    /// Queues with something to do, each at most once; so at most one entry for each
    /// connection.
    work: (Sender<Work>, Receiver<Work>),
    /// Upgrades to be asked about.
    asks: (Sender<Work>, Receiver<Work>),
    /// Paused queues that wait for the pool to catch up.
    waiting: Mutex<VecDeque<Weak<SerialQueue>>>,
}

enum Work {
    Run(Arc<SerialQueue>),
    Ask(Box<UpgradeJob>, BoundToken),
    Stop,
}

/// An upgrade that a blocking handler is asked about on a job thread.
pub(super) struct UpgradeJob {
    pub(super) handler: Arc<dyn DynHandler>,
    pub(super) hub: Arc<Hub>,
    pub(super) panics: Arc<Counter>,
    pub(super) conn: ConnId,
    pub(super) client: SocketAddr,
    /// The request's head, which is legal.
    pub(super) head: Box<[u8]>,
    pub(super) answer: Arc<UpgradeAnswer>,
}

/// Where the answer to an upgrade is put, for the worker that waits for it.
#[derive(Default)]
pub(super) struct UpgradeAnswer(Mutex<Option<Result<BoxState, Refusal>>>);

impl UpgradeAnswer {
    /// Takes the answer; `None` if it is not there.
    pub(super) fn take(&self) -> Option<Result<BoxState, Refusal>> {
        self.0.lock().take()
    }
}

impl UpgradeJob {
    fn run(self, token: BoundToken) {
        let mut space = HeaderSpace::default();
        if let Ok(Some((request, _))) = Request::parse(&self.head, &mut space) {
            let request =
                request.with_remote(self.client).with_authenticator(&self.hub.authenticator);
            *self.answer.0.lock() = Some(ask_upgrade(&*self.handler, &request, &self.panics));
        }
        // Before the answer, so that whoever connects next finds the place free.
        drop(token);
        let letter = Letter::UpgradeAnswered { conn: self.conn };
        self.hub.mailboxes.send_control(self.conn.worker(), letter);
    }
}

/// One connection's calls, in order. Shared by its worker, which adds, and one job thread at a
/// time.
pub(crate) struct SerialQueue {
    pool: JobPool,
    hub: Arc<Hub>,
    handler: Arc<dyn DynHandler>,
    conn: ConnId,
    remote: SocketAddr,
    inner: Mutex<Inner>,
}

struct Inner {
    calls: VecDeque<QueuedCall>,
    messages: usize,
    /// A thread has it, or it is in the work queue.
    scheduled: bool,
    /// The connection has too many messages here, so it is not read.
    full: bool,
    /// Its handler, or a panic, asked for a close: no message comes after that.
    closing: bool,
    /// `None` while a thread has it.
    job: Option<Job>,
}

/// What the thread that runs a queue takes with it.
struct Job {
    instance: HandlerInstance,
    session: Arc<Session>,
}

impl JobPool {
    /// A pool without threads yet; [`JobPool::start`] brings them.
    pub(crate) fn new(threads: usize, queue_max: usize) -> JobPool {
        JobPool(Arc::new(Pool {
            threads: threads.max(1),
            queued: AtomicUsize::new(0),
            queue_max: queue_max.max(1),
            upgrades: Bound::new(queue_max.max(1)),
            work: crossbeam_channel::unbounded(),
            asks: crossbeam_channel::unbounded(),
            waiting: Mutex::default(),
        }))
    }

    /// Starts the threads. Each holds `alive` until it ends.
    pub(crate) fn start(&self, alive: &Sender<()>) -> Result<(), Error> {
        let Pool { work, asks, threads, .. } = &*self.0;
        for (what, (sender, receiver)) in [("job", work), ("upgrade", asks)] {
            for index in 0..*threads {
                let (sender, receiver, alive) = (sender.clone(), receiver.clone(), alive.clone());
                let run = move || {
                    run(&sender, &receiver);
                    drop(alive);
                };
                thread::Builder::new()
                    .name(format!("rusty-socks-{what}-{index}"))
                    .spawn(run)
                    .map_err(|error| Error::io("cannot start a job thread", error))?;
            }
        }
        Ok(())
    }

    /// Ends the threads once what was queued before is done.
    pub(crate) fn stop(&self) {
        for (sender, _) in [&self.0.work, &self.0.asks] {
            for _ in 0..self.0.threads {
                let _ = sender.send(Work::Stop);
            }
        }
    }

    /// Asks the handler about an upgrade, on a thread for that: messages that take long must not
    /// keep newcomers waiting. `false` if too many wait.
    pub(super) fn ask(&self, upgrade: UpgradeJob) -> bool {
        let Some(token) = self.0.upgrades.take() else { return false };
        self.0.asks.0.send(Work::Ask(Box::new(upgrade), token)).is_ok()
    }

    /// Messages that wait for the threads now.
    pub(crate) fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.queued() >= self.0.queue_max
    }

    /// A message was handled: as many connections may be read again as messages fit, the
    /// longest waiting first. Not all of them will have something to say, so an empty pool lets
    /// everyone in.
    fn message_done(&self) {
        let left = self.0.queued.fetch_sub(1, Ordering::Relaxed) - 1;
        let vacant = if left == 0 { usize::MAX } else { self.0.queue_max.saturating_sub(left) };
        for _ in 0..vacant {
            let Some(queue) = self.0.waiting.lock().pop_front() else { return };
            if let Some(queue) = queue.upgrade() {
                queue.resume();
            }
        }
    }
}

/// Does what comes until it is told to stop.
fn run(sender: &Sender<Work>, receiver: &Receiver<Work>) {
    loop {
        match receiver.recv() {
            Ok(Work::Run(queue)) => queue.run(),
            Ok(Work::Ask(upgrade, token)) => upgrade.run(token),
            Ok(Work::Stop) | Err(_) => break,
        }
    }
    // A queue with many calls comes back behind the sign to stop; its last call is still owed.
    while let Ok(next) = receiver.try_recv() {
        match next {
            Work::Run(queue) => queue.run(),
            Work::Ask(upgrade, token) => upgrade.run(token),
            Work::Stop => {
                let _ = sender.send(Work::Stop);
                return;
            }
        }
    }
}

impl SerialQueue {
    pub(super) fn new(
        pool: &JobPool,
        hub: &Arc<Hub>,
        (conn, remote): (ConnId, SocketAddr),
        session: &Arc<Session>,
        instance: HandlerInstance,
    ) -> Arc<SerialQueue> {
        let handler = Arc::clone(&instance.handler);
        let inner = Inner {
            calls: VecDeque::new(),
            messages: 0,
            scheduled: false,
            full: false,
            closing: false,
            job: Some(Job { instance, session: Arc::clone(session) }),
        };
        Arc::new(SerialQueue {
            pool: pool.clone(),
            hub: Arc::clone(hub),
            handler,
            conn,
            remote,
            inner: Mutex::new(inner),
        })
    }

    /// The handler whose calls these are.
    pub(super) fn handler(&self) -> &dyn DynHandler {
        &*self.handler
    }

    /// Queues a call. `false` when the connection must not be read until it hears that jobs are
    /// done; so each connection may be one message over the bound.
    pub(super) fn call(self: &Arc<SerialQueue>, call: &Call<'_>) -> bool {
        let is_message = matches!(call, Call::Message(_));
        if is_message {
            self.pool.0.queued.fetch_add(1, Ordering::Relaxed);
        }
        let call = QueuedCall::new(call);
        self.hub.account.calls.add(call.bytes());
        let mut inner = self.inner.lock();
        inner.calls.push_back(call);
        inner.messages += usize::from(is_message);
        inner.full |= inner.messages >= QUEUE_MESSAGES_MAX;
        let is_full = inner.full;
        let is_scheduled = std::mem::replace(&mut inner.scheduled, true);
        drop(inner);
        if !is_scheduled {
            self.schedule();
        }
        if is_full || !is_message {
            return !is_full;
        }
        let must_wait = self.pool.is_full();
        if must_wait {
            self.wait();
        }
        !must_wait
    }

    fn schedule(self: &Arc<SerialQueue>) {
        let _ = self.pool.0.work.0.send(Work::Run(Arc::clone(self)));
    }

    /// Joins the queues that wait for the pool. A letter says when the connection may be read
    /// again.
    fn wait(self: &Arc<SerialQueue>) {
        self.pool.0.waiting.lock().push_back(Arc::downgrade(self));
        // The pool may have emptied before this queue waited for it; then nobody would call it.
        if self.pool.0.queued.load(Ordering::Relaxed) == 0 {
            self.resume();
        }
    }

    fn resume(&self) {
        self.send_control(Letter::JobsDone { conn: self.conn });
    }

    fn send_control(&self, letter: Letter) {
        self.hub.mailboxes.send_control(self.conn.worker(), letter);
    }

    /// Makes the calls that wait, on a job thread.
    fn run(self: &Arc<SerialQueue>) {
        for _ in 0..CALLS_PER_TURN_MAX {
            let (call, is_unwanted, mut job) = {
                let mut inner = self.inner.lock();
                let Some(call) = inner.calls.pop_front() else {
                    inner.scheduled = false;
                    return;
                };
                let Some(job) = inner.job.take() else { return };
                (call, inner.closing, job)
            };
            // While it is carried out, it is one of as many as there are threads.
            self.hub.account.calls.subtract(call.bytes());
            let is_message = matches!(call, QueuedCall::Message(..));
            let is_last = matches!(call, QueuedCall::Close(_));
            if !(is_message && is_unwanted) {
                let mut conn = RemoteConn { queue: self, session: &mut job.session };
                job.instance.call(&mut conn, &call.borrowed());
            }
            if is_last {
                return;
            }
            let caught_up = {
                let mut inner = self.inner.lock();
                inner.job = Some(job);
                inner.messages -= usize::from(is_message);
                inner.full
                    && inner.messages <= QUEUE_MESSAGES_MAX / 2
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
}

/// A connection as its handler reaches it from a job thread: by letter.
struct RemoteConn<'a> {
    queue: &'a SerialQueue,
    session: &'a mut Arc<Session>,
}

impl RemoteConn<'_> {
    fn push(&self, letter: Letter) {
        self.queue.hub.mailboxes.push(self.queue.conn.worker(), letter);
    }
}

impl ConnHandle for RemoteConn<'_> {
    fn id(&self) -> ConnId {
        self.queue.conn
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.queue.hub
    }

    fn session(&self) -> &Arc<Session> {
        self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        self.queue.remote
    }

    fn room(&self, name: &str) -> Option<(Arc<Room>, Permissions)> {
        self.session.room(name)
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        self.send_prepared(&PreparedFrame::new(message).count(&self.queue.hub.account.frames))
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.queue.hub.mailboxes.send(self.queue.conn, frame.clone())
    }

    fn close(&mut self, reason: CloseReason) {
        self.queue.inner.lock().closing = true;
        self.queue.send_control(Letter::Close { conn: self.queue.conn, reason });
    }

    fn enter(&mut self, room: &Arc<Room>, at: Entry, _: Permissions) {
        let (conn, room) = (self.queue.conn, Arc::clone(room));
        self.push(Letter::Enter { conn, room, at });
    }

    // What it may do, it reads from the session.
    fn permit(&mut self, _: &Arc<Room>, _: Permissions) {}

    fn exit(&mut self, room: &Arc<Room>) {
        self.push(Letter::Exit { conn: self.queue.conn, room: room.key });
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.push(Letter::Attach { conn: self.queue.conn, session: Arc::clone(session) });
        *self.session = Arc::clone(session);
    }

    // A thread of its own delays nobody else.
    fn spend(&mut self, _: usize) {}

    fn ask_engine(
        &mut self,
        question: Question,
        next: Continuation,
    ) -> Option<(Continuation, Outcome)> {
        Some((next, self.hub().ask_engine(question)))
    }

    // A handler with threads of its own does what blocks by itself.
    fn wake_after(&mut self, wait: Duration) {
        self.queue.send_control(Letter::WakeAfter { conn: self.queue.conn, wait });
    }

    // The handler would go on publishing whether or not its socket is read, so its thread waits
    // too, though not for a receiver that holds the session. Its worker hears of it once for each
    // wait.
    fn await_deliveries(&mut self) {
        if !self.session.traffic().in_flight.has_waiting() {
            self.queue.send_control(Letter::Await { conn: self.queue.conn });
        }
        self.session.traffic().in_flight.wait(WAIT_MAX);
    }

    // The sockets that feed these threads are paused by their queues.
    fn on_backpressure(&mut self) {}
}
