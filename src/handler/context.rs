//! The context of a handler's call, and the replies to what the handler asks for.

use std::{marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    mode::{MayBlock, Mode, OnWorker},
    peer::Peer,
};
use crate::{
    hub::{
        Hub,
        conn_handle::ConnHandle,
        error::RoomError,
        history::{Joined, Page, Replay},
        memberships::MatchedRoom,
        names::{RoomName, RoomPattern},
        presence::Watch,
        present::{MembersPage, Presence},
        publish::{Publication, Published, PublishedToRooms},
        resume::Resumed,
        room::Room,
        send_status::SendStatus,
        session::Sender,
        session_token::SessionToken,
    },
    identity::{Identity, Permissions, TokenError},
    limits::spending::RateLimited,
    store::{Position, Range},
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
/// Calls that concern rooms, sessions or other clients return a [`Reply`], because the answer may
/// one day come from another machine. Each call takes effect at once, whether its reply is used or
/// not:
///
/// - Drop the reply if the answer does not matter: `ctx.publish("tea", "hi");`.
/// - Handle the answer in a closure: `ctx.publish("tea", "hi").then(|ctx, published| …);`.
/// - Wait in a handler that [may block](crate::MayBlock): `ctx.publish("tea", "hi").wait()?;`.
pub struct Context<'a, S, M = OnWorker> {
    state: &'a mut S,
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

/// What entering a room costs, in microseconds or so.
const JOIN_COST: usize = 4;

/// What an answer with these messages costs, in microseconds or so.
fn cost_of_frames(frames: &[PreparedFrame]) -> usize {
    frames.iter().map(|frame| 1 + frame.len() / 256).sum()
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

    /// Makes this connection a member of `room`, and makes the room if it does not exist. The
    /// answer has the room's position and the earlier messages that `replay` asks for. Messages
    /// after that position are delivered: none is missed between the two, and none comes twice.
    ///
    /// Fails with [`RoomError::AlreadyMember`], [`RoomError::TooManyMemberships`],
    /// [`RoomError::TooManyRooms`] or [`RoomError::Overloaded`].
    ///
    /// In a handler that may block, a message of the room may arrive at the client before what the
    /// handler sends about the answer. Clients compare sequence numbers.
    pub fn join(&mut self, room: &RoomName, replay: Replay) -> Reply<'_, S, Joined, M> {
        let outcome = self.hub().join(self.conn, room, replay);
        if let Ok(joined) = &outcome {
            self.conn.spend(JOIN_COST + cost_of_frames(&joined.replay));
        }
        self.reply(outcome)
    }

    /// Takes this connection out of `room`. Fails with [`RoomError::NotMember`].
    pub fn leave(&mut self, room: &str) -> Reply<'_, S, (), M> {
        let outcome = self.hub().leave(self.conn, room);
        self.reply(outcome)
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

    /// Says who this client is. Its [permissions](crate::Handler::permissions) are decided anew,
    /// and it leaves the rooms that it may no longer be in, which the answer lists.
    ///
    /// A client that has a user keeps it: an identity of another user fails with
    /// [`RoomError::OtherUser`]. A revoked one fails with [`RoomError::Revoked`]. One whose user
    /// has [`max_conn_per_user`](crate::Config::max_conn_per_user) connections fails with
    /// [`RoomError::TooManyConnections`]: close the connection.
    pub fn set_identity(&mut self, identity: Identity) -> Reply<'_, S, Vec<RoomName>, M> {
        let outcome = self.hub().set_identity(self.conn, identity);
        if let Ok(left) = &outcome {
            self.conn.spend(JOIN_COST * (1 + left.len()));
        }
        self.reply(outcome)
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

    /// Joins every room that matches `pattern`, and every later one as soon as it is made.
    /// [`Notice::Matched`](crate::Notice::Matched) tells the client of each later room. All of them
    /// count towards `max_rooms_per_conn`. If the existing matches exceed it, none is joined and
    /// the answer is [`RoomError::TooManyMemberships`]; if there are too many that the client may
    /// not join, it is [`RoomError::PatternTooWide`].
    pub fn subscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, Vec<MatchedRoom>, M> {
        let outcome = self.hub().subscribe(self.conn, pattern);
        let joined = outcome.as_ref().map_or(0, Vec::len);
        self.conn.spend(JOIN_COST * (1 + joined));
        self.reply(outcome)
    }

    /// Ends a subscription, and leaves the rooms that only this pattern joined. Fails with
    /// [`RoomError::NotMember`].
    pub fn unsubscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, (), M> {
        let outcome = self.hub().unsubscribe(self.conn, pattern);
        self.reply(outcome)
    }

    /// Lists the clients in `room`, of which this connection must be a member. `watch` begins or
    /// ends notices to the client of every change after the answer.
    pub fn presence(&mut self, room: &str, watch: Watch) -> Reply<'_, S, Presence, M> {
        self.presence_page(room, watch, MembersPage::FIRST)
    }

    /// Asks for some of those who are in `room`, as [`presence`](Context::presence) does for the
    /// first: the members of a large room come page by page.
    pub fn presence_page(
        &mut self,
        room: &str,
        watch: Watch,
        page: MembersPage,
    ) -> Reply<'_, S, Presence, M> {
        let outcome = self.hub().presence(self.conn, room, watch, page);
        if let Ok(presence) = &outcome {
            self.conn.spend(2 * presence.members.len());
        }
        self.reply(outcome)
    }

    /// Sets the name that presence shows for this client.
    pub fn set_name(&mut self, name: Option<&str>) {
        self.conn.hub().set_name(self.conn.session(), name);
    }

    /// Publishes to all members of `room`, this connection included if it is one.
    ///
    /// Fails with [`RoomError::NoSuchRoom`] if the room has neither members nor history, and with
    /// [`RoomError::Overloaded`] if a mailbox is full; nothing was stored then.
    pub fn publish<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let outcome = self.publish_in(room, &message.into());
        self.reply(outcome)
    }

    /// Publishes to all members of `room` except this connection, as [`Publication::to_others`]
    /// does.
    pub fn publish_to_others<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        self.publish(room, message.into().to_others())
    }

    /// Publishes one message to several rooms in one atomic step. The message gets a number in each
    /// room, and each client that is in any of the rooms gets it once.
    pub fn publish_to_rooms<'m>(
        &mut self,
        rooms: &[&str],
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, PublishedToRooms, M> {
        let outcome = self.publish_in_all(rooms, &message.into());
        self.reply(outcome)
    }

    /// Sends a message to one client, on whichever worker it is connected. [`Published::seq`]
    /// numbers the direct messages of the receiver. If the receiver's handler is
    /// [resumable](crate::Handler::resumable), the message waits while the client is away.
    pub fn direct<'m>(
        &mut self,
        to: &Uuid,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let outcome = self.conn.hub().direct(self.sender(), to, &message.into());
        self.slow_down(outcome.is_ok_and(|published| published.behind));
        self.reply(outcome)
    }

    /// Sends a message to all other connections of this handler's route, except those whose clients
    /// [must say who they are](Context::await_identity). The message is not kept: clients that are
    /// away miss it. The client needs the permission [`Permissions::DIRECT`].
    pub fn broadcast<'m>(&mut self, message: impl Into<Publication<'m>>) -> Reply<'_, S, (), M> {
        let outcome = self.conn.hub().broadcast(self.sender(), &message.into());
        self.slow_down(false);
        self.reply(outcome)
    }

    /// Reads a page of at most `limit` messages of the history of `room`. A page is also cut off at
    /// half of `buffer_bytes`, so that it fits into the client's outbox.
    #[must_use = "the reply has the page"]
    pub fn history(&mut self, room: &str, range: Range, limit: usize) -> Reply<'_, S, Page, M> {
        let permitted = self.room(room, Permissions::HISTORY);
        let outcome = permitted.and_then(|room| self.conn.hub().history(&room, range, limit));
        if let Ok(page) = &outcome {
            self.conn.spend(cost_of_frames(&page.messages));
        }
        self.reply(outcome)
    }

    /// Returns the secret with which another connection can resume this client's session, if the
    /// handler is [resumable](crate::Handler::resumable).
    pub fn session_token(&self) -> SessionToken {
        self.conn.session().token()
    }

    /// Resumes the session of an earlier connection. This connection gets the session's client id
    /// and rooms, the messages that the client missed since `positions`, and the direct messages
    /// after number `direct_seq` (if `None`, those that reached no connection). If the session is
    /// still attached to another connection, that one is closed with 4010.
    ///
    /// Allowed only for the first message of a connection; later the answer is
    /// [`RoomError::NotFresh`]. The session that the connection began with ends, and leaves its
    /// rooms.
    #[must_use = "the reply says whether the session was resumed, and what it missed"]
    pub fn resume(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Reply<'_, S, Resumed, M> {
        let outcome = self.hub().resume(self.conn, token, positions, direct_seq);
        if let Ok(resumed) = &outcome {
            let joined = resumed.rooms.iter().filter_map(|room| room.joined.as_ref().ok());
            let replays: usize =
                joined.map(|joined| JOIN_COST + cost_of_frames(&joined.replay)).sum();
            self.conn.spend(replays + cost_of_frames(&resumed.directs));
        }
        self.reply(outcome)
    }

    /// Whether the session of `token` is in `room`, so that [`resume`](Context::resume) enters the
    /// room without joining it anew.
    pub fn session_is_in(&self, token: &SessionToken, room: &str) -> bool {
        self.conn.hub().session_is_in(token, room)
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

    fn publish_in(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        let room = self.room(room, Permissions::PUBLISH)?;
        let published = self.conn.hub().publish(Some(self.sender()), &room, publication)?;
        self.slow_down(published.behind);
        Ok(published)
    }

    fn publish_in_all(
        &mut self,
        rooms: &[&str],
        publication: &Publication<'_>,
    ) -> Result<PublishedToRooms, RoomError> {
        let rooms: Vec<_> = rooms
            .iter()
            .map(|room| self.room(room, Permissions::PUBLISH))
            .collect::<Result<_, _>>()?;
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        let published = self.conn.hub().publish_to_rooms(self.sender(), &rooms, publication)?;
        self.conn.spend(rooms.len());
        self.slow_down(published.behind);
        Ok(published)
    }

    /// Reads slower from the client if what it says is more work than is done.
    fn slow_down(&mut self, mailbox_is_behind: bool) {
        if mailbox_is_behind {
            self.conn.on_backpressure();
        }
        if self.conn.session().in_flight.is_over() {
            self.conn.await_deliveries();
        }
    }

    fn reply<T>(&mut self, outcome: Result<T, RoomError>) -> Reply<'_, S, T, M> {
        Reply { ctx: Context::new(self.state, self.conn), outcome }
    }

    fn sender(&self) -> Sender<'_> {
        Sender { session: self.conn.session(), conn: self.conn.id() }
    }

    fn hub(&self) -> Arc<Hub> {
        Arc::clone(self.conn.hub())
    }

    /// Finds a room for something that needs `permission` where the client is a member.
    fn room(&self, name: &str, permission: Permissions) -> Result<Arc<Room>, RoomError> {
        match self.conn.room(name) {
            Some((room, permissions)) if permissions.contains(permission) => Ok(room),
            Some(_) => Err(self.conn.hub().forbid(permission)),
            None => self.conn.hub().rooms.find(name).ok_or(RoomError::NoSuchRoom),
        }
    }
}

