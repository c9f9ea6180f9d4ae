//! Messages on their way from letters to outboxes: at once, gathered, or in slices.

use std::{mem, ops::AddAssign, sync::Arc, time::Duration};

use super::{Worker, writes::WRITES_PER_TURN_MAX};
use crate::{
    config::Overflow,
    hub::{
        charge::Charge,
        conn_id::ConnId,
        room::{Room, RoomKey},
        send_status::SendStatus,
    },
    pool::{
        conn_io::ConnIo,
        connection::{Connection, Phase},
        delivery::Delivery,
        fanouts::Audience,
        members::LocalMember,
        open::Open,
        run::{Gathered, RoomMessage, Run},
        worker_cx::WorkerCtx,
    },
};

/// What the deliveries of one turn may cost: each is 1, as are several that go together, and
/// [`WRITE_COST`] for each socket that has something to be written.
pub(super) const DELIVERY_COST_PER_TURN_MAX: usize = 12_288;

/// What a write costs, in deliveries into a buffer.
const WRITE_COST: usize = 8;

/// How many recipients of a message are listed for the cost of a delivery.
const LISTED_PER_DELIVERY: usize = 8;

/// Members that are delivered to at once. Where there are more, they are delivered to in slices.
const AT_ONCE_MAX: usize = 1024;

/// Deliveries that are made at once, of which each may be made alone.
const DELIVERIES_AT_ONCE_MAX: usize = 16 * AT_ONCE_MAX;

/// Members that a slice is for where nobody else has much to be written: as many as one turn
/// writes to, so that nothing is delivered long before it is written, and what comes meanwhile is
/// delivered together.
const SLICE_MAX: usize = WRITES_PER_TURN_MAX;

/// What came of some deliveries.
#[derive(Default)]
struct Made {
    deliveries: usize,
    /// Places that they take in outboxes.
    cost: usize,
}

impl Made {
    /// So many deliveries, each of which takes a place of its own.
    fn apart(deliveries: usize) -> Made {
        Made { deliveries, cost: deliveries }
    }
}

impl AddAssign for Made {
    fn add_assign(&mut self, other: Made) {
        self.deliveries += other.deliveries;
        self.cost += other.cost;
    }
}

impl Worker {
    /// What this turn's deliveries have cost so far.
    pub(super) fn delivery_cost(&self) -> usize {
        self.deliveries + self.cx.work.dirty.len() * WRITE_COST
    }

    /// Delivers slices of what waits, up to the bounds of a turn. While others have much to be
    /// written, one slice is for many, so that its members stand in line early.
    pub(super) fn deliver_slices(&mut self) {
        if self.cx.fanouts.is_empty() {
            return;
        }
        let unwritten = self.cx.work.unwritten.len();
        if unwritten * WRITE_COST >= DELIVERY_COST_PER_TURN_MAX {
            return;
        }
        if !self.writes_all() {
            self.deliver_slice(AT_ONCE_MAX);
        }
        while self.writes_all()
            && self.delivery_cost() < DELIVERY_COST_PER_TURN_MAX
            && self.deliver_slice(SLICE_MAX)
        {}
    }

    /// Whether all that waits to be written goes out in this turn.
    fn writes_all(&self) -> bool {
        self.cx.work.dirty.len() + self.cx.work.unwritten.len() < WRITES_PER_TURN_MAX
    }

    /// Takes a room's message, to be delivered with those of the same room that come right behind
    /// it.
    pub(super) fn gather(&mut self, room: RoomKey, message: RoomMessage) {
        let Gathered { room: of, run, messages_max } = &self.gathered;
        let goes_along =
            *of == room && run.messages.len() < *messages_max && run.takes(&message.frame);
        if !goes_along {
            self.deliver_gathered();
        }
        if self.cx.fanouts.is_before_room(room) {
            return self.cx.fanouts.push_to_room(room, message);
        }
        if self.gathered.run.messages.is_empty() {
            let members = self.cx.members.count(room);
            if members > AT_ONCE_MAX {
                return self.cx.fanouts.push_to_room(room, message);
            }
            self.gathered.room = room;
            self.gathered.messages_max = DELIVERIES_AT_ONCE_MAX / members.max(1);
        }
        self.gathered.run.push(message);
    }

    /// Delivers what was gathered.
    #[inline]
    pub(super) fn deliver_gathered(&mut self) {
        // Nothing is, before most letters.
        if !self.gathered.run.messages.is_empty() {
            self.deliver_run_gathered();
        }
    }

