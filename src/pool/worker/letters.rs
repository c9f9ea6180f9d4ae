//! What each letter to a worker does.

use std::time::Duration;

use super::Worker;
use crate::{
    config::Overflow,
    hub::{
        charge::Charge, conn_id::ConnId, mailbox::Letter, notice::Notice, room::RoomKey,
        roster::WINDOW_MS, send_status::SendStatus, task::TaskAnswer,
    },
    identity::Permissions,
    pool::{
        conn_io::ConnIo,
        connection::{Connection, Phase},
        delivery::Delivery,
        fanouts::{Audience, Fanout},
        open::Open,
        worker_cx::WorkerCtx,
    },
    ws::frame::PreparedFrame,
};

/// Letters taken in one turn, before sockets are written.
const LETTERS_PER_TURN_MAX: usize = 256;

/// What the deliveries of one turn may cost: each is 1, and [`WRITE_COST`] for each socket that has
/// something to be written.
const DELIVERY_COST_PER_TURN_MAX: usize = 12_288;

/// What a write costs, in deliveries into a buffer.
const WRITE_COST: usize = 8;

/// How many recipients of a message are listed for the cost of a delivery.
const LISTED_PER_DELIVERY: usize = 8;

/// Deliveries of one message that are made at once. Others are made in slices of as many.
const SLICE_MAX: usize = 1024;

