//! What is announced to all nodes and changes Redis: histories that are dropped, and revocations,
//! which nodes that start later must know as well.

use bytes::Bytes;

use super::{
    Core,
    sent::Sent,
    words::{bytes, number},
};
use crate::{
    engine::link::order::Value,
    hub::{announced::Announced, names::RoomName},
};

/// What is said to all nodes begins with this.
const ANNOUNCED: &[u8] = b"C\n";

impl Core {
    /// Does in Redis what is announced to all nodes.
    pub(super) fn carry_out_in_redis(&mut self, payload: &Bytes) {
        let Some(text) = payload.strip_prefix(ANNOUNCED) else { return };
        match serde_json::from_slice(text) {
            Ok(Announced::Revoke { kept_until_s, .. }) => {
                let (key, text) = (self.names.revocations(), payload.slice(ANNOUNCED.len()..));
                let args = vec![bytes("HSET"), key, text, number(kept_until_s)];
                // In each shard, so that a node learns of it that reaches any.
                for shard in 0..self.shards.len() {
                    self.command(shard, args.clone(), Sent::Nothing("keeping a revocation"));
                }
            }
            Ok(Announced::ClearHistory { room }) => {
                if let Ok(room) = RoomName::new(&room) {
                    let shard = self.shard_of(&room);
                    let stream = self.names.stream(&room);
                    let args = vec![bytes("XTRIM"), stream, bytes("MAXLEN"), bytes("0")];
                    self.command(shard, args, Sent::Nothing("dropping a history"));
                }
            }
            Ok(Announced::Close { .. } | Announced::CloseUser { .. }) | Err(_) => {}
        }
    }

    /// Asks for the revocations of all nodes.
    pub(super) fn learn_revocations(&mut self, shard: usize) {
        let args = vec![bytes("HGETALL"), self.names.revocations()];
        self.command(shard, args, Sent::Revocations);
    }

    /// Carries out those that still hold, and forgets the others.
    pub(super) fn on_revocations(&mut self, shard: usize, answer: Option<&Value>) {
        let now_s = self.hub.clock.since_1970().as_secs();
        let mut over = vec![bytes("HDEL"), self.names.revocations()];
        for pair in answer.and_then(Value::list).unwrap_or_default().chunks_exact(2) {
            let Some(text) = pair[0].bytes() else { continue };
            let holds = pair[1].u64().is_some_and(|until_s| until_s > now_s);
            match serde_json::from_slice(text) {
                Ok(revocation) if holds => self.hub.carry_out(revocation),
                _ => over.push(text.clone()),
            }
        }
        if over.len() > 2 {
            self.command(shard, over, Sent::Nothing("forgetting revocations"));
        }
    }
}
