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
    /// Renews the lease of this node, and does what is due at times.
    pub(super) fn beat(&mut self, now_ms: u64) {
        if self.beats.beat_ms == 0 || now_ms.saturating_sub(self.beats.beat_ms) >= BEAT_MS {
            self.beats.beat_ms = now_ms.max(1);
            let node = self.node.clone();
            let keys = vec![self.names.nodes(), self.names.about_node(&node)];
            let args = vec![
                bytes(&node),
                number(LEASE_MS),
                (self.settings.about)().into(),
                self.names.prefix(),
                number(NODES_MAX),
            ];
            self.order(&scripts::BEAT, keys, args, Sent::Beat);
            let own = self.names.node(self.engine.node);
            let args = vec![bytes("PUBLISH"), own, bytes("B")];
            self.command(args, Sent::Nothing("speaking to itself"));
            self.renew_sessions(now_ms);
            self.tell_again();
        }
        if now_ms.saturating_sub(self.beats.reaped_ms) >= REAP_MS {
            self.beats.reaped_ms = now_ms;
            self.reap();
        }
    }

    fn reap(&mut self) {
        let (keys, args) =
            (vec![self.names.orphans()], vec![self.names.prefix(), number(AT_ONCE_MAX)]);
        self.order(&scripts::REAP, keys, args, Sent::Reap);
    }

    pub(super) fn on_reaped(&mut self, answer: Option<&Value>) {
        let ended = answer.and_then(Value::u64).unwrap_or_default();
        self.hub.sessions.metrics.sessions_expired.add_many_shared(ended);
        if ended == AT_ONCE_MAX as u64 {
            self.reap();
        }
    }

    pub(super) fn on_beat(&mut self, answer: Option<&Value>) {
        let Some([gone, known, now_ms]) = answer.and_then(Value::list) else { return };
        if let Some(told_ms) = now_ms.u64() {
            self.redis_clock.correct(told_ms, self.beats.beat_ms, self.hub.now_ms());
        }
        let known = known.list().unwrap_or_default().iter().filter_map(Value::text);
        self.engine.set_nodes(known.map(str::to_owned).collect());
        for node in gone.list().unwrap_or_default() {
            let Some(node) = node.text() else { continue };
            if node != self.node {
                log::warn!("engine: the node {node} is gone");
                self.orphan(node, true);
            }
        }
    }

    fn orphan(&mut self, node: &str, goes_by_lease: bool) {
        let keys = vec![self.names.nodes(), self.names.sessions_of(node), self.names.orphans()];
        let args = vec![
            bytes(node),
            self.names.prefix(),
            number(self.settings.resume_window_ms),
            number(AT_ONCE_MAX),
            flag(goes_by_lease),
        ];
        self.order(&scripts::ORPHAN, keys, args, Sent::Orphan(node.to_owned()));
    }

    pub(super) fn on_orphaned(&mut self, node: &str, answer: Option<&Value>) {
        let left = answer.and_then(Value::list).and_then(|of| of.first()?.u64());
        let is_own = node == self.node;
        if left.is_some_and(|left| left > 0) {
            self.orphan(node, !is_own);
        }
    }

    /// Leaves the sessions of this node to the others.
    pub(crate) fn leave(&mut self) {
        if self.is_listening {
            while self.has_changes() {
                self.save_changed();
            }
            self.orphan(&self.node.clone(), false);
        }
    }

    /// Whether Redis has answered everything.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_up() || self.sent.is_empty()
    }

    pub(super) fn on_subscribed(&mut self, channel: &Bytes) {
        self.beats.heard_ms = self.hub.now_ms();
        if !self.is_listening && *channel == self.names.node(self.engine.node) {
            self.go_on();
        }
        self.on_room_subscribed(channel);
    }

    pub(super) fn on_message(&mut self, channel: &Bytes, payload: Bytes) {
        self.beats.heard_ms = self.hub.now_ms();
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
            b'C' => self.hub.carry_out(serde_json::from_slice(body).ok()?),
            _ => return None,
        }
        Some(())
    }
}
