//! A connection as a handler may keep it.

use uuid::Uuid;

use crate::{
    hub::{
        conn_id::ConnId,
        mailbox::{Letter, Mailboxes},
        send_status::SendStatus,
    },
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// A connection, seen from anywhere. Clones are the same peer; all methods work from any thread,
/// never block, and do nothing once the connection is gone.
#[derive(Clone)]
pub struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) client_id: Uuid,
    pub(crate) mailboxes: Mailboxes,
}

impl Peer {
    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Sends a message to this client. [`SendStatus::Dropped`] says that its worker's mailbox is
    /// full; whether the connection still exists is not known here.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_prepared(&PreparedFrame::new(message.into()))
    }

    /// Sends a message that is encoded already.
    pub fn send_prepared(&self, frame: &PreparedFrame) -> SendStatus {
        self.mailboxes.send(self.conn, frame.clone())
    }

    /// Closes this connection.
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
