//! The rooms that match a pattern: those that there are, and the connections that wait for others.

use std::ops::Bound;

use super::{Directory, Rooms};
use crate::hub::{
    conn_id::ConnId,
    error::RoomError,
    names::{RoomName, RoomPattern},
    patterns::{ByPrefix, prefixes},
};

/// The most rooms that one look passes over because the client may not join them: some milliseconds
/// under the lock of the directory.
pub(in crate::hub) const PASSED_OVER_MAX: usize = 16_384;

/// How many names that are looked at cost a client a microsecond or so.
pub(in crate::hub) const NAMES_PER_COST: usize = 8;

/// The names that match a pattern, as far as one look has come.
#[derive(Default)]
struct Matches {
    /// Those that the client may join, in order.
    names: Vec<RoomName>,
    /// How many were looked at.
    looked_at: usize,
    /// The last one, if the look ended because the client may not join too many of them.
    cut_off_at: Option<RoomName>,
}

impl Rooms {
    /// Whether a connection waits for a room of this name.
    pub(crate) fn is_awaited(&self, name: &RoomName) -> bool {
        let directory = self.directory.lock();
        prefixes(name.as_str()).any(|prefix| directory.subscribers.contains_key(prefix))
    }
}

impl Directory {
    fn subscribe(&mut self, pattern: &RoomPattern, conn: ConnId) {
        self.subscribers.entry(ByPrefix(pattern.clone())).or_default().insert(conn);
    }

    fn unsubscribe(&mut self, pattern: &RoomPattern, conn: ConnId) {
        let Some(subscribers) = self.subscribers.get_mut(pattern.prefix()) else { return };
        subscribers.remove(&conn);
        if subscribers.is_empty() {
            self.subscribers.remove(pattern.prefix());
        }
    }

    /// Finds the first `max` names that match, come behind `after`, and that `may_join` accepts.
    fn matching(
        &self,
        pattern: &RoomPattern,
        after: Option<&RoomName>,
        max: usize,
        may_join: &dyn Fn(&RoomName) -> bool,
    ) -> Matches {
        let from = match after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(pattern.prefix()),
        };
        let mut found = Matches::default();
        let mut passed_over = 0;
        for (name, _) in self.by_name.range::<str, _>((from, Bound::Unbounded)) {
            if found.names.len() == max || !name.as_str().starts_with(pattern.prefix()) {
                break;
            }
            found.looked_at += 1;
            if pattern.matches(name) && may_join(name) {
                found.names.push(name.clone());
                continue;
            }
            passed_over += 1;
            if passed_over == PASSED_OVER_MAX {
                found.cut_off_at = Some(name.clone());
                break;
            }
        }
        found
    }
}

impl Rooms {
    /// Subscribes `conn` to new rooms that match, unless it `is_covered`: it waits for them by
    /// another pattern. Returns the names of the existing matches that it `may_join`, and how many
    /// names were looked at. Nothing is changed if there are more than `max`, or too many others.
    pub(in crate::hub) fn subscribe(
        &self,
        pattern: &RoomPattern,
        (conn, is_covered): (ConnId, bool),
        max: usize,
        may_join: &dyn Fn(&RoomName) -> bool,
    ) -> (Result<Vec<RoomName>, RoomError>, usize) {
        let mut directory = self.directory.lock();
        let found = directory.matching(pattern, None, max + 1, may_join);
        let names = if found.names.len() > max {
            Err(RoomError::TooManyMemberships)
        } else if found.cut_off_at.is_some() {
            Err(RoomError::PatternTooWide)
        } else {
            Ok(found.names)
        };
        if names.is_ok() && !is_covered {
            directory.subscribe(pattern, conn);
        }
        (names, found.looked_at)
    }

    /// Replaces the patterns `from`, by which `conn` waits, by `to`, in one atomic step.
    pub(in crate::hub) fn exchange(&self, conn: ConnId, from: &[RoomPattern], to: &[RoomPattern]) {
        let mut directory = self.directory.lock();
        from.iter().for_each(|pattern| directory.unsubscribe(pattern, conn));
        to.iter().for_each(|pattern| directory.subscribe(pattern, conn));
    }

    /// Subscribes the new connection of a resumed session, however many rooms match. Returns the
    /// names of the first `max` matches that it `may_join`, and how many names were looked at.
    pub(in crate::hub) fn resubscribe(
        &self,
        pattern: &RoomPattern,
        conn: ConnId,
        max: usize,
        may_join: &dyn Fn(&RoomName) -> bool,
    ) -> (Vec<RoomName>, usize) {
        let mut directory = self.directory.lock();
        directory.subscribe(pattern, conn);
        let Matches { mut names, mut looked_at, mut cut_off_at } =
            directory.matching(pattern, None, max, may_join);
        drop(directory);
        // Others get the lock between two looks.
        while let Some(after) = cut_off_at {
            let max = max - names.len();
            let more = self.directory.lock().matching(pattern, Some(&after), max, may_join);
            names.extend(more.names);
            looked_at += more.looked_at;
            cut_off_at = more.cut_off_at;
        }
        (names, looked_at)
    }
}
