//! The rooms of a node: brought, kept up to date, repaired, and let go.

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    Core,
    mirrored_room::{Awaited, AwaitedRoom, HELD_BYTES_MAX, HELD_MAX, MirroredRoom, Opened, Stage},
    opened::places,
    sent::Sent,
    waits::{KEPT_MS, RENEWED_EVERY_MS},
    words::{bytes, flag, new_epoch, number, numbered},
};
use crate::{
    engine::{
        link::order::{Order, Value},
        scripts,
    },
    hub::{
        envelope::Envelope, error::RoomError, mirror::arrivals::Arrived, names::RoomName,
        room::Room,
    },
    store::{HistoryBounds, Position},
};

/// How long a room that nobody of this node is in stays here, for those who come back.
const LINGER_MS: u64 = 30_000;

/// How long it takes until a room is asked for again that Redis has refused to open.
const REFUSED_WAIT_MS: u64 = 1000;

/// The most rooms that one turn looks at.
const LOOKED_AT_MAX: usize = 256;

impl Core {
    /// Brings a room to this node, up to a position if there is one. `for_bringing` is told when it
    /// is here. Returns whether it is already.
    pub(super) fn bring(
        &mut self,
        name: &RoomName,
        upto: Option<Position>,
        may_make: bool,
        for_bringing: Option<u64>,
    ) -> bool {
        let shard = self.shard_of(name);
        let is_up = self.is_up(shard);
        if let Some(known) = self.rooms.get_mut(name) {
            let (mut is_gone, mut is_behind) = (false, false);
            if let Some(room) = &known.room {
                let state = room.state.lock();
                is_gone = state.is_gone();
                is_behind = upto.is_some_and(|upto| state.is_behind(upto));
            }
            if known.stage == Stage::Open && !is_gone {
                known.vacant_since_ms = None;
                if !is_behind {
                    return true;
                }
            }
            known.may_make |= may_make;
            known.waiting.extend(for_bringing);
            if known.stage == Stage::Open {
                // Either it is behind, or the hub has let go of it; its channel is still subscribed
                // to.
                if is_gone {
                    known.room = None;
                }
                self.open(name);
            }
            return false;
        }
        let channel = self.names.channel(name);
        let stage = if is_up { Stage::Subscribing } else { Stage::Lost };
        let room = MirroredRoom {
            stage,
            room: None,
            channel: channel.clone(),
            may_make,
            waiting: for_bringing.into_iter().collect(),
            held: VecDeque::new(),
            held_bytes: 0,
            has_missed: false,
            doubted: None,
            awaited: Awaited::Nothing,
            is_due: false,
            waiting_rooms: Vec::new(),
            past: None,
            version: 0,
            refused_since_ms: None,
            vacant_since_ms: None,
            renewed_ms: self.hub.now_ms(),
        };
        self.rooms.insert(name.clone(), room);
        self.by_channel.insert(channel.clone(), name.clone());
        if is_up {
            self.shards[shard].orders.push(Order::Subscribe(vec![channel]));
        }
        false
    }

