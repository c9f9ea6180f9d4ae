//! What a node does with what it is asked and what it hears: orders to the link, and calls of the
//! hub. Without any input or output of its own, so that a test can be the link.
//!
//! A room is brought to the node by subscribing to its channel first and opening it then, so that
//! nothing is missed between the two. The same is done again whenever something of it may have been
//! missed: a number that jumps, and a link that was lost.
//!
//! Rooms and sessions are spread over shards, each a Redis of its own. What a session does in the
//! rooms of a shard needs nothing of the others: each shard has a part of it, with its fence and
//! its rooms there, beside the whole in the shard of its client.

mod beats;
mod bringings;
mod control;
mod directs;
mod kept_session;
mod mirrored_room;
mod opened;
mod presence;
mod questions;
mod redis_clock;
mod redo;
mod revocations;
mod rooms;
mod sent;
mod sessions;
mod several;
mod shard;
mod undone;
mod waits;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use uuid::Uuid;

pub(super) use self::beats::LEASE_MS;
use self::{
    kept_session::KeptSession,
    mirrored_room::MirroredRoom,
    sent::{Bringing, Held, Sent},
    shard::Shard,
    waits::{ASKED_AGAIN_MS, PATIENCE_MS},
};
use super::{
    link::{
        order::{Code, Event, Order, Refused, Script, ServerFacts, Value},
        settings::Mark,
    },
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
        shards::Shards,
    },
};

/// Sessions that may wait to be written down before those are looked for that have ended.
const CHANGED_MAX: usize = 4096;

/// What the core is told of the settings that hold as long as the server runs. The hub has the
/// others.
pub(crate) struct CoreSettings {
    pub(crate) prefix: String,
    /// Replicas that must have a message before its publisher is told its number.
    pub(crate) replicas: usize,
    pub(crate) default_room: Option<RoomName>,
    /// What each shard keeps of the list in which it stands, by shard.
    pub(crate) marks: Vec<Mark>,
    /// Says what other nodes and operators are told of this one, in JSON.
    pub(crate) about: Box<dyn Fn() -> String + Send>,
}