    #[inline(never)]
    fn deliver_run_gathered(&mut self) {
        let mut run = mem::take(&mut self.gathered.run);
        self.deliver(self.gathered.room, &mut run);
        run.drain().for_each(|message| self.release_message(message));
        self.gathered.run = run;
    }

    /// Takes a message of several rooms.
    pub(super) fn take_for_rooms(&mut self, rooms: Arc<[(RoomKey, u64)]>, message: RoomMessage) {
        let count: usize = rooms.iter().map(|(room, _)| self.cx.members.count(*room)).sum();
        let audience = Audience::Rooms(rooms);
        match &audience {
            Audience::Rooms(rooms)
                if count <= AT_ONCE_MAX && !self.cx.fanouts.is_before(&audience) =>
            {
                self.deliver_many(rooms, &message);
                self.release_message(message);
            }
            _ => self.cx.fanouts.push(audience, message),
        }
    }

    /// Delivers all that waits.
    pub(super) fn deliver_all(&mut self) {
        while self.deliver_slice(AT_ONCE_MAX) {}
    }

    /// Gives the space of a letter back, and times its way.
    pub(super) fn release(&self, weight: Option<usize>, charge: Option<Charge>) {
        let Some(weight) = weight else { return };
        if let Some(published_ms) = charge.as_ref().and_then(Charge::published_ms) {
            let now_ms = self.cx.shared.hub.now_ms();
            let lag = Duration::from_millis(now_ms.saturating_sub(published_ms));
            self.cx.metrics().fanout_lag.record(lag);
        }
        self.mailbox.release(weight, charge);
    }

    fn release_message(&self, message: RoomMessage) {
        self.release(Some(message.weight), message.charge);
    }

    /// Delivers what waits to a slice of at most `members_max`. Returns whether something waited.
    fn deliver_slice(&mut self, members_max: usize) -> bool {
        let Some(id) = self.cx.fanouts.next() else { return false };
        let Some(fanout) = self.cx.fanouts.get_mut(id) else { return false };
        let (audience, begun) = (fanout.audience.clone(), fanout.recipients.take());
        let mut run = mem::take(&mut fanout.run);
        let mut recipients = begun.unwrap_or_else(|| {
            let listed = self.recipients(&audience, run.seqs().1);
            self.deliveries += listed.len() / LISTED_PER_DELIVERY;
            listed.into_iter()
        });
        let members_max = members_max.min(DELIVERIES_AT_ONCE_MAX / run.messages.len().max(1));
        let slice = recipients.by_ref().take(members_max);
        match (&audience, &run.messages[..]) {
            (Audience::Room(room), _) => self.deliver_to_some(*room, &mut run, slice),
            (Audience::Rooms(rooms), [message, ..]) => {
                self.deliver_many_to_some(rooms, message, slice);
            }
            (Audience::Route(_), [message, ..]) => self.send_to_some(message, slice),
            (_, []) => {}
        }
        if recipients.len() > 0 {
            if let Some(fanout) = self.cx.fanouts.get_mut(id) {
                (fanout.recipients, fanout.run) = (Some(recipients), run);
            }
        } else {
            self.cx.fanouts.finish(id);
            run.drain().for_each(|message| self.release_message(message));
        }
        true
    }

    /// Puts the messages of a run into the outboxes of a slice of a room's members.
    fn deliver_to_some(
        &mut self,
        room: RoomKey,
        run: &mut Run,
        slice: impl Iterator<Item = (u32, ConnId)>,
    ) {
        let members = mem::take(&mut self.cx.members);
        let ((first, last), mut made) = (run.seqs(), Made::default());
        let in_room = members.in_room(room);
        for (place, id) in slice {
            if let Some(in_room) = &in_room
                && let Some(member) = in_room.find(place, id, last)
                && let Some(conn) = self.conns.get_mut(id.slot as usize).filter(is(id))
            {
                made += deliver_run(run, first, (in_room.room, member), conn, &mut self.cx);
            }
        }
        self.cx.members = members;
        self.count(made);
    }

