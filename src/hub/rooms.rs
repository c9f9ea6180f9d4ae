//! The room directory: the existing rooms, and the connections that wait for rooms that do not
//! exist yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    conn_id::ConnId,
    error::RoomError,
    mailbox::{Deferred, Letter, Mailboxes},
    names::{RoomName, RoomPattern},
    room::{Room, RoomKind, RoomState},
};
use crate::{
    config::{Config, RoomRules},
    store::{History, HistoryBounds},
};

/// The most rooms that one sweep looks at.
const SWEEP_ROOMS_MAX: usize = 1000;

/// All rooms, by name. The directory's lock is never taken while a room's is held.
pub(crate) struct Rooms {
    directory: Mutex<Directory>,
    next_key: AtomicU64,
    rooms_max: usize,
    rules: RoomRules,
    /// The bounds of rooms without a rule of their own.
    bounds: HistoryBounds,
    mailboxes: Mailboxes,
}

struct Directory {
    by_name: BTreeMap<RoomName, Arc<Room>>,
    /// The connections that wait for new rooms, by pattern.
    subscribers: BTreeMap<RoomPattern, BTreeSet<ConnId>>,
    /// The room at which the next sweep begins.
    swept_to: Option<RoomName>,
}

impl Directory {
    /// Lists the first `max` names that match, in order.
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
    pub(crate) fn new(config: &Config, mailboxes: Mailboxes) -> Rooms {
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
            mailboxes,
        }
    }

    /// Runs `change` on the room `name`, and makes the room if it does not exist. Adds to
    /// `deferred` the work to do once no lock is held.
    pub(crate) fn enter<R>(
        &self,
        name: &RoomName,
        deferred: &mut Deferred,
        change: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), RoomError> {
        loop {
            let room = self.find_or_make(name, deferred)?;
            let mut state = room.state.lock();
            if state.gone {
                // A sweep dropped the room between the two locks. The directory no longer has it.
                continue;
            }
            let result = change(&room, &mut state);
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
        self.notify_subscribers(&directory, &room, deferred)?;
        directory.by_name.insert(name.clone(), Arc::clone(&room));
        Ok(room)
    }

    /// Makes a room with the rules for its name, which are looked up only here.
    fn new_room(&self, name: &RoomName, kind: RoomKind) -> Room {
        let settings = self.rules.of(name.as_str());
        Room {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            kind,
            overflow: settings.overflow,
            bounds: HistoryBounds { messages_max: settings.history, ..self.bounds },
            state: Mutex::new(RoomState::new(self.mailboxes.workers())),
        }
    }

    /// Makes the room that carries the presence notices of `room`. It is not in the directory.
    pub(crate) fn channel_of(&self, room: &Room) -> Arc<Room> {
        Arc::new(self.new_room(&room.name, RoomKind::Presence))
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

    /// Subscribes `conn` to new rooms that match. Returns the names of the existing matches, or
    /// `None`, with nothing changed, if there are more than `max`.
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

    /// Subscribes the new connection of a resumed session, however many rooms match. Returns the
    /// names of the first `max` matches.
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

    /// Runs `age` on the histories of the next rooms, and removes the rooms that then have neither
    /// members nor messages.
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
        mailbox::{MailboxBounds, mailboxes_without_workers},
    };

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
    }

    fn rooms(rooms_max: usize) -> Rooms {
        let bounds = MailboxBounds { letters_max: 9, bytes_max: 999 };
        let config = Config { max_rooms: rooms_max, ..Config::default() };
        Rooms::new(&config, mailboxes_without_workers(1, bounds).0)
    }

    impl Rooms {
        /// Counts the pairs of a waiting connection and a pattern.
        pub(in crate::hub) fn subscribers(&self) -> usize {
            self.directory.lock().subscribers.values().map(BTreeSet::len).sum()
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
        assert_eq!(matches(1).collect::<Vec<_>>(), [4], "who waits for it twice is in there twice");
        assert_eq!(matches(2).count(), 0);
        assert_eq!(bench.members("p.q.r"), 6);
    }
}
