//! The rooms of a session: join, leave, and subscribe to rooms that do not exist yet.
//!
//! A session has memberships, a room has a roster. Both change under the session's lock and then
//! the room's, so a roster is exact under any interleaving. Deliveries to a connection are switched
//! on and off through its [`ConnHandle`], on its own worker.

use std::sync::Arc;

use super::{
    Hub,
    conn_handle::ConnHandle,
    error::RoomError,
    history::{Joined, Replay},
    locked_session::LockedSession,
    mailbox::Deferred,
    names::{RoomName, RoomPattern},
    presence::RosterChange,
    room::{Entry, Owner, Room, RoomState},
    rooms::matching::NAMES_PER_COST,
    session::{MEMBERSHIP_BYTES, SessionMembership},
};
use crate::{config::Overflow, identity::Permissions, store::Position};

/// An existing room that matched a subscription, and was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRoom {
    /// The room.
    pub room: RoomName,
    /// The room's position at the join. Messages after this position are delivered.
    pub position: Position,
    /// The room's policy for a member that is too slow.
    pub overflow: Overflow,
}

/// The outcome for a new room that matches a subscription.
pub(crate) enum Match {
    /// The connection joined the room, by this pattern.
    Joined(RoomPattern, Position),
    /// The session is in `max_rooms_per_conn` rooms.
    Full(RoomPattern),
    /// The session no longer waits for the room, or may not join it.
    Stale,
}

impl Hub {
    /// Makes the connection a member. The replay and the position after which messages are
    /// delivered are read in one atomic step.
    pub(crate) fn join(
        &self,
        conn: &mut dyn ConnHandle,
        name: &RoomName,
        replay: Replay,
    ) -> Result<Joined, RoomError> {
        self.check_memory()?;
        self.lock_own_session(conn, |locked| match locked.state.membership(name.as_str()) {
            Some(_) => Err(RoomError::AlreadyMember),
            None => locked.add_membership(name, replay, None, self.limits.page_bytes_max()),
        })
    }

    /// Takes the connection out of a room, and ends its presence notices.
    pub(crate) fn leave(&self, conn: &mut dyn ConnHandle, name: &str) -> Result<(), RoomError> {
        self.lock_own_session(conn, |locked| {
            let at = locked.state.membership(name).ok_or(RoomError::NotMember)?;
            let room = Arc::clone(&locked.state.memberships[at].room);
            locked.state.decline(&room, self.limits.memberships_max());
            locked.remove_membership(at);
            locked.leave_behind(&room);
            Ok(())
        })
    }

    /// Joins every room that matches, and every later one as soon as it is made.
    pub(crate) fn subscribe(
        &self,
        conn: &mut dyn ConnHandle,
        pattern: &RoomPattern,
    ) -> Result<Vec<MatchedRoom>, RoomError> {
        self.check_memory()?;
        self.lock_own_session(conn, |locked| {
            if locked.state.cold().patterns.contains(pattern) {
                return Err(RoomError::AlreadyMember);
            }
            if locked.state.cold().patterns.len() >= self.limits.memberships_max() {
                return Err(RoomError::TooManyMemberships);
            }
            let memberships = &locked.state.memberships;
            let is_match = |of: &&SessionMembership| pattern.matches(&of.room.name);
            let already_in = memberships.iter().filter(is_match).count();
            let matches_max =
                self.limits.memberships_max().saturating_sub(memberships.len()) + already_in;
            let conn = locked.conn.id();
            let is_covered = locked.state.cold().patterns.cover(pattern);
            let may_join = |room: &RoomName| locked.may_join(room);
            let (names, looked_at) =
                self.rooms.subscribe(pattern, (conn, is_covered), matches_max, &may_join);
            locked.conn.spend(looked_at / NAMES_PER_COST);
            let names = names?;
            let memberships = &locked.state.memberships;
            let count_before = memberships.len();
            let mut matched = Vec::with_capacity(names.len());
            for name in names {
                if locked.state.membership(name.as_str()).is_some() {
                    continue;
                }
                let by = Some(pattern.clone());
                match locked.add_membership(&name, Replay::Nothing, by, 0) {
                    Ok(Joined { position, overflow, .. }) => {
                        matched.push(MatchedRoom { room: name, position, overflow });
                    }
                    Err(error) => {
                        // All or none. Watchers of the rooms joined so far see the client come and
                        // go.
                        if !is_covered {
                            self.rooms.exchange(conn, std::slice::from_ref(pattern), &[]);
                        }
                        let added = count_before..locked.state.memberships.len();
                        added.rev().for_each(|at| locked.remove_membership(at));
                        return Err(error);
                    }
                }
            }
            let patterns = &mut locked.state.cold_mut().patterns;
            if !is_covered {
                // From now on their new rooms are joined through the new pattern.
                self.rooms.exchange(conn, &patterns.below(pattern), &[]);
            }
            let before = patterns.bytes();
            patterns.insert(pattern.clone());
            self.account.patterns.change(before, patterns.bytes());
            Ok(matched)
        })
    }

