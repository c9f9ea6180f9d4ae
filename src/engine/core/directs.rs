//! Direct messages for the sessions of this node. Those that it has not heard of, because the link
//! was lost, are read from Redis.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    sent::Sent,
    words::{bytes, read_inbox},
};
use crate::{
    engine::link::order::Value,
    hub::{envelope::Envelope, inbox::InboxBounds},
};

impl Core {
    /// Takes a message that another node, or this one, has numbered.
    pub(super) fn on_direct(&mut self, client: Uuid, seq: u64, message: &[u8]) -> Option<()> {
        let Some(kept) = self.sessions.get(&client) else {
            self.hold_direct(client, seq, message);
            return Some(());
        };
        match seq.checked_sub(1)?.cmp(&kept.session.last_direct()) {
            std::cmp::Ordering::Less => Some(()),
            std::cmp::Ordering::Equal => self.deliver_direct(client, seq, message),
            std::cmp::Ordering::Greater => {
                self.read_directs(client);
                Some(())
            }
        }
    }

    /// What may wait in Redis for one client. Also a message that is sent at once waits for a
    /// moment.
    pub(super) fn inbox_bounds(&self) -> InboxBounds {
        let bounds = self.hub.limits.inbox();
        InboxBounds { messages_max: bounds.messages_max.max(1), ..bounds }
    }

    /// Asks for the messages that this node has missed.
    pub(super) fn read_directs(&mut self, client: Uuid) {
        let Some(kept) = self.sessions.get(&client) else { return };
        let from = format!("({}-0", kept.session.last_direct());
        let args = vec![bytes("XRANGE"), self.names.inbox(client), bytes(&from), bytes("+")];
        self.command(self.home_of(client), args, Sent::Inbox(client));
    }

    pub(super) fn on_inbox(&mut self, client: Uuid, answer: Option<&Value>) {
        let messages: Vec<(u64, Bytes)> = answer.and_then(read_inbox).unwrap_or_default();
        for (seq, message) in messages {
            self.deliver_direct(client, seq, &message);
        }
    }

    fn deliver_direct(&mut self, client: Uuid, seq: u64, message: &[u8]) -> Option<()> {
        let envelope = Envelope::read(message)?;
        let kept = self.sessions.get(&client)?;
        let frame = self.hub.frame_of(&envelope, &[seq]);
        let session = Arc::clone(&kept.session);
        if self.hub.arrive_for_one(&session, seq, frame) {
            self.changed.push(session);
        }
        Some(())
    }
}
