//! What keeps the nodes together: leases, the sessions of nodes that are gone, and what is said to
//! all.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    beats::{BEAT_MS, LEASE_MS},
    sent::Sent,
    words::{bytes, flag, number},
};
use crate::{
    engine::{link::order::Value, scripts},
    hub::{envelope::Envelope, names::RoomName},
};

/// How often sessions are ended that nobody has taken up in time.
const REAP_MS: u64 = 1000;

/// The most nodes that operators are told of.
const NODES_MAX: usize = 1000;

/// The most sessions of a node that are taken up, or ended, at once.
const AT_ONCE_MAX: usize = 500;

impl Core {
    /// Renews the lease of this node in a shard, and does what is due at times.
    pub(super) fn beat(&mut self, shard: usize, now_ms: u64) {
        let beats = &mut self.shards[shard].beats;
        if beats.beat_ms == 0 || now_ms.saturating_sub(beats.beat_ms) >= BEAT_MS {
            beats.beat_ms = now_ms.max(1);
            let node = self.node.clone();
            let keys = vec![self.names.nodes(), self.names.about_node(&node)];
            let args = vec![
                bytes(&node),
                number(LEASE_MS),
                (self.settings.about)().into(),
                self.names.prefix(),
                number(NODES_MAX),
            ];
            self.order(shard, &scripts::BEAT, keys, args, Sent::Beat);
            let own = self.names.node(self.engine.node);
            let args = vec![bytes("PUBLISH"), own, bytes("B")];
            self.command(shard, args, Sent::Nothing("speaking to itself"));
            if let Some(mark) = &self.shards[shard].mark {
                let args = vec![bytes("GET"), mark.key.clone()];
                self.command(shard, args, Sent::Mark);
            }
            // It looks at all sessions, for all shards.
            if shard == self.speaker() {
                self.renew_sessions(now_ms);
            }
            self.tell_again(shard);
        }
        let beats = &mut self.shards[shard].beats;
        if now_ms.saturating_sub(beats.reaped_ms) >= REAP_MS {
            beats.reaped_ms = now_ms;
            self.reap(shard);
        }
    }

    /// Renews what a shard keeps of the list in which it stands.
    pub(super) fn on_mark(&mut self, index: usize, answer: Option<&Value>) {
        let shard = &mut self.shards[index];
        let (Some(mark), Some(answer)) = (&shard.mark, answer) else { return };
        let kept_ms = number(mark.kept_ms);
        let args = match answer {
            Value::Nil => {
                let (key, text) = (mark.key.clone(), mark.text.clone());
                vec![bytes("SET"), key, text, bytes("NX"), bytes("PX"), kept_ms]
            }
            Value::Bytes(known) if *known == mark.text => {
                vec![bytes("PEXPIRE"), mark.key.clone(), kept_ms]
            }
            Value::Bytes(known) => {
                // The link is not made again as long as this is so.
                shard.useless = Some(mark.told_other(known));
                return;
            }
            Value::Int(_) | Value::List(_) => return,
        };
        self.command(index, args, Sent::Nothing("keeping the list of shards"));
    }

    fn reap(&mut self, shard: usize) {
        let (keys, args) =
            (vec![self.names.orphans()], vec![self.names.prefix(), number(AT_ONCE_MAX)]);
        self.order(shard, &scripts::REAP, keys, args, Sent::Reap);
    }

    pub(super) fn on_reaped(&mut self, shard: usize, answer: Option<&Value>) {
        let Some([due, ended]) = answer.and_then(Value::list) else { return };
        self.hub.sessions.metrics.sessions_expired.add_many_shared(ended.u64().unwrap_or_default());
        if due.u64() == Some(AT_ONCE_MAX as u64) {
            self.reap(shard);
        }
    }

