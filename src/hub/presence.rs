//! Who is in a room, in the eyes of those who watch it: the roster, and the notices of its changes.
//!
//! A notice goes out under the room's lock and then its channel's, so everyone is told of the changes in the
//! order in which they were made. A join is refused where there is no place for its notice. All that follows
//! from a join that was taken is told in any case, because nobody could say it again; so there are never
//! more such notices than there were joins.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub, RoomError,
    mailbox::{Deferred, Letter},
    notice::Notice,
    publish::places,
    rooms::{Listed, Room, RoomState},
    seats::{Act, Door},
    sessions::Session,
};

/// Members that a [`Presence`] lists at most.
pub(super) const LISTED_MAX: usize = 1000;

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

/// Whether a client is told of who comes to a room and who goes, by
/// [`Notice::Joined`](crate::Notice::Joined) and [`Notice::Left`](crate::Notice::Left).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// As it was before: nothing changes.
    AsBefore,
    /// From now on.
    Begin,
    /// No longer.
    End,
}

/// How a roster changes for those who watch it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Someone asks to be in the room, and can ask again.
    Joins,
    /// Someone who has a place in it already can be seen from now on.
    Appears,
    Leaves,
}

impl Hub {
    /// Says who is in a room; with `watch` also begins or ends to tell of changes, in the same instant.
    pub(crate) fn presence(
        &self,
        session: &Arc<Session>,
        door: &mut dyn Door,
        name: &str,
        watch: Watch,
    ) -> Result<Presence, RoomError> {
        self.act(session, door, |act| {
            act.must_be_served()?;
            let at = act.state.seat(name).ok_or(RoomError::NotMember)?;
            let seat = &mut act.state.seats[at];
            let watched = seat.watching;
            seat.watching = match watch {
                Watch::AsBefore => watched,
                Watch::Begin => true,
                Watch::End => false,
            };
            let watching = seat.watching;
            let room = Arc::clone(&seat.room);
            if watched && !watching {
                act.exit_channel(&room);
            }
            let mut room_state = room.state.lock();
            // Whoever is listed is known from here on, so its leaving will be told.
            self.show_all(&room, &mut room_state, act.deferred);
            if !watched && watching {
                act.enter_channel(&room, &mut room_state);
            }
            Ok(room_state.presence(LISTED_MAX))
        })
    }

    /// Shows a session in the presence of its rooms: it will hardly take up an earlier one any more.
    /// Returns whether a mailbox was found behind.
    pub(crate) fn confirm(&self, session: &Arc<Session>) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        if std::mem::take(&mut state.provisional) {
            for seat in &state.seats {
                let mut room_state = seat.room.state.lock();
                self.show(session, &seat.room, &mut room_state, &mut deferred);
            }
        }
        drop(state);
        self.post.finish(&deferred);
        deferred.behind
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

    /// Takes a session off a room's roster, and tells those who watch if they knew of it.
    pub(super) fn unlist(&self, session: &Session, room: &Room, deferred: &mut Deferred) {
        let mut room_state = room.state.lock();
        let Some(listed) = room_state.roster.remove(&session.client_id) else { return };
        if listed.shown {
            let name = listed.name.as_deref();
            self.tell(session, name, Change::Leaves, room, &mut room_state, deferred);
        } else {
            room_state.unshown -= 1;
        }
    }

    /// Makes a session on the roster known to those who watch, if they do not know of it.
    fn show(
        &self,
        session: &Session,
        room: &Room,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) {
        let Some(listed) = room_state.roster.get_mut(&session.client_id) else { return };
        if !std::mem::replace(&mut listed.shown, true) {
            let name = listed.name.clone();
            room_state.unshown -= 1;
            self.tell(session, name.as_deref(), Change::Appears, room, room_state, deferred);
        }
    }

    /// Makes everyone on the roster known to those who watch.
    fn show_all(&self, room: &Room, room_state: &mut RoomState, deferred: &mut Deferred) {
        if room_state.unshown == 0 {
            return;
        }
        let unknown = |(id, listed): (&Uuid, &Listed)| (!listed.shown).then_some(*id);
        let ids: Vec<Uuid> = room_state.roster.iter().filter_map(unknown).collect();
        for session in ids.iter().filter_map(|id| self.sessions.find(id)) {
            self.show(&session, room, room_state, deferred);
        }
    }

