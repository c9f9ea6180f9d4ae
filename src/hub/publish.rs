//! Messages to rooms: numbered, stored and posted under the locks of their rooms.

use std::sync::{Arc, atomic::AtomicUsize};

use parking_lot::MutexGuard;
use uuid::Uuid;

use super::{
    Hub,
    charge::Charged,
    conn_id::ConnId,
    error::RoomError,
    mailbox::{Deferred, Letter},
    room::{Room, RoomState, workers_with_members},
    session::{Recipient, Sender},
};
use crate::ws::frame::{Kind, Message, PreparedFrame};

/// A message to publish to one room or several, or to send to one client.
///
/// Made from a [`Message`] it is sent unchanged; made with [`Publication::around_seq`] it contains
/// its sequence number. The room assigns the number under its lock, so all other text is formatted
/// before.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    pub(super) kind: Kind,
    pub(super) parts: Parts<'a>,
    pub(super) dedup_id: Option<Uuid>,
    pub(super) to_others: bool,
    /// A connection that does not get the message.
    without: Option<ConnId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Parts<'a> {
    Whole(&'a [u8]),
    AroundSeq(&'a str, &'a str),
    /// Each text is followed by the number in the room with that index.
    AroundSeqs(&'a [(&'a str, usize)], &'a str),
}

impl<'a> Publication<'a> {
    fn new(kind: Kind, parts: Parts<'a>) -> Publication<'a> {
        Publication { kind, parts, dedup_id: None, to_others: false, without: None }
    }

    /// Makes a text message of `before`, the sequence number in decimal, and `after`.
    pub fn around_seq(before: &'a str, after: &'a str) -> Publication<'a> {
        Publication::new(Kind::Text, Parts::AroundSeq(before, after))
    }

    /// Makes a text message to several rooms. Each of `pieces` is a text and the index of the room
    /// whose sequence number follows it, in the order given to
    /// [`publish_to_rooms`](crate::Context::publish_to_rooms). `after` is the end of the message.
    /// For an index out of range the number is 0.
    pub fn around_seqs(pieces: &'a [(&'a str, usize)], after: &'a str) -> Publication<'a> {
        Publication::new(Kind::Text, Parts::AroundSeqs(pieces, after))
    }

    /// Makes the message safe to repeat. If the same session publishes the same `id` to the same
    /// room, rooms or client again, the message is not delivered again, and the answer has the
    /// number of the first one. A session remembers its last 128 such publishes.
    pub fn dedup_id(self, id: Uuid) -> Publication<'a> {
        Publication { dedup_id: Some(id), ..self }
    }

    /// Does not deliver the message to the connection that publishes it. No effect on direct
    /// messages, or on messages that are published from outside any connection.
    pub fn to_others(self) -> Publication<'a> {
        Publication { to_others: true, ..self }
    }

    /// Does not deliver the message to `conn`.
    pub(super) fn without(self, conn: Option<ConnId>) -> Publication<'a> {
        Publication { without: conn, ..self }
    }

    /// Returns the connection that does not get the message.
    fn except(&self, by: Option<Sender<'_>>) -> Option<ConnId> {
        self.without.or_else(|| by.filter(|_| self.to_others).map(|by| by.conn))
    }

    /// Encodes the message with its numbers. `tally` counts it for as long as it is kept or waits.
    pub(super) fn encode(&self, seqs: &[u64], tally: &Arc<AtomicUsize>) -> PreparedFrame {
        let number = |index: usize| seqs.get(index).copied().unwrap_or_default();
        match self.parts {
            Parts::Whole(bytes) => PreparedFrame::counted(self.kind, &[bytes], tally),
            Parts::AroundSeq(before, after) => {
                let mut digits = [0; 20];
                let digits = decimal(number(0), &mut digits);
                let parts = [before.as_bytes(), digits, after.as_bytes()];
                PreparedFrame::counted(self.kind, &parts, tally)
            }
            Parts::AroundSeqs(pieces, after) => {
                let mut text = String::new();
                for (before, index) in pieces {
                    text.push_str(before);
                    text.push_str(&number(*index).to_string());
                }
                text.push_str(after);
                PreparedFrame::counted(self.kind, &[text.as_bytes()], tally)
            }
        }
    }
}