    /// Ends a subscription, and leaves the rooms that it joined unless another subscription matches
    /// them.
    pub(crate) fn unsubscribe(
        &self,
        conn: &mut dyn ConnHandle,
        pattern: &RoomPattern,
    ) -> Result<(), RoomError> {
        self.lock_own_session(conn, |locked| {
            if !locked.state.cold().patterns.contains(pattern) {
                return Err(RoomError::NotMember);
            }
            let patterns = &mut locked.state.cold_mut().patterns;
            let before = patterns.bytes();
            patterns.remove(pattern);
            self.account.patterns.change(before, patterns.bytes());
            if !patterns.cover(pattern) {
                let (from, to) = (std::slice::from_ref(pattern), patterns.below(pattern));
                self.rooms.exchange(locked.conn.id(), from, &to);
            }
            for at in (0..locked.state.memberships.len()).rev() {
                let membership = &locked.state.memberships[at];
                if membership.pattern.as_ref() != Some(pattern) {
                    continue;
                }
                let other = locked.state.cold().patterns.matching(&membership.room.name).cloned();
                match other {
                    Some(_) => locked.state.memberships[at].pattern = other,
                    None => locked.remove_membership(at),
                }
            }
            Ok(())
        })
    }

    /// Makes a connection a member of a new room that matches its subscription. The room already
    /// counts the connection; if it does not join, the count is given back here.
    pub(crate) fn matched(&self, conn: &mut dyn ConnHandle, room: &Arc<Room>) -> Match {
        let session = Arc::clone(conn.session());
        let outcome = self.lock_session(&session, conn, |locked| {
            // The room that the letter was posted for may be gone, with another one in its place.
            let pattern = locked.state.cold().patterns.matching(&room.name).cloned();
            let is_wanted =
                locked.is_attached() && locked.state.membership(room.name.as_str()).is_none();
            let Some(pattern) = pattern.filter(|_| is_wanted) else { return Match::Stale };
            let permissions = locked.permissions(&room.name);
            if !permissions.contains(Permissions::JOIN) {
                return Match::Stale;
            }
            if locked.state.memberships.len() >= self.limits.memberships_max() {
                return Match::Full(pattern);
            }
            let mut room_state = room.state.lock();
            locked.add_to_roster(RosterChange::Appears, room, &mut room_state);
            let position = room_state.history.beginning();
            // It is told of everything since the room was made: its letters come behind this one.
            locked.conn.enter(room, Entry { seq: position.seq, moves: 0 }, permissions);
            drop(room_state);
            let (room, by) = (Arc::clone(room), Some(pattern.clone()));
            let membership = SessionMembership { room, watching: false, permissions, pattern: by };
            locked.push_membership(membership);
            Match::Joined(pattern, position)
        });
        if !matches!(outcome, Match::Joined(..)) {
            self.uncount(room, conn.id().worker());
        }
        outcome
    }

    /// Takes one member of `worker` out of the room's count.
    pub(crate) fn uncount(&self, room: &Arc<Room>, worker: usize) {
        let mut state = room.state.lock();
        state.members[worker] = state.members[worker].saturating_sub(1);
        self.rooms.note_vacancy(room, &mut state);
    }
}

