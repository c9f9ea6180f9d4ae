//! Who is in which room: joining, leaving, watching, and subscribing to rooms that are yet to be made.
//!
//! A session holds its seats, a room its roster; both change under the session's lock and then the room's,
//! so a roster is exact whatever comes together. What a connection is delivered is its own worker's
//! business, told through a [`Door`].

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub, HubError, Joined, Replay,
    mailbox::{ConnId, Letter, WorkerSet},
    notice::Notice,
    rooms::{Listed, Room, RoomName, RoomPattern, RoomState},
    sessions::{Seat, Session, SessionState, Standing},
};
use crate::{config::Overflow, store::Position};

/// Members that a [`Presence`] lists at most.
pub(super) const LISTED_MAX: usize = 1000;

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
}

/// Someone in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub client_id: Uuid,
    /// The name that this client goes by, if it gave one.
    pub name: Option<Arc<str>>,
}

/// Who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The members, at most 1,000 of them, in no order.
    pub members: Vec<Present>,
    /// How many there are.
    pub count: usize,
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

/// Which way a roster changes.
#[derive(Clone, Copy)]
enum Change {
    Joined,
    Left,
}

/// A change of one session, made under its lock.
pub(super) struct Act<'a> {
    pub(super) hub: &'a Hub,
    pub(super) session: &'a Arc<Session>,
    pub(super) state: &'a mut SessionState,
    pub(super) door: &'a mut dyn Door,
    /// Whom to wake once nothing is locked.
    pub(super) ring: &'a mut WorkerSet,
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
    ) -> Result<Joined, HubError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            match act.state.seat(name.as_str()) {
                Some(_) => Err(HubError::AlreadyMember),
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
    ) -> Result<(), HubError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let seat = act.state.seat(name).ok_or(HubError::NotMember)?;
            let room = Arc::clone(&act.state.seats[seat].room);
            act.state.decline(&room, self.memberships_max);
            act.give_up_seat(seat);
            Ok(())
        })
    }

    /// Says who is in a room; with `watch` also begins or ends to tell of changes, in the same instant.
    pub(crate) fn presence(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        name: &str,
        watch: Option<bool>,
    ) -> Result<Presence, HubError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let at = act.state.seat(name).ok_or(HubError::NotMember)?;
            let seat = &mut act.state.seats[at];
            let watched = seat.watching;
            seat.watching = watch.unwrap_or(watched);
            let room = Arc::clone(&seat.room);
            if watched && watch == Some(false) {
                act.exit_channel(&room);
            }
            let mut room_state = room.state.lock();
            // Whoever is listed is known from here on, so its leaving will be told.
            self.announce_all(&room, &mut room_state, act.ring);
            if !watched && watch == Some(true) {
                act.enter_channel(&room, &mut room_state);
            }
            Ok(room_state.presence(LISTED_MAX))
        })
    }

    /// Joins every room that matches, and those that are made later as they are made.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        pattern: &RoomPattern,
    ) -> Result<Vec<Found>, HubError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            if act.state.patterns.contains(pattern) {
                return Err(HubError::AlreadyMember);
            }
            if act.state.patterns.len() >= self.memberships_max {
                return Err(HubError::TooManyMemberships);
            }
            let seats = &act.state.seats;
            let seated = seats.iter().filter(|seat| pattern.matches(&seat.room.name)).count();
            let places = self.memberships_max.saturating_sub(seats.len()) + seated;
            let names = self.rooms.subscribe(pattern, act.door.conn(), places);
            let names = names.ok_or(HubError::TooManyMemberships)?;
            act.state.patterns.push(pattern.clone());
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                if act.state.seat(name.as_str()).is_none() {
                    let by = Some(pattern.clone());
                    let joined = act.take_seat(&name, Replay::Nothing, by, 0)?;
                    let Joined { position, overflow, .. } = joined;
                    found.push(Found { room: name, position, overflow });
                }
            }
            Ok(found)
        })
    }

    /// Ends a subscription, and leaves the rooms that it brought unless another one matches them too.
    pub(crate) fn unsubscribe(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        pattern: &RoomPattern,
    ) -> Result<(), HubError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let at = act.state.patterns.iter().position(|own| own == pattern);
            act.state.patterns.swap_remove(at.ok_or(HubError::NotMember)?);
            self.rooms.unsubscribe(pattern, act.door.conn());
            for at in (0..act.state.seats.len()).rev() {
                let seat = &mut act.state.seats[at];
                if seat.pattern.as_ref() != Some(pattern) {
                    continue;
                }
                let mut others = act.state.patterns.iter();
                seat.pattern = others.find(|other| other.matches(&seat.room.name)).cloned();
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
                && act.state.patterns.contains(pattern)
                && act.state.seat(room.name.as_str()).is_none();
            if !is_wanted {
                return Match::Stale;
            }
            if act.state.seats.len() >= self.memberships_max {
                return Match::Full;
            }
            let mut room_state = room.state.lock();
            act.list_member(room, &mut room_state);
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

    /// Shows a session in the presence of its rooms: it will hardly take up an earlier one any more.
    pub(crate) fn confirm(&self, session: &Arc<Session>) {
        let mut ring = WorkerSet::default();
        let mut state = session.state.lock();
        if std::mem::take(&mut state.provisional) {
            for seat in &state.seats {
                let mut room_state = seat.room.state.lock();
                self.announce(session, &seat.room, &mut room_state, &mut ring);
            }
        }
        drop(state);
        self.post.ring(&ring);
    }

    /// Gives a session the name that it goes by in presence. What was told before stands.
    pub(crate) fn set_name(&self, session: &Session, name: Option<&str>) {
        let mut state = session.state.lock();
        if state.name.as_deref() == name {
            return;
        }
        state.name = name.map(Arc::from);
        for seat in &state.seats {
            if let Some(listed) = seat.room.state.lock().roster.get_mut(&session.client_id) {
                listed.name.clone_from(&state.name);
            }
        }
    }

    /// Takes one member of `worker` out of the room's count.
    pub(crate) fn uncount(&self, room: &Room, worker: usize) {
        let mut state = room.state.lock();
        state.members[worker] = state.members[worker].saturating_sub(1);
    }

    /// Runs `change` under the session's lock, and wakes after it whoever was sent a letter.
    pub(super) fn act<R>(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        change: impl FnOnce(&mut Act<'_>) -> R,
    ) -> R {
        let mut ring = WorkerSet::default();
        // The door may be a letter to its own worker.
        ring.insert(usize::from(door.conn().worker));
        let mut state = session.state.lock();
        let mut act = Act { hub: self, session, state: &mut state, door, ring: &mut ring };
        let result = change(&mut act);
        drop(state);
        self.post.ring(&ring);
        result
    }

    /// Takes a session off a room's roster, and tells those who watch if they knew of it.
    pub(super) fn unlist(&self, session: &Session, room: &Room, ring: &mut WorkerSet) {
        let mut room_state = room.state.lock();
        let Some(listed) = room_state.roster.remove(&session.client_id) else { return };
        if !listed.announced {
            room_state.unannounced -= 1;
            return;
        }
        self.tell_change(session, room, &mut room_state, (Change::Left, &listed), None, ring);
    }

    /// Makes a session on the roster known to those who watch, if they do not know of it.
    fn announce(
        &self,
        session: &Session,
        room: &Room,
        room_state: &mut RoomState,
        ring: &mut WorkerSet,
    ) {
        let Some(listed) = room_state.roster.get_mut(&session.client_id) else { return };
        if !std::mem::replace(&mut listed.announced, true) {
            let listed = Listed { name: listed.name.clone(), announced: true };
            room_state.unannounced -= 1;
            let change = (Change::Joined, &listed);
            self.tell_change(session, room, room_state, change, None, ring);
        }
    }

    /// Makes everyone on the roster known to those who watch.
    fn announce_all(&self, room: &Room, room_state: &mut RoomState, ring: &mut WorkerSet) {
        if room_state.unannounced == 0 {
            return;
        }
        let unknown = |(id, listed): (&Uuid, &Listed)| (!listed.announced).then_some(*id);
        let ids: Vec<Uuid> = room_state.roster.iter().filter_map(unknown).collect();
        for session in ids.iter().filter_map(|id| self.sessions.find(id)) {
            self.announce(&session, room, room_state, ring);
        }
    }

    /// Tells those who watch the room of a change, in the order in which the changes are made.
    fn tell_change(
        &self,
        session: &Session,
        room: &Room,
        room_state: &mut RoomState,
        (change, listed): (Change, &Listed),
        except: Option<ConnId>,
        ring: &mut WorkerSet,
    ) {
        let Some(channel) = &room_state.channel else { return };
        let mut channel_state = channel.state.lock();
        if channel_state.members_total() == 0 {
            drop(channel_state);
            room_state.channel = None;
            return;
        }
        let (room, client_id, name) = (&room.name, session.client_id, listed.name.as_deref());
        let notice = match change {
            Change::Joined => Notice::Joined { room, client_id, name },
            Change::Left => Notice::Left { room, client_id, name },
        };
        let Some(frame) = session.words(&notice) else { return };
        let seq = channel_state.history.skip();
        for worker in 0..channel_state.members.len() {
            if channel_state.members[worker] > 0 {
                // Refusing it would leave somebody with a wrong list, and nobody could say it again.
                self.post.reserve_in_any_case(worker, frame.len());
                let frame = frame.clone();
                self.post.put(worker, Letter::Deliver { room: channel.key, seq, frame, except });
                ring.insert(worker);
            }
        }
    }
}

impl Act<'_> {
    /// Whether this connection may act for the session: another one may have taken it over.
    pub(super) fn must_be_served(&self) -> Result<(), HubError> {
        match self.state.standing {
            Standing::On(conn) if conn == self.door.conn() => Ok(()),
            _ => Err(HubError::TakenOver),
        }
    }

    fn worker(&self) -> usize {
        usize::from(self.door.conn().worker)
    }

    pub(super) fn take_seat(
        &mut self,
        name: &RoomName,
        replay: Replay,
        pattern: Option<RoomPattern>,
        bytes_max: usize,
    ) -> Result<Joined, HubError> {
        if self.state.seats.len() >= self.hub.memberships_max {
            return Err(HubError::TooManyMemberships);
        }
        let mut told = WorkerSet::default();
        let (room, joined) = self.hub.rooms.enter(name, &mut told, |room, room_state| {
            self.list_member(room, room_state);
            self.enter(room, room_state, replay, bytes_max)
        })?;
        self.ring.add(&told);
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
        self.hub.unlist(self.session, &room, self.ring);
        self.door.exit(&room);
    }

    /// Lets the connection hear who comes to and goes from the room.
    pub(super) fn enter_channel(&mut self, room: &Room, room_state: &mut RoomState) {
        let make = || self.hub.rooms.channel_of(room);
        let channel = Arc::clone(room_state.channel.get_or_insert_with(make));
        let mut channel_state = channel.state.lock();
        channel_state.members[self.worker()] += 1;
        self.door.enter(&channel, channel_state.history.position().seq);
    }

    fn exit_channel(&mut self, room: &Room) {
        let channel = room.state.lock().channel.clone();
        channel.iter().for_each(|channel| self.door.exit(channel));
    }

    /// Puts the session on the room's roster, and tells those who watch unless it is provisional.
    fn list_member(&mut self, room: &Room, room_state: &mut RoomState) {
        let announced = !self.state.provisional;
        let listed = Listed { name: self.state.name.clone(), announced };
        if announced {
            let (change, except) = ((Change::Joined, &listed), Some(self.door.conn()));
            self.hub.tell_change(self.session, room, room_state, change, except, self.ring);
        } else {
            room_state.unannounced += 1;
        }
        room_state.roster.insert(self.session.client_id, listed);
    }
}

impl RoomState {
    /// Who is on the roster; `max` of them are listed.
    pub(super) fn presence(&self, max: usize) -> Presence {
        let present =
            |(id, listed): (&Uuid, &Listed)| Present { client_id: *id, name: listed.name.clone() };
        let members = self.roster.iter().take(max).map(present).collect();
        Presence { members, count: self.roster.len() }
    }
}
