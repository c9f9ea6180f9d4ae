//! Who is in a room, in the eyes of those who watch it: the roster, and the notices of its changes.
//!
//! A notice goes out under the room's lock and then its channel's, so every watcher is told of the
//! changes in the order in which they were made. A join is refused where there is no space for its
//! notice. All that follows from a join that was taken is told in any case, because nobody could
//! say it again; so there are never more such notices than there were joins.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    conn_handle::ConnHandle,
    error::RoomError,
    locked_session::LockedSession,
    mailbox::{Deferred, Letter},
    notice::Notice,
    room::{Room, RoomState, RosterEntry, workers_with_members},
    session::Session,
};

/// Members that a [`Presence`] lists at most.
pub(super) const PRESENCE_MEMBERS_MAX: usize = 1000;

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub client_id: Uuid,
    /// The name that this client goes by, if it gave one.
    pub name: Option<Arc<str>>,
}

/// The clients in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The members, at most 1,000 of them, in no order.
    pub members: Vec<Present>,
    /// How many members there are.
    pub count: usize,
}

/// Whether a client is told of who comes to a room and who goes, by
/// [`Notice::Joined`] and [`Notice::Left`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// As it was before: nothing changes.
    AsBefore,
    /// From now on.
    Begin,
    /// No longer.
    End,
}

/// How a roster changes in the eyes of its watchers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RosterChange {
    /// A session asks to be in the room, and can ask again.
    Joins,
    /// A session that is in the room already can be seen from now on.
    Appears,
    Leaves,
}

impl Hub {
    /// Says who is in a room, and begins or ends the watch of it in the same instant.
    pub(crate) fn presence(
        &self,
        conn: &mut dyn ConnHandle,
        name: &str,
        watch: Watch,
    ) -> Result<Presence, RoomError> {
        self.lock_own_session(conn, |locked| {
            let at = locked.state.membership(name).ok_or(RoomError::NotMember)?;
            let membership = &mut locked.state.memberships[at];
            let watched = membership.watching;
            let watching = match watch {
                Watch::AsBefore => watched,
                Watch::Begin => true,
                Watch::End => false,
            };
            membership.watching = watching;
            let room = Arc::clone(&membership.room);
            if watched && !watching {
                locked.exit_channel(&room);
            }
            let mut room_state = room.state.lock();
            // A session that is listed in the answer is known from here on, so its leaving will be
            // told.
            self.show_all(&room, &mut room_state, None, locked.deferred);
            if !watched && watching {
                locked.enter_channel(&room, &mut room_state);
            }
            Ok(room_state.presence(PRESENCE_MEMBERS_MAX, None))
        })
    }

    /// Shows a session in the presence of its rooms: it will hardly take up an earlier one any
    /// more. Returns whether a mailbox was found behind.
    pub(crate) fn confirm(&self, session: &Arc<Session>) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        if std::mem::take(&mut state.provisional) {
            for membership in &state.memberships {
                let mut room_state = membership.room.state.lock();
                self.show(session, &membership.room, &mut room_state, &mut deferred);
            }
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }

    /// Gives a session the name that it goes by in presence. What was told before stands.
    pub(crate) fn set_name(&self, session: &Session, name: Option<&str>) {
        let mut state = session.state.lock();
        if state.name.as_deref() == name {
            return;
        }
        state.name = name.map(Arc::from);
        for membership in &state.memberships {
            let mut room_state = membership.room.state.lock();
            if let Some(entry) = room_state.roster.get_mut(&session.client_id) {
                entry.name.clone_from(&state.name);
            }
        }
    }

    /// Takes a session off a room's roster, and tells the watchers if they knew of it.
    pub(super) fn remove_from_roster(
        &self,
        session: &Session,
        room: &Room,
        deferred: &mut Deferred,
    ) {
        let mut room_state = room.state.lock();
        let Some(entry) = room_state.roster.remove(&session.client_id) else { return };
        if entry.shown {
            let (name, leaves) = (entry.name.as_deref(), RosterChange::Leaves);
            self.notify_watchers(session, name, leaves, room, &mut room_state, deferred);
        } else {
            room_state.unshown -= 1;
        }
    }

    /// Makes a session on the roster known to the watchers, if they do not know of it.
    fn show(
        &self,
        session: &Session,
        room: &Room,
        room_state: &mut RoomState,
        deferred: &mut Deferred,
    ) {
        let Some(entry) = room_state.roster.get_mut(&session.client_id) else { return };
        if !std::mem::replace(&mut entry.shown, true) {
            let (name, appears) = (entry.name.clone(), RosterChange::Appears);
            room_state.unshown -= 1;
            self.notify_watchers(session, name.as_deref(), appears, room, room_state, deferred);
        }
    }

