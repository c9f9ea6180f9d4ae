//! The way to the engine: what the hub asks of it, and how the answers come back.
//!
//! With an engine, rooms and sessions are shared by several nodes. What a node knows of them is a
//! mirror, which the engine's thread keeps; what changes them is asked of the engine. Without one,
//! nothing here is used.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    conn_id::ConnId,
    error::RoomError,
    mailbox::{Letter, Mailboxes},
    question::{Outcome, Question},
    session::Session,
};

/// The most questions that may wait for the engine, and their bytes. Beyond it they are refused.
const QUESTIONS_MAX: usize = 16_384;
const QUESTION_BYTES_MAX: usize = 64 << 20;

/// Who waits for an answer.
pub(crate) enum Asker {
    /// A connection, and its `Continuation`.
    Conn {
        conn: ConnId,
        next: Box<dyn Any + Send>,
    },
    Thread(Sender<Outcome>),
    Nobody,
}

/// A question, and who waits.
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) asker: Asker,
    /// Which question of this node it is.
    pub(crate) nth: u64,
    bytes: usize,
}

/// What comes to the engine's thread.
pub(crate) enum ToEngine {
    Ask(Box<Asked>),
    /// A session is not as it was.
    Changed(Arc<Session>),
    /// The server stops.
    Stop(Sender<()>),
}

/// The hub's side of the engine. Usable from any thread.
pub(crate) struct Engine {
    /// The id of this node, which is its for as long as it runs.
    pub(crate) node: Uuid,
    sender: Sender<ToEngine>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Whether the thread is awake or being woken.
    awake: AtomicBool,
    next: AtomicU64,
    messages: AtomicU64,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Why the engine cannot be used at present.
    outage: Mutex<Option<String>>,
    is_away: AtomicBool,
    /// What is known of the nodes, each in JSON.
    nodes: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Engine {
    /// The way to an engine that `wake` wakes, and what comes to it.
    pub(crate) fn new(
        node: Uuid,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> (Engine, Receiver<ToEngine>) {
        // Bounded by the counts below, because what was changed must be told.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let engine = Engine {
            node,
            sender,
            wake,
            awake: AtomicBool::new(true),
            next: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            outage: Mutex::new(Some("it was not reached yet".to_owned())),
            is_away: AtomicBool::new(true),
            nodes: Mutex::default(),
        };
        (engine, receiver)
    }

    /// Asks. The question comes back to `asker` at once if too many wait.
    pub(crate) fn ask(&self, question: Question, asker: Asker) -> Result<(), (Asker, RoomError)> {
        let bytes = question.bytes();
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > QUESTIONS_MAX || waiting_bytes > QUESTION_BYTES_MAX {
            self.release(bytes);
            return Err((asker, RoomError::Overloaded));
        }
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(ToEngine::Ask(Box::new(Asked { question, asker, nth, bytes })));
        Ok(())
    }

    /// Counts one more message of this node.
    pub(super) fn next_message(&self) -> u64 {
        self.messages.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells that a session is not as it was.
    pub(super) fn note_change(&self, session: &Arc<Session>) {
        if !session.is_noted.swap(true, Ordering::AcqRel) {
            self.send(ToEngine::Changed(Arc::clone(session)));
        }
    }

    /// Ends the engine's work. Returns what is told when it is done.
    pub(crate) fn stop(&self) -> Receiver<()> {
        let (done, is_done) = crossbeam_channel::bounded(1);
        self.send(ToEngine::Stop(done));
        is_done
    }

    fn send(&self, what: ToEngine) {
        let _ = self.sender.send(what);
        if !self.awake.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// Announces that the engine's thread is about to sleep if `is_idle`. Returns whether it may.
    pub(crate) fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.awake.swap(false, Ordering::SeqCst);
        if is_idle() {
            return true;
        }
        self.awake.store(true, Ordering::SeqCst);
        false
    }

    /// Notes that the engine's thread is awake.
    pub(crate) fn woke(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    fn release(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Questions that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Says why the engine cannot be used from now on, or that it can.
    pub(crate) fn set_outage(&self, why: Option<String>) {
        self.is_away.store(why.is_some(), Ordering::Release);
        *self.outage.lock() = why;
    }

    /// Whether the engine cannot be used at present.
    pub(crate) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// Notes what is known of the nodes, each in JSON.
    pub(crate) fn set_nodes(&self, nodes: Vec<String>) {
        *self.nodes.lock() = nodes;
    }

    /// What was known of the nodes a few seconds ago, each in JSON.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.nodes.lock().clone()
    }

    /// Why that is so.
    pub(crate) fn outage(&self) -> Option<String> {
        self.outage.lock().clone()
    }
}

impl Asked {
    /// Gives the answer to who asked.
    pub(crate) fn answer(self, engine: &Engine, mailboxes: &Mailboxes, outcome: Outcome) {
        engine.release(self.bytes);
        match self.asker {
            Asker::Conn { conn, next } => {
                let letter = Letter::EngineAnswered { conn, next, outcome };
                mailboxes.send_control(conn.worker(), letter);
            }
            Asker::Thread(waiting) => {
                let _ = waiting.send(outcome);
            }
            Asker::Nobody => {}
        }
    }
}
