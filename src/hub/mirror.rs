//! What the engine's thread does in the hub: it brings rooms and sessions, and makes known what
//! other nodes say.
//!
//! A room on a node is a mirror of what the engine has of it. Its messages come from one thread, in
//! order, whoever published them, and none is numbered here.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    charge::Charged,
    conn_id::ConnId,
    envelope::{Envelope, From},
    error::RoomError,
    inbound_token::InboundToken,
    inbox::Inbox,
    mailbox::{Deferred, Letter},
    names::RoomName,
    presence::{RosterChange, Told, Who},
    restore::RestorableRoute,
    room::{Room, RoomKey, RoomState, workers_with_members},
    roster::Shown,
    session::{
        Attachment, Session,
        saved::{RestoredIn, is_sound},
    },
    session_token::SessionToken,
};
use crate::{
    identity::Identity,
    snapshot::SessionRecord,
    store::{Epoch, History, Position},
    ws::{close::CloseReason, frame::PreparedFrame},
};

/// How a client is shown in a room, as the engine keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShownAs {
    pub(crate) name: Option<String>,
    pub(crate) user: Option<String>,
}

impl ShownAs {
    fn into_shown(self) -> Shown {
        Shown {
            name: self.name.map(Arc::from),
            identity: self.user.map(|user| Arc::new(Identity::new(user))),
        }
    }
}

