//! What a client misses that is too slow for its rooms, and how it is told: the overflow policies.
//!
//! A room says what becomes of a message that a member cannot take. Under `close` the connection
//! ends. Under `gap` the message is left out, and so is all that follows in this room, until the
//! outbox has nearly drained; then one notice names the numbers that are missing, and what comes
//! behind it is whole again. Under `latest` the newest message waits beside the outbox instead of
//! in it, where a newer one takes its place, so that a slow client gets few messages and none that
//! is stale.
//!
//! Only a room's messages follow its policy. An answer to the client's own command that does not
//! fit closes the connection whatever the room.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    connection::{Connection, Phase},
    core::Core,
    desk::Desk,
    inline_conn::InlineConn,
    members::LocalMember,
    outbox::{Outbox, OutboxBounds},
};
use crate::{
    config::Overflow,
    hub::{
        notice::Notice,
        room::{Room, RoomKey, RoomKind},
    },
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// The rooms in which one connection is behind. Whoever keeps up has none.
#[derive(Default)]
pub(super) struct Lag {
    /// At most one entry for each room that the connection is in.
    rooms: BTreeMap<RoomKey, Behind>,
    /// Bytes that went to the kernel since the first of these rooms fell behind.
    written: u64,
}

/// A message as it goes to a member of one of its rooms.
pub(super) struct Delivery<'a> {
    pub(super) room: &'a Arc<Room>,
    pub(super) member: LocalMember,
    /// The message's number there.
    pub(super) seq: u64,
}

/// What one room owes the client.
struct Behind {
    room: Arc<Room>,
    /// The first and the last message that will not be delivered, if there is one already.
    missed: Option<(u64, u64)>,
    /// The message that waits for its turn, in a room where the newest alone is worth sending.
    newest: Option<(u64, PreparedFrame)>,
    /// The newest goes when so many bytes are written: then all that was queued before it has
    /// gone.
    place: u64,
}

impl Connection {
    /// Queues a room's message, or does what the room's policy says when the client is too slow for
    /// it. Returns whether it was queued.
    pub(super) fn deliver(
        &mut self,
        frame: &PreparedFrame,
        room: &Arc<Room>,
        member: LocalMember,
        seq: u64,
        desk: &mut Desk,
    ) -> bool {
        if !matches!(self.phase, Phase::Open(_)) || self.core.close_asked.is_some() {
            return false;
        }
        if let Some(lag) = &mut self.core.lag
            && let Some(behind) = lag.find(room, member.from_seq)
        {
            let lost = behind.miss(seq, frame);
            desk.metrics().missed.add(u64::from(lost));
            return false;
        }
        let must_wait = keeps_newest(room) && self.core.blocked && !self.core.outbox.is_empty();
        if must_wait && self.fall_behind(frame, room, seq, true, desk) {
            return false;
        }
        if self.core.has_place(frame.len(), desk) {
            self.core.queue_prepared(frame, desk);
            self.core.list_dirty(desk);
            return true;
        }
        if self.core.close_asked.is_none() && !self.fall_behind(frame, room, seq, true, desk) {
            self.core.give_up(desk);
        }
        false
    }

    /// The same for a message of several rooms that this client is in: it goes out once, or is
    /// missed in all of them.
    pub(super) fn deliver_once(
        &mut self,
        frame: &PreparedFrame,
        deliveries: &[Delivery<'_>],
        desk: &mut Desk,
    ) -> bool {
        if let [Delivery { room, member, seq }] = deliveries {
            return self.deliver(frame, room, *member, *seq, desk);
        }
        if !matches!(self.phase, Phase::Open(_)) || self.core.close_asked.is_some() {
            return false;
        }
        let is_behind = |lag: &mut Box<Lag>| {
            let is_behind = |of: &Delivery<'_>| lag.find(of.room, of.member.from_seq).is_some();
            deliveries.iter().any(is_behind)
        };
        // Where it is behind in one, the message must not overtake what it is yet to be told of
        // that.
        if !self.core.lag.as_mut().is_some_and(is_behind) && self.core.has_place(frame.len(), desk)
        {
            self.core.queue_prepared(frame, desk);
            self.core.list_dirty(desk);
            return true;
        }
        for Delivery { room, member, seq } in deliveries {
            if self.core.close_asked.is_some() {
                return false;
            }
            if let Some(lag) = &mut self.core.lag
                && let Some(behind) = lag.find(room, member.from_seq)
            {
                behind.lose(*seq);
                desk.metrics().missed.add(1);
            } else if !self.fall_behind(frame, room, *seq, false, desk) {
                self.core.give_up(desk);
            }
        }
        false
    }

    /// Begins to leave out the room's messages. `false` where they must not be: the policy is to
    /// close, or the handler has no words for what is missing, and nothing is dropped silently.
    fn fall_behind(
        &mut self,
        frame: &PreparedFrame,
        room: &Arc<Room>,
        seq: u64,
        may_wait: bool,
        desk: &mut Desk,
    ) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        if room.overflow == Overflow::Close {
            return false;
        }
        let conn = InlineConn { core: &mut self.core, desk, session: &mut open.session };
        if open.service.notice(conn, &notice(room, (seq, seq))).is_none() {
            return false;
        }
        let waiting = self.core.outbox.bytes() as u64;
        let lag = self.core.lag.get_or_insert_default();
        let waits = may_wait && keeps_newest(room);
        let behind = Behind {
            room: Arc::clone(room),
            missed: (!waits).then_some((seq, seq)),
            newest: waits.then(|| (seq, frame.clone())),
            place: lag.written + waiting,
        };
        lag.rooms.insert(room.key, behind);
        desk.metrics().missed.add(u64::from(!waits));
        true
    }

