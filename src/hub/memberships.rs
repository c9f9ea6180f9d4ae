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
    room::{Room, RoomState},
    session::SessionMembership,
};
use crate::{config::Overflow, store::Position};

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
    /// The connection joined the room.
    Joined(Position),
    /// The session is in `max_rooms_per_conn` rooms.
    Full,
    /// The session no longer waits for the room.
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
        self.lock_own_session(conn, |locked| match locked.state.membership(name.as_str()) {
            Some(_) => Err(RoomError::AlreadyMember),
            None => locked.add_membership(name, replay, None, self.page_bytes_max),
        })
    }

    /// Takes the connection out of a room, and ends its presence notices.
    pub(crate) fn leave(&self, conn: &mut dyn ConnHandle, name: &str) -> Result<(), RoomError> {
        self.lock_own_session(conn, |locked| {
            let at = locked.state.membership(name).ok_or(RoomError::NotMember)?;
            let room = Arc::clone(&locked.state.memberships[at].room);
            locked.state.decline(&room, self.memberships_max);
            locked.remove_membership(at);
            Ok(())
        })
    }

    /// Joins every room that matches, and every later one as soon as it is made.
    pub(crate) fn subscribe(
        &self,
        conn: &mut dyn ConnHandle,
        pattern: &RoomPattern,
    ) -> Result<Vec<MatchedRoom>, RoomError> {
        self.lock_own_session(conn, |locked| {
            if locked.state.cold().patterns.contains(pattern) {
                return Err(RoomError::AlreadyMember);
            }
            if locked.state.cold().patterns.len() >= self.memberships_max {
                return Err(RoomError::TooManyMemberships);
            }
            let memberships = &locked.state.memberships;
            let is_match = |of: &&SessionMembership| pattern.matches(&of.room.name);
            let already_in = memberships.iter().filter(is_match).count();
            let matches_max = self.memberships_max.saturating_sub(memberships.len()) + already_in;
            let names = self.rooms.subscribe(pattern, locked.conn.id(), matches_max);
            let names = names.ok_or(RoomError::TooManyMemberships)?;
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
                        self.rooms.unsubscribe(pattern, locked.conn.id());
                        let added = count_before..locked.state.memberships.len();
                        added.rev().for_each(|at| locked.remove_membership(at));
                        return Err(error);
                    }
                }
            }
            locked.state.cold_mut().patterns.push(pattern.clone());
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
            let at = locked.state.cold().patterns.iter().position(|own| own == pattern);
            locked.state.cold_mut().patterns.swap_remove(at.ok_or(RoomError::NotMember)?);
            let others = locked.state.cold().patterns.clone();
            self.rooms.unsubscribe(pattern, locked.conn.id());
            for at in (0..locked.state.memberships.len()).rev() {
                let membership = &mut locked.state.memberships[at];
                if membership.pattern.as_ref() != Some(pattern) {
                    continue;
                }
                let name = &membership.room.name;
                membership.pattern = others.iter().find(|other| other.matches(name)).cloned();
                if membership.pattern.is_none() {
                    locked.remove_membership(at);
                }
            }
            Ok(())
        })
    }

    /// Makes a connection a member of a new room that matches its subscription. The room already
    /// counts the connection; if it does not join, the count is given back here.
    pub(crate) fn matched(
        &self,
        conn: &mut dyn ConnHandle,
        room: &Arc<Room>,
        pattern: &RoomPattern,
    ) -> Match {
        let session = Arc::clone(conn.session());
        let outcome = self.lock_session(&session, conn, |locked| {
            let is_wanted = locked.is_attached()
                && locked.state.cold().patterns.contains(pattern)
                && locked.state.membership(room.name.as_str()).is_none();
            if !is_wanted {
                return Match::Stale;
            }
            if locked.state.memberships.len() >= self.memberships_max {
                return Match::Full;
            }
            let mut room_state = room.state.lock();
            locked.add_to_roster(RosterChange::Appears, room, &mut room_state);
            locked.conn.enter(room, 0);
            let position = Position { seq: 0, ..room_state.history.position() };
            drop(room_state);
            let (room, pattern) = (Arc::clone(room), Some(pattern.clone()));
            let membership = SessionMembership { room, watching: false, pattern };
            locked.state.memberships.push(membership);
            Match::Joined(position)
        });
        if !matches!(outcome, Match::Joined(_)) {
            self.uncount(room, conn.id().worker());
        }
        outcome
    }

    /// Takes one member of `worker` out of the room's count.
    pub(crate) fn uncount(&self, room: &Room, worker: usize) {
        let mut state = room.state.lock();
        state.members[worker] = state.members[worker].saturating_sub(1);
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
        if self.state.memberships.len() >= self.hub.memberships_max {
            return Err(RoomError::TooManyMemberships);
        }
        let mut deferred = Deferred::default();
        let entered = self.hub.rooms.enter(name, &mut deferred, |room, room_state| {
            let is_listed = self.add_to_roster(RosterChange::Joins, room, room_state);
            is_listed.then(|| self.enter(room, room_state, replay, bytes_max))
        });
        self.deferred.add(&deferred);
        let (room, joined) = entered?;
        let joined = joined.ok_or(RoomError::Overloaded)?;
        self.state.memberships.push(SessionMembership { room, watching: false, pattern });
        Ok(joined)
    }

    /// Begins delivery of the room's messages, and returns the earlier ones that `replay` asks for.
    pub(super) fn enter(
        &mut self,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        replay: Replay,
        bytes_max: usize,
    ) -> Joined {
        room_state.members[self.worker()] += 1;
        let joined = self.hub.replay(room, room_state, replay, bytes_max);
        self.conn.enter(room, joined.position.seq);
        joined
    }

    fn remove_membership(&mut self, at: usize) {
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
        hub::{harness::Bench, mailbox::Letter},
    };

    #[test]
    fn a_subscription_joins_all_rooms_or_none() {
        let mut bench = Bench::new(&Config::default(), 2, 2);
        let mut watcher = bench.client(1, false);
        ["p.a", "p.b", "p.c"].iter().for_each(|room| watcher.watch(room));
        let mut client = bench.client(0, false);
        client.join("p.b").expect("a place");
        assert_eq!(bench.texts(1).len(), 1);
        // Two notices have a place; the third room's has none, and then there are those of the way
        // back.
        let mut other = bench.client(0, false);
        assert_eq!(other.subscribe("p.*"), Err(RoomError::Overloaded));
        let told: Vec<String> =
            bench.texts(1).iter().map(|text| text[..text.find(' ').unwrap_or(0)].into()).collect();
        assert_eq!(told, ["Joined", "Joined", "Left", "Left"]);
        assert!(other.conn.rooms.is_empty());
        // It waits for no room either: one that is made is no letter to it.
        watcher.watch("p.d");
        let is_match = |letter: &Letter| matches!(letter, Letter::Matched { .. });
        assert!(!bench.letters(0).iter().any(is_match));
        assert_eq!((bench.listed("p.a"), bench.listed("p.b"), bench.listed("p.c")), (1, 2, 1));
        assert_eq!(client.subscribe("p.*").map(|found| found.len()), Err(RoomError::Overloaded));
        assert_eq!(bench.listed("p.b"), 2, "where it was before it still is");
    }
}