impl Worker {
    /// Takes the letters that wait, and delivers what waits in slices, up to the bounds of a turn.
    pub(super) fn take_letters(&mut self) {
        self.deliveries = 0;
        for _ in 0..LETTERS_PER_TURN_MAX {
            // Half of the turn is for the messages that wait, if there are any: a flood of letters
            // for small rooms must not hold up the large ones.
            let share = if self.cx.fanouts.is_empty() { 1 } else { 2 };
            if self.delivery_cost() >= DELIVERY_COST_PER_TURN_MAX / share {
                break;
            }
            let Some(letter) = self.mailbox.take() else { break };
            let weight = letter.weight();
            self.cx.progress.come_to(letter.number());
            match letter {
                Letter::Deliver { room, seq, frame, except, charge } => {
                    if self.cx.fanouts.is_before_room(room)
                        || !self.deliver((room, seq), &frame, except, charge.as_ref())
                    {
                        let audience = Audience::Rooms([(room, seq)].into());
                        self.wait(audience, frame, except, charge, weight);
                    } else {
                        self.release(weight, charge);
                    }
                    continue;
                }
                Letter::DeliverMany { rooms, frame, except, charge } => {
                    let count: usize =
                        rooms.iter().map(|(room, _)| self.cx.members.count(*room)).sum();
                    let audience = Audience::Rooms(rooms);
                    if count > SLICE_MAX || self.cx.fanouts.is_before(&audience) {
                        self.wait(audience, frame, except, charge, weight);
                        continue;
                    }
                    let Audience::Rooms(rooms) = audience else { continue };
                    self.deliver_many(&rooms, &frame, except, charge.as_ref());
                    self.release(weight, charge);
                    continue;
                }
                Letter::Broadcast { route, frame, except, charge } => {
                    let audience = Audience::Route(route);
                    self.wait(audience, frame, Some(except), charge, weight);
                    continue;
                }
                Letter::Send { conn, frame, charge, inbound: _inbound } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        io.send_prepared(&frame, cx);
                        hold_sender(charge.as_ref(), open, io, cx);
                    }
                    self.release(weight, charge);
                    continue;
                }
                Letter::Enter { conn, room, at } => match self.find_open(conn) {
                    // A handler on other threads reads from the session what it may do.
                    Some((_, io, cx)) => {
                        cx.members.add(io.slot(), room, at, Permissions::all());
                    }
                    None => self.cx.shared.hub.uncount(&room, self.cx.worker),
                },
                Letter::Exit { conn, room } => {
                    if let Some((_, io, cx)) = self.find_open(conn) {
                        cx.leave(io.slot(), room);
                    }
                }
                Letter::Attach { conn, session } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.attach(session, io, cx);
                    }
                }
                Letter::Matched { room, waiting } => {
                    self.deliveries += waiting.len();
                    for conn in waiting {
                        match self.find_open(conn) {
                            Some((open, io, cx)) => open.on_matched(&room, io, cx),
                            None => self.cx.shared.hub.uncount(&room, self.cx.worker),
                        }
                    }
                }
                Letter::Lost { room, from, to, nth } => {
                    let slots = self.cx.members.rewind(room.key, u64::MAX, nth);
                    let notice = Notice::Gap { room: &room.name, from, to };
                    self.notify(&slots, &notice);
                }
                Letter::Restarted { room, position, nth } => {
                    let slots = self.cx.members.rewind(room.key, position.seq, nth);
                    let notice = Notice::Epoch { room: &room.name, position };
                    self.notify(&slots, &notice);
                }
                Letter::Close { conn, reason } => {
                    if let Some((_, io, cx)) = self.find_open(conn) {
                        io.ask_close(reason, &mut cx.work);
                    }
                }
                Letter::Admitted { conn } | Letter::UpgradeAnswered { conn } => {
                    if let Some(conn) = self.conns.get_mut(conn.slot as usize).filter(is(conn)) {
                        conn.on_upgrade(&mut self.cx);
                    }
                }
                Letter::TaskAnswered { conn, answer } => match self.find_open(conn) {
                    Some((open, io, cx)) => open.on_task_answered(answer, io, cx),
                    None => answer.map(TaskAnswer::discard).unwrap_or_default(),
                },
                Letter::EngineAnswered { conn, next, outcome } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.on_engine_answered(next, outcome, io, cx);
                    }
                }
                Letter::JobsDone { conn } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.on_jobs_done(io, cx);
                    }
                }
                Letter::WakeAfter { conn, wait } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.wake_after(wait, io, cx);
                    }
                }
                Letter::Await { conn } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.await_deliveries(io, cx);
                    }
                }
                Letter::Resume { conn } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.on_delivered(io, cx);
                    }
                }
                Letter::PressureOff => self.end_backpressure(),
                Letter::SweepSoon => {
                    self.next_sweep = self.next_sweep.min(self.cx.now + WINDOW_MS);
                }
                Letter::RecheckPermissions => self.rechecking = Some(0),
                Letter::Report { to } => {
                    let _ = to.try_send(());
                }
                Letter::Drain { spread_ms } => {
                    // What was published before the drain is delivered before the Close.
                    while self.deliver_slice() {}
                    self.drain(spread_ms);
                }
                Letter::Stop => return self.stop(),
            }
            self.release(weight, None);
        }
        while !self.cx.fanouts.is_empty() && self.has_room_for_slice() {
            self.deliver_slice();
        }
    }

    /// What this turn's deliveries have cost so far.
    fn delivery_cost(&self) -> usize {
        self.deliveries + self.cx.work.dirty.len() * WRITE_COST
    }

    /// Whether another slice may be delivered: what earlier turns have left to write counts too.
    fn has_room_for_slice(&self) -> bool {
        let unwritten = self.cx.work.unwritten.len() * WRITE_COST;
        self.delivery_cost() + unwritten < DELIVERY_COST_PER_TURN_MAX
    }

    /// Sends each of these connections what its handler makes of a notice.
    fn notify(&mut self, slots: &[usize], notice: &Notice<'_>) {
        self.deliveries += slots.len();
        for slot in slots {
            let Some(conn) = self.conns.get_mut(*slot) else { continue };
            let Phase::Open(open) = &mut conn.phase else { continue };
            open.notify(notice, &mut conn.io, &mut self.cx);
        }
    }

    /// Gives the space of a letter back, and times its way.
    fn release(&self, weight: Option<usize>, charge: Option<Charge>) {
        let Some(weight) = weight else { return };
        if let Some(published_ms) = charge.as_ref().and_then(Charge::published_ms) {
            let now_ms = self.cx.shared.hub.now_ms();
            let lag = Duration::from_millis(now_ms.saturating_sub(published_ms));
            self.cx.metrics().fanout_lag.record(lag);
        }
        self.mailbox.release(weight, charge);
    }

    /// Lets a message wait for its slices.
    fn wait(
        &mut self,
        audience: Audience,
        frame: PreparedFrame,
        except: Option<ConnId>,
        charge: Option<Charge>,
        weight: Option<usize>,
    ) {
        let weight = weight.unwrap_or_default();
        let fanout = Fanout { audience, frame, except, recipients: None, weight, charge };
        self.cx.fanouts.push(fanout);
    }

    /// Delivers the next slice of a message that waits. Returns whether there was one.
    fn deliver_slice(&mut self) -> bool {
        let Some(id) = self.cx.fanouts.next() else { return false };
        let Some(fanout) = self.cx.fanouts.get_mut(id) else { return false };
        let (audience, frame) = (fanout.audience.clone(), fanout.frame.clone());
        let (except, begun) = (fanout.except, fanout.recipients.take());
        let charge = fanout.charge.take();
        let mut recipients = begun.unwrap_or_else(|| {
            let listed = self.recipients(&audience);
            self.deliveries += listed.len() / LISTED_PER_DELIVERY;
            listed.into_iter()
        });
        let members = std::mem::take(&mut self.cx.members);
        let mut delivered = 0;
        for id in recipients.by_ref().take(SLICE_MAX).filter(|id| Some(*id) != except) {
            let Some(conn) = self.conns.get_mut(id.slot as usize).filter(is(id)) else { continue };
            let Some((open, io)) = conn.open_mut() else { continue };
            let is_delivered = match &audience {
                Audience::Route(_) => io.send_prepared(&frame, &mut self.cx) != SendStatus::Dropped,
                Audience::Rooms(rooms) => {
                    let of_member = |(room, seq): &(RoomKey, u64)| {
                        let (seq, slot) = (*seq, id.slot as usize);
                        let (room, member) = members.membership(slot, *room, seq)?;
                        Some(Delivery { room, member, seq })
                    };
                    let deliveries: Vec<Delivery<'_>> = match &rooms[..] {
                        [room] => {
                            let Some(of) = of_member(room) else { continue };
                            let cx = &mut self.cx;
                            if open.deliver(&frame, &of, io, cx) {
                                let charge = charge.as_ref().filter(|_| is_closing(&[of]));
                                hold_sender(charge, open, io, cx);
                                delivered += 1;
                            }
                            continue;
                        }
                        rooms => rooms.iter().filter_map(of_member).collect(),
                    };
                    let cx = &mut self.cx;
                    if !deliveries.is_empty() && open.deliver_once(&frame, &deliveries, io, cx) {
                        let charge = charge.as_ref().filter(|_| is_closing(&deliveries));
                        hold_sender(charge, open, io, cx);
                        delivered += 1;
                    }
                    continue;
                }
            };
            if is_delivered {
                hold_sender(charge.as_ref(), open, io, &mut self.cx);
                delivered += 1;
            }
        }
        self.cx.members = members;
        match audience {
            Audience::Rooms(_) => self.count_deliveries(delivered),
            Audience::Route(_) => {
                self.deliveries += delivered;
                self.cx.metrics().deliveries.add(delivered as u64);
            }
        }
        if recipients.len() > 0 {
            if let Some(fanout) = self.cx.fanouts.get_mut(id) {
                (fanout.recipients, fanout.charge) = (Some(recipients), charge);
            }
        } else if let Some(Fanout { weight, .. }) = self.cx.fanouts.finish(id) {
            self.release(Some(weight), charge);
        }
        true
    }

    /// Lists the connections that are to get a message, each once.
    fn recipients(&self, audience: &Audience) -> Vec<ConnId> {
        let rooms = match audience {
            Audience::Rooms(rooms) => rooms,
            Audience::Route(route) => {
                let is_there = |conn: &&Connection| match &conn.phase {
                    Phase::Open(open) => {
                        open.session.route == *route && !open.session.awaits_identity()
                    }
                    Phase::Head(_)
                    | Phase::Admin(_)
                    | Phase::Asking(_)
                    | Phase::Waiting(_)
                    | Phase::Closing(_)
                    | Phase::Gone => false,
                };
                let conns = self.conns.iter().map(|(_, conn)| conn);
                return conns.filter(is_there).map(|conn| conn.io.id).collect();
            }
        };
        let of_room = |(room, seq): &(RoomKey, u64)| self.cx.members.of(*room, *seq);
        let members = rooms.iter().filter_map(of_room).flat_map(|(_, members)| members);
        let conns = members.filter_map(|member| self.conns.get(member.slot as usize));
        let mut ids: Vec<ConnId> = conns.map(|conn| conn.io.id).collect();
        if rooms.len() > 1 {
            ids.sort_unstable_by_key(|id| id.slot);
            ids.dedup();
        }
        ids
    }

    /// The open connection of that name, unless it is gone and another one has its slot now.
    fn find_open(&mut self, id: ConnId) -> Option<(&mut Open, &mut ConnIo, &mut WorkerCtx)> {
        let conn = self.conns.get_mut(id.slot as usize).filter(is(id))?;
        let (open, io) = conn.open_mut()?;
        Some((open, io, &mut self.cx))
    }

    /// Puts a room's message into the outboxes of this worker's members. Nothing is written or
    /// closed here. Returns `false`, and delivers nothing, if they are more than one slice.
    fn deliver(
        &mut self,
        (room, seq): (RoomKey, u64),
        frame: &PreparedFrame,
        except: Option<ConnId>,
        charge: Option<&Charge>,
    ) -> bool {
        let members = std::mem::take(&mut self.cx.members);
        let (mut delivered, mut is_slice) = (0, true);
        if let Some((room, of_room)) = members.of(room, seq) {
            let charge = charge.filter(|_| room.overflow == Overflow::Close);
            is_slice = of_room.size_hint().1.is_some_and(|count| count <= SLICE_MAX);
            for member in of_room.take_while(|_| is_slice) {
                let Some(conn) = self.conns.get_mut(member.slot as usize) else { continue };
                // Its own message is no loss to a client that did not ask for it.
                if Some(conn.io.id) != except
                    && let Some((open, io)) = conn.open_mut()
                    && open.deliver(frame, &Delivery { room, member, seq }, io, &mut self.cx)
                {
                    hold_sender(charge, open, io, &mut self.cx);
                    delivered += 1;
                }
            }
        }
        self.cx.members = members;
        self.count_deliveries(delivered);
        is_slice
    }

    /// Puts a message of several rooms into the outboxes of their members: a member of more than
    /// one of them gets it once.
    fn deliver_many(
        &mut self,
        rooms: &[(RoomKey, u64)],
        frame: &PreparedFrame,
        except: Option<ConnId>,
        charge: Option<&Charge>,
    ) {
        let members = std::mem::take(&mut self.cx.members);
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
                && Some(conn.io.id) != except
                && let Some((open, io)) = conn.open_mut()
                && open.deliver_once(frame, of_member, io, &mut self.cx)
            {
                hold_sender(charge.filter(|_| is_closing(of_member)), open, io, &mut self.cx);
                delivered += 1;
            }
        }
        drop(deliveries);
        self.cx.members = members;
        self.count_deliveries(delivered);
    }

    fn count_deliveries(&mut self, delivered: usize) {
        self.deliveries += delivered;
        self.cx.metrics().deliveries.add(delivered as u64);
        self.cx.metrics().messages_out.add(delivered as u64);
    }
}

/// Whether one of the rooms closes a client that is too slow. The others leave messages out
/// instead, and so need not slow down their senders.
fn is_closing(deliveries: &[Delivery<'_>]) -> bool {
    deliveries.iter().any(|of| of.room.overflow == Overflow::Close)
}

/// Holds whoever sent a message that was just queued, if its receiver reads and is behind. Most
/// receivers are not even blocked.
#[inline(always)]
fn hold_sender(charge: Option<&Charge>, open: &mut Open, io: &mut ConnIo, cx: &mut WorkerCtx) {
    if io.is_blocked()
        && let Some(charge) = charge
    {
        open.hold(charge.session(), io, cx);
    }
}

/// Whether a connection is that of `id`, and not a later one in its slot.
fn is(id: ConnId) -> impl Fn(&&mut Connection) -> bool {
    move |conn| conn.io.id == id
}
