//! The handle of a server: how others publish, close, look and shut down.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, Sender};
use uuid::Uuid;

use crate::{
    hub::{
        error::RoomError,
        mailbox::Letter,
        names::RoomName,
        publish::{Publication, Published},
    },
    metrics::Snapshot,
    pool::shared::Shared,
    ws::close::CloseReason,
};

/// A running server, seen from anywhere: clones are the same server, and all of it works from any
/// thread.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) local_addr: SocketAddr,
    pub(super) ask: Sender<Duration>,
    pub(super) stopped: Receiver<()>,
}

impl ServerHandle {
    /// The address the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Publishes to everyone in `room`, from outside of any connection. Never blocks.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`], or [`RoomError::Overloaded`] when the server is behind; nothing
    /// was stored then.
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Result<Published, RoomError> {
        let found = self.shared.hub.rooms.find(room).ok_or(RoomError::NoSuchRoom)?;
        self.shared.hub.publish(None, &found, &message.into())
    }

    /// Makes `room` if it does not exist, so that it can be published to before anyone is in it. It
    /// goes again when it has neither members nor messages.
    ///
    /// # Errors
    /// [`RoomError::TooManyRooms`], or [`RoomError::Overloaded`] when a worker that must hear of
    /// the room is behind.
    pub fn open_room(&self, room: &RoomName) -> Result<(), RoomError> {
        self.shared.hub.open_room(room)
    }

    /// Closes a client's connection.
    ///
    /// # Errors
    /// [`RoomError::NoSuchClient`]: no such client is connected.
    pub fn close(&self, client_id: &Uuid, reason: CloseReason) -> Result<(), RoomError> {
        let session = self.shared.hub.sessions.find(client_id);
        let conn = session.and_then(|session| session.conn()).ok_or(RoomError::NoSuchClient)?;
        self.shared.hub.mailboxes.send_control(conn.worker(), Letter::Close { conn, reason });
        Ok(())
    }

    /// Every gauge and counter, now.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Begins to drain and returns at once: no connection is accepted any more, and everyone inside
    /// gets their last messages and a Close 1001. A connection that is not done within `grace`
    /// is cut off. Later calls change nothing.
    pub fn shutdown(&self, grace: Duration) {
        let _ = self.ask.try_send(grace);
    }

    /// Waits until the server has stopped.
    pub fn join(&self) {
        let _ = self.stopped.recv();
    }
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}