/// The answer to a call of a [`Context`]. The call has taken effect already, so a reply may be
/// dropped.
pub struct Reply<'a, S, T, M = OnWorker> {
    ctx: Context<'a, S, M>,
    outcome: Result<T, RoomError>,
}

impl<S, T, M> Reply<'_, S, T, M> {
    /// Runs `next` with the answer. Today, with all rooms in memory, `next` runs before this call
    /// returns. Do not rely on that: an answer from another machine would come later, between two
    /// calls of the handler. `next` does not run if the connection ends first.
    pub fn then(
        self,
        next: impl FnOnce(&mut Context<'_, S, M>, Result<T, RoomError>) + Send + 'static,
    ) {
        let Reply { mut ctx, outcome } = self;
        next(&mut ctx, outcome);
    }
}

impl<S, T> Reply<'_, S, T, MayBlock> {
    /// Waits for the answer. Only a handler that [may block](crate::Handler::blocking) can wait; on
    /// a worker, all other connections would wait too.
    ///
    /// ```
    /// use rusty_socks::{Context, Handler, MayBlock, Message, RoomError, Server};
    ///
    /// fn forward(
    ///     ctx: &mut Context<'_, (), MayBlock>,
    ///     message: Message<'_>,
    /// ) -> Result<u64, RoomError> {
    ///     let published = ctx.publish("tea", message).wait()?;
    ///     Ok(published.seq)
    /// }
    ///
    /// let handler = |ctx: &mut Context<'_, (), MayBlock>, message: Message<'_>| {
    ///     if let Err(error) = forward(ctx, message) {
    ///         ctx.send(&error.to_string());
    ///     }
    /// };
    /// Server::builder().route("/tea", handler.blocking(2, 100));
    /// ```
    ///
    /// On a worker this does not compile:
    ///
    /// ```compile_fail
    /// # use rusty_socks::{Context, Message};
    /// let handler = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
    ///     ctx.publish("tea", message).wait();
    /// };
    /// ```
    ///
    /// # Errors
    /// The reason why the server did not do as asked. Nothing was changed.
    pub fn wait(self) -> Result<T, RoomError> {
        self.outcome
    }
}
