//! What Redis must be told again, because it refused, or because the link was lost before it
//! answered. Without it, clients that have left would be shown for ever.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Core,
    kept_session::KeptSession,
    sent::Sent,
    undone::Undone,
    words::{bytes, number},
};
use crate::engine::{link::order::Value, scripts};

impl Core {
    /// Notes an order that was refused or lost.
    pub(super) fn note_undone(&mut self, shard: usize, sent: &Sent) {
        let undone = &mut self.shards[shard].undone;
        match sent {
            Sent::Show(client) => _ = undone.unwritten.insert(*client),
            Sent::Hide { room, client, fence } => {
                undone.hidden.insert((room.clone(), *client), *fence);
            }
            Sent::End { client, fence } => _ = undone.ended.insert(*client, *fence),
            Sent::Save { client, .. } => {
                if let Some(kept) = self.sessions.get_mut(client) {
                    *kept.written_in(shard) = None;
                    undone.unwritten.insert(*client);
                }
            }
            Sent::Return(client) => _ = undone.returned.insert(*client),
            _ => {}
        }
    }

    /// Notes a session that this node may have taken from another one and does not keep.
    pub(super) fn note_returned(&mut self, client: Uuid) {
        // Any of them may know a part of it.
        for shard in &mut self.shards {
            shard.undone.returned.insert(client);
        }
    }

    /// Tells a shard again what it does not know.
    pub(super) fn tell_again(&mut self, shard: usize) {
        let undone = std::mem::take(&mut self.shards[shard].undone);
        let Undone { hidden, ended, unwritten, returned } = undone;
        for client in unwritten {
            if let Some(kept) = self.sessions.get(&client) {
                let session = Arc::clone(&kept.session);
                self.save(&session, 1 << shard);
            }
        }
        for ((room, client), fence) in hidden {
            let is_in = self.sessions.get(&client).is_some_and(|kept| kept.rooms.contains(&room));
            if !is_in {
                self.show(&room, client, fence, None);
            }
        }
        for (client, fence) in ended {
            if !self.sessions.contains_key(&client) {
                self.tell_end(shard, client, fence);
            }
        }
        for client in returned {
            if self.is_bringing(client) {
                self.shards[shard].undone.returned.insert(client);
            } else if !self.sessions.contains_key(&client) {
                self.tell_return(shard, client);
            }
        }
    }

    /// Asks which sessions a shard takes for this node's.
    pub(super) fn list_own_sessions(&mut self, shard: usize) {
        let node = self.node.clone();
        let args = vec![bytes("SMEMBERS"), self.names.sessions_of(&node)];
        self.command(shard, args, Sent::Own);
    }

    /// Gives back those that this node does not have: their end was lost, as happens when another
    /// server takes over from Redis. Writes down those that came back to it by another shard: this
    /// one knows them by an earlier fence.
    pub(super) fn on_own_sessions(&mut self, shard: usize, answer: Option<&Value>) {
        for client in answer.and_then(Value::list).unwrap_or_default() {
            let client = client.text().and_then(|text| Uuid::try_parse(text).ok());
            let Some(client) = client else { continue };
            match self.sessions.contains_key(&client) {
                true => self.write_part(shard, client),
                false => _ = self.shards[shard].undone.returned.insert(client),
            }
        }
    }

    /// Writes a session of this node down in a shard that has a part of it from an earlier time,
    /// which this node did not know of.
    pub(super) fn write_part(&mut self, shard: usize, client: Uuid) {
        let unknown = |kept: &&mut KeptSession| !kept.is_known_to(shard);
        if let Some(kept) = self.sessions.get_mut(&client).filter(unknown) {
            *kept.written_in(shard) = None;
            let session = Arc::clone(&kept.session);
            self.save(&session, 1 << shard);
        }
    }

    fn tell_return(&mut self, shard: usize, client: Uuid) {
        let node = self.node.clone();
        let keys =
            vec![self.names.session(client), self.names.sessions_of(&node), self.names.orphans()];
        let args = vec![number(client), bytes(&node), number(self.hub.limits.resume_window_ms())];
        self.order(shard, &scripts::RETURN, keys, args, Sent::Return(client));
    }
}
