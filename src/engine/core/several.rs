//! Messages to several rooms, which keep their place in each of them.
//!
//! Such a message is delivered once, with its number in each of its rooms. So it waits until those
//! of them that are on this node have come up to it: one may be about to be opened, or to be opened
//! again because something of it was missed, or have missed something that nobody has noticed yet.
//! As every message has its numbers from one script, rooms never wait for each other in a circle.

use std::sync::Arc;

use super::{
    Core,
    mirrored_room::{Awaited, AwaitedRoom, KeptAt, MirroredRoom, Opened, Place, Stage},
};
use crate::{
    hub::{mirror::arrivals::Arrived, names::RoomName, room::Room},
    store::{Epoch, Position},
};

/// How long messages wait at most for a room that Redis refuses to open.
const REFUSED_WAITED_FOR_MAX_MS: u64 = 60_000;

impl Core {
    /// Takes what Redis has said of a room into the hub, as far as other rooms allow. `tried` is
    /// the room that was waited for.
    pub(super) fn take_in(
        &mut self,
        name: &RoomName,
        mut opened: Opened,
        mut tried: Option<AwaitedRoom>,
    ) {
        loop {
            let rest = opened.kept.split_off(self.first_of_several(name, &opened));
            let single = std::mem::replace(&mut opened.kept, rest);
            let next_seq = opened.kept.front().map(|next| next.kept.seq);
            let seq = next_seq.map_or(opened.position.seq, |next| next - 1);
            let position = Position { seq, ..opened.position };
            let kept = single.into_iter().map(|message| message.kept).collect();
            let room = match self.hub.bring_room(name, position, opened.elder.clone(), kept) {
                Ok(room) => room,
                Err(error) => return self.fail_room(name, error),
            };
            let Some(known) = self.rooms.get_mut(name) else { return };
            known.room = Some(Arc::clone(&room));
            self.wake_waiting_rooms(name);
            let Some(KeptAt { kept, others }) = opened.kept.pop_front() else {
                return self.finish_opening(name, opened, &room);
            };
            if let Some(other) = self.awaited_for(name, &others, tried.as_ref()) {
                opened.kept.push_front(KeptAt { kept, others: others.clone() });
                self.wait_for(name, other, &others, |other| Awaited::ToTakeIn(opened, other));
                return;
            }
            tried = None;
            let rooms = self.rooms_at((room, kept.seq), name, &others);
            let (frame, from, age_ms) = (kept.frame, kept.from, kept.age_ms);
            let arrived = Arrived { rooms: &rooms, frame, from, payer: None, age_ms };
            self.behind |= self.hub.arrive(arrived);
            others.iter().for_each(|(other, _, _)| self.wake_waiting_rooms(other));
        }
    }

    /// The place of the first message, among those that this node lacks, that has another room
    /// here.
    fn first_of_several(&self, name: &RoomName, opened: &Opened) -> usize {
        let all = opened.kept.len();
        let Some(room) = self.rooms.get(name).and_then(|known| known.room.as_ref()) else {
            return all;
        };
        let here = room.state.lock().history.position();
        let upto_here = match opened.elder.iter().find(|(epoch, _)| *epoch == here.epoch) {
            _ if here.epoch == opened.position.epoch => here.seq,
            Some((_, upto)) => here.seq.min(*upto),
            None => 0,
        };
        let is_here = |(other, _, _): &Place| other != name && self.is_here(other);
        let mut kept = opened.kept.iter();
        let first = kept
            .position(|message| message.kept.seq > upto_here && message.others.iter().any(is_here));
        first.unwrap_or(all)
    }

    /// A room that has to come up to its number of a message first; `None` if the message may be
    /// delivered. `tried` was waited for already: once it was asked for, it is not waited for again
    /// when it is open.
    pub(super) fn awaited_for(
        &self,
        name: &RoomName,
        others: &[Place],
        tried: Option<&AwaitedRoom>,
    ) -> Option<AwaitedRoom> {
        let was_asked =
            |other: &RoomName| tried.is_some_and(|tried| tried.is_asked && tried.name == *other);
        let now_ms = self.hub.now_ms();
        let is_behind = |(other, epoch, seq): &&Place| {
            let Some(known) = self.rooms.get(other).filter(|_| other != name) else { return false };
            let is_opening = matches!(known.stage, Stage::Subscribing | Stage::Opening);
            let Some(room) = &known.room else {
                // Whoever joins it may be in this room, and would get the message by both.
                return is_opening && !self.waits_for(other, name);
            };
            let state = room.state.lock();
            let here = state.history.position();
            let at = state.in_this_epoch(Position { epoch: *epoch, seq: *seq });
            let is_past =
                known.past == Some(*epoch) || state.elder.iter().any(|(elder, _)| elder == epoch);
            let is_behind = match here.epoch == at.epoch {
                true => here.seq + 1 < *seq,
                false => !is_past,
            };
            let may_wait = match known.stage {
                Stage::Open => !was_asked(other),
                Stage::Refused(_) => known.refused_ms(now_ms) < REFUSED_WAITED_FOR_MAX_MS,
                Stage::Subscribing | Stage::Opening => true,
                Stage::Lost => false,
            };
            is_behind && may_wait && !state.is_gone() && !self.waits_for(other, name)
        };
        let (other, _, _) = others.iter().find(is_behind)?;
        let stage = self.rooms.get(other)?.stage;
        let is_asked_next = matches!(stage, Stage::Open | Stage::Refused(_));
        Some(AwaitedRoom { name: other.clone(), is_asked: is_asked_next || was_asked(other) })
    }

