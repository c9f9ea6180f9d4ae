//! The handle of a server: how others publish, close, look and shut down.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, Sender};
use uuid::Uuid;

use crate::{
    hub::{
        HubError,
        mailbox::{Deferred, Letter},
        publish::{Publication, Published},
        rooms::RoomName,
    },
    metrics::Snapshot,
    pool::desk::Shared,
    ws::close::CloseReason,
};

/// A running server, seen from anywhere: clones are the same server, and all of it works from any thread.
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

    /// Publishes to everyone in `room`, from outside of any connection.
    ///
    /// # Errors
    /// No such room, or the server is behind; nothing was stored then.
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Result<Published, HubError> {
        let found = self.shared.hub.rooms.find(room).ok_or(HubError::NoSuchRoom)?;
        self.shared.hub.publish(None, &found, &message.into(), None)
    }

    /// Makes `room` if it does not exist, so that it can be published to before anyone is in it. It goes
    /// again when it has neither members nor messages.
    ///
    /// # Errors
    /// The server has as many rooms as it may have, or a worker that must hear of it is behind.
    pub fn open_room(&self, room: &RoomName) -> Result<(), HubError> {
        let mut deferred = Deferred::default();
        let entered = self.shared.hub.rooms.enter(room, &mut deferred, |_, _| ());
        self.shared.hub.post.finish(&deferred);
        entered.map(|_| ())
    }

    /// Closes a client's connection. `false` when there is no such client.
    pub fn close(&self, client_id: &Uuid, reason: CloseReason) -> bool {
        let session = self.shared.hub.sessions.find(client_id);
        let Some(conn) = session.and_then(|session| session.conn()) else { return false };
        self.shared.hub.post.tell(usize::from(conn.worker), Letter::Close { conn, reason });
        true
    }

    /// Every gauge and counter, now.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Begins to drain and returns at once: nobody new is accepted, everyone inside gets their last
    /// messages and a Close 1001. Who is not done within `grace` is cut off. Later calls change nothing.
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
