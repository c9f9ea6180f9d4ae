//! What a node does with what it is asked and what it hears: orders to the link, and calls of the
//! hub. Without any input or output of its own, so that a test can be the link.
//!
//! A room is brought to the node by subscribing to its channel first and opening it then, so that
//! nothing is missed between the two. The same is done again whenever something of it may have been
//! missed: a number that jumps, and a link that was lost.

mod beats;
mod bringings;
mod control;
mod directs;
mod kept_session;
mod mirrored_room;
mod opened;
mod questions;
mod redis_clock;
mod redo;
mod revocations;
mod rooms;
mod sent;
mod sessions;
mod several;
mod undone;
mod waits;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use uuid::Uuid;

use self::{
    beats::Beats,
    kept_session::KeptSession,
    mirrored_room::MirroredRoom,
    redis_clock::RedisClock,
    sent::{Bringing, Numbered, Sent},
    undone::Undone,
    waits::PATIENCE_MS,
};
use super::{
    link::order::{Code, Event, Order, Refused, Script, ServerFacts, Value},
    names::Names,
};
use crate::{
    config::Config,
    hub::{
        Hub,
        engine::{Asked, Engine, ToEngine},
        error::RoomError,
        names::RoomName,
        question::Outcome,
        restore::RestorableRoute,
        session::Session,
    },
    store::HistoryBounds,
};

/// Sessions that may wait to be written down before those are looked for that have ended.
const CHANGED_MAX: usize = 4096;

/// What the core is told of the settings.
pub(crate) struct CoreSettings {
    pub(crate) prefix: String,
    /// The longest time a message is kept, in milliseconds.
    pub(crate) history_ms: u64,
    pub(crate) inbox: (usize, usize),
    pub(crate) resume_window_ms: u64,
    /// Replicas that must have a message before its publisher is told its number.
    pub(crate) replicas: usize,
    /// The most rooms of one client.
    pub(crate) memberships_max: usize,
    pub(crate) bounds: HistoryBounds,
    pub(crate) default_room: Option<RoomName>,
    /// Says what other nodes and operators are told of this one, in JSON.
    pub(crate) about: Box<dyn Fn() -> String + Send>,
}

impl CoreSettings {
    /// What `config` says. `about` says what others are told of this node.
    pub(crate) fn new(config: &Config, about: Box<dyn Fn() -> String + Send>) -> CoreSettings {
        CoreSettings {
            prefix: config.redis_prefix.clone(),
            history_ms: config.history_age.as_millis() as u64,
            inbox: (config.inbox.max(1), config.inbox_bytes),
            resume_window_ms: config.resume_window.as_millis() as u64,
            memberships_max: config.max_rooms_per_conn,
            bounds: HistoryBounds {
                messages_max: config.history,
                bytes_max: config.history_bytes,
                age_max: config.history_age,
            },
            default_room: RoomName::new(&config.default_room).ok(),
            replicas: config.redis_wait_replicas,
            about,
        }
    }
}

/// The engine's side of a node. Used by one thread.
pub(crate) struct Core {
    hub: Arc<Hub>,
    engine: Arc<Engine>,
    names: Names,
    /// The id of this node, as Redis knows it.
    node: String,
    settings: CoreSettings,
    routes: Vec<RestorableRoute>,
    orders: Vec<Order>,
    /// What the answers that are awaited belong to, by tag, in the order of the orders.
    sent: BTreeMap<u64, Sent>,
    next_tag: u64,
    /// The id of the server's numbering, while there is a link.
    generation: Option<Bytes>,
    /// When the link was lost, or the core began.
    down_since_ms: u64,
    /// Questions that wait for the link, and whether they were asked before.
    held: Vec<(Box<Asked>, bool)>,
    rooms: BTreeMap<RoomName, MirroredRoom>,
    by_channel: HashMap<Bytes, RoomName>,
    /// Rooms that have waited for another one, and can go on.
    to_go_on: VecDeque<RoomName>,
    /// The last room that was looked at for being in use.
    looked_at: Option<RoomName>,
    bringings: BTreeMap<u64, Bringing>,
    /// The bringings of sessions, by client.
    bringings_of: BTreeSet<(Uuid, u64)>,
    next_bringing: u64,
    /// In the order of their clients, so that one seed of the simulator has one order of writes.
    sessions: BTreeMap<Uuid, KeptSession>,
    changed: Vec<Arc<Session>>,
    /// Beyond so many, those that have ended are looked for.
    changed_max: usize,
    undone: Undone,
    /// Whether this node hears what is said to it, and asks.
    is_listening: bool,
    beats: Beats,
    redis_clock: RedisClock,
    /// Whether Redis refuses what it should take.
    is_in_trouble: bool,
    /// When a refusal was told of last that is no trouble.
    refusal_told_ms: u64,
    /// Messages that are numbered and not known to be in as many replicas as is asked.
    unconfirmed: Vec<Numbered>,
    /// Whether a mailbox was found behind since the last turn.
    behind: bool,
}

