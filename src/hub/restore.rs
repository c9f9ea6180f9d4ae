//! Takes up what a snapshot has, in a hub that has served nobody yet.
//!
//! Everything is read before anything is taken up, so that a file which is damaged anywhere changes
//! nothing. The bounds are those of this server: what is beyond them is left out.

mod contents;

use std::{io, sync::Arc};

use super::{
    Hub,
    names::RoomName,
    notice::NoticeFormatter,
    room::{Owner, Room, RoomState},
    save::Amount,
    session::{Session, SessionState, saved::RestoredIn},
};
use crate::{
    memory::account::Level,
    snapshot::{OwnerRecord, SnapshotReader, Unreadable},
};
use contents::{Contents, ReadRoom, ReadSession};

/// A route whose sessions can be resumed.
pub(crate) struct RestorableRoute {
    pub(crate) path: String,
    pub(crate) index: u16,
    pub(crate) formatter: Arc<dyn NoticeFormatter>,
}

/// What was taken up, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) taken: Amount,
    /// What found no space within the bounds of this server.
    pub(crate) left_out: Amount,
    /// Sessions that were away for too long, were revoked, or have no route here.
    pub(crate) ended: usize,
    /// Rooms of which messages are missing in the midst; what came before is left out.
    pub(crate) gaps: Vec<RoomName>,
}

impl From<OwnerRecord> for Owner {
    fn from(record: OwnerRecord) -> Owner {
        match record {
            OwnerRecord::Nobody => Owner::Nobody,
            OwnerRecord::One { client_id, is_left_behind } => {
                Owner::One { client_id, is_left_behind }
            }
            OwnerRecord::Many => Owner::Many,
        }
    }
}

impl Hub {
    /// Reads a snapshot that was written `elapsed_ms` ago, and takes up what it has.
    pub(crate) fn restore<R: io::Read>(
        &self,
        input: &mut SnapshotReader<R>,
        routes: &[RestorableRoute],
        elapsed_ms: u64,
    ) -> Result<Restored, Unreadable> {
        let contents = Contents::read(self, input, elapsed_ms)?;
        let mut restored = Restored { gaps: contents.gaps, ..Restored::default() };
        restored.left_out.messages = contents.messages_left_out;
        for revocation in &contents.revocations {
            self.revoke(revocation);
        }
        let put = |room: ReadRoom| self.put_room(room.room, &mut restored);
        let rooms: Vec<Option<Arc<Room>>> = contents.rooms.into_iter().map(put).collect();
        for session in contents.sessions {
            self.put_session(session, routes, &rooms, &mut restored);
        }
        // The one that was left last comes first in the snapshot, and is evicted last.
        for room in rooms.iter().rev().flatten() {
            self.rooms.note_vacancy(room, &mut room.state.lock());
        }
        self.account.weigh();
        Ok(restored)
    }

    fn put_room(&self, mut room: Room, restored: &mut Restored) -> Option<Arc<Room>> {
        let now_ms = self.now_ms();
        let RoomState { history, bounds, .. } = room.state.get_mut();
        history.expire(now_ms, bounds);
        let messages = history.len();
        let there = self.rooms.put(room);
        let amount = if there.is_some() { &mut restored.taken } else { &mut restored.left_out };
        amount.rooms += 1;
        amount.messages += messages;
        there
    }

    /// Counts a session that was not begun here as memory in use.
    pub(super) fn count(&self, state: &SessionState) {
        self.account.sessions.add(state.counted_bytes());
        self.account.patterns.add(state.cold().patterns.bytes());
        self.account.inboxes.add(state.inbox.as_ref().map_or(0, |inbox| inbox.bytes()));
    }

    fn put_session(
        &self,
        read: ReadSession,
        routes: &[RestorableRoute],
        rooms: &[Option<Arc<Room>>],
        restored: &mut Restored,
    ) {
        let ReadSession { record, inbox, .. } = read;
        let route = routes.iter().find(|route| route.path == record.route);
        let Some(route) = route.filter(|_| record.away_ms < self.limits.resume_window_ms()) else {
            restored.ended += 1;
            return;
        };
        let (away_max, owner) =
            (self.limits.away_max(), record.address.and_then(|ip| self.owners.owner_of(ip)));
        let has_place = restored.taken.sessions < away_max
            && owner.as_ref().is_none_or(|owner| self.sessions.has_place_for(owner, away_max));
        if !has_place || self.account.weigh() > Level::Wait {
            restored.left_out.sessions += 1;
            return;
        }
        let since_ms = self.now_ms().saturating_sub(record.away_ms);
        let within = RestoredIn {
            route: route.index,
            formatter: &route.formatter,
            rooms,
            away_since_ms: since_ms,
        };
        let is_trivial = record.is_trivial;
        let session = Arc::new(Session::restored(*record, inbox, &within));
        let mut state = session.state.lock();
        let identity = state.shown.identity().cloned();
        if identity.as_ref().is_some_and(|of| self.authenticator.is_revoked(of)) {
            restored.ended += 1;
            return;
        }
        session.decide_direct(&mut state);
        self.count(&state);
        for membership in &state.memberships {
            let mut room_state = membership.room.state.lock();
            let (client, shown) = (session.client_id, state.shown.clone());
            match state.provisional {
                true => room_state.roster.insert_provisional(client, shown),
                false => room_state.roster.insert_told(client, shown),
            }
        }
        self.sessions.put(&session, identity.map(|of| Arc::clone(&of.user)));
        let evicted = self.sessions.set_away(&session, since_ms, is_trivial, owner, away_max);
        debug_assert!(evicted.is_none(), "there are no more than may be away");
        restored.taken.sessions += 1;
    }
}

#[cfg(test)]
mod tests;
