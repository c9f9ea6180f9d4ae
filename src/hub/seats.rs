//! Who is in which room: joining, leaving, and subscribing to rooms that are yet to be made.
//!
//! A session holds its seats, a room its roster; both change under the session's lock and then the room's,
//! so a roster is exact whatever comes together. What a connection is delivered is its own worker's
//! business, told through a [`Door`].

use std::sync::Arc;

use super::{
    Hub, Joined, Replay, RoomError,
    mailbox::{ConnId, Deferred},
    presence::Change,
    rooms::{Room, RoomName, RoomPattern, RoomState},
    sessions::{Seat, Session, SessionState, Standing},
};
use crate::{config::Overflow, store::Position};

/// The hub's way to one connection's worker. What it is told takes effect in the order of the letters
/// that the hub posts, so it may be done at once or by a letter.
pub(crate) trait Door {
    fn conn(&self) -> ConnId;
    /// Delivers what comes in `room` behind `from_seq`. Called under the room's lock.
    fn enter(&mut self, room: &Arc<Room>, from_seq: u64);
    /// Delivers nothing more of `room`, and gives its count back with [`Hub::uncount`].
    fn exit(&mut self, room: &Arc<Room>);
    /// The connection goes on with `session`, and is in no room until it enters one.
    fn attach(&mut self, session: &Arc<Session>);
    /// A mailbox that was posted to is behind. Called with no lock held.
    fn feel_pressure(&mut self);
}

/// A room that a subscription found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The room.
    pub room: RoomName,
    /// What is delivered comes behind this.
    pub position: Position,
    /// What the room does for a member that is too slow.
    pub overflow: Overflow,
}

/// What became of a new room that matches a subscription.
pub(crate) enum Match {
    /// The connection is in it.
    Seated(Position),
    /// It is in as many rooms as it may be.
    Full,
    /// Nobody waits for it any more.
    Stale,
}

/// A change of one session, made under its lock.
pub(super) struct Act<'a> {
    pub(super) hub: &'a Hub,
    pub(super) session: &'a Arc<Session>,
    pub(super) state: &'a mut SessionState,
    pub(super) door: &'a mut dyn Door,
    pub(super) deferred: &'a mut Deferred,
}

impl Hub {
    /// Makes the connection a member. The replay and the position from which messages will be delivered
    /// are read in the same instant.
    pub(crate) fn join(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        name: &RoomName,
        replay: Replay,
    ) -> Result<Joined, RoomError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            match act.state.seat(name.as_str()) {
                Some(_) => Err(RoomError::AlreadyMember),
                None => act.take_seat(name, replay, None, self.page_bytes_max),
            }
        })
    }

    /// Takes the connection out of a room, and out of its watch.
    pub(crate) fn leave(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        name: &str,
    ) -> Result<(), RoomError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let seat = act.state.seat(name).ok_or(RoomError::NotMember)?;
            let room = Arc::clone(&act.state.seats[seat].room);
            act.state.decline(&room, self.memberships_max);
            act.give_up_seat(seat);
            Ok(())
        })
    }

    /// Joins every room that matches, and those that are made later as they are made.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        pattern: &RoomPattern,
    ) -> Result<Vec<Found>, RoomError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            if act.state.rare().patterns.contains(pattern) {
                return Err(RoomError::AlreadyMember);
            }
            if act.state.rare().patterns.len() >= self.memberships_max {
                return Err(RoomError::TooManyMemberships);
            }
            let seats = &act.state.seats;
            let seated = seats.iter().filter(|seat| pattern.matches(&seat.room.name)).count();
            let places = self.memberships_max.saturating_sub(seats.len()) + seated;
            let names = self.rooms.subscribe(pattern, act.door.conn(), places);
            let names = names.ok_or(RoomError::TooManyMemberships)?;
            let seats_before = seats.len();
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                if act.state.seat(name.as_str()).is_some() {
                    continue;
                }
                let by = Some(pattern.clone());
                match act.take_seat(&name, Replay::Nothing, by, 0) {
                    Ok(Joined { position, overflow, .. }) => {
                        found.push(Found { room: name, position, overflow });
                    }
                    Err(error) => {
                        // All or none: those who watch the first rooms see it come and go.
                        self.rooms.unsubscribe(pattern, act.door.conn());
                        let taken = seats_before..act.state.seats.len();
                        taken.rev().for_each(|seat| act.give_up_seat(seat));
                        return Err(error);
                    }
                }
            }
            act.state.rare_mut().patterns.push(pattern.clone());
            Ok(found)
        })
    }

    /// Ends a subscription, and leaves the rooms that it brought unless another one matches them too.
    pub(crate) fn unsubscribe(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        pattern: &RoomPattern,
    ) -> Result<(), RoomError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let at = act.state.rare().patterns.iter().position(|own| own == pattern);
            act.state.rare_mut().patterns.swap_remove(at.ok_or(RoomError::NotMember)?);
            let others = act.state.rare().patterns.clone();
            self.rooms.unsubscribe(pattern, act.door.conn());
            for at in (0..act.state.seats.len()).rev() {
                let seat = &mut act.state.seats[at];
                if seat.pattern.as_ref() != Some(pattern) {
                    continue;
                }
                seat.pattern = others.iter().find(|other| other.matches(&seat.room.name)).cloned();
                if seat.pattern.is_none() {
                    act.give_up_seat(at);
                }
            }
            Ok(())
        })
    }

    /// Seats a connection in a room that was just made and that it subscribed to. The room counts it
    /// already; unless it is seated, that count is given back here.
    pub(crate) fn matched(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        room: &Arc<Room>,
        pattern: &RoomPattern,
    ) -> Match {
        let outcome = self.act(session, door, |act| {
            let is_wanted = act.must_be_served().is_ok()
                && act.state.rare().patterns.contains(pattern)
                && act.state.seat(room.name.as_str()).is_none();
            if !is_wanted {
                return Match::Stale;
            }
            if act.state.seats.len() >= self.memberships_max {
                return Match::Full;
            }
            let mut room_state = room.state.lock();
            act.list(Change::Appears, room, &mut room_state);
            act.door.enter(room, 0);
            let position = Position { seq: 0, ..room_state.history.position() };
            drop(room_state);
            let (room, pattern) = (Arc::clone(room), Some(pattern.clone()));
            act.state.seats.push(Seat { room, watching: false, pattern });
            Match::Seated(position)
        });
        if !matches!(outcome, Match::Seated(_)) {
            self.uncount(room, usize::from(door.conn().worker));
        }
        outcome
    }

    /// Takes one member of `worker` out of the room's count.
    pub(crate) fn uncount(&self, room: &Room, worker: usize) {
        let mut state = room.state.lock();
        state.members[worker] = state.members[worker].saturating_sub(1);
    }

    /// Runs `change` under the session's lock, and does after it what it leaves to be done.
    pub(super) fn act<R>(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        change: impl FnOnce(&mut Act<'_>) -> R,
    ) -> R {
        let mut deferred = Deferred::default();
        // The door may be a letter to its own worker.
        deferred.ring.insert(usize::from(door.conn().worker));
        let mut state = session.state.lock();
        let result = change(&mut Act {
            hub: self,
            session,
            state: &mut state,
            door: &mut *door,
            deferred: &mut deferred,
        });
        drop(state);
        self.post.finish(&deferred);
        if deferred.behind {
            door.feel_pressure();
        }
        result
    }
}

