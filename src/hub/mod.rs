//! The hub: rooms, sessions and memberships across workers, and the one place that orders a room's
//! messages.
//!
//! A publish takes the room's lock, numbers and stores the message, and posts one letter to each
//! worker that has members, so all members see one order. No lock is held across a system call:
//! sleeping workers are woken after the room is unlocked.

#![cfg_attr(not(feature = "redis"), allow(dead_code, reason = "the engine alone uses some of it"))]

pub(crate) mod error;
pub(crate) mod names;
pub(crate) mod conn_id;
pub(crate) mod room;
pub(crate) mod present;
pub(crate) mod notice;
pub(crate) mod event;
pub(crate) mod send_status;
pub(crate) mod task;
pub(crate) mod session_token;
pub(crate) mod inbox;
mod in_flight;
mod inbound;
mod traffic;
mod patterns;
pub(crate) mod roster;
pub(crate) mod session;
pub(crate) mod charge;
mod inbound_token;
mod limits;
pub(crate) mod mailbox;
mod room_limits;
pub(crate) mod letters;
pub(crate) mod posted;
pub(crate) mod stream_key;
pub(crate) mod rooms;
mod away;
mod room_reload;
pub(crate) mod sessions;
pub(crate) mod conn_handle;
pub(crate) mod history;
pub(crate) mod publish;
pub(crate) mod envelope;
pub(crate) mod question;
pub(crate) mod engine;
pub(crate) mod shards;
pub(crate) mod sharing;
pub(crate) mod announced;
pub(crate) mod mirror;
pub(crate) mod direct;
pub(crate) mod publisher;
pub(crate) mod posts;
pub(crate) mod survey;
mod locked_session;
pub(crate) mod identities;
pub(crate) mod presence;
pub(crate) mod memberships;
pub(crate) mod resume;
pub(crate) mod save;
pub(crate) mod restore;
mod spend;
#[cfg(test)]
mod harness;

use std::{sync::Arc, time::Duration};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::{Compression, Config, Engine as EngineKind},
    identity::{Authenticator, Permissions},
    limits::owners::Owners,
    memory::account::{Account, Level},
    metrics::Counter,
    ws::close::CloseReason,
};
use engine::{Asker, Engine, ToEngine};
use error::RoomError;
use limits::HubLimits;
use mailbox::{Deferred, Mailboxes};
use names::RoomName;
use question::{Outcome, Question};
use room::Room;
use rooms::Rooms;
use session::Session;
use sessions::Sessions;

/// The state of rooms and sessions that all workers share. One per server; usable from any thread.
pub(crate) struct Hub {
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Sessions,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) limits: HubLimits,
    pub(crate) account: Arc<Account>,
    /// Rooms with gathered changes of presence. The lock of a room is taken before this one.
    gathering: Mutex<Vec<Arc<Room>>>,
    /// The smallest message that is compressed; `None` if none is.
    compressible_bytes_min: Option<usize>,
    /// What the server knows of tokens.
    pub(crate) authenticator: Authenticator,
    /// Commands refused for want of a permission, in the order of [`Permissions::NAMED`].
    forbidden: [Counter; Permissions::NAMED.len()],
    /// Whether the next server, or another node, takes up what this one knows.
    leaves_snapshot: bool,
    pub(crate) owners: Arc<Owners>,
    pub(crate) clock: Arc<Clock>,
    /// Names this server among others, for as long as it runs.
    pub(crate) node: Uuid,
    /// What rooms and sessions are shared by, if this is one node of several.
    pub(crate) engine: Option<Arc<Engine>>,
}

/// Rooms and sessions that go at most at once for want of memory.
const SHED_ROOMS_MAX: usize = 64;
const SHED_SESSIONS_MAX: usize = 256;

/// How long a thread that may block waits for the engine, which answers sooner in any case.
const ENGINE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Histories that are halved at once for want of memory.
const TRIMMED_ROOMS_MAX: usize = 16;

/// The result of a sweep.
#[derive(Default)]
pub(crate) struct Swept {
    /// Whether more sessions have expired than this sweep ended.
    pub(crate) has_more: bool,
    /// Whether a mailbox is behind.
    pub(crate) behind: bool,
}

impl Hub {
    pub(crate) fn new(
        config: &Config,
        authenticator: Authenticator,
        mailboxes: Mailboxes,
        clock: Arc<Clock>,
    ) -> Hub {
        let account = Account::of_server(config, mailboxes.workers(), clock.is_machine());
        let account = Arc::new(account);
        // Of a test it is the same in each run.
        let node = clock.first_number().map_or_else(Uuid::new_v4, |number| {
            let bytes = Uuid::from_u64_pair(number, number).into_bytes();
            uuid::Builder::from_random_bytes(bytes).into_uuid()
        });
        Hub {
            rooms: Rooms::new(config, mailboxes.clone(), Arc::clone(&account)),
            sessions: Sessions::new(Arc::clone(&account), Arc::clone(&clock)),
            mailboxes,
            limits: HubLimits::new(config),
            account,
            gathering: Mutex::default(),
            compressible_bytes_min: (config.compression != Compression::Off)
                .then_some(config.compression_threshold),
            authenticator,
            forbidden: Default::default(),
            leaves_snapshot: config.leaves_snapshot() || config.engine == EngineKind::Redis,
            owners: Owners::new(config),
            clock,
            node,
            engine: None,
        }
    }