    /// Asks for a room that is subscribed to.
    pub(super) fn open(&mut self, name: &RoomName) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        known.stage = Stage::Opening;
        let since = known.room.as_ref().map(|room| room.state.lock().history.position());
        self.open_since(name, since);
    }

    /// Asks again how a room is that is open, because this node may not have heard of it all.
    pub(super) fn reopen(&mut self, name: &RoomName) {
        let is_listening = self.shards[self.shard_of(name)].is_listening;
        if is_listening && self.rooms.get(name).is_some_and(|of| of.stage == Stage::Open) {
            self.open(name);
        }
    }

    fn open_since(&mut self, name: &RoomName, since: Option<Position>) {
        let Some(known) = self.rooms.get(name) else { return };
        let shard = self.shard_of(name);
        let names = &self.names;
        let keys = vec![names.hash(name), names.stream(name), names.presence(name), names.rooms()];
        let args = vec![
            bytes(name.as_str()),
            self.shards[shard].generation(),
            new_epoch(),
            flag(known.may_make),
            number(since.map_or(0, |since| since.seq)),
            number(self.bounds_of(name).messages_max.max(1)),
            number(self.kept_ms()),
            names.new_rooms(),
        ];
        let sent = Sent::Open { room: name.clone(), since };
        self.order(shard, &scripts::OPEN, keys, args, sent);
    }

    /// Whether there is a mirror of a room on this node.
    pub(super) fn is_here(&self, name: &RoomName) -> bool {
        self.rooms.get(name).is_some_and(|known| known.room.is_some())
    }

    /// What a room keeps of its messages.
    pub(super) fn bounds_of(&self, name: &RoomName) -> HistoryBounds {
        let room = self.rooms.get(name).and_then(|known| known.room.as_ref());
        match room {
            Some(room) => room.state.lock().bounds,
            None => self.hub.rooms.bounds_of(name),
        }
    }

    /// How long a room is kept in Redis that nobody renews.
    pub(super) fn kept_ms(&self) -> u64 {
        self.hub.limits.history_ms().max(KEPT_MS)
    }

    pub(super) fn on_room_subscribed(&mut self, channel: &Bytes) {
        let Some(name) = self.by_channel.get(channel).cloned() else { return };
        let is_due = |room: &MirroredRoom| room.stage == Stage::Subscribing;
        if self.rooms.get(&name).is_some_and(is_due) {
            self.open(&name);
        }
    }

    /// Takes what Redis says of a room that was asked for.
    pub(super) fn on_opened(
        &mut self,
        name: &RoomName,
        since: Option<Position>,
        answer: Option<Value>,
    ) {
        let Some(known) = self.rooms.get(name) else { return };
        let may_make = known.may_make;
        let Some(answer) = answer else { return self.fail_room(name, RoomError::EngineAway) };
        if answer == Value::Nil && may_make {
            // Since it was asked for, somebody has come who joins it, which makes it.
            return self.open_since(name, since);
        }
        if answer == Value::Nil {
            let args = vec![Bytes::from_static(b"ZREM"), self.names.rooms(), bytes(name.as_str())];
            self.command(self.shard_of(name), args, Sent::Nothing("forgetting a room"));
            return self.fail_room(name, RoomError::NoSuchRoom);
        }
        let Some(opened) = self.read_opened(&answer) else {
            log::error!("engine: the room {name} cannot be read");
            return self.fail_room(name, RoomError::EngineAway);
        };
        let (position, elder) = (opened.position, &opened.elder);
        if let Some(since) = since
            && since.epoch != position.epoch
            && since.seq > 0
            && !elder.iter().any(|(epoch, upto)| *epoch == since.epoch && since.seq <= *upto)
        {
            // What this node has is of another life, so the beginning is wanted as well.
            return self.open_since(name, Some(Position { seq: 0, ..position }));
        }
        let Some(known) = self.rooms.get_mut(name) else { return };
        known.refused_since_ms = None;
        if let Some(doubted) = known.doubted.take().filter(|doubted| *doubted != position.epoch) {
            // What was said before this answer was asked for is not newer than the answer.
            known.past = Some(doubted);
        }
        self.take_in(name, opened, None);
    }

    /// A room is in the hub, up to where Redis has said.
    pub(super) fn finish_opening(&mut self, name: &RoomName, opened: Opened, room: &Arc<Room>) {
        self.take_members(name, room, opened.members, opened.ours);
        let Some(known) = self.rooms.get_mut(name) else { return };
        known.version = opened.version;
        known.vacant_since_ms = None;
        self.take_held(name, None);
    }

    /// Opens a room with the messages that have come meanwhile. `tried` is the room that the first
    /// of them has waited for.
    pub(super) fn take_held(&mut self, name: &RoomName, tried: Option<&AwaitedRoom>) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        known.stage = Stage::Open;
        let held = std::mem::take(&mut known.held);
        known.held_bytes = 0;
        if std::mem::take(&mut known.has_missed) {
            self.hub.rooms.metrics.engine_repairs.add_shared();
            return self.open(name);
        }
        let waiting = std::mem::take(&mut known.waiting);
        self.wake_waiting_rooms(name);
        for (at, payload) in held.into_iter().enumerate() {
            self.take_room_message(name, payload, tried.filter(|_| at == 0));
        }
        waiting.into_iter().for_each(|bringing| self.note_brought(bringing, Ok(())));
    }

    pub(super) fn fail_room(&mut self, name: &RoomName, error: RoomError) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        let waiting = std::mem::take(&mut known.waiting);
        if known.room.is_none() {
            self.let_go(name);
        } else {
            let now_ms = self.hub.now_ms();
            known.stage = Stage::Refused(now_ms);
            known.refused_since_ms.get_or_insert(now_ms);
            known.may_make = true;
            self.wake_waiting_rooms(name);
        }
        waiting.into_iter().for_each(|bringing| self.note_brought(bringing, Err(error)));
    }

    fn let_go(&mut self, name: &RoomName) {
        if let Some(room) = self.rooms.remove(name) {
            self.by_channel.remove(&room.channel);
            self.make_due(room.waiting_rooms);
            let shard = self.shard_of(name);
            if self.is_up(shard) {
                self.shards[shard].orders.push(Order::Unsubscribe(vec![room.channel]));
            }
        }
    }

    /// Takes what came on a room's channel.
    pub(super) fn on_room_message(&mut self, name: &RoomName, payload: Bytes) {
        self.take_room_message(name, payload, None);
    }

    fn take_room_message(&mut self, name: &RoomName, payload: Bytes, tried: Option<&AwaitedRoom>) {
        let Some(known) = self.rooms.get_mut(name) else { return };
        match (known.stage, &known.room) {
            (Stage::Open, Some(room)) if !room.state.lock().is_gone() => {}
            (Stage::Open, _) => {
                // Nobody was in it, and the hub has let go of it.
                return self.let_go(name);
            }
            (Stage::Lost, _) => return,
            (Stage::Subscribing | Stage::Opening | Stage::Refused(_), _) => {
                let bytes = known.held_bytes + payload.len();
                if known.held.len() >= HELD_MAX || bytes > HELD_BYTES_MAX {
                    known.has_missed = true;
                } else {
                    known.held_bytes = bytes;
                    known.held.push_back(payload);
                }
                return;
            }
        }
        let read = match payload.first() {
            Some(b'M') => self.on_published(name, &payload, tried),
            Some(kind @ (b'P' | b'L')) => self.on_presence(name, *kind == b'P', &payload),
            _ => None,
        };
        if read.is_none() {
            log::error!("engine: a message of the room {name} cannot be read, and is passed over");
        }
    }

    fn on_published(
        &mut self,
        name: &RoomName,
        payload: &Bytes,
        tried: Option<&AwaitedRoom>,
    ) -> Option<()> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = (std::str::from_utf8(&payload[1..end]).ok()?, payload.slice(end + 1..));
        let (index, numbers) = head.split_once(' ')?;
        let index: usize = index.parse().ok()?;
        let numbered = numbered(numbers)?;
        let (epoch, seq) = *numbered.get(index)?;
        let room = Arc::clone(self.rooms.get(name)?.room.as_ref()?);
        let (here, is_elder) = {
            let state = room.state.lock();
            let is_elder = state.elder.iter().any(|(elder, _)| *elder == epoch);
            (state.history.position(), is_elder)
        };
        let is_past = is_elder || self.rooms.get(name)?.past == Some(epoch);
        if here.epoch == epoch && seq <= here.seq || here.epoch != epoch && is_past {
            return Some(());
        }
        if here.epoch != epoch || seq != here.seq + 1 {
            self.hold_first(name, payload);
            self.open_anew(name, Some(epoch));
            return Some(());
        }
        let envelope = Envelope::read(&body)?;
        let seqs: Vec<u64> = numbered.iter().map(|(_, seq)| *seq).collect();
        let frame = self.hub.frame_of(&envelope, &seqs);
        let from = envelope.from;
        let others = places(envelope.rooms, &numbered)?;
        if let Some(other) = self.awaited_for(name, &others, tried) {
            self.hold_first(name, payload);
            self.wait_for(name, other, &others, Awaited::ToDeliver);
            return Some(());
        }
        let rooms = self.rooms_at((room, seq), name, &others);
        let is_ours = from.node == self.engine.node;
        let payer = self.sessions.get(&from.client).filter(|_| is_ours).map(|kept| &kept.session);
        let arrived = Arrived { rooms: &rooms, frame, from, payer, age_ms: 0 };
        self.behind |= self.hub.arrive(arrived);
        others.iter().for_each(|(other, _, _)| self.wake_waiting_rooms(other));
        Some(())
    }

    /// Keeps a message until its room is open again. It is the first of those that wait.
    pub(super) fn hold_first(&mut self, name: &RoomName, payload: &Bytes) {
        if let Some(known) = self.rooms.get_mut(name) {
            known.held.push_back(payload.clone());
            known.held_bytes = payload.len();
        }
    }

    /// Asks for all rooms of a shard again, after the link was lost.
    pub(super) fn reopen_rooms(&mut self, shard: usize) {
        let spread = self.spread;
        let mut channels = Vec::with_capacity(self.rooms.len() / spread.count());
        for (_, room) in self.rooms.iter_mut().filter(|(name, _)| spread.of_room(name) == shard) {
            room.stage = Stage::Subscribing;
            // Whoever is in it stays in it, whatever Redis has lost.
            room.may_make |= room.room.is_some();
            channels.push(room.channel.clone());
        }
        for batch in channels.chunks(1024) {
            self.shards[shard].orders.push(Order::Subscribe(batch.to_vec()));
        }
    }

    pub(super) fn lose_rooms(&mut self, shard: usize) {
        let spread = self.spread;
        for (_, room) in self.rooms.iter_mut().filter(|(name, _)| spread.of_room(name) == shard) {
            room.stage = Stage::Lost;
            room.refused_since_ms = None;
            room.held.clear();
            room.held_bytes = 0;
            room.has_missed = false;
            room.awaited = Awaited::Nothing;
            room.is_due = false;
            room.waiting_rooms.clear();
        }
        self.to_go_on.retain(|name| spread.of_room(name) != shard);
    }

    /// Lets go of the rooms that nobody is in, and renews the others. Each call looks at a bounded
    /// number.
    pub(super) fn look_at_rooms(&mut self, now_ms: u64) {
        let from = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut unused = Vec::new();
        let mut renewed = Vec::new();
        let mut refused = Vec::new();
        let (mut count, mut last) = (0, None);
        for (name, known) in self.rooms.range_mut((from, Bound::Unbounded)).take(LOOKED_AT_MAX) {
            count += 1;
            last = Some(name);
            if let Stage::Refused(at_ms) = known.stage
                && now_ms.saturating_sub(at_ms) >= REFUSED_WAIT_MS
            {
                refused.push(name.clone());
            }
            let Some(room) = known.room.as_ref().filter(|_| known.stage == Stage::Open) else {
                continue;
            };
            let state = room.state.lock();
            let is_vacant = !room.is_default && state.is_vacant();
            let is_gone = state.is_gone();
            drop(state);
            let since_ms = *known.vacant_since_ms.get_or_insert(now_ms);
            if !is_vacant {
                known.vacant_since_ms = None;
            } else if now_ms.saturating_sub(since_ms) >= LINGER_MS && known.waiting.is_empty() {
                unused.push((name.clone(), Arc::clone(room)));
            }
            if is_gone {
                unused.push((name.clone(), Arc::clone(room)));
            } else if now_ms.saturating_sub(known.renewed_ms) >= RENEWED_EVERY_MS {
                known.renewed_ms = now_ms;
                renewed.push(name.clone());
            }
        }
        self.looked_at = last.filter(|_| count == LOOKED_AT_MAX).cloned();
        for name in refused {
            self.open(&name);
        }
        for (name, room) in unused {
            if self.hub.rooms.drop_mirror(&room) {
                self.let_go(&name);
            }
        }
        for name in renewed {
            let names = &self.names;
            let keys = [names.hash(&name), names.stream(&name), names.presence(&name)];
            let shard = self.shard_of(&name);
            for key in keys {
                self.renew(shard, key, self.kept_ms());
            }
        }
    }

    pub(super) fn renew(&mut self, shard: usize, key: Bytes, kept_ms: u64) {
        let args = vec![Bytes::from_static(b"PEXPIRE"), key, number(kept_ms)];
        self.command(shard, args, Sent::Nothing("renewing"));
    }
}
