//! What a client that is too slow for its rooms has missed there.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    conn_io::ConnIo,
    outbox::{Outbox, OutboxBounds},
};
use crate::{
    config::Overflow,
    hub::{
        notice::Notice,
        room::{Room, RoomKey, RoomKind},
    },
    ws::frame::PreparedFrame,
};

/// The rooms in which one connection lags; at most one entry for each room that it is in.
#[derive(Default)]
pub(super) struct RoomLags(BTreeMap<RoomKey, RoomLag>);

/// What one room owes the client.
pub(super) struct RoomLag {
    pub(super) room: Arc<Room>,
    /// The first and the last message that will not be delivered, if there is one already.
    pub(super) missed: Option<(u64, u64)>,
    /// The message that is held back, in a room where the newest alone is worth sending.
    pub(super) newest: Option<(u64, PreparedFrame)>,
    /// The newest goes when the connection has sent so many bytes: then all that was queued before
    /// it has gone.
    due_at_bytes: u64,
}

impl RoomLags {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, lag: RoomLag) {
        self.0.insert(lag.room.key, lag);
    }

    /// What `room` owes a member that joined at `from_seq`. What it owed to an earlier membership
    /// is void: the answer to the join has the position from which messages come.
    pub(super) fn find(&mut self, room: &Room, from_seq: u64) -> Option<&mut RoomLag> {
        if self.0.get(&room.key)?.first() <= from_seq {
            self.0.remove(&room.key);
            return None;
        }
        self.0.get_mut(&room.key)
    }

    /// Drops what is owed by rooms that the connection has left, given those it is in and from
    /// where on.
    pub(super) fn forget_left(&mut self, memberships: impl Iterator<Item = (RoomKey, u64)>) {
        let mut before = std::mem::take(&mut self.0);
        for (key, from_seq) in memberships {
            if let Some(lag) = before.remove(&key)
                && lag.first() > from_seq
            {
                self.0.insert(key, lag);
            }
        }
    }

    /// Takes all of them out, in the order of their rooms.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = RoomLag> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

impl RoomLag {
    /// A lag that begins with message `seq`: held back for its turn, or missed.
    pub(super) fn new(
        room: &Arc<Room>,
        seq: u64,
        held_back: Option<&PreparedFrame>,
        io: &ConnIo,
    ) -> RoomLag {
        RoomLag {
            room: Arc::clone(room),
            missed: held_back.is_none().then_some((seq, seq)),
            newest: held_back.map(|frame| (seq, frame.clone())),
            due_at_bytes: io.bytes_sent + io.outbox.bytes() as u64,
        }
    }

    /// The number of the first message that was not delivered in its turn.
    fn first(&self) -> u64 {
        let newest = self.newest.as_ref().map(|(seq, _)| *seq);
        self.missed.map(|(from, _)| from).or(newest).unwrap_or_default()
    }

    /// Adds a message that cannot go now. Returns whether one is lost: this one, or the one it
    /// replaces.
    pub(super) fn add(&mut self, seq: u64, frame: &PreparedFrame) -> bool {
        if !keeps_newest(&self.room) {
            self.lose(seq);
            return true;
        }
        let Some((replaced, _)) = self.newest.replace((seq, frame.clone())) else { return false };
        let from = self.missed.map_or(replaced, |(from, _)| from);
        self.missed = Some((from, replaced));
        true
    }

    /// Adds a message that is lost, and with it the one that was held back.
    pub(super) fn lose(&mut self, seq: u64) {
        let first = self.newest.take().map_or(seq, |(held_back, _)| held_back);
        let from = self.missed.map_or(first, |(from, _)| from);
        self.missed = Some((from, seq));
    }

    /// Whether the client has caught up far enough.
    pub(super) fn is_due(&self, sent: u64, outbox: &Outbox, bounds: &OutboxBounds) -> bool {
        match &self.newest {
            Some((_, frame)) => sent >= self.due_at_bytes && outbox.fits(frame.len(), bounds),
            None => outbox.is_low(bounds),
        }
    }
}

/// Whether the newest message of the room is worth more than a notice that there was one.
pub(super) fn keeps_newest(room: &Room) -> bool {
    room.overflow == Overflow::Latest && room.kind == RoomKind::Messages
}

/// The notice that messages of a room are missing.
pub(super) fn gap_notice(room: &Room, (from, to): (u64, u64)) -> Notice<'_> {
    match room.kind {
        RoomKind::Messages => Notice::Gap { room: &room.name, from, to },
        RoomKind::Presence => Notice::PresenceGap { room: &room.name },
    }
}