    /// Shares rooms and sessions with other nodes from now on, by an engine whose shards are
    /// at these places, and which `wake` wakes. Returns it, and what comes to it.
    pub(crate) fn share(
        &mut self,
        places: Vec<String>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> (Arc<Engine>, Receiver<ToEngine>) {
        let (engine, received) = Engine::new(self.node, places, wake);
        let engine = Arc::new(engine);
        self.engine = Some(Arc::clone(&engine));
        self.rooms.share();
        (engine, received)
    }

    /// Takes the limits of `config`, and its rules for rooms. Rooms that exist keep the overflow
    /// policy that their members were told of.
    pub(crate) fn reload(&self, config: &Config) {
        let rates = self.limits.rates();
        self.limits.set(config);
        self.owners.reload(config, self.limits.rates() != rates);
        if self.clock.is_machine() {
            self.account.set_bytes_max(config.memory_max.bytes());
        } else {
            self.account.set_bytes_max(config.memory_max.bytes_alone());
        }
        self.rooms.reload(config);
    }

    /// Asks the engine, and waits for the answer.
    pub(crate) fn ask_engine(&self, question: Question) -> Outcome {
        let answered = self.begin_asking(question)?;
        answered.recv_timeout(ENGINE_WAIT_MAX).unwrap_or(Err(RoomError::EngineAway))
    }

    /// Asks the engine. The answer comes through the channel.
    pub(crate) fn begin_asking(&self, question: Question) -> Result<Receiver<Outcome>, RoomError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.ask(question, Asker::Thread(answer)).map_err(|(_, error)| error)?;
        Ok(answered)
    }

    /// Asks the engine. The question comes back to `asker` at once if there is no engine, or too
    /// many wait.
    pub(crate) fn ask(&self, question: Question, asker: Asker) -> Result<(), (Asker, RoomError)> {
        let Some(engine) = &self.engine else { return Err((asker, RoomError::EngineAway)) };
        let refused = &self.rooms.metrics.engine_refused;
        engine.ask(question, asker).inspect_err(|_| refused.add_shared())
    }

    /// Tells the engine, if there is one, that a session is not as it was.
    #[inline]
    fn note_change(&self, session: &Arc<Session>) {
        if let Some(engine) = &self.engine {
            engine.note_change(session);
        }
    }

    /// Returns the milliseconds since this hub was made.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Returns what connections are closed with when the server drains.
    pub(crate) fn drain_reason(&self) -> CloseReason {
        match self.leaves_snapshot {
            true => CloseReason::RESTART,
            false => CloseReason::GOING_AWAY,
        }
    }

    /// Takes memory back that nobody who is connected needs: rooms that nobody is in go first, and
    /// when nothing may grow sessions that are away. If there are none, histories with a good part
    /// of the memory are halved. Each call takes a bounded number. Returns whether a mailbox was
    /// found behind.
    pub(crate) fn shed(&self) -> bool {
        let metrics = &self.account.metrics;
        let rooms = self.rooms.shed_vacant(SHED_ROOMS_MAX);
        metrics.memory_rooms_evicted.add_many_shared(rooms as u64);
        if rooms > 0 {
            return false;
        }
        let is_full = self.account.level() == Level::Full;
        let (ended, behind) = if is_full { self.shed_away(SHED_SESSIONS_MAX) } else { (0, false) };
        metrics.memory_sessions_evicted.add_many_shared(ended as u64);
        if ended == 0 && (is_full || self.account.wants_histories()) {
            for _ in 0..TRIMMED_ROOMS_MAX {
                self.rooms.trim_large();
            }
        }
        behind
    }

    /// Fails if nothing may grow, because memory is short.
    #[inline]
    fn check_memory(&self) -> Result<(), RoomError> {
        if self.account.may_grow() {
            return Ok(());
        }
        self.account.metrics.memory_refused.add_shared();
        Err(RoomError::ShortOfMemory)
    }

    /// Makes the room if it does not exist, so that it can be published to.
    pub(crate) fn open_room(&self, name: &RoomName) -> Result<(), RoomError> {
        self.check_memory()?;
        let mut deferred = Deferred::default();
        let entered = self.rooms.enter(name, &mut deferred, |_, _| ());
        self.mailboxes.after_unlock(&deferred);
        entered.map(|_| ())
    }

    /// Notifies watchers of the changes that were gathered for them. Drops messages that are too
    /// old, and rooms that have neither members nor messages. Each call looks at a bounded number
    /// of rooms, and the next call continues there. Ends the sessions whose clients did not come
    /// back in time.
    pub(crate) fn sweep(&self) -> Swept {
        let now_ms = self.now_ms();
        self.rooms.sweep(|history, bounds| {
            self.change(history, |history| history.expire(now_ms, bounds));
        });
        let behind = self.tell_all_gathered();
        let swept = self.expire_sessions();
        Swept { behind: swept.behind || behind, ..swept }
    }
}