/// Writes the decimal digits of `number` without allocating.
fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut start = space.len();
    loop {
        start -= 1;
        space[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &space[start..];
        }
    }
}

impl<'a, M: Into<Message<'a>>> From<M> for Publication<'a> {
    fn from(message: M) -> Self {
        let message = message.into();
        Publication::new(message.kind(), Parts::Whole(message.as_bytes()))
    }
}

/// The result of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The message's sequence number in its room.
    pub seq: u64,
    /// Whether a worker that delivers the message is behind. The publisher should pause. For a
    /// message published by a connection, the server itself stops reading the sockets of that
    /// worker.
    pub behind: bool,
    /// Whether the message is a repeat ([`Publication::dedup_id`]) and was not delivered again.
    /// `seq` is the number of the first one.
    pub repeated: bool,
}

/// The result of a publish to several rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedToRooms {
    /// The message's sequence number in each room, in the order in which the rooms were given.
    pub seqs: Box<[u64]>,
    /// As in [`Published`].
    pub behind: bool,
    /// As in [`Published`].
    pub repeated: bool,
}

impl Hub {
    /// Numbers, stores and posts a message. `by` is `None` for a message from outside any
    /// connection.
    pub(crate) fn publish(
        &self,
        by: Option<Sender<'_>>,
        room: &Room,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        if let Some(by) = by.filter(|_| publication.dedup_id.is_some()) {
            let published = self.publish_to_rooms(by, &[room], publication)?;
            let PublishedToRooms { seqs, behind, repeated } = published;
            return Ok(Published {
                seq: seqs.first().copied().unwrap_or_default(),
                behind,
                repeated,
            });
        }
        self.check_memory()?;
        self.shed_histories(&[room]);
        let mut deferred = Deferred::default();
        let result = self.number_in_one(by, room, publication, &mut deferred);
        self.mailboxes.after_unlock(&deferred);
        let behind = deferred.behind;
        result.map(|seq| Published { seq, behind, repeated: false })
    }