    pub(super) fn on_beat(&mut self, index: usize, answer: Option<&Value>) {
        let Some([gone, known, now_ms]) = answer.and_then(Value::list) else { return };
        if let Some(told_ms) = now_ms.u64() {
            let shard = &mut self.shards[index];
            shard.redis_clock.correct(told_ms, shard.beats.beat_ms, self.hub.now_ms());
        }
        if index == self.speaker() {
            let known = known.list().unwrap_or_default().iter().filter_map(Value::text);
            self.engine.set_nodes(known.map(str::to_owned).collect());
        }
        for node in gone.list().unwrap_or_default() {
            let Some(node) = node.text() else { continue };
            if node != self.node {
                log::warn!("engine: {}the node {node} is gone", self.shards[index].label);
                self.orphan(index, node, true);
            }
        }
    }

    fn orphan(&mut self, shard: usize, node: &str, goes_by_lease: bool) {
        let keys = vec![self.names.nodes(), self.names.sessions_of(node), self.names.orphans()];
        let args = vec![
            bytes(node),
            self.names.prefix(),
            number(self.hub.limits.resume_window_ms()),
            number(AT_ONCE_MAX),
            flag(goes_by_lease),
        ];
        self.order(shard, &scripts::ORPHAN, keys, args, Sent::Orphan(node.to_owned()));
    }

    pub(super) fn on_orphaned(&mut self, shard: usize, node: &str, answer: Option<&Value>) {
        let left = answer.and_then(Value::list).and_then(|of| of.first()?.u64());
        let is_own = node == self.node;
        if left.is_some_and(|left| left > 0) {
            self.orphan(shard, node, !is_own);
        }
    }

    /// Leaves the sessions of this node to the others.
    pub(crate) fn leave(&mut self) {
        while self.has_changes() {
            self.save_changed();
        }
        for shard in 0..self.shards.len() {
            if self.shards[shard].is_listening {
                self.orphan(shard, &self.node.clone(), false);
            }
        }
    }

    /// Whether Redis has answered everything.
    pub(crate) fn is_done(&self) -> bool {
        self.shards.iter().all(|shard| !shard.is_up() || shard.sent.is_empty())
    }

    pub(super) fn on_subscribed(&mut self, index: usize, channel: &Bytes) {
        let shard = &mut self.shards[index];
        shard.beats.heard_ms = self.hub.now_ms();
        if !shard.is_listening && *channel == self.names.node(self.engine.node) {
            self.go_on(index);
        }
        self.on_room_subscribed(channel);
    }

    pub(super) fn on_message(&mut self, shard: usize, channel: &Bytes, payload: Bytes) {
        self.shards[shard].beats.heard_ms = self.hub.now_ms();
        if let Some(name) = self.by_channel.get(channel).cloned() {
            return self.on_room_message(&name, payload);
        }
        if *channel == self.names.new_rooms() {
            let name = std::str::from_utf8(&payload).ok().map(RoomName::new);
            if let Some(Ok(name)) = name
                && self.hub.rooms.is_awaited(&name)
            {
                self.bring(&name, None, false, None);
            }
            return;
        }
        if self.on_said(&payload).is_none() {
            log::error!("engine: a message of another node cannot be read, and is passed over");
        }
    }

    /// Takes what another node, or this one, says to this one or to all.
    fn on_said(&mut self, payload: &Bytes) -> Option<()> {
        let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
        let head = std::str::from_utf8(payload.get(1..end)?).ok()?;
        let body = payload.get(end + 1..).unwrap_or_default();
        match payload.first()? {
            b'B' => {}
            b'X' => {
                let (client, fence) = head.split_once(' ')?;
                self.give_up(Uuid::try_parse(client).ok()?, fence.parse().ok()?);
            }
            b'D' => {
                let (client, seq) = head.split_once(' ')?;
                let (client, seq) = (Uuid::try_parse(client).ok()?, seq.parse().ok()?);
                self.on_direct(client, seq, body)?;
            }
            b'A' => {
                let route = head.parse().ok()?;
                let envelope = Envelope::read(body)?;
                let frame = self.hub.frame_of(&envelope, &[0]);
                self.behind |= self.hub.arrive_for_all(route, frame, &envelope.from);
            }
            b'P' => self.hub.take_post(head, body)?,
            b'R' => self.hub.take_post_answer(head)?,
            b'C' => self.hub.carry_out(serde_json::from_slice(body).ok()?),
            _ => return None,
        }
        Some(())
    }
}