    /// Tells those who watch the room of a change, in the order in which the changes are made. `false`
    /// when a join must be refused, because a mailbox has no place for it.
    fn tell(
        &self,
        session: &Session,
        name: Option<&str>,
        change: Change,
        room: &Room,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) -> bool {
        let Some(channel) = &room_state.channel else { return true };
        let mut channel_state = channel.state.lock();
        if channel_state.members_total() == 0 {
            drop(channel_state);
            room_state.channel = None;
            return true;
        }
        let (room, client_id) = (&room.name, session.client_id);
        let notice = match change {
            Change::Joins | Change::Appears => Notice::Joined { room, client_id, name },
            Change::Leaves => Notice::Left { room, client_id, name },
        };
        let Some(frame) = session.words(&notice) else { return true };
        let RoomState { members, history, .. } = &mut *channel_state;
        let places = places(members, frame.len());
        if change == Change::Joins {
            if self.post.reserve_all(places.clone(), deferred).is_err() {
                return false;
            }
        } else {
            places.clone().for_each(|(worker, bytes)| {
                deferred.behind |= self.post.reserve_in_any_case(worker, bytes);
            });
        }
        let seq = history.skip();
        for (worker, _) in places {
            let frame = frame.clone();
            let letter = Letter::Deliver { room: channel.key, seq, frame, except: None };
            self.post.put(worker, letter);
            deferred.ring.insert(worker);
        }
        true
    }
}

impl Act<'_> {
    /// Puts the session on the room's roster, and tells those who watch unless it is provisional. `false`,
    /// and nothing has changed, when a join cannot be told.
    pub(super) fn list(&mut self, change: Change, room: &Room, room_state: &mut RoomState) -> bool {
        let (shown, name) = (!self.state.provisional, self.state.name.clone());
        if shown {
            let name = name.as_deref();
            if !self.hub.tell(self.session, name, change, room, room_state, self.deferred) {
                return false;
            }
        } else {
            room_state.unshown += 1;
        }
        room_state.roster.insert(self.session.client_id, Listed { name, shown });
        true
    }

    /// Lets the connection hear who comes to and goes from the room.
    pub(super) fn enter_channel(&mut self, room: &Room, room_state: &mut RoomState) {
        let make = || self.hub.rooms.channel_of(room);
        let channel = Arc::clone(room_state.channel.get_or_insert_with(make));
        let mut channel_state = channel.state.lock();
        channel_state.members[self.worker()] += 1;
        self.door.enter(&channel, channel_state.history.position().seq);
    }

    pub(super) fn exit_channel(&mut self, room: &Room) {
        let channel = room.state.lock().channel.clone();
        channel.iter().for_each(|channel| self.door.exit(channel));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench, ws::close::CloseReason};

    const LETTERS_MAX: usize = 8;

    #[test]
    fn a_join_that_cannot_be_told_is_refused_and_leaves_no_trace() {
        let mut bench = Bench::new(&Config::default(), 2, LETTERS_MAX);
        let mut watcher = bench.client(1, false);
        watcher.watch("a");
        let mut clients: Vec<_> = (0..=LETTERS_MAX).map(|_| bench.client(0, false)).collect();
        for (waiting, client) in clients[..LETTERS_MAX].iter_mut().enumerate() {
            client.join("a").expect("a place");
            let is_behind = waiting + 1 > LETTERS_MAX / 2;
            assert_eq!(client.door.pressed > 0, is_behind, "{waiting} waited");
        }
        let outside = &mut clients[LETTERS_MAX];
        assert_eq!(outside.join("a").err(), Some(RoomError::Overloaded));
        assert_eq!(bench.hub.post.waiting(1), LETTERS_MAX);
        assert_eq!((bench.listed("a"), bench.members("a")), (LETTERS_MAX + 1, LETTERS_MAX + 1));
        assert!(outside.door.rooms.is_empty() && outside.session.room("a").is_none());
        // A room that nobody watches is in nobody's way.
        outside.join("b").expect("a place");
        assert_eq!(bench.texts(1).len(), LETTERS_MAX);
        outside.join("a").expect("there is a place again");
        assert_eq!(bench.texts(1).len(), 1);
    }

    #[test]
    fn what_follows_from_a_join_is_told_in_any_case() {
        let mut bench = Bench::new(&Config::default(), 2, LETTERS_MAX);
        let mut watcher = bench.client(1, false);
        watcher.watch("a");
        let mut newcomer = bench.client(0, true);
        newcomer.join("a").expect("it is not told yet, so nothing is in its way");
        let mut crowd: Vec<_> = (0..LETTERS_MAX).map(|_| bench.client(0, false)).collect();
        crowd.iter_mut().for_each(|client| drop(client.join("a").expect("a place")));
        assert!(
            bench.hub.confirm(&newcomer.session),
            "who shows it hears that a mailbox is behind"
        );
        let pressed = crowd[0].door.pressed;
        crowd[0].leave("a");
        assert_eq!(crowd[0].door.pressed, pressed + 1, "and so does who leaves");
        let gone = &crowd[1];
        assert!(bench.hub.depart(&gone.session, gone.door.conn(), &CloseReason::NORMAL));
        let texts = bench.texts(1);
        assert_eq!(texts.len(), LETTERS_MAX + 3);
        assert!(texts[LETTERS_MAX].starts_with("Joined"), "{texts:?}");
        assert!(texts[LETTERS_MAX + 1..].iter().all(|text| text.starts_with("Left")), "{texts:?}");
    }
}
