//! The room directory: the existing rooms, and the connections that wait for rooms that do not
//! exist yet.

pub(super) mod matching;
mod mirrored;
mod restored;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    conn_id::ConnId,
    error::RoomError,
    mailbox::{Deferred, Letter, Mailboxes},
    names::RoomName,
    patterns::{ByPrefix, prefixes},
    room::{Owner, Room, RoomKind, RoomState},
    room_limits::RoomLimits,
};
use crate::{
    config::{Config, Overflow},
    memory::account::Account,
    metrics::RoomMetrics,
    store::{History, HistoryBounds},
};

/// The most rooms that one sweep looks at.
const SWEEP_ROOMS_MAX: usize = 1000;

/// The most rooms that one message may remove, which bounds the cost of a publish.
const SHED_ROOMS_MAX: usize = 16;

/// Rooms with members that are compared to find the one whose history gives way.
const SHED_SAMPLE: usize = 8;

/// Estimated bytes of a room, with its entry in the directory and the longest name.
const ROOM_BYTES: usize =
    size_of::<Room>() + RoomName::BYTES_MAX + 4 * size_of::<(RoomName, Arc<Room>)>();

/// All rooms, by name. The directory's lock is never taken while a room's is held.
pub(crate) struct Rooms {
    pub(super) directory: Mutex<Directory>,
    /// The rooms without members, in the order in which they were left. Its lock is taken under
    /// the directory's or a room's, and nothing under it.
    vacant: Mutex<BTreeMap<u64, Arc<Room>>>,
    next_vacancy: AtomicU64,
    pub(crate) metrics: RoomMetrics,
    pub(super) account: Arc<Account>,
    next_key: AtomicU64,
    mailboxes: Mailboxes,
    /// Whether rooms are shared with other nodes: they are made by the engine alone.
    is_shared: AtomicBool,
}

pub(super) struct Directory {
    pub(super) limits: RoomLimits,
    pub(super) by_name: BTreeMap<RoomName, Arc<Room>>,
    /// The connections that wait for new rooms, by pattern. A connection does not wait by a
    /// pattern that another of its patterns covers, so it waits for each room once.
    subscribers: HashMap<ByPrefix, HashSet<ConnId>>,
    /// The room at which the next sweep begins.
    swept_to: Option<RoomName>,
    /// Where the next search for a large history begins.
    shed_to: Option<RoomName>,
    /// The largest number that a message to several rooms had in a room that is gone. It may be on
    /// its way still, so rooms that are made from now on have larger numbers.
    gone_shared_seq: u64,
    /// Of the rooms, those that count towards no bound: the default room, if there is one.
    uncounted: usize,
}

impl Directory {
    /// Drops a room, whose last message to other rooms, too, had the number `shared_seq`.
    fn remove(&mut self, room: &Room, shared_seq: u64) {
        self.by_name.remove(&room.name);
        self.gone_shared_seq = self.gone_shared_seq.max(shared_seq);
    }
}

impl Rooms {
    /// Makes the directory, and the default room in it.
    pub(crate) fn new(config: &Config, mailboxes: Mailboxes, account: Arc<Account>) -> Rooms {
        let directory = Directory {
            limits: RoomLimits::new(config),
            by_name: BTreeMap::new(),
            subscribers: HashMap::new(),
            swept_to: None,
            shed_to: None,
            gone_shared_seq: 0,
            uncounted: 0,
        };
        let mut rooms = Rooms {
            directory: Mutex::new(directory),
            vacant: Mutex::default(),
            next_vacancy: AtomicU64::new(0),
            metrics: RoomMetrics::default(),
            account,
            next_key: AtomicU64::new(0),
            mailboxes,
            is_shared: AtomicBool::new(false),
        };
        if let Ok(name) = RoomName::new(&config.default_room) {
            let limits = rooms.directory.get_mut().limits.of(&name);
            let room =
                Room { is_default: true, ..rooms.new_room(&name, RoomKind::Messages, limits) };
            let directory = rooms.directory.get_mut();
            directory.by_name.insert(name, Arc::new(room));
            directory.uncounted = 1;
        }
        rooms
    }

