//! Presence: a room's roster, and the notices of its changes to the clients that watch it.
//!
//! A notice is posted under the lock of the room and then of its channel, so every watcher gets the
//! changes in order. A join is refused if a mailbox has no space for its notice. Notices that
//! follow from an accepted join are posted even beyond the bound, because they could not be
//! repeated; there are never more of them than joins.

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

/// The most members that a [`Presence`] lists.
pub(super) const PRESENCE_MEMBERS_MAX: usize = 1000;

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The client's id.
    pub client_id: Uuid,
    /// The client's name in presence, if it set one.
    pub name: Option<Arc<str>>,
}

/// The clients in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The members, at most 1,000 of them, in no order.
    pub members: Vec<Present>,
    /// The number of all members.
    pub count: usize,
}

/// Whether a client gets [`Notice::Joined`] and [`Notice::Left`] for a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// As before.
    AsBefore,
    /// Begin with the notices.
    Begin,
    /// Stop the notices.
    End,
}

/// A change of a roster, as watchers see it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RosterChange {
    /// A session joins the room. The join can be refused and repeated.
    Joins,
    /// A session that is already in the room becomes visible.
    Appears,
    Leaves,
}

impl Hub {
    /// Lists the members of a room, and begins or ends the watch in the same atomic step.
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
            // The answer lists hidden sessions too, so show them first: watchers then get a notice
            // when one leaves.
            self.show_all(&room, &mut room_state, None, locked.deferred);
            if !watched && watching {
                locked.enter_channel(&room, &mut room_state);
            }
            Ok(room_state.presence(PRESENCE_MEMBERS_MAX, None))
        })
    }

    /// Shows a session in the presence of its rooms, once it is unlikely to resume an earlier one.
    /// Returns whether a mailbox was found behind.
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

    /// Sets a session's name in presence. Earlier notices are not corrected.
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

    /// Takes a session off a room's roster, and notifies the watchers if the session was shown.
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

    /// Shows a session on the roster to the watchers, if it is still hidden.
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

    /// Notifies the watchers of a room of a change, in the order of the changes. Returns `false` if
    /// a join must be refused because a mailbox has no space for its notice.
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
    /// Puts the session on the room's roster, and notifies the watchers unless the session is
    /// provisional. Returns `false`, with nothing changed, if a join must be refused.
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

    /// Begins presence notices of the room to the connection.
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
        // A room without watchers refuses nobody.
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
