//! A room's messages on their way into an outbox, and the overflow policies for clients that are
//! too slow for them.
//!
//! A room says what becomes of a message that a member cannot take. Under `close` the connection
//! ends. Under `gap` the message is left out, and so is all that follows in this room, until the
//! outbox has nearly drained; then one notice names the numbers that are missing, and what comes
//! behind it is whole again. Under `latest` the newest message waits beside the outbox instead of
//! in it, where a newer one replaces it, so that a slow client gets few messages and none that is
//! stale.
//!
//! Only a room's messages follow its policy. An answer to the client's own command that does not
//! fit closes the connection whatever the room.

use std::sync::Arc;

use super::{
    conn_io::ConnIo,
    members::LocalMember,
    open::Open,
    room_lag::{RoomLag, gap_notice, keeps_newest},
    run::Run,
    worker_cx::WorkerCtx,
};
use crate::{config::Overflow, hub::room::Room, ws::frame::PreparedFrame};

/// A message as it goes to a member of one of its rooms.
pub(super) struct Delivery<'a> {
    pub(super) room: &'a Arc<Room>,
    pub(super) member: LocalMember,
    /// The message's number there.
    pub(super) seq: u64,
}

impl Open {
    /// Queues all messages of a run in one piece, if this client gets all of them and there is
    /// nothing to decide for one of them. `first` is the lowest number of the run. Returns whether
    /// they are queued; else nothing is done.
    #[inline(always)]
    pub(super) fn deliver_run(
        &mut self,
        run: &mut Run,
        first: u64,
        (room, member): (&Arc<Room>, LocalMember),
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> bool {
        let must_look = io.close_asked.is_some()
            || self.lags.is_some()
            || first <= member.from_seq
            || (io.is_blocked() && keeps_newest(room) && !io.outbox.is_empty());
        if must_look || !run.is_for(io.id) || !io.queue_run(run, cx) {
            return false;
        }
        io.list_dirty(&mut cx.work);
        true
    }

    /// Queues a room's message, or does what the room's policy says when the client is too slow for
    /// it. Returns whether it was queued.
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        frame: &PreparedFrame,
        delivery: &Delivery<'_>,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> bool {
        let Delivery { room, member, seq } = *delivery;
        if io.close_asked.is_some() {
            return false;
        }
        if let Some(lags) = &mut self.lags
            && let Some(lag) = lags.find(room, member.from_seq)
        {
            let is_lost = lag.add(seq, frame);
            cx.metrics().missed.add(u64::from(is_lost));
            return false;
        }
        let must_wait = keeps_newest(room) && io.is_blocked() && !io.outbox.is_empty();
        if must_wait && self.begin_lag(frame, room, seq, true, io, cx) {
            return false;
        }
        if io.fits(frame.len(), cx) {
            io.queue_prepared(frame, cx);
            io.list_dirty(&mut cx.work);
            return true;
        }
        if io.close_asked.is_none() && !self.begin_lag(frame, room, seq, true, io, cx) {
            io.close_slow(cx);
        }
        // The write that was tried may have made room for what other rooms owe.
        io.list_dirty(&mut cx.work);
        false
    }

    /// Queues a message of several rooms that this client is in: it goes out once, or is missed in
    /// all of them.
    pub(super) fn deliver_once(
        &mut self,
        frame: &PreparedFrame,
        deliveries: &[Delivery<'_>],
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> bool {
        if let [delivery] = deliveries {
            return self.deliver(frame, delivery, io, cx);
        }
        if io.close_asked.is_some() {
            return false;
        }
        // Where the client lags in one, the message must not overtake the notice of what is missing
        // there.
        let lags_in_one = self.lags.as_mut().is_some_and(|lags| {
            let mut deliveries = deliveries.iter();
            deliveries.any(|of| lags.find(of.room, of.member.from_seq).is_some())
        });
        if !lags_in_one && io.fits(frame.len(), cx) {
            io.queue_prepared(frame, cx);
            io.list_dirty(&mut cx.work);
            return true;
        }
        for Delivery { room, member, seq } in deliveries {
            if io.close_asked.is_some() {
                return false;
            }
            if let Some(lags) = &mut self.lags
                && let Some(lag) = lags.find(room, member.from_seq)
            {
                lag.lose(*seq);
                cx.metrics().missed.add(1);
            } else if !self.begin_lag(frame, room, *seq, false, io, cx) {
                io.close_slow(cx);
            }
        }
        io.list_dirty(&mut cx.work);
        false
    }

    /// Begins to leave out the room's messages. `false` where they must not be: the policy is to
    /// close, or the handler has no words for what is missing, and nothing is dropped silently.
    fn begin_lag(
        &mut self,
        frame: &PreparedFrame,
        room: &Arc<Room>,
        seq: u64,
        may_hold_back: bool,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> bool {
        if room.overflow == Overflow::Close {
            return false;
        }
        let (dispatch, mut conn) = self.parts(io, cx);
        if dispatch.notice(&mut conn, &gap_notice(room, (seq, seq))).is_none() {
            return false;
        }
        let held_back = Some(frame).filter(|_| may_hold_back && keeps_newest(room));
        let lag = RoomLag::new(room, seq, held_back, io);
        cx.metrics().missed.add(u64::from(lag.missed.is_some()));
        self.lags.get_or_insert_default().insert(lag);
        true
    }

    /// Tells the client what it missed, and sends what was held back, as far as it has caught up.
    pub(super) fn catch_up(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        let Some(mut lags) = self.lags.take() else { return };
        lags.forget_left(cx.members.memberships(io.slot()));
        for lag in lags.take_all() {
            if io.close_asked.is_some() {
                return;
            }
            if !lag.is_due(io.bytes_sent, &io.outbox, &cx.limits.outbox) {
                lags.insert(lag);
                continue;
            }
            let RoomLag { room, missed, newest, .. } = lag;
            if let Some(missed) = missed {
                let (dispatch, mut conn) = self.parts(io, cx);
                match dispatch.notice(&mut conn, &gap_notice(&room, missed)) {
                    Some(notice) => {
                        io.queue_prepared(&notice, cx);
                        cx.metrics().gaps.add(1);
                        cx.metrics().messages_out.add(1);
                    }
                    // It had words for it when the lag began.
                    None => return io.close_slow(cx),
                }
            }
            if let Some((_, frame)) = newest {
                io.queue_prepared(&frame, cx);
                cx.metrics().deliveries.add(1);
                cx.metrics().messages_out.add(1);
            }
        }
        if !lags.is_empty() {
            self.lags = Some(lags);
        }
    }
}