impl Core {
    pub(crate) fn new(
        hub: Arc<Hub>,
        engine: Arc<Engine>,
        routes: Vec<RestorableRoute>,
        settings: CoreSettings,
    ) -> Core {
        let down_since_ms = hub.now_ms();
        Core {
            names: Names::new(&settings.prefix),
            node: engine.node.to_string(),
            hub,
            engine,
            settings,
            routes,
            orders: Vec::new(),
            sent: BTreeMap::new(),
            next_tag: 0,
            generation: None,
            down_since_ms,
            held: Vec::new(),
            rooms: BTreeMap::new(),
            by_channel: HashMap::new(),
            to_go_on: VecDeque::new(),
            looked_at: None,
            bringings: BTreeMap::new(),
            bringings_of: BTreeSet::new(),
            next_bringing: 0,
            sessions: BTreeMap::new(),
            changed: Vec::new(),
            changed_max: CHANGED_MAX,
            undone: Undone::default(),
            is_listening: false,
            beats: Beats::default(),
            redis_clock: RedisClock::default(),
            is_in_trouble: false,
            refusal_told_ms: 0,
            unconfirmed: Vec::new(),
            behind: false,
        }
    }

    /// Takes what the hub sends. The end is for the caller to see.
    pub(crate) fn take(&mut self, what: ToEngine) {
        match what {
            ToEngine::Ask(asked) => self.ask(asked),
            ToEngine::Changed(session) => self.note_change(session),
            ToEngine::Stop(_) => {}
        }
    }

    fn note_change(&mut self, session: Arc<Session>) {
        self.changed.push(session);
        // Those who come and go while Redis is away leave nothing behind.
        if !self.is_listening && self.changed.len() > self.changed_max {
            let sessions = &self.sessions;
            self.changed.retain(|of| !of.has_ended() || sessions.contains_key(&of.client_id));
            self.changed_max = CHANGED_MAX.max(2 * self.changed.len());
        }
    }

    /// Takes what happened on the link.
    pub(crate) fn hear(&mut self, event: Event) {
        match event {
            Event::Up(facts) => self.go_up(&facts),
            Event::Down(why) => self.go_down(why),
            Event::Failed(why) => self.engine.set_outage(Some(why)),
            Event::Subscribed(channel) => self.on_subscribed(&channel),
            Event::Message { channel, payload } => self.on_message(&channel, payload),
            Event::Answer { tag, answer } => self.on_answer(tag, answer),
        }
        self.go_on_with_rooms();
    }

    /// Does what is due, and what changed since the last turn.
    pub(crate) fn turn(&mut self) {
        let now_ms = self.hub.now_ms();
        if self.is_listening {
            self.save_changed();
            self.await_replicas();
            self.beat(now_ms);
            self.look_at_rooms(now_ms);
        } else if now_ms.saturating_sub(self.down_since_ms) > PATIENCE_MS {
            self.refuse_held();
        }
        self.go_on_with_rooms();
    }

