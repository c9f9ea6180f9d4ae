//! The handle of a server: publish, close connections, read statistics, shut down.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use uuid::Uuid;

use super::tls_watch;
use crate::{
    config::{Config, Reloaded},
    error::Error,
    hub::{
        announced::Announced,
        error::RoomError,
        identities::ClosedSessions,
        mailbox::Letter,
        names::RoomName,
        publish::{Publication, Published},
        question::Question,
    },
    identity::Revocation,
    metrics::Snapshot,
    pool::{listener::ListenAddr, shared::Shared},
    ws::close::CloseReason,
};

/// The longest wait that callers can ask for: no clock goes as far as `Duration::MAX` from now.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A handle to a running server. Works from any thread; clones refer to the same server.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) listen_addr: ListenAddr,
    pub(super) admin_addr: Option<ListenAddr>,
    pub(super) ask: Sender<Duration>,
    /// Ends when the drain begins.
    pub(super) draining: Receiver<()>,
    pub(super) stopped: Receiver<()>,
}

impl ServerHandle {
    /// Returns the address the server listens on, with its actual port; `0.0.0.0:0` if that is a
    /// Unix socket.
    pub fn local_addr(&self) -> SocketAddr {
        self.listen_addr.socket_addr()
    }

    /// Returns where the server listens.
    pub fn listen_addr(&self) -> &ListenAddr {
        &self.listen_addr
    }

