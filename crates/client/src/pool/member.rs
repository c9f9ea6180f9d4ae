//! One session of a pool, as the dispatcher sees it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{error::Error, session::Session, session_builder::SessionBuilder};

use super::stats::{SessionHealth, SessionStats};

/// A session, or the place of one that has ended.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) builder: SessionBuilder,
    /// Where it may connect to, in the order in which it tries.
    pub(super) urls: Vec<String>,
    pub(super) session: Session,
    /// Tells what comes of this session from what comes of an earlier one in its place.
    pub(super) life: u64,
    pub(super) health: SessionHealth,
    /// Since when it has been like that.
    pub(super) since: Instant,
    pub(super) last_error: Option<Error>,
    /// It was connected once, or an attempt has failed.
    pub(super) was_heard: bool,
    was_up: bool,
    /// What waited for it has been given to others since it lost its connection.
    pub(super) was_moved: bool,
    /// Publishes that wait for it, by their numbers in order.
    pub(super) queue: VecDeque<u64>,
    /// Publishes that are for it, in the queue or given to it.
    pub(super) assigned: usize,
    /// Publishes that it has.
    pub(super) given: usize,
    /// Rooms that it is in or about to be.
    pub(super) rooms: HashMap<Arc<str>, MemberRoom>,
    published: u64,
    failed: u64,
    reconnects: u64,
}

/// A room that a session is in or about to be.
#[derive(Debug)]
pub(super) struct MemberRoom {
    pub(super) phase: RoomPhase,
    /// Publishes to it that the session has.
    pub(super) given: usize,
    /// When it was last used, by a count of uses.
    pub(super) used: u64,
}

#[derive(Debug)]
pub(super) enum RoomPhase {
    /// The answer to the join is to come; these publishes wait for it, in order.
    Joining(VecDeque<u64>),
    Joined,
}

impl Member {
    pub(super) fn new(builder: SessionBuilder, urls: Vec<String>, session: Session) -> Member {
        Member {
            builder,
            urls,
            session,
            life: 0,
            health: SessionHealth::Disconnected,
            since: Instant::now(),
            last_error: None,
            was_heard: false,
            was_up: false,
            was_moved: false,
            queue: VecDeque::new(),
            assigned: 0,
            given: 0,
            rooms: HashMap::new(),
            published: 0,
            failed: 0,
            reconnects: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.health == SessionHealth::Connected
    }

    pub(super) fn is_over(&self) -> bool {
        self.health == SessionHealth::Over
    }

    /// It is connected.
    pub(super) fn rise(&mut self, now: Instant) {
        (self.health, self.since, self.was_heard) = (SessionHealth::Connected, now, true);
        self.was_moved = false;
        self.reconnects += u64::from(self.was_up);
        self.was_up = true;
    }

    /// It is not connected. What fails again has been down since it failed first.
    pub(super) fn fall(&mut self, health: SessionHealth, error: Error, now: Instant) {
        if self.health != health {
            (self.health, self.since) = (health, now);
        }
        (self.was_heard, self.last_error) = (true, Some(error));
    }

    /// Another session takes the place of the one that has ended.
    pub(super) fn replace(&mut self, session: Session, now: Instant) {
        self.life += 1;
        self.session = session;
        (self.health, self.since) = (SessionHealth::Disconnected, now);
        self.was_moved = false;
        self.given = 0;
        self.rooms.clear();
    }

    /// Keeps a publish until it is given, in the order of the numbers.
    pub(super) fn queue(&mut self, number: u64) {
        insert(&mut self.queue, number);
    }

    /// Takes all publishes that wait for this session, in order.
    pub(super) fn take_queue(&mut self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.queue.drain(..).collect();
        for room in self.rooms.values_mut() {
            if let RoomPhase::Joining(waiting) = &mut room.phase {
                numbers.extend(waiting.drain(..));
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// Whether a publish to a room has been given to it and is not answered: others to that room
    /// would overtake it elsewhere.
    pub(super) fn has_given(&self, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|room| room.given > 0)
    }

    /// One publish is answered.
    pub(super) fn count(&mut self, is_published: bool) {
        self.published += u64::from(is_published);
        self.failed += u64::from(!is_published);
    }

    /// The room that was not used for longest, of those that nothing is under way to.
    pub(super) fn idle_room(&self) -> Option<Arc<str>> {
        let is_idle =
            |room: &MemberRoom| matches!(room.phase, RoomPhase::Joined) && room.given == 0;
        let idle = self.rooms.iter().filter(|(_, room)| is_idle(room));
        idle.min_by_key(|(_, room)| room.used).map(|(name, _)| Arc::clone(name))
    }

    /// Whether it has been away for so long that its publishes go to others, order or not.
    pub(super) fn is_away_since(&self, time: Duration, now: Instant) -> bool {
        !self.is_up() && now.saturating_duration_since(self.since) >= time
    }

    pub(super) fn stats(&self) -> SessionStats {
        let node = self.session.inner.shared.node.load(Ordering::SeqCst);
        SessionStats {
            server: self.urls.get(node).cloned().unwrap_or_default(),
            health: self.health,
            last_error: self.last_error.clone(),
            unanswered: self.assigned,
            rooms: self.rooms.len(),
            published: self.published,
            failed: self.failed,
            reconnects: self.reconnects,
        }
    }
}

/// Puts a number into its place among the others.
pub(super) fn insert(numbers: &mut VecDeque<u64>, number: u64) {
    let at = numbers.partition_point(|other| *other < number);
    numbers.insert(at, number);
}

/// How much a room prefers one of several sessions (rendezvous hashing): when one goes, only the
/// rooms that were there move.
pub(super) fn preference(room: &str, member: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (room, member).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_spread_and_move_only_when_their_session_goes() {
        let best = |room: &str, members: &[usize]| {
            members.iter().copied().max_by_key(|member| preference(room, *member))
        };
        let rooms: Vec<String> = (0..300).map(|number| format!("room {number}")).collect();
        let mut counts = [0; 3];
        for room in &rooms {
            let member = best(room, &[0, 1, 2]).expect("there are three");
            counts[member] += 1;
            if member != 1 {
                assert_eq!(best(room, &[0, 2]), Some(member));
            }
        }
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    }

    #[test]
    fn numbers_stay_in_order() {
        let mut numbers = VecDeque::new();
        for number in [5, 1, 3, 2, 4] {
            insert(&mut numbers, number);
        }
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }
}