/// A message that the engine keeps for a room.
pub(crate) struct Kept {
    pub(crate) seq: u64,
    /// How long ago it was stored, in milliseconds.
    pub(crate) age_ms: u64,
    pub(crate) frame: PreparedFrame,
    pub(crate) from: From,
}

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

    /// Brings a room, or makes it anew, at `position`, with the messages that are kept up to there;
    /// none of them is older than the one before, and none is missing between them. Returns the
    /// room, and the number from which on nothing is missing.
    ///
    /// What is here already of the same room stays. If it ends before the first message that is
    /// kept, its members are told what is lost.
    pub(crate) fn bring_room(
        &self,
        name: &RoomName,
        position: Position,
        elder: Vec<(Epoch, u64)>,
        kept: Vec<Kept>,
    ) -> Result<Arc<Room>, RoomError> {
        let first_seq = kept.first().map_or(position.seq + 1, |kept| kept.seq);
        let begins = Position { seq: first_seq - 1, ..position };
        let mut deferred = Deferred::default();
        let (room, ()) = self.rooms.enter_mirror(name, begins, &mut deferred, |room, state| {
            let here = state.history.position();
            let is_new = !std::mem::replace(&mut state.is_live, true) && state.history.is_empty();
            // Up to this number both epochs have the same messages.
            let upto = common_until(here.epoch, &state.elder, &elder);
            state.elder = elder;
            if here.epoch != position.epoch {
                // Of another life nothing is known here: members are told what they lack.
                let begins_seq = if is_new { first_seq - 1 } else { 0 };
                let seq = upto.map_or(begins_seq, |upto| upto.min(here.seq));
                if upto.is_some_and(|upto| here.seq <= upto) {
                    state.history.change_epoch(position.epoch);
                } else {
                    self.begin_anew(state, Position { seq, ..position }, &kept);
                }
                if !is_new {
                    self.tell_restart(room, state, Position { seq, ..position });
                }
            }
            self.lose_until(room, state, first_seq - 1);
            for Kept { seq, age_ms, frame, from } in kept {
                if seq == state.history.position().seq + 1 {
                    let stored_ms = self.now_ms().saturating_sub(age_ms);
                    let except = self.excepted(&from);
                    self.deliver_kept(room, state, (seq, frame, except), stored_ms);
                }
            }
            self.lose_until(room, state, position.seq);
        })?;
        self.mailboxes.after_unlock(&deferred);
        self.wake_all();
        Ok(room)
    }

    /// Goes on at `position` in another epoch, with the messages up to there that are kept.
    fn begin_anew(&self, state: &mut RoomState, position: Position, kept: &[Kept]) {
        let known = || kept.iter().filter(|kept| kept.seq <= position.seq);
        let before = known().next().map_or(position.seq, |kept| kept.seq - 1);
        self.change(&mut state.history, |history| {
            *history = History::at(Position { seq: before, ..position }, before);
        });
        for Kept { age_ms, frame, .. } in known() {
            self.keep(state, frame.clone(), self.now_ms().saturating_sub(*age_ms));
        }
    }

    /// Tells members that the messages up to `seq` are lost, if they are not here.
    fn lose_until(&self, room: &Arc<Room>, state: &mut RoomState, seq: u64) {
        let here = state.history.position();
        if here.seq >= seq {
            return;
        }
        self.change(&mut state.history, |history| {
            let began_seq = history.beginning().seq;
            *history = History::at(Position { seq, ..here }, began_seq);
        });
        self.rooms.metrics.engine_lost.add_many_shared(seq - here.seq);
        self.tell_loss(room, state, (here.seq + 1, seq));
    }

    fn tell_loss(&self, room: &Arc<Room>, state: &RoomState, (from, to): (u64, u64)) {
        let nth = room.note_move();
        for (worker, _) in workers_with_members(&state.members, 0) {
            self.mailboxes.push(worker, Letter::Lost { room: Arc::clone(room), from, to, nth });
        }
    }

    /// Tells members of a room that they may miss what is up to `seq`, before they get a message
    /// with its next number there that came another way.
    pub(crate) fn warn_of_gap(&self, room: &Arc<Room>, seq: u64) {
        let state = room.state.lock();
        let here = state.history.position();
        if here.seq >= seq || state.gone {
            return;
        }
        self.tell_loss(room, &state, (here.seq + 1, seq));
        drop(state);
        self.wake_all();
    }

    fn tell_restart(&self, room: &Arc<Room>, state: &RoomState, position: Position) {
        let nth = room.note_move();
        for (worker, _) in workers_with_members(&state.members, 0) {
            let letter = Letter::Restarted { room: Arc::clone(room), position, nth };
            self.mailboxes.push(worker, letter);
        }
    }

    fn deliver_kept(
        &self,
        room: &Arc<Room>,
        state: &mut RoomState,
        (seq, frame, except): (u64, PreparedFrame, Option<ConnId>),
        stored_ms: u64,
    ) {
        let mut deferred = Deferred::default();
        for (worker, bytes) in workers_with_members(&state.members, frame.len()) {
            self.mailboxes.reserve_over_bound(worker, bytes, &mut deferred);
            let frame = frame.clone();
            let letter = Letter::Deliver { room: room.key, seq, frame, except, charge: None };
            self.mailboxes.push(worker, letter);
        }
        self.keep(state, frame, stored_ms);
    }

    fn wake_all(&self) {
        (0..self.mailboxes.workers()).for_each(|worker| self.mailboxes.wake(worker));
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
        payer.inspect(|payer| payer.in_flight.note_sent(frame.len()));
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
    fn excepted(&self, from: &From) -> Option<ConnId> {
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
        if inbox.next_seq() < seq {
            **inbox = Inbox::at(seq - 1, seq - 1);
        }
        let before = inbox.bytes();
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

    /// Shows a client of another node in a room, or how it is shown now.
    pub(crate) fn show_remote(&self, room: &Arc<Room>, client_id: Uuid, shown: ShownAs) {
        let shown = shown.into_shown();
        let mut deferred = Deferred::default();
        let mut state = room.state.lock();
        if state.roster.shown(client_id).is_some() && !state.roster.is_going(client_id) {
            if state.roster.is_remote(client_id) {
                state.roster.set_shown(client_id, shown);
            }
            return;
        }
        state.roster.set_remote(client_id, true);
        if state.roster.is_going(client_id) {
            state.roster.take_back(client_id, shown);
            return;
        }
        let formatter = state.formatter.clone();
        let told = formatter.as_ref().map_or(Told::Now, |formatter| {
            let who = Who { client_id, session: None, formatter };
            let appears = RosterChange::Appears;
            self.notify_watchers(&who, &shown, appears, room, &mut state, &mut deferred)
        });
        match (told, formatter) {
            (Told::Later, Some(formatter)) => {
                state.roster.insert_gathered(client_id, shown, &formatter);
                self.tell_if_many(room, &mut state, &mut deferred);
            }
            _ => state.roster.insert_told(client_id, shown),
        }
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Takes a client of another node out of a room.
    pub(crate) fn hide_remote(&self, room: &Arc<Room>, client_id: Uuid) {
        let mut deferred = Deferred::default();
        let mut state = room.state.lock();
        if !state.roster.is_remote(client_id) {
            return;
        }
        state.roster.set_remote(client_id, false);
        if let Some(shown) = state.roster.remove_untold(client_id) {
            let formatter = state.formatter.clone();
            let told = formatter.as_ref().map_or(Told::Now, |formatter| {
                let who = Who { client_id, session: None, formatter };
                let leaves = RosterChange::Leaves;
                self.notify_watchers(&who, &shown, leaves, room, &mut state, &mut deferred)
            });
            match (told, formatter) {
                (Told::Later, Some(formatter)) => {
                    state.roster.remove_gathered(client_id, &formatter);
                    self.tell_if_many(room, &mut state, &mut deferred);
                }
                _ => state.roster.remove_told(client_id),
            }
        }
        self.rooms.note_vacancy(room, &mut state);
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Lists who is in a room by other nodes, in place of who was.
    pub(crate) fn set_remote(&self, room: &Arc<Room>, members: Vec<(Uuid, ShownAs)>) {
        let before: Vec<Uuid> = room.state.lock().roster.remote().collect();
        let now: std::collections::HashSet<Uuid> = members.iter().map(|(id, _)| *id).collect();
        for client in before.into_iter().filter(|client| !now.contains(client)) {
            self.hide_remote(room, client);
        }
        for (client, shown) in members {
            let is_ours = self
                .sessions
                .find(&client)
                .is_some_and(|session| session.room(room.name.as_str()).is_some());
            if !is_ours {
                self.show_remote(room, client, shown);
            }
        }
    }

    /// Gives up a session that another node has taken up: its connection is closed with 4010, and
    /// its client stays in its rooms.
    pub(crate) fn give_up(&self, session: &Arc<Session>) {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        match state.attachment {
            Attachment::Ended => return,
            Attachment::Away(since_ms) => self.sessions.unset_away(session, since_ms),
            Attachment::To(conn) => {
                self.sessions.metrics.sessions_taken_over.add_shared();
                let letter = Letter::Close { conn, reason: CloseReason::TAKEN_OVER };
                self.mailboxes.push_reserved(conn.worker(), letter, &mut deferred);
            }
        }
        // Nothing more is published for it.
        session.set_sender(ConnId::NONE);
        for membership in self.end(&mut state) {
            let mut room_state = membership.room.state.lock();
            room_state.roster.set_remote(session.client_id, true);
            self.rooms.note_vacancy(&membership.room, &mut room_state);
        }
        self.sessions.forget(session.client_id, state.user());
        drop(state);
        self.mailboxes.after_unlock(&deferred);
    }

    /// Takes up a session that comes from another node, as one that is away. Its rooms are here,
    /// in the order of its record.
    pub(crate) fn take_up(&self, brought: Brought<'_>) -> Result<Arc<Session>, RoomError> {
        let Brought { record, token, route, rooms, directs, seqs } = brought;
        if !is_sound(&record, rooms.len()) || record.client_id != token.client_id {
            return Err(RoomError::NoSuchSession);
        }
        let (last_seq, delivered_seq) = seqs;
        let first_seq = directs.first().map_or(last_seq + 1, |(seq, _)| *seq);
        let mut inbox = Inbox::at(first_seq - 1, delivered_seq.min(last_seq));
        for (seq, frame) in directs {
            if inbox.next_seq() == seq {
                inbox.push(frame, false, &self.limits.inbox());
            }
        }
        let inbox = (last_seq > 0).then(|| Box::new(inbox));
        let now_ms = self.now_ms();
        let within = RestoredIn {
            route: route.index,
            formatter: &route.formatter,
            rooms,
            away_since_ms: now_ms,
        };
        let record = SessionRecord { secret: token.secret, provisional: false, ..record };
        let session = Arc::new(Session::restored(record, inbox, &within));
        let mut state = session.state.lock();
        session.decide_direct(&mut state);
        self.count(&state);
        for membership in &state.memberships {
            let mut room_state = membership.room.state.lock();
            let (client, shown) = (session.client_id, state.shown());
            room_state.roster.set_remote(client, false);
            match room_state.roster.is_going(client) {
                true => room_state.roster.take_back(client, shown),
                false => room_state.roster.insert_told(client, shown),
            }
            self.rooms.note_vacancy(&membership.room, &mut room_state);
        }
        let user = state.identity.as_ref().map(|identity| Arc::clone(&identity.user));
        self.sessions.put(&session, user);
        let away_max = self.limits.away_max();
        let evicted = self.sessions.set_away(&session, now_ms, false, None, away_max);
        drop(state);
        if let Some(evicted) = evicted {
            self.evict(&evicted);
        }
        Ok(session)
    }
}

/// Up to which number a room in `here`, an epoch with these `before` it, has the messages of
/// another life of it with the epochs `elder`; `None` if the lives have nothing in common. A Redis
/// that takes over late knows an epoch before `here` and not `here` itself.
fn common_until(here: Epoch, before: &[(Epoch, u64)], elder: &[(Epoch, u64)]) -> Option<u64> {
    let there = |epoch| elder.iter().find(|(of, _)| *of == epoch).map(|(_, upto)| *upto);
    let both = before.iter().filter_map(|(epoch, upto)| Some(there(*epoch)?.min(*upto)));
    there(here).or_else(|| both.max())
}

/// A session that comes from another node.
pub(crate) struct Brought<'a> {
    pub(crate) record: SessionRecord,
    /// What its client has shown.
    pub(crate) token: &'a SessionToken,
    pub(crate) route: &'a RestorableRoute,
    /// The rooms of the record by their place; `None` for one that found no space.
    pub(crate) rooms: &'a [Option<Arc<Room>>],
    /// Its direct messages that are kept, with their numbers.
    pub(crate) directs: Vec<(u64, PreparedFrame)>,
    /// The numbers of the last direct message, and of the last one that a connection was sent.
    pub(crate) seqs: (u64, u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::{
            engine::Engine,
            harness::{Bench, name},
            history::Replay,
        },
        ws::frame::Message,
    };

    const FROM: From =
        From { node: Uuid::nil(), client: Uuid::nil(), except: None, without: None, nth: 0 };

    fn kept(seqs: impl Iterator<Item = u64>) -> Vec<Kept> {
        let frame = |seq: u64| PreparedFrame::new(Message::Text(&seq.to_string()));
        seqs.map(|seq| Kept { seq, age_ms: 0, frame: frame(seq), from: FROM }).collect()
    }

    fn epoch(bits: u64) -> Epoch {
        Epoch::from_bits(bits).expect("one that a room may have")
    }

    /// What the members of the room were told since this was asked last: numbers that are
    /// delivered, `-` and a range that is lost, `=` and where the room goes on.
    fn told(bench: &Bench) -> Vec<String> {
        let told = bench.letters(0).into_iter().filter_map(|letter| match letter {
            Letter::Deliver { seq, .. } => Some(seq.to_string()),
            Letter::Lost { from, to, .. } => Some(format!("-{from}..{to}")),
            Letter::Restarted { position, .. } => Some(format!("={}", position.seq)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn members_hear_what_they_missed_or_that_it_is_lost_and_nothing_twice() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let a = name("a");
        let bring = |bench: &Bench, bits, seq, elder: &[(u64, u64)], messages| {
            let elder = elder.iter().map(|(bits, upto)| (epoch(*bits), *upto)).collect();
            let position = Position { epoch: epoch(bits), seq };
            bench.hub.bring_room(&a, position, elder, messages).expect("a place")
        };
        let room = bring(&bench, 1, 3, &[], kept(1..=3));
        let mut member = bench.client(0, false);
        assert_eq!(member.join("a").expect("a place").position.seq, 3);
        told(&bench);
        bring(&bench, 1, 5, &[], kept(1..=5));
        assert_eq!(told(&bench), ["4", "5"], "what it missed");
        bring(&bench, 1, 9, &[], kept(8..=9));
        assert_eq!(told(&bench), ["-6..7", "8", "9"], "what is kept no more");
        // Another server has taken over, and has everything.
        bring(&bench, 3, 10, &[(1, 9)], kept(8..=10));
        assert_eq!(told(&bench), ["=9", "10"]);
        // Another one has lost the last two, whose numbers are given anew.
        bring(&bench, 5, 9, &[(3, 8), (1, 8)], kept(8..=9));
        assert_eq!(told(&bench), ["=8", "9"]);
        let since = Position { epoch: epoch(1), seq: 8 };
        let state = room.state.lock();
        let missed = state.since(since, usize::MAX);
        assert_eq!(missed.map(|missed| missed.len()), Some(1), "a position of old is good so far");
        let beyond = Position { seq: 9, ..since };
        assert!(state.since(beyond, usize::MAX).is_none());
        drop(state);
        // One takes over that has not heard of the last epoch, but of the one before.
        bring(&bench, 6, 12, &[(5, 9)], kept(1..=12));
        assert_eq!(told(&bench), ["=9", "10", "11", "12"]);
        bring(&bench, 4, 11, &[(5, 9)], kept(1..=11));
        assert_eq!(told(&bench), ["=9", "10", "11"]);
        // Everything is lost.
        bring(&bench, 7, 1, &[], kept(1..=1));
        assert_eq!(told(&bench), ["=0", "1"]);
        // A room that comes without its first messages, or without any.
        for (bits, messages, missed) in [(1, kept(8..=9), Some(2)), (3, kept(10..10), None)] {
            let position = Position { epoch: epoch(bits), seq: 9 };
            let other = name(["b", "c"][bits as usize / 2]);
            let other = bench.hub.bring_room(&other, position, Vec::new(), messages).expect("one");
            let state = other.state.lock();
            let since = |seq| state.since(Position { seq, ..position }, usize::MAX);
            assert!(since(3).is_none() && since(0).is_none(), "some are kept no more");
            assert_eq!(since(7).map(|messages| messages.len()), missed);
            assert_eq!(since(9).map(|messages| messages.len()), Some(0));
        }
        // A message that comes by another room has number 4 here.
        bench.hub.warn_of_gap(&room, 3);
        bench.hub.warn_of_gap(&room, 1);
        assert_eq!(told(&bench), ["-2..3"]);
    }

    #[test]
    fn a_position_before_the_mirror_begins_is_not_recovered() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (engine, _asked) = Engine::new(Uuid::new_v4(), Box::new(|| {}));
        Arc::get_mut(&mut bench.hub).expect("one").engine = Some(Arc::new(engine));
        let position = Position { epoch: epoch(1), seq: 9 };
        let room =
            bench.hub.bring_room(&name("a"), position, vec![], kept(8..=9)).expect("a place");
        let recovered = |seq| {
            let mut state = room.state.lock();
            let since = Replay::Since(Position { seq, ..position });
            let joined = bench.hub.replay(&room, &mut state, since, usize::MAX);
            (joined.recovered, joined.replay.len())
        };
        assert_eq!(recovered(7), (true, 2));
        assert_eq!(recovered(6), (false, 0), "message 7 is not here");
    }

    #[test]
    fn another_life_is_told_from_its_beginning() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let bring = |bench: &Bench, bits, seq, messages| {
            let position = Position { epoch: epoch(bits), seq };
            bench.hub.bring_room(&name("a"), position, vec![], messages).expect("a place")
        };
        bring(&bench, 1, 9, kept(1..=9));
        bench.client(0, false).join("a").expect("a place");
        told(&bench);
        bring(&bench, 2, 5, kept(4..=5));
        assert_eq!(told(&bench), ["=0", "-1..3", "4", "5"]);
    }
}