    /// Makes every session on the roster known to the watchers, but for `except`, which is about to
    /// end.
    pub(super) fn show_all(
        &self,
        room: &Room,
        room_state: &mut RoomState,
        except: Option<&Uuid>,
        deferred: &mut Deferred,
    ) {
        if room_state.unshown == 0 {
            return;
        }
        let is_unknown = |id: &Uuid, entry: &RosterEntry| !entry.shown && except != Some(id);
        let unknown = |(id, entry): (&Uuid, &RosterEntry)| is_unknown(id, entry).then_some(*id);
        let mut ids: Vec<Uuid> = room_state.roster.iter().filter_map(unknown).collect();
        // In an order that is the same in each run, for tests that must be repeatable.
        ids.sort_unstable();
        for session in ids.iter().filter_map(|id| self.sessions.find(id)) {
            self.show(&session, room, room_state, deferred);
        }
    }

    /// Tells the watchers of a room of a change, in the order in which the changes are made.
    /// Returns `false` when a join must be refused, because a mailbox has no space for its notice.
    fn notify_watchers(
        &self,
        session: &Session,
        name: Option<&str>,
        change: RosterChange,
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
            RosterChange::Joins | RosterChange::Appears => Notice::Joined { room, client_id, name },
            RosterChange::Leaves => Notice::Left { room, client_id, name },
        };
        let Some(frame) = session.format_notice(&notice) else { return true };
        let RoomState { members, history, .. } = &mut *channel_state;
        let letters = workers_with_members(members, frame.len());
        if change == RosterChange::Joins {
            if self.mailboxes.reserve_all(letters.clone(), deferred).is_err() {
                return false;
            }
        } else {
            for (worker, bytes) in letters.clone() {
                self.mailboxes.reserve_over_bound(worker, bytes, deferred);
            }
        }
        let seq = history.skip();
        for (worker, _) in letters {
            let frame = frame.clone();
            let letter = Letter::Deliver { room: channel.key, seq, frame, except: None };
            self.mailboxes.push_reserved(worker, letter, deferred);
        }
        true
    }
}

impl LockedSession<'_> {
    /// Puts the session on the room's roster, and tells the watchers unless the session is
    /// provisional. Returns `false`, and nothing has changed, when a join cannot be told.
    pub(super) fn add_to_roster(
        &mut self,
        change: RosterChange,
        room: &Room,
        room_state: &mut RoomState,
    ) -> bool {
        let (shown, name) = (!self.state.provisional, self.state.name.clone());
        if shown {
            let (session, name) = (self.session, name.as_deref());
            if !self.hub.notify_watchers(session, name, change, room, room_state, self.deferred) {
                return false;
            }
        } else {
            room_state.unshown += 1;
        }
        room_state.roster.insert(self.session.client_id, RosterEntry { name, shown });
        true
    }

    /// Has the connection told who comes to the room and who goes.
    pub(super) fn enter_channel(&mut self, room: &Room, room_state: &mut RoomState) {
        let make = || self.hub.rooms.channel_of(room);
        let channel = Arc::clone(room_state.channel.get_or_insert_with(make));
        let mut channel_state = channel.state.lock();
        channel_state.members[self.worker()] += 1;
        self.conn.enter(&channel, channel_state.history.position().seq);
    }

    pub(super) fn exit_channel(&mut self, room: &Room) {
        let channel = room.state.lock().channel.clone();
        channel.iter().for_each(|channel| self.conn.exit(channel));
    }
}

impl RoomState {
    /// Lists the first `max` members of the roster, and counts all of them. `except` is neither
    /// listed nor counted if the watchers do not know of it.
    pub(super) fn presence(&self, max: usize, except: Option<&Uuid>) -> Presence {
        let except = except.filter(|id| self.roster.get(id).is_some_and(|entry| !entry.shown));
        let present = |(id, entry): (&Uuid, &RosterEntry)| Present {
            client_id: *id,
            name: entry.name.clone(),
        };
        let listed = self.roster.iter().filter(|(id, _)| Some(*id) != except);
        let members = listed.take(max).map(present).collect();
        Presence { members, count: self.roster.len() - usize::from(except.is_some()) }
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
            assert_eq!(client.conn.pressed > 0, is_behind, "{waiting} waited");
        }
        let outside = &mut clients[LETTERS_MAX];
        assert_eq!(outside.join("a").err(), Some(RoomError::Overloaded));
        assert_eq!(bench.hub.mailboxes.waiting(1), LETTERS_MAX);
        assert_eq!((bench.listed("a"), bench.members("a")), (LETTERS_MAX + 1, LETTERS_MAX + 1));
        assert!(outside.conn.rooms.is_empty() && outside.session.room("a").is_none());
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
        let pressed = crowd[0].conn.pressed;
        crowd[0].leave("a");
        assert_eq!(crowd[0].conn.pressed, pressed + 1, "and so does who leaves");
        let gone = &crowd[1];
        assert!(bench.hub.depart(&gone.session, gone.conn(), &CloseReason::NORMAL));
        let texts = bench.texts(1);
        assert_eq!(texts.len(), LETTERS_MAX + 3);
        assert!(texts[LETTERS_MAX].starts_with("Joined"), "{texts:?}");
        assert!(texts[LETTERS_MAX + 1..].iter().all(|text| text.starts_with("Left")), "{texts:?}");
    }
}
