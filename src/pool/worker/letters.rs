//! What each letter to a worker does.

use super::{
    Worker,
    deliveries::{DELIVERY_COST_PER_TURN_MAX, hold_sender, is},
};
use crate::{
    hub::{
        conn_id::ConnId,
        mailbox::Letter,
        notice::Notice,
        posted::{PostOutcome, Posted},
        roster::WINDOW_MS,
        task::TaskAnswer,
    },
    identity::Permissions,
    pool::{
        conn_io::ConnIo, connection::Phase, fanouts::Audience, open::Open, run::RoomMessage,
        worker_cx::WorkerCtx,
    },
};

/// Letters taken in one turn, before sockets are written.
const LETTERS_PER_TURN_MAX: usize = 256;

impl Worker {
    /// Takes the letters that wait, and delivers what waits in slices, up to the bounds of a turn.
    pub(super) fn take_letters(&mut self) {
        self.deliveries = 0;
        // As in most turns that an event has begun.
        if !self.mailbox.is_empty() {
            self.take_waiting_letters();
        }
        self.deliver_slices();
    }

    #[inline(never)]
    fn take_waiting_letters(&mut self) {
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
            if !matches!(letter, Letter::Deliver { .. }) {
                // Every other letter finds the members as they are, and all that came before it
                // delivered.
                self.deliver_gathered();
            }
            match letter {
                Letter::Deliver { room, seq, frame, except, charge } => {
                    let weight = weight.unwrap_or_default();
                    self.gather(room, RoomMessage { seq, frame, except, weight, charge });
                    continue;
                }
                Letter::DeliverMany { rooms, frame, except, charge } => {
                    let weight = weight.unwrap_or_default();
                    let message = RoomMessage { seq: 0, frame, except, weight, charge };
                    self.take_for_rooms(rooms, message);
                    continue;
                }
                Letter::Broadcast { route, frame, except, charge } => {
                    let (weight, except) = (weight.unwrap_or_default(), Some(except));
                    let message = RoomMessage { seq: 0, frame, except, weight, charge };
                    self.cx.fanouts.push(Audience::Route(route), message);
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
                        cx.members.add(io.id, room, at, Permissions::all());
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
                Letter::Posted(posted) => self.take_post(*posted),
                Letter::PostAnswered { conn, name, outcome } => {
                    if let Some(conn) = self.conns.get_mut(conn.slot as usize).filter(is(conn)) {
                        conn.on_post_answered(name, outcome, &mut self.cx);
                    }
                }
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
                    self.deliver_all();
                    self.drain(spread_ms);
                }
                Letter::Stop => return self.stop(),
            }
            self.release(weight, None);
        }
        self.deliver_gathered();
    }

    /// Gives a post to its stream.
    fn take_post(&mut self, posted: Posted) {
        let stream = posted.key.conn;
        match self.conns.get_mut(stream.slot as usize).filter(is(stream)) {
            Some(conn) => conn.on_posted(posted, &mut self.cx),
            None => {
                let (poster, name) = (posted.from, posted.name());
                self.cx.shared.hub.answer_post(poster, name, PostOutcome::Unknown);
            }
        }
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

    /// The open connection of that name, unless it is gone and another one has its slot now.
    fn find_open(&mut self, id: ConnId) -> Option<(&mut Open, &mut ConnIo, &mut WorkerCtx)> {
        let conn = self.conns.get_mut(id.slot as usize).filter(is(id))?;
        let (open, io) = conn.open_mut()?;
        Some((open, io, &mut self.cx))
    }
}