    /// Runs `change` on the room `name`, and makes the room if it does not exist. Adds to
    /// `deferred` the work to do once no lock is held.
    pub(crate) fn enter<R>(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
        change: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), RoomError> {
        let make = |directory: &Directory| match self.is_shared.load(Ordering::Relaxed) {
            false => Ok(History::beginning_after(directory.gone_shared_seq)),
            // It was here a moment ago, and went.
            true => Err(RoomError::Overloaded),
        };
        self.enter_made(name, deferred, make, change)
    }

    /// Runs `change` on the room `name`. If it does not exist, `make` says how it begins, or why it
    /// must not be made.
    fn enter_made<R>(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
        make: impl Fn(&Directory) -> Result<History, RoomError>,
        change: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), RoomError> {
        loop {
            let room = self.find_or_make(name, deferred, &make)?;
            let mut state = room.state.lock();
            if state.gone {
                // A sweep dropped the room between the two locks. The directory no longer has it.
                continue;
            }
            let result = change(&room, &mut state);
            self.note_vacancy(&room, &mut state);
            drop(state);
            return Ok((room, result));
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Room>> {
        self.directory.lock().by_name.get(name).cloned()
    }

    /// Lists at most `limit` rooms whose names begin with `prefix` and come behind `after`.
    pub(super) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<Arc<Room>> {
        let directory = self.directory.lock();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rooms = directory.by_name.range::<str, _>((from, Bound::Unbounded));
        let matching = rooms.take_while(|(name, _)| name.as_str().starts_with(prefix));
        matching.take(limit).map(|(_, room)| Arc::clone(room)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.directory.lock().by_name.len()
    }

    fn find_or_make(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
        make: &impl Fn(&Directory) -> Result<History, RoomError>,
    ) -> Result<Arc<Room>, RoomError> {
        // Dropped after the directory is unlocked: it may be many messages.
        let _evicted: History;
        let mut directory = self.directory.lock();
        if let Some(room) = directory.by_name.get(name) {
            return Ok(Arc::clone(room));
        }
        let history = make(&directory)?;
        if directory.by_name.len() - directory.uncounted >= directory.limits.rooms_max {
            let longest_vacant = self.evict_vacant(&mut directory, &[]);
            _evicted = longest_vacant.ok_or(RoomError::TooManyRooms)?;
        }
        let limits = directory.limits.of(name);
        let mut room = self.new_room(name, RoomKind::Messages, limits);
        room.state.get_mut().history = history;
        let room = Arc::new(room);
        self.notify_subscribers(&directory, &room, deferred)?;
        directory.by_name.insert(name.clone(), Arc::clone(&room));
        self.account.rooms.add(ROOM_BYTES);
        Ok(room)
    }

    fn new_room(
        &self,
        name: &RoomName,
        kind: RoomKind,
        (overflow, bounds): (Overflow, HistoryBounds),
    ) -> Room {
        Room {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            kind,
            overflow,
            is_default: false,
            moves: AtomicU32::new(0),
            state: Mutex::new(RoomState::new(self.mailboxes.workers(), bounds)),
        }
    }

    /// Makes the room that carries the presence notices of `room`. It is not in the directory.
    pub(crate) fn channel_of(&self, room: &Room) -> Arc<Room> {
        // Nothing is kept in it.
        let bounds = HistoryBounds { messages_max: 0, bytes_max: 0, age_max: Duration::ZERO };
        Arc::new(self.new_room(&room.name, RoomKind::Presence, (room.overflow, bounds)))
    }

    /// Counts the connections that wait for a room of this name as members, and posts the `Matched`
    /// letters to their workers. Nothing can be published before these letters, because the room is
    /// not in the directory yet. If a mailbox has no space, nobody is counted and the room must not
    /// be made.
    fn notify_subscribers(
        &self,
        directory: &Directory,
        room: &Arc<Room>,
        deferred: &mut Deferred,
    ) -> Result<(), RoomError> {
        if directory.subscribers.is_empty() {
            return Ok(());
        }
        let mut waiting: BTreeMap<u16, Vec<ConnId>> = BTreeMap::new();
        for prefix in prefixes(room.name.as_str()) {
            for conn in directory.subscribers.get(prefix).into_iter().flatten() {
                waiting.entry(conn.worker).or_default().push(*conn);
            }
        }
        let letters: Vec<(usize, Letter)> = waiting
            .into_iter()
            .map(|(worker, mut waiting)| {
                // The order is the same in each run, for tests that must be repeatable.
                waiting.sort_unstable();
                let (room, waiting) = (Arc::clone(room), waiting.into());
                (usize::from(worker), Letter::Matched { room, waiting })
            })
            .collect();
        let weight = |(worker, letter): &(usize, Letter)| Some((*worker, letter.weight()?));
        self.mailboxes.reserve_all(letters.iter().filter_map(weight), deferred)?;
        let mut state = room.state.lock();
        for (worker, letter) in letters {
            if let Letter::Matched { waiting, .. } = &letter {
                state.members[worker] += waiting.len() as u32;
            }
            self.mailboxes.push_reserved(worker, letter, deferred);
        }
        Ok(())
    }

    /// Puts a room into the list of those that nobody is in, or takes it out, after a change.
    /// Called under the room's lock.
    pub(super) fn note_vacancy(&self, room: &Arc<Room>, state: &mut RoomState) {
        let may_be_listed = room.kind == RoomKind::Messages && !room.is_default && !state.gone;
        match (may_be_listed && state.is_vacant(), state.vacancy) {
            (true, None) => {
                let vacancy = self.next_vacancy.fetch_add(1, Ordering::Relaxed);
                state.vacancy = Some(vacancy);
                self.vacant.lock().insert(vacancy, Arc::clone(room));
            }
            (false, Some(vacancy)) => {
                state.vacancy = None;
                self.vacant.lock().remove(&vacancy);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Removes the room that nobody has been in for longest, and is none of `kept`.
    fn evict_vacant(&self, directory: &mut Directory, kept: &[&Room]) -> Option<History> {
        loop {
            let (vacancy, room) = {
                let mut vacant = self.vacant.lock();
                let may_go = |room: &Room| kept.iter().all(|kept| kept.key != room.key);
                let vacancy = *vacant.iter().find(|(_, room)| may_go(room))?.0;
                (vacancy, vacant.remove(&vacancy)?)
            };
            let mut state = room.state.lock();
            if state.vacancy != Some(vacancy) {
                // Somebody joined between the two locks.
                continue;
            }
            self.metrics.rooms_evicted.add_shared();
            return Some(self.remove(directory, &room, &mut state));
        }
    }

    /// Removes a room that its owner has left behind, if nobody else was in it, or is.
    pub(super) fn evict_left_behind(&self, room: &Room, owner: Uuid) {
        let mut directory = self.directory.lock();
        let mut state = room.state.lock();
        let Owner::One { client_id, is_left_behind } = &mut state.owner else { return };
        *is_left_behind = false;
        if *client_id == owner && !state.gone && state.is_vacant() {
            self.metrics.rooms_evicted.add_shared();
            let history = self.remove(&mut directory, room, &mut state);
            drop((state, directory));
            drop(history);
        }
    }

    /// Takes a room out of the directory. Returns what it kept.
    fn remove(&self, directory: &mut Directory, room: &Room, state: &mut RoomState) -> History {
        state.gone = true;
        if let Some(vacancy) = state.vacancy.take() {
            self.vacant.lock().remove(&vacancy);
        }
        directory.remove(room, state.last_shared_seq);
        self.account.rooms.subtract(ROOM_BYTES);
        let history = std::mem::replace(&mut state.history, History::new());
        self.account.histories.subtract(history.bytes());
        history
    }

    /// Makes histories smaller, which are together larger than they should be: those of rooms that
    /// nobody is in go first, with their rooms, and then half of a large one. `kept` are rooms that
    /// are about to be used.
    pub(super) fn shed_histories(&self, bytes_max: usize, kept: &[&Room]) {
        let mut evicted = Vec::new();
        let mut directory = self.directory.lock();
        let is_over = || {
            self.account.weigh();
            self.account.histories.value() > bytes_max || self.account.wants_histories()
        };
        while evicted.len() < SHED_ROOMS_MAX && is_over() {
            let Some(history) = self.evict_vacant(&mut directory, kept) else { break };
            evicted.push(history);
        }
        if !evicted.is_empty() {
            return drop((directory, evicted));
        }
        drop(directory);
        self.trim_large();
    }

    /// Removes at most `max` of the rooms that nobody is in, those left longest ago first. Returns
    /// how many went.
    pub(super) fn shed_vacant(&self, max: usize) -> usize {
        let mut directory = self.directory.lock();
        let evicted: Vec<History> =
            (0..max).map_while(|_| self.evict_vacant(&mut directory, &[])).collect();
        drop(directory);
        evicted.len()
    }

    /// Makes a large history half as large.
    pub(super) fn trim_large(&self) {
        let mut directory = self.directory.lock();
        let Directory { by_name, shed_to, .. } = &mut *directory;
        let from = shed_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        // The search wraps around, so that no sample is smaller than it could be.
        let rooms = by_name.range((from, Bound::Unbounded)).chain(by_name.iter());
        let rooms = rooms.map(|(_, room)| room);
        let sample: Vec<_> = rooms.take(SHED_SAMPLE).map(Arc::clone).collect();
        *shed_to = sample.last().map(|room| room.name.clone());
        drop(directory);
        let largest = sample.iter().max_by_key(|room| room.state.lock().history.bytes());
        if let Some(room) = largest {
            let mut state = room.state.lock();
            let before = state.history.bytes();
            let forgotten = state.history.free(before.div_ceil(2));
            self.account.histories.change(before, state.history.bytes());
            self.metrics.history_trimmed.add_many_shared(forgotten as u64);
        }
    }

    /// Runs `age` on the histories of the next rooms, and removes the rooms that then have neither
    /// members nor messages. Mirrors stay: one may have been brought for a client that is about to
    /// enter, and the engine drops those that nobody is in for long.
    pub(crate) fn sweep(&self, age: impl Fn(&mut History, &HistoryBounds)) {
        let batch: Vec<Arc<Room>> = {
            let mut directory = self.directory.lock();
            let from = directory.swept_to.take().map_or(Bound::Unbounded, Bound::Excluded);
            let rooms = directory.by_name.range((from, Bound::Unbounded));
            let batch: Vec<_> =
                rooms.take(SWEEP_ROOMS_MAX).map(|(_, room)| Arc::clone(room)).collect();
            if batch.len() == SWEEP_ROOMS_MAX {
                directory.swept_to = batch.last().map(|room| room.name.clone());
            }
            batch
        };
        let are_mirrors = self.is_shared.load(Ordering::Relaxed);
        for room in batch {
            let mut state = room.state.lock();
            let RoomState { history, bounds, .. } = &mut *state;
            age(history, bounds);
            let is_empty = state.history.is_empty() && state.is_vacant();
            if is_empty && !room.is_default && !are_mirrors {
                state.gone = true;
                if let Some(vacancy) = state.vacancy.take() {
                    self.vacant.lock().remove(&vacancy);
                }
                let shared_seq = state.last_shared_seq;
                drop(state);
                self.directory.lock().remove(&room, shared_seq);
                self.account.rooms.subtract(ROOM_BYTES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{
            harness::{Bench, Client},
            mailbox::{MailboxBounds, mailboxes_without_workers},
        },
        ws::close::CloseReason,
    };

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
    }

    fn rooms(rooms_max: usize) -> Rooms {
        let bounds = MailboxBounds { letters_max: 9, bytes_max: 999 };
        let config = Config { max_rooms: rooms_max, ..Config::default() };
        Rooms::new(&config, mailboxes_without_workers(1, bounds).0, account())
    }

    fn account() -> Arc<Account> {
        Arc::new(Account::new(1, None, 0))
    }

    impl Rooms {
        /// Counts the pairs of a waiting connection and a pattern.
        pub(in crate::hub) fn subscribers(&self) -> usize {
            self.directory.lock().subscribers.values().map(HashSet::len).sum()
        }
    }

    #[test]
    fn empty_rooms_go_and_the_default_room_stays() {
        let rooms = rooms(2);
        let enter = |text| rooms.enter(&name(text), &mut Deferred::default(), |_, _| ());
        let (b, ()) = enter("b").expect("room for it");
        assert!(rooms.find("lobby").is_some(), "it is there before anyone asks");
        rooms.sweep(|_, _| ());
        assert!(rooms.find("b").is_none() && rooms.find("lobby").is_some());
        assert!(rooms.vacant.lock().is_empty());
        let (again, ()) = enter("b").expect("room for it");
        assert_ne!(b.key, again.key, "another life, another key");
        let nameless = Config { default_room: String::new(), ..Config::default() };
        let mailboxes =
            mailboxes_without_workers(1, MailboxBounds { letters_max: 9, bytes_max: 9 });
        assert_eq!(Rooms::new(&nameless, mailboxes.0, account()).len(), 0);
    }

    #[test]
    fn a_room_that_nobody_is_in_yields_to_a_new_one() {
        let config = Config { max_rooms: 2, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1000);
        let (mut anna, mut ben) = (bench.client(0, true), bench.client(0, false));
        let mut one = [bench.client(0, false), bench.client(0, false)];
        anna.join("a").expect("a place");
        ben.join("b").expect("a place");
        assert_eq!(one[0].join("c").err(), Some(RoomError::TooManyRooms));
        one[0].join("lobby").expect("the default room takes no place");
        for text in ["a", "b"] {
            let room = bench.hub.rooms.find(text).expect("it is there");
            bench.hub.publish(None, &room, &"kept".into()).expect("it is published");
        }
        ben.leave("b");
        anna.leave("a");
        anna.join("a").expect("it is there");
        anna.lose();
        bench.hub.sweep();
        // A client that is away is still in its rooms, and only `b` is vacant.
        one[0].join("c").expect("a place");
        assert!(bench.hub.rooms.find("b").is_none() && bench.hub.rooms.find("a").is_some());
        assert_eq!(one[1].join("d").err(), Some(RoomError::TooManyRooms));
        assert_eq!(bench.hub.rooms.metrics.rooms_evicted.value(), 1);
        // The room that has been without members for longest goes first, whichever was made first.
        bench.hub.depart(&anna.session, anna.at(), &CloseReason::NORMAL);
        one[0].leave("c");
        bench.hub.rooms.find("c").expect("it is there").state.lock().owner = Owner::Many;
        let room = bench.hub.rooms.find("c").expect("it is there");
        bench.hub.publish(None, &room, &"kept".into()).expect("it is published");
        let kept = bench.hub.rooms.find("a").is_some();
        one[1].join("d").expect("a place");
        assert_eq!(bench.hub.rooms.find("a").is_some(), kept);
        assert!(bench.hub.rooms.find("c").is_none());
    }

    #[test]
    fn who_makes_many_rooms_leaves_few_behind() {
        let config = Config { max_rooms_per_conn: 3, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1000);
        let (mut anna, mut ben) = (bench.client(0, false), bench.client(0, false));
        let say = |client: &mut Client, text: &str| {
            client.join(text).expect("a place");
            let room = bench.hub.rooms.find(text).expect("it is there");
            bench.hub.publish(None, &room, &"kept".into()).expect("it is published");
        };
        say(&mut anna, "shared");
        ben.join("shared").expect("a place");
        ben.leave("shared");
        anna.leave("shared");
        for text in ["a", "b", "c", "d", "e"] {
            say(&mut anna, text);
            anna.leave(text);
        }
        // A room that is joined again stays the same room.
        for _ in 0..9 {
            anna.join("c").expect("a place");
            anna.leave("c");
        }
        let is_there = |text: &&str| bench.hub.rooms.find(text).is_some();
        let there: Vec<_> =
            ["shared", "a", "b", "c", "d", "e"].into_iter().filter(is_there).collect();
        assert_eq!(there, ["shared", "c", "d", "e"]);
        assert_eq!(bench.hub.rooms.metrics.rooms_evicted.value(), 2);
    }

    #[test]
    fn all_histories_together_are_bounded() {
        let config = Config { history_total_bytes: 16_000, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 100_000);
        let mut client = bench.client(0, false);
        let text = "x".repeat(98);
        let publish = |room: &str| {
            let room = bench.hub.rooms.find(room).expect("it is there");
            let published = bench.hub.publish(None, &room, &text.as_str().into());
            published.expect("it is published");
            let kept = bench.hub.account.balance().histories;
            assert!(kept <= 16_000, "{kept}");
        };
        for n in 0..10 {
            let room = format!("vacant{n}");
            bench.hub.open_room(&name(&room)).expect("a place");
            (0..10).for_each(|_| publish(&room));
        }
        client.join("small").expect("a place");
        publish("small");
        client.join("large").expect("a place");
        for _ in 0..500 {
            publish("large");
            bench.letters(0);
        }
        assert!(bench.hub.rooms.find("vacant0").is_none(), "it went first");
        assert_eq!(bench.hub.rooms.metrics.history_trimmed.value(), 0, "members lose nothing yet");
        // Of rooms with members the largest gives way, not the smallest and not the publisher's.
        let rooms: Vec<String> = (0..6).map(|n| format!("more{n}")).collect();
        for room in &rooms {
            client.join(room).expect("a place");
            for _ in 0..60 {
                publish(room);
                bench.letters(0);
            }
        }
        let bytes = |room: &str| {
            let room = bench.hub.rooms.find(room).expect("it is there");
            room.state.lock().history.bytes()
        };
        assert!(bench.hub.rooms.metrics.history_trimmed.value() > 0);
        assert!(bytes("small") > 0 && rooms.iter().all(|room| bytes(room) > 0));
    }

    #[test]
    fn a_new_room_is_one_letter_for_each_worker_that_waits_or_is_refused() {
        const LETTERS_MAX: usize = 8;
        let mut bench = Bench::new(&Config::default(), 3, LETTERS_MAX);
        let mut clients: Vec<_> = [0, 1, 1, 1].map(|worker| bench.client(worker, false)).into();
        clients.iter_mut().for_each(|client| drop(client.subscribe("p.*").expect("a place")));
        clients[3].subscribe("p.q.*").expect("a place");
        let mut maker = bench.client(2, false);
        bench.fill(1, LETTERS_MAX);
        assert_eq!(maker.join("p.q.r").err(), Some(RoomError::Overloaded));
        assert!(bench.hub.rooms.find("p.q.r").is_none() && maker.conn.rooms.is_empty());
        assert_eq!((bench.hub.mailboxes.waiting(0), maker.conn.pressed), (0, 0));
        bench.letters(1);
        bench.fill(1, LETTERS_MAX / 2);
        maker.join("p.q.r").expect("a place");
        assert_eq!(maker.conn.pressed, 1, "the letter finds the mailbox behind");
        let matched = |letter: Letter| match letter {
            Letter::Matched { waiting, .. } => Some(waiting.len()),
            _ => None,
        };
        let matches = |worker| bench.letters(worker).into_iter().filter_map(matched);
        assert_eq!(matches(0).collect::<Vec<_>>(), [1]);
        assert_eq!(matches(1).collect::<Vec<_>>(), [3], "who waits for it twice is in there once");
        assert_eq!(matches(2).count(), 0);
        assert_eq!(bench.members("p.q.r"), 5);
    }
}