    /// Puts a message of several rooms into the outboxes of a slice of their members.
    fn deliver_many_to_some(
        &mut self,
        rooms: &[(RoomKey, u64)],
        message: &RoomMessage,
        slice: impl Iterator<Item = (u32, ConnId)>,
    ) {
        let members = mem::take(&mut self.cx.members);
        let mut delivered = 0;
        for (_, id) in slice {
            let Some(conn) = self.conns.get_mut(id.slot as usize).filter(is(id)) else { continue };
            let Some((open, io)) = conn.open_mut() else { continue };
            let of_member = |(room, seq): &(RoomKey, u64)| {
                let (seq, slot) = (*seq, id.slot as usize);
                let (room, member) = members.membership(slot, *room, seq)?;
                Some(Delivery { room, member, seq })
            };
            let deliveries: Vec<Delivery<'_>> = rooms.iter().filter_map(of_member).collect();
            if Some(id) != message.except
                && !deliveries.is_empty()
                && open.deliver_once(&message.frame, &deliveries, io, &mut self.cx)
            {
                let charge = message.charge.as_ref().filter(|_| is_closing(&deliveries));
                hold_sender(charge, open, io, &mut self.cx);
                delivered += 1;
            }
        }
        self.cx.members = members;
        self.count(Made::apart(delivered));
    }

    /// Sends a message to a slice of the connections of a route.
    fn send_to_some(&mut self, message: &RoomMessage, slice: impl Iterator<Item = (u32, ConnId)>) {
        let mut delivered = 0;
        for (_, id) in slice {
            if Some(id) != message.except
                && let Some(conn) = self.conns.get_mut(id.slot as usize).filter(is(id))
                && let Some((open, io)) = conn.open_mut()
                && io.send_prepared(&message.frame, &mut self.cx) != SendStatus::Dropped
            {
                hold_sender(message.charge.as_ref(), open, io, &mut self.cx);
                delivered += 1;
            }
        }
        // `send_prepared` has counted the messages.
        self.deliveries += delivered;
        self.cx.metrics().deliveries.add(delivered as u64);
    }

    /// Lists the connections that are to get messages up to `seq`, each once.
    fn recipients(&self, audience: &Audience, seq: u64) -> Vec<(u32, ConnId)> {
        let rooms = match audience {
            Audience::Room(room) => {
                let worker = self.cx.worker as u16;
                let conn = |(place, LocalMember { slot, generation, .. })| {
                    (place, ConnId { worker, slot, generation })
                };
                return self.cx.members.listed(*room, seq).map(conn).collect();
            }
            Audience::Rooms(rooms) => rooms,
            Audience::Route(route) => {
                let is_there = |conn: &&Connection| match &conn.phase {
                    Phase::Open(open) => {
                        open.session.route == *route && !open.session.awaits_identity()
                    }
                    Phase::Head(_)
                    | Phase::Admin(_)
                    | Phase::Posting(_)
                    | Phase::Asking(_)
                    | Phase::Waiting(_)
                    | Phase::Closing(_)
                    | Phase::Gone => false,
                };
                let conns = self.conns.iter().map(|(_, conn)| conn);
                return conns.filter(is_there).map(|conn| (0, conn.io.id)).collect();
            }
        };
        let of_room = |(room, seq): &(RoomKey, u64)| self.cx.members.of(*room, *seq);
        let members = rooms.iter().filter_map(of_room).flat_map(|(_, members)| members);
        let conns = members.filter_map(|member| self.conns.get(member.slot as usize));
        let mut ids: Vec<(u32, ConnId)> = conns.map(|conn| (0, conn.io.id)).collect();
        ids.sort_unstable_by_key(|(_, id)| id.slot);
        ids.dedup();
        ids
    }

    /// Puts a room's messages into the outboxes of this worker's members. Nothing is written or
    /// closed here.
    fn deliver(&mut self, room: RoomKey, run: &mut Run) {
        let members = mem::take(&mut self.cx.members);
        let ((first, last), mut made) = (run.seqs(), Made::default());
        if let Some((room, of_room)) = members.of(room, last) {
            for member in of_room {
                if let Some(conn) = self.conns.get_mut(member.slot as usize) {
                    made += deliver_run(run, first, (room, member), conn, &mut self.cx);
                }
            }
        }
        self.cx.members = members;
        self.count(made);
    }