impl Act<'_> {
    /// Whether this connection may act for the session: another one may have taken it over.
    pub(super) fn must_be_served(&self) -> Result<(), RoomError> {
        match self.state.standing {
            Standing::On(conn) if conn == self.door.conn() => Ok(()),
            _ => Err(RoomError::TakenOver),
        }
    }

    pub(super) fn worker(&self) -> usize {
        usize::from(self.door.conn().worker)
    }

    pub(super) fn take_seat(
        &mut self,
        name: &RoomName,
        replay: Replay,
        pattern: Option<RoomPattern>,
        bytes_max: usize,
    ) -> Result<Joined, RoomError> {
        if self.state.seats.len() >= self.hub.memberships_max {
            return Err(RoomError::TooManyMemberships);
        }
        let mut deferred = Deferred::default();
        let entered = self.hub.rooms.enter(name, &mut deferred, |room, room_state| {
            let is_listed = self.list(Change::Joins, room, room_state);
            is_listed.then(|| self.enter(room, room_state, replay, bytes_max))
        });
        self.deferred.add(&deferred);
        let (room, joined) = entered?;
        let joined = joined.ok_or(RoomError::Overloaded)?;
        self.state.seats.push(Seat { room, watching: false, pattern });
        Ok(joined)
    }

    /// Has the room's messages delivered from here on, and what `replay` asks for given out.
    pub(super) fn enter(
        &mut self,
        room: &Arc<Room>,
        room_state: &mut RoomState,
        replay: Replay,
        bytes_max: usize,
    ) -> Joined {
        room_state.members[self.worker()] += 1;
        let joined = self.hub.replay(room, room_state, replay, bytes_max);
        self.door.enter(room, joined.position.seq);
        joined
    }

    fn give_up_seat(&mut self, seat: usize) {
        let Seat { room, watching, .. } = self.state.seats.swap_remove(seat);
        if watching {
            self.exit_channel(&room);
        }
        self.hub.unlist(self.session, &room, self.deferred);
        self.door.exit(&room);
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
        // Two notices have a place; the third room's has none, and then there are those of the way back.
        let mut other = bench.client(0, false);
        assert_eq!(other.subscribe("p.*"), Err(RoomError::Overloaded));
        let told: Vec<String> =
            bench.texts(1).iter().map(|text| text[..text.find(' ').unwrap_or(0)].into()).collect();
        assert_eq!(told, ["Joined", "Joined", "Left", "Left"]);
        assert!(other.door.rooms.is_empty());
        // It waits for no room either: one that is made is no letter to it.
        watcher.watch("p.d");
        let is_match = |letter: &Letter| matches!(letter, Letter::Matched { .. });
        assert!(!bench.letters(0).iter().any(is_match));
        assert_eq!((bench.listed("p.a"), bench.listed("p.b"), bench.listed("p.c")), (1, 2, 1));
        assert_eq!(client.subscribe("p.*").map(|found| found.len()), Err(RoomError::Overloaded));
        assert_eq!(bench.listed("p.b"), 2, "where it was before it still is");
    }
}
