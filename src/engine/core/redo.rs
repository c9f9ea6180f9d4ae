//! What Redis must be told again, because it refused, or because the link was lost before it
//! answered. Without it, clients that have left would be shown for ever.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Core,
    sent::Sent,
    undone::Undone,
    words::{bytes, number},
};
use crate::engine::{link::order::Value, scripts};

impl Core {
    /// Notes an order that was refused or lost.
    pub(super) fn note_undone(&mut self, sent: &Sent) {
        match sent {
            Sent::Show(client) => _ = self.undone.unwritten.insert(*client),
            Sent::Hide { room, client, fence } => {
                self.undone.hidden.insert((room.clone(), *client), *fence);
            }
            Sent::End { client, fence } => _ = self.undone.ended.insert(*client, *fence),
            Sent::Save { client, .. } => {
                if let Some(kept) = self.sessions.get_mut(client) {
                    kept.written = None;
                    self.undone.unwritten.insert(*client);
                }
            }
            Sent::Return(client) => _ = self.undone.returned.insert(*client),
            _ => {}
        }
    }

    /// Notes a session that this node may have taken from another one and does not keep.
    pub(super) fn note_returned(&mut self, client: Uuid) {
        self.undone.returned.insert(client);
    }

    /// Tells Redis again what it does not know.
    pub(super) fn tell_again(&mut self) {
        let Undone { hidden, ended, unwritten, returned } = std::mem::take(&mut self.undone);
        for client in unwritten {
            if let Some(kept) = self.sessions.get(&client) {
                let session = Arc::clone(&kept.session);
                self.save(&session, true);
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
                self.tell_end(client, fence);
            }
        }
        for client in returned {
            if self.is_bringing(client) {
                self.undone.returned.insert(client);
            } else if !self.sessions.contains_key(&client) {
                self.tell_return(client);
            }
        }
    }

    /// Asks which sessions Redis takes for this node's.
    pub(super) fn list_own_sessions(&mut self) {
        let node = self.node.clone();
        let args = vec![bytes("SMEMBERS"), self.names.sessions_of(&node)];
        self.command(args, Sent::Own);
    }

    /// Gives back those that this node does not have: their end was lost, as happens when another
    /// server takes over from Redis.
    pub(super) fn on_own_sessions(&mut self, answer: Option<&Value>) {
        for client in answer.and_then(Value::list).unwrap_or_default() {
            let client = client.text().and_then(|text| Uuid::try_parse(text).ok());
            if let Some(client) = client.filter(|client| !self.sessions.contains_key(client)) {
                self.undone.returned.insert(client);
            }
        }
    }

    fn tell_return(&mut self, client: Uuid) {
        let node = self.node.clone();
        let keys =
            vec![self.names.session(client), self.names.sessions_of(&node), self.names.orphans()];
        let args = vec![number(client), bytes(&node), number(self.settings.resume_window_ms)];
        self.order(&scripts::RETURN, keys, args, Sent::Return(client));
    }
}