impl LockedSession<'_> {
    /// Joins the room `name`, and makes it if it does not exist.
    pub(super) fn add_membership(
        &mut self,
        name: &RoomName,
        replay: Replay,
        pattern: Option<RoomPattern>,
        bytes_max: usize,
    ) -> Result<Joined, RoomError> {
        let permissions = self.permissions(name);
        if !permissions.contains(Permissions::JOIN) {
            return Err(self.hub.forbid(Permissions::JOIN));
        }
        if self.state.memberships.len() >= self.hub.limits.memberships_max() {
            return Err(RoomError::TooManyMemberships);
        }
        if self.hub.rooms.find(name.as_str()).is_none() {
            let user = self.state.shown.shared_user();
            self.hub.spend_room(self.session, user, self.conn.remote_addr())?;
        }
        let mut deferred = Deferred::default();
        let entered = self.hub.rooms.enter(name, &mut deferred, |room, room_state| {
            let is_listed = self.add_to_roster(RosterChange::Joins, room, room_state);
            is_listed.then(|| self.enter(room, room_state, replay, bytes_max, permissions))
        });
        self.deferred.add(&deferred);
        let (room, joined) = entered?;
        let joined = joined.ok_or(RoomError::Overloaded)?;
        self.push_membership(SessionMembership { room, watching: false, permissions, pattern });
        Ok(joined)
    }

    /// Asks the handler what the client may do in a room.
    pub(super) fn permissions(&self, room: &RoomName) -> Permissions {
        self.session.permissions_of(self.state.identity(), Some(room))
    }

    pub(super) fn may_join(&self, room: &RoomName) -> bool {
        self.permissions(room).contains(Permissions::JOIN)
    }

    /// Begins delivery of the room's messages, and returns the earlier ones that `replay` asks for,
    /// if the client may read them.
    pub(super) fn enter(
        &mut self,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        replay: Replay,
        bytes_max: usize,
        permissions: Permissions,
    ) -> Joined {
        room_state.members[self.worker()] += 1;
        let may_read = permissions.contains(Permissions::HISTORY);
        let replay = if may_read { replay } else { Replay::Nothing };
        let joined = self.hub.replay(room, room_state, replay, bytes_max);
        self.conn.enter(room, room.entry_at(joined.position.seq), permissions);
        joined
    }

    fn push_membership(&mut self, membership: SessionMembership) {
        let memberships = &mut self.state.memberships;
        // Most clients are in one room, and many are idle: no spare capacity for the first.
        if memberships.is_empty() {
            memberships.reserve_exact(1);
        }
        memberships.push(membership);
        self.hub.account.sessions.add(MEMBERSHIP_BYTES);
    }

    /// Notes that the session has left a room without other members, which keeps what the session
    /// said there. Of too many such rooms the oldest goes.
    fn leave_behind(&mut self, room: &Arc<Room>) {
        let client = self.session.client_id;
        let mut room_state = room.state.lock();
        let is_empty = room_state.history.is_empty();
        match &mut room_state.owner {
            Owner::One { client_id, is_left_behind }
                if *client_id == client && !*is_left_behind && !is_empty && !room.is_default =>
            {
                *is_left_behind = true;
            }
            Owner::Nobody | Owner::One { .. } | Owner::Many => return,
        }
        drop(room_state);
        let left_behind = &mut self.state.cold_mut().left_behind;
        left_behind.push_back(Arc::downgrade(room));
        if left_behind.len() > self.hub.limits.memberships_max()
            && let Some(first) = left_behind.pop_front().and_then(|room| room.upgrade())
        {
            self.hub.rooms.evict_left_behind(&first, client);
        }
    }

    pub(super) fn remove_membership(&mut self, at: usize) {
        self.hub.account.sessions.subtract(MEMBERSHIP_BYTES);
        let SessionMembership { room, watching, .. } = self.state.memberships.swap_remove(at);
        if watching {
            self.exit_channel(&room);
        }
        self.hub.remove_from_roster(self.session, &room, self.deferred);
        self.conn.exit(&room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::{
            harness::{Bench, name, pattern},
            mailbox::Letter,
            rooms::matching::PASSED_OVER_MAX,
        },
    };

    fn waiting(bench: &Bench) -> Vec<usize> {
        let waiting = |letter| match letter {
            Letter::Matched { waiting, .. } => Some(waiting.len()),
            _ => None,
        };
        bench.letters(0).into_iter().filter_map(waiting).collect()
    }

    #[test]
    fn nested_patterns_find_a_new_room_once_whatever_comes_and_goes() {
        let mut bench = Bench::new(&Config::default(), 2, 100_000);
        let mut maker = bench.client(1, false);
        let nested = |depth: usize| format!("{}*", "a.".repeat(depth));
        let mut clients: Vec<_> = (0..20).map(|_| bench.client(0, false)).collect();
        for (nth, client) in clients.iter_mut().enumerate() {
            // The order in which they are asked for does not matter.
            for depth in 0..50 {
                client.subscribe(&nested(1 + (depth * 7 + nth) % 50)).expect("a place");
            }
        }
        assert_eq!(bench.hub.rooms.subscribers(), 20, "each waits by one pattern");
        maker.join(&"a.".repeat(52).replace("a.a.", "a.b.")).expect("a place");
        maker.join(&format!("{}x", "a.".repeat(50))).expect("a place");
        assert_eq!(waiting(&bench), [20, 20]);
        // Without the shortest pattern, the session waits by the next one.
        let client = &mut clients[0];
        for depth in 1..50 {
            bench.hub.unsubscribe(&mut client.conn, &pattern(&nested(depth))).expect("it is there");
            assert_eq!(bench.hub.rooms.subscribers(), 20);
        }
        maker.join("a.y").expect("a place");
        assert_eq!(waiting(&bench), [19]);
        maker.join(&format!("{}z", "a.".repeat(50))).expect("a place");
        assert_eq!(waiting(&bench), [20]);
        bench.hub.unsubscribe(&mut client.conn, &pattern(&nested(50))).expect("it is there");
        assert_eq!(bench.hub.rooms.subscribers(), 19);
    }

    #[test]
    fn a_room_that_was_posted_for_one_pattern_is_joined_by_another() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (mut client, mut maker) = (bench.client(0, false), bench.client(0, false));
        ["p.*", "p.q.*"].iter().for_each(|to| drop(client.subscribe(to).expect("a place")));
        maker.join("p.q.r").expect("a place");
        let room = bench.hub.rooms.find("p.q.r").expect("it is there");
        // Before the letter is read.
        bench.hub.unsubscribe(&mut client.conn, &pattern("p.*")).expect("it is there");
        let matched = bench.hub.matched(&mut client.conn, &room);
        let Match::Joined(by, _) = matched else { panic!("it is waited for by the other one") };
        assert_eq!(by, pattern("p.q.*"));
        assert_eq!((bench.listed("p.q.r"), bench.members("p.q.r")), (2, 2));
    }

    #[test]
    fn a_subscription_looks_at_a_bounded_number_of_names_and_pays_for_each() {
        let rooms = 800 + PASSED_OVER_MAX + 10;
        let config = Config { max_rooms: rooms + 1, ..Config::default() };
        let mut bench = Bench::new(&config, 1, 1000);
        let may = Permissions::all() - Permissions::JOIN;
        let mut stranger = bench.client_who_may(may, 0, false);
        for n in 0..rooms {
            let room = if n < 800 { format!("few.{n}") } else { format!("p.{n}") };
            let made = bench.hub.rooms.enter(&name(&room), &mut Deferred::default(), |_, _| ());
            made.expect("there may be as many");
        }
        assert_eq!(stranger.subscribe("few.*"), Ok(Vec::new()));
        assert_eq!(stranger.conn.spent, 100);
        assert_eq!(stranger.subscribe("p.*"), Err(RoomError::PatternTooWide));
        assert_eq!(stranger.conn.spent, 100 + PASSED_OVER_MAX / 8);
        assert_eq!(bench.hub.rooms.subscribers(), 1, "nothing was changed");
    }

    #[test]
    fn a_subscription_joins_all_rooms_or_none() {
        let mut bench = Bench::new(&Config::default(), 2, 2);
        let mut watcher = bench.client(1, false);
        ["p.a", "p.b", "p.c"].iter().for_each(|room| watcher.watch(room));
        let mut client = bench.client(0, false);
        client.join("p.b").expect("a place");
        assert_eq!(bench.texts(1).len(), 1);
        // Two notices have space, that of the third room has none; then come those of the rollback.
        let mut other = bench.client(0, false);
        assert_eq!(other.subscribe("p.*"), Err(RoomError::Overloaded));
        let told: Vec<String> =
            bench.texts(1).iter().map(|text| text[..text.find(' ').unwrap_or(0)].into()).collect();
        assert_eq!(told, ["Joined", "Joined", "Left", "Left"]);
        assert!(other.conn.rooms.is_empty());
        // The session waits for no room either: a new room posts no letter to it.
        watcher.watch("p.d");
        let is_match = |letter: &Letter| matches!(letter, Letter::Matched { .. });
        assert!(!bench.letters(0).iter().any(is_match));
        assert_eq!((bench.listed("p.a"), bench.listed("p.b"), bench.listed("p.c")), (1, 2, 1));
        assert_eq!(client.subscribe("p.*").map(|found| found.len()), Err(RoomError::Overloaded));
        assert_eq!(bench.listed("p.b"), 2, "where it was before it still is");
    }
}