    /// Whether a room waits for another one, at last.
    fn waits_for(&self, room: &RoomName, other: &RoomName) -> bool {
        let mut at = room;
        let waits = |known: &&MirroredRoom| !known.is_due;
        while let Some(next) = self.rooms.get(at).filter(waits).and_then(|of| of.awaited.room()) {
            if next == other {
                return true;
            }
            at = next;
        }
        false
    }

    /// Has a room wait until another one has come up to a message.
    pub(super) fn wait_for(
        &mut self,
        name: &RoomName,
        room: AwaitedRoom,
        places: &[Place],
        awaited: impl FnOnce(AwaitedRoom) -> Awaited,
    ) {
        let other = &room.name.clone();
        let Some(known) = self.rooms.get_mut(name) else { return };
        known.stage = Stage::Opening;
        known.awaited = awaited(room);
        let Some(known) = self.rooms.get_mut(other) else { return };
        known.waiting_rooms.push(name.clone());
        if known.stage == Stage::Open {
            let epoch = places.iter().find(|(place, _, _)| place == other).map(|place| place.1);
            self.open_anew(other, epoch);
        }
    }

    /// Opens a room again of which something was missed. `doubted` is the epoch of the message that
    /// shows it.
    pub(super) fn open_anew(&mut self, name: &RoomName, doubted: Option<Epoch>) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        self.hub.rooms.metrics.engine_repairs.add_shared();
        known.doubted = doubted;
        known.may_make = true;
        self.open(name);
    }

    /// The rooms in which a message is delivered now. In those that do not come up to it, members
    /// are told first what they would take for heard by its number.
    pub(super) fn rooms_at(
        &self,
        own: (Arc<Room>, u64),
        name: &RoomName,
        others: &[Place],
    ) -> Vec<(Arc<Room>, u64)> {
        let mut rooms = vec![own];
        for (other, epoch, seq) in others.iter().filter(|(other, _, _)| other != name) {
            let Some(room) = self.rooms.get(other).and_then(|known| known.room.as_ref()) else {
                continue;
            };
            let state = room.state.lock();
            let here = state.history.position();
            // After a failover it may still have the number that it got before.
            let at = state.in_this_epoch(Position { epoch: *epoch, seq: *seq });
            drop(state);
            if here.epoch == at.epoch && here.seq + 1 == *seq {
                rooms.push((Arc::clone(room), *seq));
            } else if here.epoch == at.epoch {
                self.hub.warn_of_gap(room, seq.saturating_sub(1));
            }
        }
        rooms
    }

    /// Has those that wait for a room look again, because it has come up to more messages.
    pub(super) fn wake_waiting_rooms(&mut self, name: &RoomName) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        let waiting = std::mem::take(&mut known.waiting_rooms);
        self.make_due(waiting);
    }

    /// Has rooms go on that have waited for another one.
    pub(super) fn make_due(&mut self, rooms: Vec<RoomName>) {
        for name in rooms {
            if let Some(known) = self.rooms.get_mut(&name) {
                known.is_due = true;
                self.to_go_on.push_back(name);
            }
        }
    }

    /// Goes on with the rooms that have waited for others, until none can.
    pub(super) fn go_on_with_rooms(&mut self) {
        while let Some(name) = self.to_go_on.pop_front() {
            let Some(known) = self.rooms.get_mut(&name) else { continue };
            known.is_due = false;
            match std::mem::replace(&mut known.awaited, Awaited::Nothing) {
                Awaited::Nothing => {}
                Awaited::ToTakeIn(opened, other) => self.take_in(&name, opened, Some(other)),
                Awaited::ToDeliver(other) => self.take_held(&name, Some(&other)),
            }
        }
    }
}