    /// Tells the client what it missed, and hands out what waited, as far as it has caught up.
    pub(super) fn catch_up(&mut self, desk: &mut Desk) {
        let Some(mut lag) = self.core.lag.take() else { return };
        let Phase::Open(open) = &mut self.phase else { return };
        lag.forget_left(desk.members.memberships(self.core.slot()));
        for (key, behind) in std::mem::take(&mut lag.rooms) {
            let core = &mut self.core;
            if core.close_asked.is_some() {
                return;
            }
            if !behind.is_due(lag.written, &core.outbox, &desk.outbox_bounds) {
                lag.rooms.insert(key, behind);
                continue;
            }
            let Behind { room, missed, newest, .. } = behind;
            if let Some(missed) = missed {
                let conn = InlineConn { core, desk, session: &mut open.session };
                match open.service.notice(conn, &notice(&room, missed)) {
                    Some(notice) => {
                        core.queue_prepared(&notice, desk);
                        desk.metrics().gaps.add(1);
                        desk.metrics().messages_out.add(1);
                    }
                    // It had words for it when the room fell behind.
                    None => return core.give_up(desk),
                }
            }
            if let Some((_, frame)) = newest {
                core.queue_prepared(&frame, desk);
                desk.metrics().deliveries.add(1);
                desk.metrics().messages_out.add(1);
            }
        }
        if !lag.rooms.is_empty() {
            self.core.lag = Some(lag);
        }
    }
}

impl Core {
    /// Closes a client that is too far behind, for a message that was just dropped.
    pub(super) fn give_up(&mut self, desk: &mut Desk) {
        desk.metrics().dropped.add(1);
        self.ask_close(CloseReason::SLOW_CONSUMER, desk);
    }
}

impl Lag {
    /// Notes that the kernel took `bytes`.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// What `room` owes a member that joined at `from_seq`. What it owed to an earlier membership
    /// is void: the join has told the client where it stands.
    fn find(&mut self, room: &Room, from_seq: u64) -> Option<&mut Behind> {
        if self.rooms.get(&room.key)?.begins() <= from_seq {
            self.rooms.remove(&room.key);
            return None;
        }
        self.rooms.get_mut(&room.key)
    }

    /// Drops what is owed by rooms that the connection has left, given those it is in and from
    /// where on.
    fn forget_left(&mut self, memberships: impl Iterator<Item = (RoomKey, u64)>) {
        let mut before = std::mem::take(&mut self.rooms);
        for (key, from_seq) in memberships {
            if let Some(behind) = before.remove(&key)
                && behind.begins() > from_seq
            {
                self.rooms.insert(key, behind);
            }
        }
    }
}

impl Behind {
    /// The number of the first message that was not delivered in its turn.
    fn begins(&self) -> u64 {
        let newest = self.newest.as_ref().map(|(seq, _)| *seq);
        self.missed.map(|(from, _)| from).or(newest).unwrap_or_default()
    }

    /// One more message that cannot go now. Returns whether one is lost: this one, or the one it
    /// replaces.
    fn miss(&mut self, seq: u64, frame: &PreparedFrame) -> bool {
        if !keeps_newest(&self.room) {
            self.lose(seq);
            return true;
        }
        let Some((replaced, _)) = self.newest.replace((seq, frame.clone())) else { return false };
        let from = self.missed.map_or(replaced, |(from, _)| from);
        self.missed = Some((from, replaced));
        true
    }

    /// One more message that is lost, with the one that waited.
    fn lose(&mut self, seq: u64) {
        let first = self.newest.take().map_or(seq, |(waiting, _)| waiting);
        let from = self.missed.map_or(first, |(from, _)| from);
        self.missed = Some((from, seq));
    }

    /// Whether the client has caught up far enough.
    fn is_due(&self, written: u64, outbox: &Outbox, bounds: &OutboxBounds) -> bool {
        match &self.newest {
            Some((_, frame)) => written >= self.place && outbox.fits(frame.len(), bounds),
            None => outbox.is_low(bounds),
        }
    }
}

/// Whether the newest message of the room is worth more than a notice that there was one.
fn keeps_newest(room: &Room) -> bool {
    room.overflow == Overflow::Latest && room.kind == RoomKind::Messages
}

fn notice(room: &Room, (from, to): (u64, u64)) -> Notice<'_> {
    match room.kind {
        RoomKind::Messages => Notice::Gap { room: &room.name, from, to },
        RoomKind::Presence => Notice::PresenceGap { room: &room.name },
    }
}
