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
    posted::{PostName, PostOutcome},
    question::{Outcome, Question},
    session::Session,
    shards::Shards,
};
use crate::metrics::ShardSnapshot;

/// The most questions that may wait for a shard of the engine, and their bytes. Beyond it they are
/// refused.
const QUESTIONS_MAX: usize = 16_384;
const QUESTION_BYTES_MAX: usize = 64 << 20;

/// The part of both that is open to posts for other nodes: one over this.
const POSTS_SHARE: usize = 4;

/// Questions that wait for a shard.
#[derive(Default)]
struct Waiting {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// Who waits for an answer.
pub(crate) enum Asker {
    /// A connection, and its `Continuation`.
    Conn {
        conn: ConnId,
        next: Box<dyn Any + Send>,
    },
    Thread(Sender<Outcome>),
    /// A connection on which a post came for a stream of another node. It is told only if that node
    /// does not hear of it; else the stream answers.
    Poster {
        conn: ConnId,
        name: PostName,
    },
    Nobody,
}

/// A question, and who waits.
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) asker: Asker,
    /// Which question of this node it is.
    pub(crate) nth: u64,
    /// When it came to the engine's thread.
    pub(crate) since_ms: u64,
    /// The shard for which it is counted.
    shard: usize,
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
    /// What waits for each shard: one that does not answer leaves the others their space.
    waiting: Box<[Waiting]>,
    /// How rooms and sessions are spread.
    pub(crate) shards: Shards,
    /// Where each shard is, for people.
    pub(crate) places: Vec<String>,
    /// Why shards cannot be used at present, by shard.
    outages: Mutex<Vec<Option<String>>>,
    /// The same, a bit for each shard.
    away: AtomicU64,
    /// What is known of the nodes, each in JSON.
    nodes: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Engine {
    /// The way to an engine whose shards are at these places, which `wake` wakes, and what comes to
    /// it.
    pub(crate) fn new(
        node: Uuid,
        places: Vec<String>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> (Engine, Receiver<ToEngine>) {
        // Bounded by the counts below, because what was changed must be told.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let shards = Shards::new(places.len());
        let engine = Engine {
            node,
            sender,
            wake,
            awake: AtomicBool::new(true),
            next: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            waiting: (0..shards.count()).map(|_| Waiting::default()).collect(),
            shards,
            places,
            outages: Mutex::new(vec![Some("it was not reached yet".to_owned()); shards.count()]),
            away: AtomicU64::new(shards.all()),
            nodes: Mutex::default(),
        };
        (engine, receiver)
    }

    /// Asks. The question comes back to `asker` at once if too many wait.
    pub(super) fn ask(&self, question: Question, asker: Asker) -> Result<(), (Asker, RoomError)> {
        let (shard, bytes) = (question.shard(self.shards), question.bytes());
        let waiting = &self.waiting[shard];
        let count = waiting.count.fetch_add(1, Ordering::Relaxed) + 1;
        let all_bytes = waiting.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Posts come before it is known whether a client sent them: those inside keep the rest.
        let share = if matches!(question, Question::Tell { .. }) { POSTS_SHARE } else { 1 };
        if count > QUESTIONS_MAX / share || all_bytes > QUESTION_BYTES_MAX / share {
            self.release(shard, bytes);
            return Err((asker, RoomError::Overloaded));
        }
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { question, asker, nth, since_ms: 0, shard, bytes };
        self.send(ToEngine::Ask(Box::new(asked)));
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

    fn release(&self, shard: usize, bytes: usize) {
        self.waiting[shard].count.fetch_sub(1, Ordering::Relaxed);
        self.waiting[shard].bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Questions that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.count.load(Ordering::Relaxed)).sum()
    }

    /// Says why a shard cannot be used from now on, or that it can.
    pub(crate) fn set_outage(&self, shard: usize, why: Option<String>) {
        let bit = 1 << shard;
        match why {
            Some(_) => self.away.fetch_or(bit, Ordering::AcqRel),
            None => self.away.fetch_and(!bit, Ordering::AcqRel),
        };
        if let Some(outage) = self.outages.lock().get_mut(shard) {
            *outage = why;
        }
    }

    /// Whether a shard cannot be used at present.
    pub(crate) fn is_away(&self, shard: usize) -> bool {
        self.away.load(Ordering::Acquire) >> shard & 1 == 1
    }

    /// Whether no shard can be used at present, so that this node is of no use to new clients.
    /// Where some are away, they are for all nodes, as a rule, and the others go on.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.away.load(Ordering::Acquire) == self.shards.all()
    }

    /// Notes what is known of the nodes, each in JSON.
    pub(crate) fn set_nodes(&self, nodes: Vec<String>) {
        *self.nodes.lock() = nodes;
    }

    /// What was known of the nodes a few seconds ago, each in JSON.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.nodes.lock().clone()
    }

    /// How each shard is at present.
    pub(crate) fn shard_snapshots(&self) -> Vec<ShardSnapshot> {
        let outages = self.outages.lock();
        let shard = |(index, (redis, outage)): (usize, (&String, &Option<String>))| ShardSnapshot {
            shard: index + 1,
            redis: redis.clone(),
            up: outage.is_none(),
            waiting: self.waiting[index].count.load(Ordering::Relaxed),
        };
        self.places.iter().zip(outages.iter()).enumerate().map(shard).collect()
    }

    /// Why shards cannot be used at present, all in one text.
    pub(crate) fn outage(&self) -> Option<String> {
        let outages: Vec<String> = self.outages.lock().iter().flatten().cloned().collect();
        (!outages.is_empty()).then(|| outages.join("; "))
    }
}

impl Asked {
    /// Gives the answer to who asked.
    pub(crate) fn answer(self, engine: &Engine, mailboxes: &Mailboxes, outcome: Outcome) {
        engine.release(self.shard, self.bytes);
        match self.asker {
            Asker::Conn { conn, next } => {
                let letter = Letter::EngineAnswered { conn, next, outcome };
                mailboxes.send_control(conn.worker(), letter);
            }
            Asker::Thread(waiting) => {
                let _ = waiting.send(outcome);
            }
            Asker::Poster { conn, name } => {
                let outcome = match outcome {
                    Ok(_) => return,
                    Err(RoomError::NoSuchClient) => PostOutcome::Unknown,
                    Err(_) => PostOutcome::Busy,
                };
                let letter = Letter::PostAnswered { conn, name, outcome };
                mailboxes.send_control(conn.worker(), letter);
            }
            Asker::Nobody => {}
        }
    }
}
