//! What the engine's thread does in the hub: it brings rooms and sessions, and makes known what
//! other nodes say.
//!
//! A room on a node is a mirror of what the engine has of it. Its messages come from one thread, in
//! order, whoever published them, and none is numbered here.

pub(crate) mod arrivals;
pub(crate) mod moved;
pub(crate) mod remote;

use std::sync::Arc;

use super::{
    Hub,
    conn_id::ConnId,
    envelope::From,
    error::RoomError,
    mailbox::{Deferred, Letter},
    names::RoomName,
    room::{Room, RoomState, workers_with_members},
};
use crate::{
    store::{Epoch, History, Position},
    ws::frame::PreparedFrame,
};

/// A message that the engine keeps for a room.
pub(crate) struct Kept {
    pub(crate) seq: u64,
    /// How long ago it was stored, in milliseconds.
    pub(crate) age_ms: u64,
    pub(crate) frame: PreparedFrame,
    pub(crate) from: From,
}

impl Hub {
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
}

/// Up to which number a room in `here`, an epoch with these `before` it, has the messages of
/// another life of it with the epochs `elder`; `None` if the lives have nothing in common. A Redis
/// that takes over late knows an epoch before `here` and not `here` itself.
fn common_until(here: Epoch, before: &[(Epoch, u64)], elder: &[(Epoch, u64)]) -> Option<u64> {
    let there = |epoch| elder.iter().find(|(of, _)| *of == epoch).map(|(_, upto)| *upto);
    let both = before.iter().filter_map(|(epoch, upto)| Some(there(*epoch)?.min(*upto)));
    there(here).or_else(|| both.max())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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
    fn a_sweep_leaves_a_room_for_the_client_that_it_was_brought_for() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        bench.hub.rooms.share();
        let position = Position { epoch: epoch(1), seq: 0 };
        let room = bench.hub.bring_room(&name("a"), position, vec![], kept(1..1)).expect("a place");
        bench.hub.sweep();
        let mut client = bench.client(0, false);
        client.join("a").expect("it is there");
        client.leave("a");
        bench.hub.sweep();
        assert!(bench.hub.rooms.drop_mirror(&room), "the engine drops it");
    }

    #[test]
    fn a_position_before_the_mirror_begins_is_not_recovered() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (engine, _asked) = Engine::new(Uuid::new_v4(), vec![String::new()], Box::new(|| {}));
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