    /// Numbers a message in several rooms in one atomic step. A member of several of the rooms gets
    /// it once.
    pub(crate) fn publish_to_rooms(
        &self,
        by: Sender<'_>,
        rooms: &[&Room],
        publication: &Publication<'_>,
    ) -> Result<PublishedToRooms, RoomError> {
        if rooms.is_empty() {
            return Err(RoomError::NoSuchRoom);
        }
        self.check_memory()?;
        self.shed_histories(rooms);
        let mut deferred = Deferred::default();
        // Held during the publish, so that a repeat on another connection cannot interleave.
        let mut state = publication.dedup_id.map(|id| (id, by.session.state.lock()));
        by.check_not_taken_over()?;
        if let Some((id, state)) = &state
            && let Some(seqs) = state.recent_publish(*id, rooms)
        {
            self.sessions.metrics.repeats.add_shared();
            return Ok(PublishedToRooms { seqs, behind: false, repeated: true });
        }
        let (by, next) = (Some(by), &mut deferred);
        let result = match rooms {
            [room] => self.number_in_one(by, room, publication, next).map(|seq| vec![seq]),
            rooms => self.number_in_all(by, rooms, publication, next),
        };
        if let (Some((id, state)), Ok(seqs)) = (&mut state, &result) {
            state.remember_publish(*id, Recipient::rooms(rooms, seqs), &self.account.sessions);
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
        let behind = deferred.behind;
        result.map(|seqs| PublishedToRooms { seqs: seqs.into(), behind, repeated: false })
    }

    /// Numbers, stores and posts a message under the room's lock, unless its sender was taken over.
    /// The caller must call [`Mailboxes::after_unlock`] once no lock is held.
    ///
    /// [`Mailboxes::after_unlock`]: super::mailbox::Mailboxes::after_unlock
    fn number_in_one(
        &self,
        by: Option<Sender<'_>>,
        room: &Room,
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<u64, RoomError> {
        let now_ms = self.now_ms();
        let mut state = room.state.lock();
        by.map_or(Ok(()), |by| by.check_not_taken_over())?;
        if state.is_gone() {
            return Err(RoomError::NoSuchRoom);
        }
        let except = publication.except(by);
        let seq = state.history.position().seq + 1;
        let frame = self.compressible(publication.encode(&[seq], &self.account.frames));
        self.mailboxes.reserve_all(workers_with_members(&state.members, frame.len()), deferred)?;
        let (payer, total) = (by.map(|by| by.session), state.members_total());
        payer.inspect(|payer| payer.traffic().in_flight.note_sent(frame.len()));
        let charged = Charged::new(payer, frame.len(), total, Some(room.key)).published_at(now_ms);
        for (worker, _) in workers_with_members(&state.members, frame.len()) {
            let charge = charged.part(state.members[worker]);
            let frame = frame.clone();
            let letter = Letter::Deliver { room: room.key, seq, frame, except, charge };
            self.mailboxes.push_reserved(worker, letter, deferred);
        }
        self.keep(&mut state, frame, now_ms);
        Ok(seq)
    }

    /// Numbers, stores and posts a message under the locks of several rooms.
    fn number_in_all(
        &self,
        by: Option<Sender<'_>>,
        rooms: &[&Room],
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<Vec<u64>, RoomError> {
        let now_ms = self.now_ms();
        // Several rooms are always locked in the order of their keys.
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        order.sort_unstable_by_key(|index| rooms[*index].key);
        if order.windows(2).any(|pair| rooms[pair[0]].key == rooms[pair[1]].key) {
            return Err(RoomError::SameRoomTwice);
        }
        let mut states: Vec<(usize, MutexGuard<'_, RoomState>)> =
            order.iter().map(|index| (*index, rooms[*index].state.lock())).collect();
        by.map_or(Ok(()), |by| by.check_not_taken_over())?;
        if states.iter().any(|(_, state)| state.is_gone()) {
            return Err(RoomError::NoSuchRoom);
        }
        let except = publication.except(by);
        let mut seqs = vec![0; rooms.len()];
        let mut members = vec![0; self.mailboxes.workers()];
        for (index, state) in &states {
            seqs[*index] = state.history.position().seq + 1;
            members.iter_mut().zip(&state.members).for_each(|(sum, count)| *sum += count);
        }
        let frame = self.compressible(publication.encode(&seqs, &self.account.frames));
        self.mailboxes.reserve_all(workers_with_members(&members, frame.len()), deferred)?;
        let keys: Arc<[_]> = rooms.iter().map(|room| room.key).zip(seqs.iter().copied()).collect();
        let payer = by.map(|by| by.session);
        payer.inspect(|payer| payer.traffic().in_flight.note_sent(frame.len()));
        let total = members.iter().map(|count| *count as usize).sum();
        let charged = Charged::new(payer, frame.len(), total, None).published_at(now_ms);
        for (worker, _) in workers_with_members(&members, frame.len()) {
            let (rooms, frame) = (Arc::clone(&keys), frame.clone());
            let charge = charged.part(members[worker]);
            let letter = Letter::DeliverMany { rooms, frame, except, charge };
            self.mailboxes.push_reserved(worker, letter, deferred);
        }
        for (index, state) in &mut states {
            self.keep(state, frame.clone(), now_ms);
            state.last_shared_seq = seqs[*index];
        }
        Ok(seqs)
    }

    pub(super) fn keep(&self, state: &mut RoomState, frame: PreparedFrame, now_ms: u64) {
        let (kept, bytes) = (frame.plain(), frame.len());
        let RoomState { history, bounds, .. } = &mut *state;
        self.change(history, |history| history.append(kept, now_ms, bounds));
        if self.account.histories.value() > self.limits.histories_bytes_max() {
            // Nothing else gave way in time, so this room keeps no more than it did.
            let mut forgotten = 0;
            self.change(&mut state.history, |history| forgotten = history.free(bytes));
            self.rooms.metrics.history_trimmed.add_many_shared(forgotten as u64);
        }
    }

    /// Makes space for another message in `rooms`, where all histories together are nearly as large
    /// as they may be, or memory is short and they have a good part of it.
    fn shed_histories(&self, rooms: &[&Room]) {
        // A sixteenth below the bound, so that most messages find space without taking it.
        let bytes_max = self.limits.histories_bytes_max();
        let bytes_max = bytes_max - bytes_max / 16;
        if self.account.histories.value() > bytes_max || self.account.wants_histories() {
            self.rooms.shed_histories(bytes_max, rooms);
        }
    }

    pub(super) fn compressible(&self, frame: PreparedFrame) -> PreparedFrame {
        match self.compressible_bytes_min {
            Some(bytes_min) => frame.compressible(bytes_min),
            None => frame,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        config::Config,
        hub::harness::{Bench, DEADLINE, STUCK, name},
    };

    #[test]
    fn seq_is_spliced_between_the_parts() {
        let tally = Arc::default();
        let frame = Publication::around_seq("{\"seq\":", "}").encode(&[u64::MAX], &tally);
        assert_eq!(frame.payload(), b"{\"seq\":18446744073709551615}");
        assert_eq!(Publication::around_seq("", "").encode(&[0], &tally).payload(), b"0");
        assert_eq!(
            Publication::from("as it stands").encode(&[7], &tally).payload(),
            b"as it stands"
        );
    }

    #[test]
    fn not_one_message_of_who_was_taken_over_passes_after_that() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let mut old = bench.client(0, true);
        old.join("own").expect("a place");
        for text in ["a", "b"] {
            let made = bench.hub.rooms.enter(&name(text), &mut Deferred::default(), |_, _| ());
            made.expect("there may be as many");
        }
        let room = |name: &str| bench.hub.rooms.find(name).expect("it was made");
        let (a, b, own) = (room("a"), room("b"), room("own"));
        // Both publishes have begun, and wait for the lock of a room.
        let held = a.state.lock();
        let (tell, told) = crossbeam_channel::unbounded();
        for rooms in [vec![Arc::clone(&a)], vec![Arc::clone(&b), Arc::clone(&a)]] {
            let (hub, tell) = (Arc::clone(&bench.hub), tell.clone());
            let (session, conn) = (Arc::clone(&old.session), old.conn());
            thread::spawn(move || {
                let by = Sender { session: &session, conn };
                let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
                let publication = Publication::from("late");
                let _ = tell.send(match &rooms[..] {
                    [room] => hub.publish(Some(by), room, &publication).map(drop),
                    rooms => hub.publish_to_rooms(by, rooms, &publication).map(drop),
                });
            });
        }
        assert!(told.recv_timeout(STUCK).is_err(), "both wait for the room");
        let mut new = bench.client(0, true);
        new.resume(&old.session).expect("it is there");
        drop(held);
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(DEADLINE), Ok(Err(RoomError::TakenOver)));
        }
        for dedup_id in [None, Some(Uuid::new_v4())] {
            let publication = Publication { dedup_id, ..Publication::from("x") };
            let by = |session, conn| Some(Sender { session, conn });
            let late = bench.hub.publish(by(&old.session, old.conn()), &own, &publication);
            assert_eq!(late.err(), Some(RoomError::TakenOver));
            let next = bench.hub.publish(by(&new.session, new.conn()), &own, &publication);
            assert!(next.is_ok_and(|published| !published.repeated));
            // Not even a repeat is answered.
            let late = bench.hub.publish(by(&old.session, old.conn()), &own, &publication);
            assert_eq!(late.err(), Some(RoomError::TakenOver));
        }
        let seqs = [&a, &b, &own].map(|room| room.state.lock().history.position().seq);
        assert_eq!(seqs, [0, 0, 2]);
    }
}