impl CoreSettings {
    /// What `config` says. `about` says what others are told of this node.
    pub(crate) fn new(config: &Config, about: Box<dyn Fn() -> String + Send>) -> CoreSettings {
        CoreSettings {
            prefix: config.redis_prefix.clone(),
            default_room: RoomName::new(&config.default_room).ok(),
            replicas: config.redis_wait_replicas,
            marks: Vec::new(),
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
    /// How rooms and sessions are spread.
    spread: Shards,
    shards: Vec<Shard>,
    next_tag: u64,
    /// How often sessions were written down.
    saved_count: u64,
    /// Questions that wait for links.
    held: Vec<Held>,
    /// Whether some were lost on one link, and may go on without it.
    may_ask_again: bool,
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
    /// When a refusal was told of last that is no trouble.
    refusal_told_ms: u64,
    /// Why this node cannot go on.
    failure: Option<String>,
    /// Whether a mailbox was found behind since the last turn.
    behind: bool,
}

impl Core {
    pub(crate) fn new(
        hub: Arc<Hub>,
        engine: Arc<Engine>,
        routes: Vec<RestorableRoute>,
        mut settings: CoreSettings,
    ) -> Core {
        let spread = engine.shards;
        let marks = std::mem::take(&mut settings.marks);
        let mut marks = marks.into_iter();
        let shard = |index: usize| Shard {
            label: match (spread.count(), engine.places.get(index)) {
                (2.., Some(place)) => format!("shard {} ({place}): ", index + 1),
                _ => String::new(),
            },
            mark: marks.next(),
            down_since_ms: hub.now_ms(),
            ..Shard::default()
        };
        let shards = (0..spread.count()).map(shard).collect();
        Core {
            names: Names::new(&settings.prefix),
            node: engine.node.to_string(),
            hub,
            engine,
            settings,
            routes,
            spread,
            shards,
            next_tag: 0,
            saved_count: 0,
            held: Vec::new(),
            may_ask_again: false,
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
            refusal_told_ms: 0,
            failure: None,
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
        if !self.is_any_listening() && self.changed.len() > self.changed_max {
            let sessions = &self.sessions;
            self.changed.retain(|of| !of.has_ended() || sessions.contains_key(&of.client_id));
            self.changed_max = CHANGED_MAX.max(2 * self.changed.len());
        }
    }

    /// Takes what happened on the link to a shard.
    pub(crate) fn hear(&mut self, shard: usize, event: Event) {
        match event {
            Event::Up(facts) => self.go_up(shard, &facts),
            Event::Down(why) => self.go_down(shard, &why),
            Event::Failed(why) => self.set_outage(shard, &why),
            Event::OtherList(why) => self.on_other_list(shard, &why),
            Event::Subscribed(channel) => self.on_subscribed(shard, &channel),
            Event::Message { channel, payload } => self.on_message(shard, &channel, payload),
            Event::Answer { tag, answer } => self.on_answer(shard, tag, answer),
        }
        self.go_on_with_rooms();
    }

    /// Does what is due, and what changed since the last turn.
    pub(crate) fn turn(&mut self) {
        let now_ms = self.hub.now_ms();
        if self.is_any_listening() {
            self.save_changed();
        }
        for shard in 0..self.shards.len() {
            let Shard { is_listening, down_since_ms, .. } = self.shards[shard];
            if is_listening {
                self.await_replicas(shard);
                self.beat(shard, now_ms);
            } else if now_ms.saturating_sub(down_since_ms) > PATIENCE_MS {
                self.refuse_held(shard, u64::MAX);
            }
        }
        if self.is_any_listening() {
            self.look_at_rooms(now_ms);
        }
        if std::mem::take(&mut self.may_ask_again) {
            self.put_held();
        }
        self.go_on_with_rooms();
    }

    /// Gives out the orders that came up, each for its shard.
    pub(crate) fn give_orders(&mut self, mut give: impl FnMut(usize, Order)) {
        for (index, shard) in self.shards.iter_mut().enumerate() {
            shard.orders.drain(..).for_each(|order| give(index, order));
        }
    }

    /// Whether a mailbox was found behind since this was last asked.
    pub(crate) fn take_behind(&mut self) -> bool {
        std::mem::take(&mut self.behind)
    }

    /// Why this node cannot go on, if it cannot, once.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Whether the link to a shard seems dead though nobody has said so.
    fn is_deaf(&self, shard: usize) -> bool {
        let shard = &self.shards[shard];
        shard.is_up() && shard.beats.is_silent(self.hub.now_ms())
    }

    /// A shard whose link is to be made anew, and why. It is asked for until there is none: the
    /// link says that it is down before it is asked again.
    pub(crate) fn useless_link(&mut self) -> Option<(usize, String)> {
        let silent = "nothing came on the subscriptions for several seconds";
        for index in 0..self.shards.len() {
            if let Some(why) = self.shards[index].useless.take() {
                return Some((index, why));
            }
            if self.is_deaf(index) {
                // Once: it is heard of again when it is up.
                self.shards[index].beats.heard_ms = self.hub.now_ms();
                return Some((index, silent.to_owned()));
            }
        }
        None
    }

    fn is_up(&self, shard: usize) -> bool {
        self.shards[shard].is_up()
    }

    /// Whether anything can be asked at all.
    fn is_any_listening(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_listening)
    }

    /// Whether all of these shards can be asked; a bit for each.
    fn are_listening(&self, shards: u64) -> bool {
        let mut away = self.shards.iter().enumerate().filter(|(_, shard)| !shard.is_listening);
        !away.any(|(index, _)| shards >> index & 1 == 1)
    }

    /// The shard through which this node speaks to all: the first one that hears.
    fn speaker(&self) -> usize {
        self.shards.iter().position(|shard| shard.is_listening).unwrap_or_default()
    }

    fn shard_of(&self, room: &RoomName) -> usize {
        self.spread.of_room(room)
    }

    /// The shard that has the whole of a client's session.
    fn home_of(&self, client: Uuid) -> usize {
        self.spread.of_client(client)
    }

    fn set_outage(&self, shard: usize, why: &str) {
        let label = &self.shards[shard].label;
        self.engine.set_outage(shard, Some(format!("{label}{why}")));
    }

    fn on_other_list(&mut self, shard: usize, why: &str) {
        self.set_outage(shard, why);
        let shard = &mut self.shards[shard];
        let told = format!("redis_url: {}{why}", shard.label);
        if !shard.was_up {
            self.failure.get_or_insert(told);
        } else if !std::mem::replace(&mut shard.is_other_list_told, true) {
            // Those who came later are wrong, and must not end those who are at work.
            log::error!("engine: {told}");
        }
    }

    fn go_up(&mut self, index: usize, facts: &ServerFacts) {
        let now_ms = self.hub.now_ms();
        let shard = &mut self.shards[index];
        let label = &shard.label;
        log::info!("engine: {label}connected to {}, version {}", facts.address, facts.version);
        shard.generation = Some(facts.run_id.clone().into());
        shard.was_up = true;
        shard.is_other_list_told = false;
        shard.beats.begin(now_ms);
        shard.redis_clock.begin(facts.now_ms, now_ms);
        let own = [self.names.node(self.engine.node), self.names.all(), self.names.new_rooms()];
        shard.orders.push(Order::Subscribe(own.into()));
        self.reopen_rooms(index);
    }

    /// Goes on where the link was lost, now that nothing is missed any more that is said to this
    /// node.
    fn go_on(&mut self, shard: usize) {
        self.shards[shard].is_listening = true;
        self.save_all(shard);
        self.tell_again(shard);
        self.list_own_sessions(shard);
        if let Some(room) = self.settings.default_room.clone()
            && self.shard_of(&room) == shard
        {
            self.bring(&room, None, true, None);
        }
        self.put_held();
        self.learn_revocations(shard);
        self.engine.set_outage(shard, None);
    }

    fn go_down(&mut self, index: usize, why: &str) {
        let now_ms = self.hub.now_ms();
        let shard = &mut self.shards[index];
        shard.is_in_trouble = false;
        shard.useless = None;
        let unconfirmed = std::mem::take(&mut shard.unconfirmed);
        log::warn!("engine: {}the connection is lost: {why}", shard.label);
        shard.generation = None;
        shard.is_listening = false;
        shard.down_since_ms = now_ms;
        let sent = std::mem::take(&mut shard.sent);
        shard.orders.clear();
        self.hub.rooms.metrics.engine_outages.add_shared();
        self.set_outage(index, why);
        for numbered in unconfirmed {
            self.hold_asked(numbered.asked, true);
        }
        sent.into_values().for_each(|sent| self.hold(index, sent));
        self.refuse_held(index, now_ms.saturating_sub(ASKED_AGAIN_MS));
        self.lose_rooms(index);
    }

    fn order(
        &mut self,
        shard: usize,
        script: &'static Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
        sent: Sent,
    ) {
        let give = |tag| Order::Script { tag, script, keys, args };
        self.give(shard, sent, give);
    }

    fn command(&mut self, shard: usize, args: Vec<Bytes>, sent: Sent) {
        self.give(shard, sent, |tag| Order::Command { tag, args });
    }

    fn give(&mut self, shard: usize, sent: Sent, order: impl FnOnce(u64) -> Order) {
        if !self.shards[shard].is_up() {
            // One shard is told while another one is away.
            return self.hold(shard, sent);
        }
        self.next_tag += 1;
        let order = order(self.next_tag);
        let shard = &mut self.shards[shard];
        shard.sent.insert(self.next_tag, sent);
        shard.orders.push(order);
    }

    #[expect(clippy::boxed_local, reason = "questions are boxed wherever they wait")]
    fn answer(&self, asked: Box<Asked>, outcome: Outcome) {
        if matches!(outcome, Err(RoomError::EngineAway)) {
            self.hub.rooms.metrics.engine_refused.add_shared();
        }
        asked.answer(&self.engine, &self.hub.mailboxes, outcome);
    }

    fn on_answer(&mut self, shard: usize, tag: u64, answer: Result<Value, Refused>) {
        let Some(sent) = self.shards[shard].sent.remove(&tag) else { return };
        match &answer {
            // What is wrong with one key does not make the node unfit.
            Err(refused) if refused.code == Code::Other && !matches!(sent, Sent::Beat) => {
                self.note_refusal(shard, sent.what(), &refused.text);
            }
            Err(refused) => self.note_trouble(shard, sent.what(), &refused.text),
            // A write that is made again shows that the others would be.
            Ok(_) if matches!(sent, Sent::Beat) => self.end_trouble(shard),
            Ok(_) => {}
        }
        if answer.is_err() {
            self.note_undone(shard, &sent);
        }
        self.on_sent_answered(shard, sent, answer.ok());
    }

    /// Says what Redis has refused for want of sense, once a second at most.
    fn note_refusal(&mut self, shard: usize, what: &str, why: &str) {
        let now_ms = self.hub.now_ms();
        if now_ms >= self.refusal_told_ms.saturating_add(1000) {
            self.refusal_told_ms = now_ms;
            log::error!("engine: {}Redis refuses {what}: {why}", self.shards[shard].label);
        }
    }

    /// Notes that Redis refuses something. Said once, until it refuses no longer.
    fn note_trouble(&mut self, index: usize, what: &str, why: &str) {
        let shard = &mut self.shards[index];
        if !shard.is_in_trouble {
            shard.is_in_trouble = true;
            log::warn!("engine: {}Redis refuses {what}: {why}", shard.label);
            self.hub.rooms.metrics.engine_outages.add_shared();
            self.set_outage(index, why);
        }
    }

    fn end_trouble(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        if std::mem::take(&mut shard.is_in_trouble) {
            log::info!("engine: {}Redis takes everything again", shard.label);
            self.engine.set_outage(index, None);
            // What was refused meanwhile is written down now.
            self.tell_again(index);
        }
    }
}
