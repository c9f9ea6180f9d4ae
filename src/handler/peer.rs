//! A handle to a connection that a handler can keep.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    hub::{
        conn_id::ConnId,
        mailbox::{Letter, Mailboxes},
        send_status::SendStatus,
    },
    identity::Identity,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// A handle to one connection that can be kept and used from any thread.
///
/// Methods never block, and do nothing once the connection is gone. Clones refer to the same
/// connection.
#[derive(Clone)]
pub struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) client_id: Uuid,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) mailboxes: Mailboxes,
}

impl Peer {
    /// Returns the client id: a random UUID that identifies the session.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Returns the user of this client, if the client had one when the handle was made.
    pub fn user(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.user)
    }

    /// Sends a message to this client. Returns [`SendStatus::Dropped`] if the mailbox of the
    /// client's worker is full. A message to a connection that is gone counts as sent.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_prepared(&PreparedFrame::new(message.into()))
    }

    /// Sends a message that is already encoded. The bytes are shared, not copied.
    pub fn send_prepared(&self, frame: &PreparedFrame) -> SendStatus {
        self.mailboxes.send(self.conn, frame.clone())
    }

    /// Closes this connection with the code and text of `reason`.
    pub fn close(&self, reason: CloseReason) {
        let letter = Letter::Close { conn: self.conn, reason };
        self.mailboxes.send_control(self.conn.worker(), letter);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