    /// Takes the orders that came up.
    pub(crate) fn orders(&mut self) -> std::vec::Drain<'_, Order> {
        self.orders.drain(..)
    }

    /// Whether a mailbox was found behind since this was last asked.
    pub(crate) fn take_behind(&mut self) -> bool {
        std::mem::take(&mut self.behind)
    }

    /// Whether the link seems dead though nobody has said so.
    pub(crate) fn is_deaf(&self) -> bool {
        self.is_up() && self.beats.is_silent(self.hub.now_ms())
    }

    fn is_up(&self) -> bool {
        self.generation.is_some()
    }

    fn go_up(&mut self, facts: &ServerFacts) {
        log::info!("engine: connected to {}, version {}", facts.address, facts.version);
        self.generation = Some(facts.run_id.clone().into());
        let now_ms = self.hub.now_ms();
        self.beats.begin(now_ms);
        self.redis_clock.begin(facts.now_ms, now_ms);
        let own = [self.names.node(self.engine.node), self.names.all(), self.names.new_rooms()];
        self.orders.push(Order::Subscribe(own.into()));
        self.reopen_rooms();
    }

    /// Goes on where the link was lost, now that nothing is missed any more that is said to this
    /// node.
    fn go_on(&mut self) {
        self.is_listening = true;
        self.save_all();
        self.tell_again();
        self.list_own_sessions();
        if let Some(room) = self.settings.default_room.clone() {
            self.bring(&room, None, true, None);
        }
        for (asked, is_again) in std::mem::take(&mut self.held) {
            self.put(asked, is_again);
        }
        self.learn_revocations();
        self.engine.set_outage(None);
    }

    fn go_down(&mut self, why: String) {
        self.is_in_trouble = false;
        for numbered in std::mem::take(&mut self.unconfirmed) {
            self.held.push((numbered.asked, true));
        }
        log::warn!("engine: the connection is lost: {why}");
        self.hub.rooms.metrics.engine_outages.add_shared();
        self.engine.set_outage(Some(why));
        self.generation = None;
        self.is_listening = false;
        self.down_since_ms = self.hub.now_ms();
        let sent = std::mem::take(&mut self.sent);
        sent.into_values().for_each(|sent| self.hold(sent));
        self.orders.clear();
        self.lose_rooms();
    }

    fn order(&mut self, script: &'static Script, keys: Vec<Bytes>, args: Vec<Bytes>, sent: Sent) {
        let tag = self.tag(sent);
        self.orders.push(Order::Script { tag, script, keys, args });
    }

    fn command(&mut self, args: Vec<Bytes>, sent: Sent) {
        let tag = self.tag(sent);
        self.orders.push(Order::Command { tag, args });
    }

    fn tag(&mut self, sent: Sent) -> u64 {
        self.next_tag += 1;
        self.sent.insert(self.next_tag, sent);
        self.next_tag
    }

    fn generation(&self) -> Bytes {
        self.generation.clone().unwrap_or_default()
    }

    #[expect(clippy::boxed_local, reason = "questions are boxed wherever they wait")]
    fn answer(&self, asked: Box<Asked>, outcome: Outcome) {
        if matches!(outcome, Err(RoomError::EngineAway)) {
            self.hub.rooms.metrics.engine_refused.add_shared();
        }
        asked.answer(&self.engine, &self.hub.mailboxes, outcome);
    }

    fn on_answer(&mut self, tag: u64, answer: Result<Value, Refused>) {
        let Some(sent) = self.sent.remove(&tag) else { return };
        match &answer {
            // What is wrong with one key does not make the node unfit.
            Err(refused) if refused.code == Code::Other && !matches!(sent, Sent::Beat) => {
                self.note_refusal(sent.what(), &refused.text);
            }
            Err(refused) => self.note_trouble(sent.what(), &refused.text),
            // A write that is made again shows that the others would be.
            Ok(_) if matches!(sent, Sent::Beat) => self.end_trouble(),
            Ok(_) => {}
        }
        if answer.is_err() {
            self.note_undone(&sent);
        }
        self.on_sent_answered(sent, answer.ok());
    }

    /// Says what Redis has refused for want of sense, once a second at most.
    fn note_refusal(&mut self, what: &str, why: &str) {
        let now_ms = self.hub.now_ms();
        if now_ms >= self.refusal_told_ms.saturating_add(1000) {
            self.refusal_told_ms = now_ms;
            log::error!("engine: Redis refuses {what}: {why}");
        }
    }

    /// Notes that Redis refuses something. Said once, until it refuses no longer.
    fn note_trouble(&mut self, what: &str, why: &str) {
        if !self.is_in_trouble {
            self.is_in_trouble = true;
            log::warn!("engine: Redis refuses {what}: {why}");
            self.hub.rooms.metrics.engine_outages.add_shared();
            self.engine.set_outage(Some(why.to_owned()));
        }
    }

    fn end_trouble(&mut self) {
        if std::mem::take(&mut self.is_in_trouble) {
            log::info!("engine: Redis takes everything again");
            self.engine.set_outage(None);
            // What was refused meanwhile is written down now.
            self.tell_again();
        }
    }
}