    /// Returns the address of the admin listener, if there is one; `0.0.0.0:0` if that is a Unix
    /// socket.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr.as_ref().map(ListenAddr::socket_addr)
    }

    /// Returns where the admin listener is, if there is one.
    pub fn admin_listen_addr(&self) -> Option<&ListenAddr> {
        self.admin_addr.as_ref()
    }

    /// Publishes to all members of `room`, from outside any connection. Blocks only if rooms are
    /// shared with other servers ([`Config::engine`](crate::Config::engine)), until they are asked:
    /// do not call this on a worker then.
    ///
    /// # Errors
    /// [`RoomError::NoSuchRoom`], or [`RoomError::Overloaded`] if a worker's mailbox is full.
    /// Nothing was stored then.
    pub fn publish<'m>(
        &self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Result<Published, RoomError> {
        let (hub, publication) = (&self.shared.hub, message.into());
        if hub.engine.is_some() {
            let room = RoomName::new(room).map_err(|_| RoomError::NoSuchRoom)?;
            return hub.publish_shared(&[room], &publication);
        }
        let found = hub.rooms.find(room).ok_or(RoomError::NoSuchRoom)?;
        hub.publish(None, &found, &publication)
    }

    /// Makes `room` if it does not exist, so that it can be published to before it has members. The
    /// room is removed again once it has neither members nor messages, or if a new room needs its
    /// place while it has no members.
    ///
    /// # Errors
    /// [`RoomError::TooManyRooms`] if there are `max_rooms` rooms and each has members, or
    /// [`RoomError::Overloaded`] if the mailbox of a worker with subscribers to the room is full.
    pub fn open_room(&self, room: &RoomName) -> Result<(), RoomError> {
        match self.shared.hub.engine {
            None => self.shared.hub.open_room(room),
            Some(_) => {
                let question = Question::Bring {
                    rooms: vec![(room.clone(), None)],
                    may_make: true,
                    pattern: None,
                };
                self.shared.hub.ask_engine(question).map(drop)
            }
        }
    }

    /// Closes a client's connection.
    ///
    /// # Errors
    /// [`RoomError::NoSuchClient`]: no client with this id is connected.
    pub fn close(&self, client_id: &Uuid, reason: CloseReason) -> Result<(), RoomError> {
        let session = self.shared.hub.sessions.find(client_id);
        let Some(conn) = session.and_then(|session| session.conn()) else {
            let announced = Announced::close(*client_id, &reason);
            let is_told = self.shared.hub.announce(&announced);
            return is_told.then_some(()).ok_or(RoomError::NoSuchClient);
        };
        self.shared.hub.mailboxes.send_control(conn.worker(), Letter::Close { conn, reason });
        Ok(())
    }

    /// Closes the connections of a user, whoever's handler said who they are, and ends the user's
    /// sessions that are away. Returns how many sessions there were.
    pub fn close_user(&self, user: &str, reason: &CloseReason) -> usize {
        self.shared.hub.announce(&Announced::close_user(user, reason));
        ClosedSessions::all(|after| self.shared.hub.close_user(user, reason, after))
    }

    /// Refuses the tokens of `revocation` from now on, closes the connections that came with one of
    /// them with 4001, and ends their sessions. Returns how many sessions there were. For one token
    /// looks at every session.
    ///
    /// Revocations are kept in memory, at most 100,000 of them: a server that starts anew has none
    /// but those in a [`snapshot`](crate::Config::snapshot).
    pub fn revoke(&self, revocation: &Revocation) -> usize {
        self.shared.hub.announce(&Announced::revoke(revocation));
        self.shared.hub.revoke(revocation);
        ClosedSessions::all(|after| self.shared.hub.close_revoked(revocation, after))
    }

    /// Returns every gauge and counter, as `/stats` does.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Reads the certificates and keys again, as the server does by itself every 10 seconds.
    /// Returns whether new ones are in use: for new connections, while open ones go on. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): a file cannot be read or used. The
    /// certificates stay as they are. [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput):
    /// called from inside a reload.
    pub fn reload_tls(&self) -> Result<bool, Error> {
        tls_watch::reload(&self.shared)
    }

    /// Returns the settings that hold now.
    pub fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    /// Takes the settings of `config` that a running server can change, for those who are connected
    /// too. A `max_conn` below what is open closes nobody. Blocks on the disk where there are
    /// certificates, and calls [`Handler::on_reload`](crate::Handler::on_reload).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): a setting is bad, does not agree with
    /// another that needs a restart, or names a file that cannot be used. Nothing has changed then.
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): called from inside a reload,
    /// such as by `on_reload`. Another thread may ask for one there, but must not be waited for.
    pub fn reload(&self, config: &Config) -> Result<Reloaded, Error> {
        self.shared.reload(config)
    }

    /// Reads the settings from [`Builder::source`](crate::Builder::source), on the caller's thread,
    /// and takes those that a running server can change, as [`ServerHandle::reload`] does.
    ///
    /// # Errors
    /// As [`ServerHandle::reload`]; also those of the source.
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): there is no source, or called
    /// from inside a reload. [`ErrorKind::System`](crate::ErrorKind::System): the source panicked.
    pub fn reload_from_source(&self) -> Result<Reloaded, Error> {
        self.shared.reload_from_source()
    }

    /// Asks every worker to report, and waits for it. Returns whether each has done so within
    /// `timeout`, of which at most a day counts, or has ended: one that has not hangs, in a
    /// handler's call most likely.
    pub fn await_workers(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout.min(WAIT_MAX);
        let workers = self.shared.progress.len();
        let (report, reports) = crossbeam_channel::bounded(workers);
        for worker in 0..workers {
            let letter = Letter::Report { to: report.clone() };
            self.shared.hub.mailboxes.send_control(worker, letter);
        }
        drop(report);
        // The letter of a worker that has ended is dropped, and its sender with it.
        let timed_out = |_| reports.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout);
        !(0..workers).any(timed_out)
    }

    /// Begins to drain and returns at once. The server accepts no more connections, and each open
    /// one gets its last messages and a Close 1001, or 1012 if the server leaves a
    /// [`snapshot`](crate::Config::snapshot). Connections that are still open after `grace`
    /// are cut off; at most a day counts. Later calls change nothing.
    pub fn shutdown(&self, grace: Duration) {
        let _ = self.ask.try_send(grace.min(WAIT_MAX));
    }

    /// Blocks until the drain has begun, or the server has stopped without one.
    pub fn await_drain(&self) {
        let _ = self.draining.recv();
    }

    /// Blocks until the server has stopped.
    pub fn join(&self) {
        let _ = self.stopped.recv();
    }
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerHandle")
            .field("listen_addr", &self.listen_addr)
            .finish_non_exhaustive()
    }
}