    /// Puts a message of several rooms into the outboxes of their members: a member of more than
    /// one of them gets it once.
    fn deliver_many(&mut self, rooms: &[(RoomKey, u64)], message: &RoomMessage) {
        let RoomMessage { frame, except, charge, .. } = message;
        let members = mem::take(&mut self.cx.members);
        let in_room = |(room, seq): &(RoomKey, u64)| {
            let seq = *seq;
            let (room, members) = members.of(*room, seq)?;
            Some(members.map(move |member| Delivery { room, member, seq }))
        };
        let mut deliveries: Vec<Delivery<'_>> =
            rooms.iter().filter_map(in_room).flatten().collect();
        deliveries.sort_unstable_by_key(|delivery| delivery.member.slot);
        let mut delivered = 0;
        for of_member in deliveries.chunk_by(|one, other| one.member.slot == other.member.slot) {
            let slot = of_member[0].member.slot as usize;
            if let Some(conn) = self.conns.get_mut(slot)
                && Some(conn.io.id) != *except
                && let Some((open, io)) = conn.open_mut()
                && open.deliver_once(frame, of_member, io, &mut self.cx)
            {
                let charge = charge.as_ref().filter(|_| is_closing(of_member));
                hold_sender(charge, open, io, &mut self.cx);
                delivered += 1;
            }
        }
        drop(deliveries);
        self.cx.members = members;
        self.count(Made::apart(delivered));
    }

    fn count(&mut self, made: Made) {
        self.deliveries += made.cost;
        self.cx.metrics().deliveries.add(made.deliveries as u64);
        self.cx.metrics().messages_out.add(made.deliveries as u64);
    }
}

/// Puts the messages of a run into one member's outbox. `first` is the lowest number of the run.
/// Returns what was made.
#[inline]
fn deliver_run(
    run: &mut Run,
    first: u64,
    (room, member): (&Arc<Room>, LocalMember),
    conn: &mut Connection,
    cx: &mut WorkerCtx,
) -> Made {
    let Some((open, io)) = conn.open_mut() else { return Made::default() };
    if let [message] = &run.messages[..] {
        return Made::apart(usize::from(deliver_message(message, (room, member), open, io, cx)));
    }
    if open.deliver_run(run, first, (room, member), io, cx) {
        for message in &run.messages {
            hold_payer(message, room, open, io, cx);
        }
        return Made { deliveries: run.messages.len(), cost: 1 };
    }
    deliver_apart(run, (room, member), open, io, cx)
}

/// Puts the messages of a run into the outbox of a member one by one.
#[inline(never)]
fn deliver_apart(
    run: &Run,
    (room, member): (&Arc<Room>, LocalMember),
    open: &mut Open,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) -> Made {
    let delivered = run.messages.iter().filter(|message| {
        member.from_seq < message.seq && deliver_message(message, (room, member), open, io, cx)
    });
    Made::apart(delivered.count())
}

/// Puts one message into the outbox of a member that is to get it. Returns whether it did.
// In line, because calls would cost a tenth of a delivery.
#[inline(always)]
fn deliver_message(
    message: &RoomMessage,
    (room, member): (&Arc<Room>, LocalMember),
    open: &mut Open,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) -> bool {
    // Its own message is no loss to a client that did not ask for it.
    if message.except == Some(io.id) {
        return false;
    }
    let delivery = Delivery { room, member, seq: message.seq };
    let is_queued = open.deliver(&message.frame, &delivery, io, cx);
    if is_queued {
        hold_payer(message, room, open, io, cx);
    }
    is_queued
}

/// Holds whoever sent a message that was just queued, where slow clients are closed.
#[inline(always)]
fn hold_payer(
    message: &RoomMessage,
    room: &Room,
    open: &mut Open,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) {
    let charge = message.charge.as_ref().filter(|_| room.overflow == Overflow::Close);
    hold_sender(charge, open, io, cx);
}

/// Whether one of the rooms closes a client that is too slow. The others leave messages out
/// instead, and so need not slow down their senders.
fn is_closing(deliveries: &[Delivery<'_>]) -> bool {
    deliveries.iter().any(|of| of.room.overflow == Overflow::Close)
}

/// Holds whoever sent a message that was just queued, if its receiver reads and is behind. Most
/// receivers are not even blocked.
#[inline(always)]
pub(super) fn hold_sender(
    charge: Option<&Charge>,
    open: &mut Open,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) {
    if io.is_blocked()
        && let Some(charge) = charge
    {
        open.hold(charge.session(), io, cx);
    }
}

/// Whether a connection is that of `id`, and not a later one in its slot.
pub(super) fn is(id: ConnId) -> impl Fn(&&mut Connection) -> bool {
    move |conn| conn.io.id == id
}
