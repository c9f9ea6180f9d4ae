//! What a handler is given for a call, and how what it asks for is answered.

use std::{marker::PhantomData, net::SocketAddr, sync::Arc};

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
    store::{Position, Range},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// A connection, for the length of one handler call.
///
/// A context cannot be kept, so nothing done through it can come too late; [`Context::peer`] gives
/// what can.
///
/// # Replies
/// Whatever concerns rooms, sessions or other clients is answered with a [`Reply`], because the
/// answer may one day come from another machine. Each verb takes effect at once, whether its reply
/// is used or not:
///
/// - Drop the reply where the answer does not matter: `ctx.publish("tea", "hi");`.
/// - Go on with the answer in a closure: `ctx.publish("tea", "hi").then(|ctx, published| …);`.
/// - Wait for the answer in a handler that [may block](crate::MayBlock): `let published =
///   ctx.publish("tea", "hi").wait()?;`.
pub struct Context<'a, S, M = OnWorker> {
    state: &'a mut S,
    conn: &'a mut dyn ConnHandle,
    mode: PhantomData<M>,
}

impl<'a, S, M> Context<'a, S, M> {
    pub(super) fn new(state: &'a mut S, conn: &'a mut dyn ConnHandle) -> Context<'a, S, M> {
        Context { state, conn, mode: PhantomData }
    }
}

