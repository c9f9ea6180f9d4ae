//! The room directory: which rooms exist, and how many members each has on which worker.

use std::{borrow::Borrow, collections::BTreeMap, fmt, ops::Bound, sync::Arc};

use parking_lot::Mutex;

use super::HubError;
use crate::{
    error::{Error, ErrorKind},
    store::History,
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
    /// Held for as long as it takes to number, store and post one message; never across a system call.
    pub(crate) state: Mutex<RoomState>,
}

pub(crate) struct RoomState {
    pub(crate) history: History,
    /// How many members each worker has.
    pub(crate) members: Box<[u32]>,
    /// The directory has let go of this room; whoever still holds it must look again.
    gone: bool,
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
    rooms_max: usize,
    workers: usize,
}

struct Directory {
    by_name: BTreeMap<RoomName, Arc<Room>>,
    next_key: RoomKey,
    /// Where the next sweep begins.
    swept_to: Option<RoomName>,
}

impl Rooms {
    pub(crate) fn new(rooms_max: usize, workers: usize) -> Rooms {
        let directory = Directory { by_name: BTreeMap::new(), next_key: 0, swept_to: None };
        Rooms { directory: Mutex::new(directory), rooms_max, workers }
    }

    /// Runs `act` on the room of that name, which is made if need be.
    pub(crate) fn enter<R>(
        &self,
        name: &RoomName,
        act: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), HubError> {
        loop {
            let room = self.find_or_make(name)?;
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

    fn find_or_make(&self, name: &RoomName) -> Result<Arc<Room>, HubError> {
        let mut directory = self.directory.lock();
        if let Some(room) = directory.by_name.get(name) {
            return Ok(Arc::clone(room));
        }
        if directory.by_name.len() >= self.rooms_max {
            return Err(HubError::TooManyRooms);
        }
        let key = directory.next_key;
        directory.next_key += 1;
        let state = RoomState {
            history: History::new(),
            members: vec![0; self.workers].into(),
            gone: false,
        };
        let room = Arc::new(Room { key, name: name.clone(), state: Mutex::new(state) });
        directory.by_name.insert(name.clone(), Arc::clone(&room));
        Ok(room)
    }

    /// Runs `age` on the histories of the next rooms in line, and removes those that are then empty of
    /// both members and messages.
    pub(crate) fn sweep(&self, age: impl Fn(&mut History)) {
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
            age(&mut state.history);
            if state.history.is_empty() && state.members_total() == 0 {
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

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
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
    fn rooms_are_bounded_and_empty_ones_go() {
        let rooms = Rooms::new(2, 1);
        rooms.enter(&name("a"), |_, state| state.members[0] += 1).expect("room for it");
        let (b, ()) = rooms.enter(&name("b"), |_, _| ()).expect("room for it");
        assert_eq!(rooms.enter(&name("c"), |_, _| ()).err(), Some(HubError::TooManyRooms));
        rooms.sweep(|_| ());
        assert_eq!(rooms.len(), 1, "a has a member and stays");
        let (again, ()) = rooms.enter(&name("b"), |_, _| ()).expect("room for it");
        assert_ne!(b.key, again.key, "another life, another key");
    }
}
