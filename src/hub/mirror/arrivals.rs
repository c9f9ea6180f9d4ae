//! What others say, on its way to the clients of this node: messages to rooms, to everyone and to
//! one session.

use std::sync::Arc;

use crate::{
    hub::{
        Hub,
        charge::Charged,
        conn_id::ConnId,
        envelope::{Envelope, From},
        inbound_token::InboundToken,
        inbox::Inbox,
        mailbox::{Deferred, Letter},
        room::{Room, RoomKey, workers_with_members},
        session::{Attachment, Session},
    },
    ws::frame::PreparedFrame,
};

/// A message on its way to the members of rooms.
pub(crate) struct Arrived<'a> {
    /// The rooms that are here, each with the message's number.
    pub(crate) rooms: &'a [(Arc<Room>, u64)],
    pub(crate) frame: PreparedFrame,
    pub(crate) from: From,
    /// The session that published it, if it is on this node.
    pub(crate) payer: Option<&'a Arc<Session>>,
    /// How long ago it was stored, in milliseconds.
    pub(crate) age_ms: u64,
}

impl Hub {
    /// Makes a frame of a message and its numbers.
    pub(crate) fn frame_of(&self, envelope: &Envelope<'_>, seqs: &[u64]) -> PreparedFrame {
        self.compressible(envelope.frame(seqs, &self.account.frames))
    }

    /// Delivers a message to the members of its rooms. In each the number is the next one. Returns
    /// whether a mailbox is behind.
    pub(crate) fn arrive(&self, arrived: Arrived<'_>) -> bool {
        let Arrived { rooms, frame, from, payer, age_ms } = arrived;
        let now_ms = self.now_ms();
        let mut order: Vec<&(Arc<Room>, u64)> = rooms.iter().collect();
        order.sort_unstable_by_key(|(room, _)| room.key);
        let mut states: Vec<_> =
            order.iter().map(|(room, seq)| (room, *seq, room.state.lock())).collect();
        states.retain(|(_, seq, state)| !state.gone && state.history.position().seq + 1 == *seq);
        let except = self.excepted(&from);
        let mut members = vec![0; self.mailboxes.workers()];
        for (_, _, state) in &states {
            members.iter_mut().zip(&state.members).for_each(|(sum, count)| *sum += count);
        }
        let mut deferred = Deferred::default();
        let total = members.iter().map(|count| *count as usize).sum();
        payer.inspect(|payer| payer.traffic().in_flight.note_sent(frame.len()));
        let keys: Arc<[(RoomKey, u64)]> =
            states.iter().map(|(room, seq, _)| (room.key, *seq)).collect();
        let alone = if let [(room, _)] = *keys { Some(room) } else { None };
        let charged = Charged::new(payer, frame.len(), total, alone).published_at(now_ms);
        for (worker, bytes) in workers_with_members(&members, frame.len()) {
            self.mailboxes.reserve_over_bound(worker, bytes, &mut deferred);
            let charge = charged.part(members[worker]);
            let frame = frame.clone();
            let letter = match *keys {
                [(room, seq)] => Letter::Deliver { room, seq, frame, except, charge },
                _ => Letter::DeliverMany { rooms: Arc::clone(&keys), frame, except, charge },
            };
            self.mailboxes.push_reserved(worker, letter, &mut deferred);
        }
        for (_, _, state) in &mut states {
            self.keep(state, frame.clone(), now_ms.saturating_sub(age_ms));
        }
        drop(states);
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }

    /// The connection of this node that does not get a message.
    pub(super) fn excepted(&self, from: &From) -> Option<ConnId> {
        let is_ours = self.engine.as_ref().is_some_and(|engine| engine.node == from.node);
        let ours = from.except.filter(|_| is_ours);
        ours.or_else(|| self.sessions.find(&from.without?)?.conn())
    }

    /// Delivers a broadcast from any node.
    pub(crate) fn arrive_for_all(&self, route: u16, frame: PreparedFrame, from: &From) -> bool {
        let mut deferred = Deferred::default();
        let except = self.excepted(from).unwrap_or(ConnId::NONE);
        for worker in 0..self.mailboxes.workers() {
            self.mailboxes.reserve_over_bound(worker, frame.len(), &mut deferred);
            let letter = Letter::Broadcast { route, frame: frame.clone(), except, charge: None };
            self.mailboxes.push_reserved(worker, letter, &mut deferred);
        }
        self.mailboxes.after_unlock(&deferred);
        deferred.behind
    }

    /// Delivers a direct message to a session of this node. Returns whether it was sent to a
    /// connection.
    pub(crate) fn arrive_for_one(
        &self,
        session: &Arc<Session>,
        seq: u64,
        frame: PreparedFrame,
    ) -> bool {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        let attachment = state.attachment;
        if attachment == Attachment::Ended {
            return false;
        }
        let inbox = state.inbox.get_or_insert_with(|| Box::new(Inbox::at(seq - 1, seq - 1)));
        if inbox.next_seq() > seq {
            return false;
        }
        let before = inbox.bytes();
        if inbox.next_seq() < seq {
            **inbox = Inbox::at(seq - 1, seq - 1);
        }
        let is_sent = matches!(attachment, Attachment::To(_));
        inbox.push(frame.clone(), is_sent, &self.limits.inbox());
        self.account.inboxes.change(before, inbox.bytes());
        if let Attachment::To(conn) = attachment {
            let (worker, bytes) = (conn.worker(), frame.len());
            // Who sent it asked the engine whether the client keeps up.
            let inbound = InboundToken::take(session, bytes, &self.limits.inbound());
            self.mailboxes.reserve_over_bound(worker, bytes, &mut deferred);
            let letter = Letter::Send { conn, frame, charge: None, inbound };
            self.mailboxes.push_reserved(worker, letter, &mut deferred);
        }
        drop(state);
        self.sessions.metrics.directs.add_shared();
        self.mailboxes.after_unlock(&deferred);
        is_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench, ws::frame::Message};

    #[test]
    fn an_inbox_that_begins_anew_is_counted_no_more() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let client = bench.client(0, true);
        let frame = || PreparedFrame::new(Message::Text("a word"));
        let mut counted = Vec::new();
        // The second one never came.
        for seq in [1, 3, 4] {
            assert!(bench.hub.arrive_for_one(&client.session, seq, frame()));
            counted.push(bench.hub.account.inboxes.value());
        }
        assert_eq!(counted, [counted[0], counted[0], 2 * counted[0]]);
    }
}