impl<S: 'static, M: Mode> Context<'_, S, M> {
    /// What the handler remembers about this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.conn.session().client_id
    }

    /// The peer of the socket, which may be a proxy.
    pub fn remote_addr(&self) -> SocketAddr {
        self.conn.remote_addr()
    }

    /// Sends a message to this client.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendStatus {
        self.conn.send(message.into())
    }

    /// Sends a message that is encoded already. The bytes are shared, not copied.
    pub fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.conn.send_prepared(frame)
    }

    /// Makes this connection a member of `room`, which is made if it does not exist. The answer
    /// says from which position on messages come, and has the earlier ones that `replay` asks for:
    /// none is missed between the two, and none comes twice.
    ///
    /// In a handler that may block, a message of the room may overtake the answer: compare sequence
    /// numbers.
    pub fn join(&mut self, room: &RoomName, replay: Replay) -> Reply<'_, S, Joined, M> {
        let outcome = self.hub().join(self.conn, room, replay);
        self.reply(outcome)
    }

    /// Takes this connection out of `room`.
    pub fn leave(&mut self, room: &str) -> Reply<'_, S, (), M> {
        let outcome = self.hub().leave(self.conn, room);
        self.reply(outcome)
    }

    /// Whether this connection is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.conn.room(room).is_some()
    }

    /// Joins every room that matches `pattern`, and each that is made later as it is made; the
    /// client is told of the latter by [`Notice::Matched`](crate::Notice::Matched). All of them
    /// count as rooms of this connection. Where there is no room for all that exist, none is
    /// joined.
    pub fn subscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, Vec<MatchedRoom>, M> {
        let outcome = self.hub().subscribe(self.conn, pattern);
        self.reply(outcome)
    }

    /// Ends a subscription, and leaves the rooms that it brought.
    pub fn unsubscribe(&mut self, pattern: &RoomPattern) -> Reply<'_, S, (), M> {
        let outcome = self.hub().unsubscribe(self.conn, pattern);
        self.reply(outcome)
    }

    /// Asks who is in `room`, of which this connection is a member, and begins or ends to have the
    /// client told of every change since the answer.
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
        self.reply(outcome)
    }

    /// Sets the name that this client goes by in presence.
    pub fn set_name(&mut self, name: Option<&str>) {
        self.conn.hub().set_name(self.conn.session(), name);
    }

    /// Publishes to everyone in `room`, this connection included if it is a member.
    ///
    /// The room must exist: someone is in it, or it has history.
    pub fn publish<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let outcome = self.publish_in(room, &message.into());
        self.reply(outcome)
    }

    /// Publishes to everyone in `room` but this connection, as
    /// [`Publication::to_others`] does.
    pub fn publish_to_others<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        self.publish(room, message.into().to_others())
    }

    /// Publishes to several rooms at one instant: the message is numbered in each, and sent once to
    /// everyone who is in any of them.
    pub fn publish_to_rooms<'m>(
        &mut self,
        rooms: &[&str],
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, PublishedToRooms, M> {
        let outcome = self.publish_in_all(rooms, &message.into());
        self.reply(outcome)
    }

    /// Sends a message to one client, wherever it is connected. [`Published::seq`] counts what that
    /// client was sent like this. Where its handler is [resumable](crate::Handler::resumable), the
    /// message waits while the client is away.
    pub fn direct<'m>(
        &mut self,
        to: &Uuid,
        message: impl Into<Publication<'m>>,
    ) -> Reply<'_, S, Published, M> {
        let outcome = self.conn.hub().direct(self.sender(), to, &message.into());
        if outcome.is_ok_and(|published| published.behind) {
            self.conn.on_backpressure();
        }
        self.reply(outcome)
    }

    /// Sends a message to everyone who is connected to this handler's route, but this connection.
    /// The message is not kept: who is away misses it.
    pub fn broadcast<'m>(&mut self, message: impl Into<Publication<'m>>) -> Reply<'_, S, (), M> {
        let outcome = self.conn.hub().broadcast(self.sender(), &message.into());
        self.reply(outcome)
    }

    /// Asks for a page of at most `limit` messages of what `room` keeps. A page also ends where it
    /// would fill half of what may wait for one client.
    #[must_use = "the page is found in the reply"]
    pub fn history(&mut self, room: &str, range: Range, limit: usize) -> Reply<'_, S, Page, M> {
        let outcome = self.room(room).map(|room| self.conn.hub().history(&room, range, limit));
        self.reply(outcome)
    }

    /// What another connection must show to take this client's session up, if the handler is
    /// [resumable](crate::Handler::resumable).
    pub fn session_token(&self) -> SessionToken {
        self.conn.session().token()
    }

    /// Takes up the session of an earlier connection: this connection gets its client id, its
    /// rooms, and what it missed since `positions` and since direct message `direct_seq` (without
    /// it, what came while it was away). A connection that the session was still on is closed with
    /// 4010.
    ///
    /// Only with the first message of a connection. The session it began with is gone then, and so
    /// are the rooms it had joined.
    #[must_use = "whether the session was taken up, and what it missed, is found in the reply"]
    pub fn resume(
        &mut self,
        token: &SessionToken,
        positions: &[(RoomName, Position)],
        direct_seq: Option<u64>,
    ) -> Reply<'_, S, Resumed, M> {
        let outcome = self.hub().resume(self.conn, token, positions, direct_seq);
        self.reply(outcome)
    }

    /// Closes this connection once the handler has returned. What was sent before still goes out.
    pub fn close(&mut self, reason: CloseReason) {
        self.conn.close(reason);
    }

    /// A handle to this connection that can be kept and used from any thread.
    pub fn peer(&self) -> Peer {
        Peer {
            conn: self.conn.id(),
            client_id: self.client_id(),
            mailboxes: self.conn.hub().mailboxes.clone(),
        }
    }

    fn publish_in(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        let room = self.room(room)?;
        let published = self.conn.hub().publish(Some(self.sender()), &room, publication)?;
        if published.behind {
            self.conn.on_backpressure();
        }
        Ok(published)
    }

    fn publish_in_all(
        &mut self,
        rooms: &[&str],
        publication: &Publication<'_>,
    ) -> Result<PublishedToRooms, RoomError> {
        let rooms: Vec<_> = rooms.iter().map(|room| self.room(room)).collect::<Result<_, _>>()?;
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        let published = self.conn.hub().publish_to_rooms(self.sender(), &rooms, publication)?;
        if published.behind {
            self.conn.on_backpressure();
        }
        Ok(published)
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

    fn room(&self, name: &str) -> Result<Arc<Room>, RoomError> {
        let own = self.conn.room(name);
        own.or_else(|| self.conn.hub().rooms.find(name)).ok_or(RoomError::NoSuchRoom)
    }
}

/// The answer to a verb of a [`Context`]: there already, or still to come. What was asked for has
/// its effect in any case, so a reply may be dropped.
pub struct Reply<'a, S, T, M = OnWorker> {
    ctx: Context<'a, S, M>,
    outcome: Result<T, RoomError>,
}

impl<S, T, M> Reply<'_, S, T, M> {
    /// Runs `next` with the answer, once it is there: before this call returns if the rooms are
    /// kept in memory, as they are now; later, between two calls of the handler, if they were kept
    /// on another machine. Write for either. `next` is not run when the connection ends first.
    pub fn then(
        self,
        next: impl FnOnce(&mut Context<'_, S, M>, Result<T, RoomError>) + Send + 'static,
    ) {
        let Reply { mut ctx, outcome } = self;
        next(&mut ctx, outcome);
    }
}

impl<S, T> Reply<'_, S, T, MayBlock> {
    /// Waits for the answer. Only a handler that [may block](crate::Handler::blocking) can wait: a
    /// worker must not, because everyone else on it would wait too.
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
    /// Why the server did not do as asked. Nothing was changed then.
    pub fn wait(self) -> Result<T, RoomError> {
        self.outcome
    }
}
