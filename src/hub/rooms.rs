//! The room directory: which rooms exist, who is in each, how many of them on which worker, and who waits
//! for rooms that do not exist yet.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    RoomError,
    mailbox::{ConnId, Deferred, Letter, Post},
};
use crate::{
    config::{Config, Overflow, RoomRules},
    error::{Error, ErrorKind},
    store::{History, HistoryBounds},
};

/// Rooms looked at in one sweep.
const SWEEP_ROOMS_MAX: usize = 1000;

/// A legal room name; it is legal because it exists.
///
/// 1 to 128 bytes of UTF-8 without control characters and without `*`, which is kept for patterns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Checks `name`. The error says what a name may be.
    pub fn new(name: &str) -> Result<RoomName, Error> {
        if is_legal(name) {
            return Ok(RoomName(name.into()));
        }
        let message = format!(
            "a room name has 1 to {} bytes, no control characters and no '*'",
            RoomName::BYTES_MAX
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_legal(name: &str) -> bool {
    (1..=RoomName::BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c == '*')
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// The rooms below a name: `prices.*` matches `prices.eur` and `prices.eur.spot`, and not `prices`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomPattern(Arc<str>);

impl RoomPattern {
    /// Checks `pattern`. The error says what a pattern may be.
    pub fn new(pattern: &str) -> Result<RoomPattern, Error> {
        match pattern.strip_suffix(".*") {
            Some(stem) if is_legal(stem) && pattern.len() <= RoomName::BYTES_MAX => {
                Ok(RoomPattern(pattern.into()))
            }
            _ => {
                let message = format!(
                    "a room pattern is the beginning of a room name and '.*', {} bytes at most",
                    RoomName::BYTES_MAX
                );
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every matching name begins with.
    pub(crate) fn prefix(&self) -> &str {
        // What `new` checked: it ends in a star.
        &self.0[..self.0.len() - 1]
    }

    /// Whether a room of that name belongs to it.
    pub fn matches(&self, name: &RoomName) -> bool {
        name.as_str().len() > self.prefix().len() && name.as_str().starts_with(self.prefix())
    }
}

impl fmt::Debug for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one life of a room in letters: a room that went and came back has another key.
pub(crate) type RoomKey = u64;

/// One room. Shared by the directory and by every worker that has members in it.
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) name: RoomName,
    pub(crate) kind: RoomKind,
    /// What a member gets that is too slow.
    pub(crate) overflow: Overflow,
    pub(crate) bounds: HistoryBounds,
    /// Held for as long as it takes to number, store and post one message; never across a system call.
    pub(crate) state: Mutex<RoomState>,
}

/// What is sent to a room's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomKind {
    /// What is published.
    Messages,
    /// Who comes to the room of this name and who goes: such a notice is not numbered for its members, so
    /// one who misses some is told no more than that.
    Presence,
}

pub(crate) struct RoomState {
    pub(crate) history: History,
    /// How many members each worker has.
    pub(crate) members: Box<[u32]>,
    /// Everyone whose session is in this room, its connection there or away.
    pub(super) roster: HashMap<Uuid, Listed>,
    /// How many of them those who watch do not know of yet.
    pub(crate) unshown: usize,
    /// Where those who watch the roster hear of changes; made for the first of them.
    pub(super) channel: Option<Arc<Room>>,
    /// The directory has let go of this room; whoever still holds it must look again.
    gone: bool,
}

/// A session in a room's roster.
pub(super) struct Listed {
    pub(super) name: Option<Arc<str>>,
    /// Those who watch know of it.
    pub(super) shown: bool,
}

impl RoomState {
    /// Whether nobody would ever see what is published here.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn members_total(&self) -> usize {
        self.members.iter().map(|count| *count as usize).sum()
    }
}

/// All rooms, by name. The directory's lock is never taken while a room's is held.
pub(crate) struct Rooms {
    directory: Mutex<Directory>,
    next_key: AtomicU64,
    rooms_max: usize,
    rules: RoomRules,
    /// For rooms without a rule of their own.
    bounds: HistoryBounds,
    post: Post,
}

struct Directory {
    by_name: BTreeMap<RoomName, Arc<Room>>,
    /// Who waits for new rooms, by what their names begin with.
    subscribers: BTreeMap<RoomPattern, BTreeSet<ConnId>>,
    /// Where the next sweep begins.
    swept_to: Option<RoomName>,
}

impl Directory {
    /// The first `max` names that match, in order.
    fn matching(&self, pattern: &RoomPattern, max: usize) -> Vec<RoomName> {
        let from = Bound::Included(pattern.prefix());
        let rooms = self.by_name.range::<str, _>((from, Bound::Unbounded));
        let matching = rooms
            .map(|(name, _)| name)
            .take_while(|name| name.as_str().starts_with(pattern.prefix()))
            .filter(|name| pattern.matches(name));
        matching.take(max).cloned().collect()
    }
}

impl Rooms {
    pub(crate) fn new(config: &Config, post: Post) -> Rooms {
        let directory =
            Directory { by_name: BTreeMap::new(), subscribers: BTreeMap::new(), swept_to: None };
        let bounds = HistoryBounds {
            messages_max: config.history,
            bytes_max: config.history_bytes,
            age_max: config.history_age,
        };
        Rooms {
            directory: Mutex::new(directory),
            next_key: AtomicU64::new(0),
            rooms_max: config.max_rooms,
            rules: config.room_rules(),
            bounds,
            post,
        }
    }

    /// Runs `act` on the room of that name, which is made if need be. `deferred` gets
    /// what is to be done once nothing is locked.
    pub(crate) fn enter<R>(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
        act: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), RoomError> {
        loop {
            let room = self.find_or_make(name, deferred)?;
            let mut state = room.state.lock();
            if state.gone {
                // A sweep let go of it between our two locks. The directory no longer has it.
                continue;
            }
            let result = act(&room, &mut state);
            drop(state);
            return Ok((room, result));
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Room>> {
        self.directory.lock().by_name.get(name).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.directory.lock().by_name.len()
    }

    fn find_or_make(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
    ) -> Result<Arc<Room>, RoomError> {
        let mut directory = self.directory.lock();
        if let Some(room) = directory.by_name.get(name) {
            return Ok(Arc::clone(room));
        }
        if directory.by_name.len() >= self.rooms_max {
            return Err(RoomError::TooManyRooms);
        }
        let room = Arc::new(self.new_room(name, RoomKind::Messages));
        self.tell_subscribers(&directory, &room, deferred)?;
        directory.by_name.insert(name.clone(), Arc::clone(&room));
        Ok(room)
    }

    /// A room with the rules that hold for its name. They are looked up here and never again.
    fn new_room(&self, name: &RoomName, kind: RoomKind) -> Room {
        let settings = self.rules.of(name.as_str());
        let state = RoomState {
            history: History::new(),
            members: vec![0; self.post.workers()].into(),
            roster: HashMap::new(),
            unshown: 0,
            channel: None,
            gone: false,
        };
        Room {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            kind,
            overflow: settings.overflow,
            bounds: HistoryBounds { messages_max: settings.history, ..self.bounds },
            state: Mutex::new(state),
        }
    }

    /// A carrier for the presence notices of `room`. It is in no directory.
    pub(crate) fn channel_of(&self, room: &Room) -> Arc<Room> {
        Arc::new(self.new_room(&room.name, RoomKind::Presence))
    }

    /// Counts those who wait for a room of this name in, and sends their workers the letter that lets them
    /// see it from its first message on. Nobody else has the room yet, so nothing can come before that
    /// letter. Where a mailbox has no place for it, nobody is counted and the room must not be made.
    fn tell_subscribers(
        &self,
        directory: &Directory,
        room: &Arc<Room>,
        deferred: &mut Deferred,
    ) -> Result<(), RoomError> {
        if directory.subscribers.is_empty() {
            return Ok(());
        }
        let name = room.name.as_str();
        let mut waiting: BTreeMap<u16, Vec<(ConnId, RoomPattern)>> = BTreeMap::new();
        for (dot, _) in name.match_indices('.').filter(|(dot, _)| dot + 1 < name.len()) {
            let Ok(pattern) = RoomPattern::new(&format!("{}*", &name[..=dot])) else { continue };
            for conn in directory.subscribers.get(&pattern).into_iter().flatten() {
                waiting.entry(conn.worker).or_default().push((*conn, pattern.clone()));
            }
        }
        let letters: Vec<(usize, Letter)> = waiting
            .into_iter()
            .map(|(worker, waiting)| {
                let (room, waiting) = (Arc::clone(room), waiting.into());
                (usize::from(worker), Letter::Matched { room, waiting })
            })
            .collect();
        let weight = |(worker, letter): &(usize, Letter)| Some((*worker, letter.weight()?));
        self.post.reserve_all(letters.iter().filter_map(weight), deferred)?;
        let mut state = room.state.lock();
        for (worker, letter) in letters {
            if let Letter::Matched { waiting, .. } = &letter {
                state.members[worker] += waiting.len() as u32;
            }
            self.post.put(worker, letter);
            deferred.ring.insert(worker);
        }
        Ok(())
    }

    /// From now on `conn` hears of new rooms that match. Returns the names of those that exist, unless
    /// they are more than `max`; then nothing has changed.
    pub(super) fn subscribe(
        &self,
        pattern: &RoomPattern,
        conn: ConnId,
        max: usize,
    ) -> Option<Vec<RoomName>> {
        let mut directory = self.directory.lock();
        let names = directory.matching(pattern, max + 1);
        if names.len() > max {
            return None;
        }
        directory.subscribers.entry(pattern.clone()).or_default().insert(conn);
        Some(names)
    }

    /// The same for a session that is subscribed: no number of rooms ends that, and the names of the first
    /// `max` are returned.
    pub(super) fn resubscribe(
        &self,
        pattern: &RoomPattern,
        conn: ConnId,
        max: usize,
    ) -> Vec<RoomName> {
        let mut directory = self.directory.lock();
        directory.subscribers.entry(pattern.clone()).or_default().insert(conn);
        directory.matching(pattern, max)
    }

    pub(super) fn unsubscribe(&self, pattern: &RoomPattern, conn: ConnId) {
        let mut directory = self.directory.lock();
        let Some(subscribers) = directory.subscribers.get_mut(pattern) else { return };
        subscribers.remove(&conn);
        if subscribers.is_empty() {
            directory.subscribers.remove(pattern);
        }
    }

    /// Runs `age` on the histories of the next rooms in line, and removes those that are then empty of
    /// both members and messages.
    pub(crate) fn sweep(&self, age: impl Fn(&Room, &mut History)) {
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
        for room in batch {
            let mut state = room.state.lock();
            age(&room, &mut state.history);
            if state.history.is_empty() && state.roster.is_empty() && state.members_total() == 0 {
                state.gone = true;
                drop(state);
                self.directory.lock().by_name.remove(&room.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{
        harness::Bench,
        mailbox::{MailboxBounds, post_without_workers},
    };

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
    }

    fn rooms(rooms_max: usize) -> Rooms {
        let bounds = MailboxBounds { letters_max: 9, bytes_max: 999 };
        let config = Config { max_rooms: rooms_max, ..Config::default() };
        Rooms::new(&config, post_without_workers(1, bounds).0)
    }

    impl Rooms {
        /// How many connections wait for rooms, each once for each pattern.
        pub(in crate::hub) fn subscribers(&self) -> usize {
            self.directory.lock().subscribers.values().map(BTreeSet::len).sum()
        }
    }

    #[test]
    fn names_are_checked() {
        assert!(RoomName::new("prices.EUR/USD ü").is_ok());
        assert!(RoomName::new(&"x".repeat(128)).is_ok());
        for illegal in ["", "a\nb", "a*", "\u{7f}", &"x".repeat(129)] {
            assert!(RoomName::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn patterns_match_what_is_below_them() {
        let pattern = RoomPattern::new("prices.*").expect("a legal pattern");
        assert!(pattern.matches(&name("prices.eur")) && pattern.matches(&name("prices.eur.spot")));
        assert!(!pattern.matches(&name("prices")) && !pattern.matches(&name("pricesx.a")));
        assert!(!pattern.matches(&name("prices.")));
        for illegal in
            ["", "*", ".*", "a*", "a.b", "a.*.*", "a\n.*", &format!("{}.*", "x".repeat(127))]
        {
            assert!(RoomPattern::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn rules_take_the_names_and_patterns_that_there_are() {
        use crate::config::RoomRule;
        let long = |suffix: &str, bytes: usize| format!("{}{suffix}", "x".repeat(bytes));
        let mut texts: Vec<String> = [
            "", "*", ".*", "a", "a*", "a.*", "a.b.*", "a.*.*", "*.a", "a\n", "a\n.*", "ü.*", "..*",
        ]
        .map(String::from)
        .into();
        texts.extend([long("", 128), long("", 129), long(".*", 126), long(".*", 127)]);
        for text in &texts {
            let rule = RoomRule { overflow: Some(Overflow::Gap), ..RoomRule::new(text.as_str()) };
            let config = Config { rooms: vec![rule], ..Config::default() };
            let (as_name, as_pattern) = (RoomName::new(text), RoomPattern::new(text));
            let is_legal = as_name.is_ok() || as_pattern.is_ok();
            assert_eq!(config.validate().is_ok(), is_legal, "{text:?}");
            let rules = config.room_rules();
            for room in ["a", "a.", "a.b", "a.b.", "a.b.c", "b", "ab", "ü.ü", "..a"].map(name) {
                let is_of_pattern = as_pattern.as_ref().is_ok_and(|pattern| pattern.matches(&room));
                let is_it = as_name.as_ref().is_ok_and(|name| *name == room) || is_of_pattern;
                let holds = rules.of(room.as_str()).overflow == Overflow::Gap;
                assert_eq!(is_legal && holds, is_it, "{text:?} {room}");
            }
        }
    }

    #[test]
    fn rooms_are_bounded_and_empty_ones_go() {
        let rooms = rooms(2);
        let enter = |text| rooms.enter(&name(text), &mut Deferred::default(), |_, _| ());
        let (a, ()) = enter("a").expect("room for it");
        a.state.lock().members[0] += 1;
        let (b, ()) = enter("b").expect("room for it");
        assert_eq!(enter("c").err(), Some(RoomError::TooManyRooms));
        rooms.sweep(|_, _| ());
        assert_eq!(rooms.len(), 1, "a has a member and stays");
        let (again, ()) = enter("b").expect("room for it");
        assert_ne!(b.key, again.key, "another life, another key");
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
        assert!(bench.hub.rooms.find("p.q.r").is_none() && maker.door.rooms.is_empty());
        assert_eq!((bench.hub.post.waiting(0), maker.door.pressed), (0, 0));
        bench.letters(1);
        bench.fill(1, LETTERS_MAX / 2);
        maker.join("p.q.r").expect("a place");
        assert_eq!(maker.door.pressed, 1, "the letter finds the mailbox behind");
        let matched = |letter: Letter| match letter {
            Letter::Matched { waiting, .. } => Some(waiting.len()),
            _ => None,
        };
        let matches = |worker| bench.letters(worker).into_iter().filter_map(matched);
        assert_eq!(matches(0).collect::<Vec<_>>(), [1]);
        assert_eq!(matches(1).collect::<Vec<_>>(), [4], "who waits for it twice is in there twice");
        assert_eq!(matches(2).count(), 0);
        assert_eq!(bench.members("p.q.r"), 6);
    }
}
