//! Writes what a hub knows into a snapshot, once its workers have stopped.
//!
//! What comes first is least likely to be left out for want of space: revocations, rooms without
//! their messages, sessions with their direct messages, those that are away shortest first, and
//! then the messages of rooms, of which the oldest ones of all rooms are left out.

mod messages;

use std::{io, sync::Arc};

use super::{
    Hub,
    room::{Owner, Room, RoomState},
    session::{
        Session,
        saved::{RoomPlaces, SavedSession},
    },
    survey::ENTRIES_MAX,
};
use crate::{
    snapshot::{
        Bytes, MESSAGE_OVERHEAD_BYTES, OwnerRecord, Payload, Record, RevocationRecord, RoomRecord,
        SnapshotWriter,
    },
    ws::frame::{Message, PreparedFrame},
};

/// How much was written, or was left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) rooms: usize,
    pub(crate) messages: usize,
    pub(crate) sessions: usize,
}

/// What a snapshot has, and what found no space in it.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) written: Amount,
    pub(crate) left_out: Amount,
}

/// A room of the snapshot, at the moment when its record was written.
struct SavedRoom {
    room: Arc<Room>,
    /// The number of its last message.
    seq: u64,
}

impl From<&Owner> for OwnerRecord {
    fn from(owner: &Owner) -> OwnerRecord {
        match *owner {
            Owner::Nobody => OwnerRecord::Nobody,
            Owner::One { client_id, is_left_behind } => {
                OwnerRecord::One { client_id, is_left_behind }
            }
            Owner::Many => OwnerRecord::Many,
        }
    }
}

impl Hub {
    /// Lets no session expire from now on: nobody can come back before the next server.
    pub(crate) fn stop_absences(&self) {
        self.sessions.stop_absences();
    }

    /// Writes revocations, rooms and sessions. `path_of` names a route. What still changes
    /// meanwhile is written as it is at some moment, each room and each session by itself.
    pub(crate) fn save<'p, W: io::Write>(
        &self,
        out: &mut SnapshotWriter<W>,
        path_of: &dyn Fn(u16) -> &'p str,
    ) -> io::Result<Saved> {
        let mut saved = Saved::default();
        for revocation in self.authenticator.list_revocations() {
            let (of, is_user, before_s, kept_until_s) = revocation.parts();
            let of = of.to_owned();
            let record = RevocationRecord { of, is_user, before_s, kept_until_s };
            if !out.put(&Record::Revocation(record))? {
                return Err(io::Error::other("the revocations alone are larger than it may be"));
            }
        }
        let rooms = self.save_rooms(out, &mut saved)?;
        let numbered = (0..).zip(&rooms);
        let places: RoomPlaces = numbered.map(|(place, saved)| (saved.room.key, place)).collect();
        self.save_sessions(out, path_of, &places, &mut saved)?;
        self.save_messages(out, &rooms, &mut saved)?;
        Ok(saved)
    }

    /// Writes rooms without their messages: first those that somebody is in, then those that were
    /// left last.
    fn save_rooms<W: io::Write>(
        &self,
        out: &mut SnapshotWriter<W>,
        saved: &mut Saved,
    ) -> io::Result<Vec<SavedRoom>> {
        let mut rooms: Vec<(u64, Arc<Room>)> = Vec::new();
        for room in self.rooms.list("", None, usize::MAX) {
            let vacancy = room.state.lock().vacancy;
            // The largest number is that of the room which was left last.
            rooms.push((u64::MAX - vacancy.unwrap_or(u64::MAX), room));
        }
        rooms.sort_by_key(|(order, _)| *order);
        let now_ms = self.now_ms();
        let mut written = Vec::with_capacity(rooms.len());
        for (_, room) in rooms {
            let mut state = room.state.lock();
            let RoomState { history, bounds, .. } = &mut *state;
            self.change(history, |history| history.expire(now_ms, bounds));
            if state.gone || (!room.is_default && state.is_vacant() && state.history.is_empty()) {
                continue;
            }
            let position = state.history.position();
            let began_seq = state.history.beginning().seq;
            let owner = OwnerRecord::from(&state.owner);
            drop(state);
            let (name, epoch) = (room.name.as_str().to_owned(), position.epoch.bits());
            let record = RoomRecord { name, epoch, began_seq, seq: position.seq, owner };
            if out.put(&Record::Room(record))? {
                saved.written.rooms += 1;
                written.push(SavedRoom { room, seq: position.seq });
            } else {
                saved.left_out.rooms += 1;
            }
        }
        Ok(written)
    }

    fn save_sessions<'p, W: io::Write>(
        &self,
        out: &mut SnapshotWriter<W>,
        path_of: &dyn Fn(u16) -> &'p str,
        rooms: &RoomPlaces,
        saved: &mut Saved,
    ) -> io::Result<()> {
        let until_ms = self.sessions.absences_until_ms(self.now_ms());
        let describe = |session: &Session| {
            let mut saved = session.saved(path_of(session.route), rooms, until_ms)?;
            saved.record.address = saved
                .away_since_ms
                .and_then(|since_ms| self.sessions.address_of(session.client_id, since_ms));
            Some(saved)
        };
        // Each is described twice, so that not all descriptions are in memory at once.
        let mut order = Vec::new();
        let mut after = None;
        loop {
            let page = self.sessions.list(after, ENTRIES_MAX);
            let Some(last) = page.last() else { break };
            after = Some(last.client_id);
            for session in page {
                let is_revoked =
                    session.identity().is_some_and(|of| self.authenticator.is_revoked(&of));
                if let Some(SavedSession { record, .. }) = describe(&session)
                    && !is_revoked
                {
                    order.push((record.is_trivial, record.away_ms, session));
                }
            }
        }
        order.sort_by_key(|(is_trivial, away_ms, _)| (*is_trivial, *away_ms));
        for (_, _, session) in order {
            let Some(SavedSession { record, directs, .. }) = describe(&session) else { continue };
            let record = Record::Session(record);
            let direct_bytes = directs.iter().map(|(_, frame)| bytes_at_most(frame)).sum::<u64>();
            if out.measure(&record)? + direct_bytes > out.bytes_left() {
                saved.left_out.sessions += 1;
                continue;
            }
            let mut is_whole = out.put(&record)?;
            for (seq, frame) in &directs {
                is_whole &= out.put(&Record::Direct { seq: *seq, payload: payload(frame) })?;
            }
            debug_assert!(is_whole, "it was measured");
            saved.written.sessions += 1;
        }
        Ok(())
    }
}

fn bytes_at_most(frame: &PreparedFrame) -> u64 {
    frame.payload().len() as u64 + MESSAGE_OVERHEAD_BYTES
}

fn payload(frame: &PreparedFrame) -> Payload<'_> {
    match frame.message() {
        Message::Text(text) => Payload::Text(text),
        Message::Binary(bytes) => Payload::Binary(Bytes(bytes)),
    }
}
