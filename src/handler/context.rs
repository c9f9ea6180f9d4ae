//! The context of a handler's call.

use std::{marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    mode::{Mode, OnWorker},
    peer::Peer,
};
use crate::{
    hub::{
        conn_handle::ConnHandle, error::RoomError, names::RoomName, send_status::SendStatus,
        session_token::SessionToken,
    },
    identity::{Identity, Permissions, TokenError},
    limits::spending::RateLimited,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// The connection, for the length of one handler call.
///
/// A context cannot be kept. [`Context::peer`] returns a handle that can.
///
/// # Replies
/// Calls that concern rooms, sessions or other clients return a [`Reply`](crate::Reply), because
/// the answer may come from another machine. Each call takes effect, whether its reply is used or
/// not:
///
/// - Drop the reply if the answer does not matter: `ctx.publish("tea", "hi");`.
/// - Handle the answer in a closure: `ctx.publish("tea", "hi").then(|ctx, published| …);`.
/// - Wait in a handler that [may block](crate::MayBlock): `ctx.publish("tea", "hi").wait()?;`.
pub struct Context<'a, S, M = OnWorker> {
    pub(super) state: &'a mut S,
    pub(super) conn: &'a mut dyn ConnHandle,
    stays_fresh: bool,
    mode: PhantomData<M>,
}

impl<'a, S, M> Context<'a, S, M> {
    pub(super) fn new(state: &'a mut S, conn: &'a mut dyn ConnHandle) -> Context<'a, S, M> {
        Context { state, conn, stays_fresh: false, mode: PhantomData }
    }

    /// Whether the handler wants the session to stay fresh.
    pub(super) fn stays_fresh(&self) -> bool {
        self.stays_fresh
    }
}

impl<S: 'static, M: Mode> Context<'_, S, M> {
    /// Returns the handler's data of this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// Returns the client id: a random UUID that identifies the session.
    pub fn client_id(&self) -> Uuid {
        self.conn.session().client_id
    }

    /// Returns the id of this server among those that share its rooms: random, and another one
    /// after each start.
    pub fn node(&self) -> Uuid {
        self.conn.hub().node
    }

    /// Returns the address of the client: the socket's peer, or the one that a proxy named
    /// which is in `trusted_proxies`. The port is 0 if the proxy told none. It is `0.0.0.0:0` if
    /// the peer of a Unix socket named nobody.
    pub fn remote_addr(&self) -> SocketAddr {
        self.conn.remote_addr()
    }

    /// Counts a message of `bytes` towards the limits of this client, of its user if it has one,
    /// and of its address ([`rate_messages`](crate::Config::rate_messages) and those like it). A
    /// handler that limits its clients calls this first for each message, and does not act on a
    /// message that is refused.
    ///
    /// # Errors
    /// Whose limit is reached, and how long to wait. Nothing was counted.
    pub fn spend_rate(&mut self, bytes: usize) -> Result<(), RateLimited> {
        let now_ms = self.conn.now_ms();
        let conn = &self.conn;
        conn.hub().spend(conn.session(), conn.remote_addr(), bytes, now_ms)
    }

    /// Whether the limits by address hold for this client
    /// ([`limited_addresses`](crate::Config::limited_addresses)).
    pub fn has_address_limits(&self) -> bool {
        self.conn.hub().owners.owner_of(self.remote_addr().ip()).is_some()
    }

    /// Sends a message to this client. Never blocks; [`SendStatus`] says whether the client keeps
    /// up.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendStatus {
        self.conn.send(message.into())
    }

    /// Sends a message that is already encoded. The bytes are shared, not copied.
    pub fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.conn.send_prepared(frame)
    }

    /// Whether this connection is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.conn.is_member(room)
    }

    /// Verifies a token (a JWT), as [`Request::authenticate`](crate::Request::authenticate) does.
    ///
    /// # Errors
    /// The reason why the token is refused; [`TokenError::Off`] if
    /// [`Config::identity`](crate::Config::identity) is off.
    pub fn authenticate(&mut self, token: &str) -> Result<Identity, TokenError> {
        let (outcome, cost) = self.conn.hub().authenticator.authenticate(token);
        self.conn.spend(cost);
        outcome
    }

    /// Counts a client that is refused for `reason` though no token of it was verified.
    pub fn count_refusal(&mut self, reason: TokenError) {
        self.conn.hub().authenticator.fail(reason);
    }

    /// Returns the time of day: that of the machine, which may be set back, or of a stepped server.
    pub fn time(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + self.conn.hub().clock.since_1970()
    }

    /// Refuses something for want of a permission: counts that, and returns the error to answer
    /// with.
    pub fn forbid(&mut self, permission: Permissions) -> RoomError {
        self.conn.hub().forbid(permission)
    }

    /// Returns who this client is, if that was said.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.conn.session().identity()
    }

    /// Returns what this client may do in `room`: what was decided when it joined, or, if it is not
    /// a member, what would be.
    pub fn permissions(&self, room: &RoomName) -> Permissions {
        match self.conn.room(room.as_str()) {
            Some((_, permissions)) => permissions,
            None => self.conn.session().permissions(Some(room)),
        }
    }

    /// Lets the session stay fresh: the message that is being handled does not count as the first
    /// one, so that the next may still [`resume`](Context::resume) an earlier session.
    pub fn stay_fresh(&mut self) {
        self.stays_fresh = true;
    }

    /// Has [`Handler::on_wake`](crate::Handler::on_wake) called after `wait`, once, in place of any
    /// earlier wish. For deadlines: a wake may come some milliseconds late.
    pub fn wake_after(&mut self, wait: Duration) {
        self.conn.wake_after(wait);
    }

    /// Sets the name that presence shows for this client.
    pub fn set_name(&mut self, name: Option<&str>) {
        self.conn.hub().set_name(self.conn.session(), name);
    }

    /// Returns the secret with which another connection can resume this client's session, if the
    /// handler is [resumable](crate::Handler::resumable).
    pub fn session_token(&self) -> SessionToken {
        self.conn.session().token()
    }

    /// Closes this connection once the handler has returned. Messages sent before still go out.
    pub fn close(&mut self, reason: CloseReason) {
        self.conn.close(reason);
    }

    /// Returns a handle to this connection that can be kept and used from any thread.
    pub fn peer(&self) -> Peer {
        Peer {
            conn: self.conn.id(),
            client_id: self.client_id(),
            identity: self.identity(),
            mailboxes: self.conn.hub().mailboxes.clone(),
        }
    }
}
