//! What each letter to a worker does.

use super::Worker;
use crate::{
    hub::{
        conn_id::ConnId, mailbox::Letter, room::RoomKey, roster::WINDOW_MS, send_status::SendStatus,
    },
    pool::{
        conn_io::ConnIo, connection::Connection, delivery::Delivery, open::Open,
        worker_cx::WorkerCtx,
    },
    ws::frame::PreparedFrame,
};

/// Letters taken in one turn, and messages they may put into outboxes, before sockets are written.
const LETTERS_PER_TURN_MAX: usize = 256;
const DELIVERIES_PER_TURN_MAX: usize = 16_384;

impl Worker {
    /// Takes the letters that wait, up to the bounds of a turn.
    pub(super) fn take_letters(&mut self) {
        let mut deliveries = 0;
        for _ in 0..LETTERS_PER_TURN_MAX {
            if deliveries >= DELIVERIES_PER_TURN_MAX {
                return;
            }
            let Some(letter) = self.mailbox.take() else { return };
            match letter {
                Letter::Deliver { room, seq, frame, except } => {
                    deliveries += self.deliver(room, seq, &frame, except);
                }
                Letter::DeliverMany { rooms, frame, except } => {
                    deliveries += self.deliver_many(&rooms, &frame, except);
                }
                Letter::Broadcast { route, frame, except } => {
                    deliveries += self.broadcast(route, &frame, except);
                }
                Letter::Send { conn, frame } => {
                    if let Some((_, io, cx)) = self.find_open(conn) {
                        io.send_prepared(&frame, cx);
                    }
                }
                Letter::Enter { conn, room, from_seq } => match self.find_open(conn) {
                    Some((_, io, cx)) => cx.members.add(io.slot(), room, from_seq),
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
                    deliveries += waiting.len();
                    for conn in waiting {
                        match self.find_open(conn) {
                            Some((open, io, cx)) => open.on_matched(&room, io, cx),
                            None => self.cx.shared.hub.uncount(&room, self.cx.worker),
                        }
                    }
                }
                Letter::Close { conn, reason } => {
                    if let Some((_, io, cx)) = self.find_open(conn) {
                        io.ask_close(reason, &mut cx.work);
                    }
                }
                Letter::Admitted { conn } => {
                    if let Some(conn) = self.conns.get_mut(conn.slot as usize).filter(is(conn)) {
                        conn.on_admitted(&mut self.cx);
                    }
                }
                Letter::JobsDone { conn } => {
                    if let Some((open, io, cx)) = self.find_open(conn) {
                        open.on_jobs_done(io, cx);
                    }
                }
                Letter::PressureOff => self.end_backpressure(),
                Letter::SweepSoon => {
                    self.next_sweep = self.next_sweep.min(self.cx.now + WINDOW_MS);
                }
                Letter::Drain => self.drain(),
                Letter::Stop => return self.stop(),
            }
        }
    }

    /// The open connection of that name, unless it is gone and another one has its slot now.
    fn find_open(&mut self, id: ConnId) -> Option<(&mut Open, &mut ConnIo, &mut WorkerCtx)> {
        let conn = self.conns.get_mut(id.slot as usize).filter(is(id))?;
        let (open, io) = conn.open_mut()?;
        Some((open, io, &mut self.cx))
    }

    /// Puts a room's message into the outboxes of this worker's members. Nothing is written or
    /// closed here.
    fn deliver(
        &mut self,
        room: RoomKey,
        seq: u64,
        frame: &PreparedFrame,
        except: Option<ConnId>,
    ) -> usize {
        let members = std::mem::take(&mut self.cx.members);
        let mut delivered = 0;
        if let Some((room, members)) = members.of(room, seq) {
            for member in members {
                let Some(conn) = self.conns.get_mut(member.slot as usize) else { continue };
                // Its own message is no loss to a client that did not ask for it.
                if Some(conn.io.id) != except
                    && let Some((open, io)) = conn.open_mut()
                    && open.deliver(frame, &Delivery { room, member, seq }, io, &mut self.cx)
                {
                    delivered += 1;
                }
            }
        }
        self.cx.members = members;
        self.count_deliveries(delivered)
    }

    /// Puts a message of several rooms into the outboxes of their members: a member of more than
    /// one of them gets it once.
    fn deliver_many(
        &mut self,
        rooms: &[(RoomKey, u64)],
        frame: &PreparedFrame,
        except: Option<ConnId>,
    ) -> usize {
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
                delivered += 1;
            }
        }
        drop(deliveries);
        self.cx.members = members;
        self.count_deliveries(delivered)
    }

    /// Puts a message into the outboxes of all open connections of a route but one.
    fn broadcast(&mut self, route: u16, frame: &PreparedFrame, except: ConnId) -> usize {
        let mut delivered = 0;
        for (_, conn) in &mut self.conns {
            if conn.io.id != except
                && let Some((open, io)) = conn.open_mut()
                && open.session.route == route
                && io.send_prepared(frame, &mut self.cx) != SendStatus::Dropped
            {
                delivered += 1;
            }
        }
        self.cx.metrics().deliveries.add(delivered as u64);
        delivered
    }

    fn count_deliveries(&self, delivered: usize) -> usize {
        self.cx.metrics().deliveries.add(delivered as u64);
        self.cx.metrics().messages_out.add(delivered as u64);
        delivered
    }
}

/// Whether a connection is that of `id`, and not a later one in its slot.
fn is(id: ConnId) -> impl Fn(&&mut Connection) -> bool {
    move |conn| conn.io.id == id
}
