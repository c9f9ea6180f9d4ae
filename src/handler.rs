//! What an embedder writes: a [`Handler`], and the [`Context`] it is given.

use std::{
    any::Any,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    http::response::Status,
    hub::{
        HubError, Joined, Page, Publication, Published, Replay,
        mailbox::{ConnId, Letter, Post},
        rooms::RoomName,
    },
    metrics::Counter,
    store::Range,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

pub use crate::http::head::Request;

/// What a WebSocket route does with its connections.
///
/// One handler serves all connections of its route, from several threads at once; what belongs to one
/// connection goes into its [`State`](Handler::State). The calls for one connection never overlap and
/// come in order: `on_upgrade`, `on_open`, any number of `on_message`, at most one `on_drain`,
/// `on_close`. `on_open` and `on_close` come in pairs.
///
/// A handler runs on the worker that owns the connection, and everything else on that worker waits for
/// it, so it must be quick. One that blocks (a database, a file) is mounted with
/// [`blocking`](Handler::blocking).
///
/// A panic in a handler closes that one connection with 1011, is logged and counted, and nothing else.
///
/// A closure `Fn(&mut Context<'_, ()>, Message<'_>)` is a handler too.
pub trait Handler: Send + Sync + 'static {
    /// What the handler remembers about one connection.
    type State: Default + Send + 'static;

    /// Looks at the upgrade request before anything is promised, on the worker. A refusal is answered
    /// with its HTTP status; the connection never opens.
    fn on_upgrade(&self, request: &Request<'_>) -> Result<Self::State, Refusal> {
        let _ = request;
        Ok(Self::State::default())
    }

    /// The subprotocols that this handler speaks, by the names that clients offer in
    /// `Sec-WebSocket-Protocol`. The first offer that is among them is confirmed in the answer; where none
    /// is, the answer names none, and the client decides whether to stay.
    ///
    /// Asked at every upgrade that [`on_upgrade`](Handler::on_upgrade) takes, on the worker.
    fn subprotocols(&self) -> &[&str] {
        &[]
    }

    /// The connection is open: it has its permit, and the 101 goes out before whatever is sent here.
    fn on_open(&self, ctx: &mut Context<'_, Self::State>) {
        let _ = ctx;
    }

    /// A whole message came.
    fn on_message(&self, ctx: &mut Context<'_, Self::State>, message: Message<'_>);

    /// The server drains: it will close this connection with 1001 right after this call.
    fn on_drain(&self, ctx: &mut Context<'_, Self::State>) {
        let _ = ctx;
    }

    /// The connection is over. It is still a member of its rooms, so a farewell can be published;
    /// what is sent to itself goes nowhere.
    fn on_close(&self, ctx: &mut Context<'_, Self::State>, reason: &CloseReason) {
        let _ = (ctx, reason);
    }

    /// Puts into words what the server has to tell a client of this handler. `None` tells nothing.
    ///
    /// Called where the notice arises, from any thread, outside the calls of any connection.
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let _ = notice;
        None
    }

    /// Mounts this handler on a pool of `threads` of its own, where it may block.
    ///
    /// At most `queue_max` messages wait for those threads. While a connection's messages are behind,
    /// its socket is not read, so the pressure reaches the client as TCP backpressure. Calls for one
    /// connection still come in order, one at a time. `on_upgrade` runs on the worker all the same.
    fn blocking(self, threads: usize, queue_max: usize) -> Blocking<Self>
    where
        Self: Sized,
    {
        Blocking { handler: self, threads, queue_max }
    }
}

impl<F> Handler for F
where
    F: Fn(&mut Context<'_, ()>, Message<'_>) + Send + Sync + 'static,
{
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        self(ctx, message);
    }
}

/// Something that the server has to tell a client; [`Handler::notice`] says it in the handler's protocol.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The client was too slow for messages `from..=to` of the room, and did not get them.
    Gap {
        /// The room.
        room: &'a RoomName,
        /// The first message that was not delivered.
        from: u64,
        /// The last message that was not delivered.
        to: u64,
    },
    /// The client was too slow for notices of who came and went.
    PresenceGap {
        /// The room.
        room: &'a RoomName,
    },
}

/// A handler with threads of its own; made by [`Handler::blocking`].
#[derive(Debug)]
pub struct Blocking<H> {
    handler: H,
    threads: usize,
    queue_max: usize,
}

/// What can be mounted under a path: a [`Handler`], or one made [`Blocking`].
pub trait IntoService: sealed::Sealed {
    #[doc(hidden)]
    fn into_service(self) -> Service;
}

/// A mounted handler. Made by [`IntoService`].
#[doc(hidden)]
pub struct Service {
    pub(crate) calls: Arc<dyn Calls>,
    /// Threads and the bound of their queue, for a handler that blocks.
    pub(crate) jobs: Option<(usize, usize)>,
}

impl<H: Handler> IntoService for H {
    fn into_service(self) -> Service {
        Service { calls: Arc::new(Typed(self)), jobs: None }
    }
}

impl<H: Handler> IntoService for Blocking<H> {
    fn into_service(self) -> Service {
        let jobs = Some((self.threads, self.queue_max));
        Service { calls: Arc::new(Typed(self.handler)), jobs }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<H: super::Handler> Sealed for H {}
    impl<H: super::Handler> Sealed for super::Blocking<H> {}
}

/// Why an upgrade is refused by a handler, and with which HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refusal {
    /// 400: the request makes no sense here.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::BadRequest, message: message.into() }
    }

    /// 401: the client did not say who it is.
    pub fn unauthorized(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unauthorized, message: message.into() }
    }

    /// 403: the client may not.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Forbidden, message: message.into() }
    }

    /// 404: there is nothing under this path and query.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::NotFound, message: message.into() }
    }

    /// 429: the client asks too often.
    pub fn too_many_requests(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::TooManyRequests, message: message.into() }
    }

    /// 503: the handler cannot take the client now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unavailable, message: message.into() }
    }
}

/// What became of a message that was sent. Backpressure is a value, not an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a message may have been dropped, or the client may be behind"]
pub enum SendStatus {
    /// It is on its way.
    Sent,
    /// It is on its way, and more than half of what may wait for this client does: pause if you can.
    Behind,
    /// It was dropped: the connection is closing, or the client is too far behind and will be closed.
    Dropped,
}

/// A connection, for the length of one handler call.
///
/// It cannot be kept, so nothing done through it can come too late; [`Context::peer`] gives what can.
///
/// `join`, `publish` and `history` answer through a closure. With the in-memory store it runs before the
/// call returns; with a store on another machine it would run later. Write for either.
pub struct Context<'a, S> {
    state: &'a mut S,
    link: &'a mut dyn Link,
}

impl<S: 'static> Context<'_, S> {
    /// What the handler remembers about this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.link.client_id()
    }

    /// The peer of the socket, which may be a proxy.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link.remote_addr()
    }

    /// Sends a message to this client.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendStatus {
        self.link.send(message.into())
    }

    /// Sends a message that is encoded already. It is shared, not copied.
    pub fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.link.send_prepared(frame)
    }

    /// Makes this connection a member of `room`; `then` learns from which position on messages come, and
    /// gets the earlier ones that `replay` asks for: none is missed between the two, and none comes twice.
    ///
    /// On a [`Blocking`] handler a message of the room may overtake `then`: compare sequence numbers.
    pub fn join(
        &mut self,
        room: &RoomName,
        replay: Replay,
        then: impl FnOnce(&mut Self, Result<Joined, HubError>) + Send + 'static,
    ) {
        let result = self.link.join(room, replay);
        then(self, result);
    }

    /// Takes this connection out of `room`.
    pub fn leave(&mut self, room: &str) -> Result<(), HubError> {
        self.link.leave(room)
    }

    /// Whether this connection is a member of `room`.
    pub fn is_member(&self, room: &str) -> bool {
        self.link.is_member(room)
    }

    /// Publishes to everyone in `room`, this connection included if it is a member.
    ///
    /// The room must exist: someone is in it, or it has history.
    pub fn publish<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
        then: impl FnOnce(&mut Self, Result<Published, HubError>) + Send + 'static,
    ) {
        let result = self.link.publish(room, &message.into(), false);
        then(self, result);
    }

    /// Publishes to everyone in `room` but this connection.
    pub fn broadcast<'m>(
        &mut self,
        room: &str,
        message: impl Into<Publication<'m>>,
        then: impl FnOnce(&mut Self, Result<Published, HubError>) + Send + 'static,
    ) {
        let result = self.link.publish(room, &message.into(), true);
        then(self, result);
    }

    /// Asks for a page of at most `limit` messages of what `room` keeps. A page also ends where it would
    /// fill half of what may wait for one client.
    pub fn history(
        &mut self,
        room: &str,
        range: Range,
        limit: usize,
        then: impl FnOnce(&mut Self, Result<Page, HubError>) + Send + 'static,
    ) {
        let result = self.link.history(room, range, limit);
        then(self, result);
    }

    /// Closes this connection once the handler has returned. What was sent before still goes out.
    pub fn close(&mut self, reason: CloseReason) {
        self.link.close(reason);
    }

    /// A handle to this connection that can be kept and used from any thread.
    pub fn peer(&self) -> Peer {
        self.link.peer()
    }
}

/// A connection, seen from anywhere. Clones are the same peer; all of it works from any thread, and does
/// nothing once the connection is gone.
#[derive(Clone)]
pub struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) client_id: Uuid,
    pub(crate) post: Post,
}

impl Peer {
    /// The random id of this client's session.
    pub fn client_id(&self) -> Uuid {
        self.client_id
    }

    /// Sends a message to this client. [`SendStatus::Dropped`] says that its worker's mailbox is full;
    /// whether the connection still exists is not known here.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_prepared(&PreparedFrame::new(message.into()))
    }

    /// Sends a message that is encoded already.
    pub fn send_prepared(&self, frame: &PreparedFrame) -> SendStatus {
        match self.post.send(self.conn, frame.clone()) {
            true => SendStatus::Sent,
            false => SendStatus::Dropped,
        }
    }

    /// Closes this connection.
    pub fn close(&self, reason: CloseReason) {
        let letter = Letter::Close { conn: self.conn, reason };
        self.post.tell(usize::from(self.conn.worker), letter);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// How a [`Context`] reaches its connection: directly on the worker, or by letter from a job.
pub(crate) trait Link {
    fn client_id(&self) -> Uuid;
    fn remote_addr(&self) -> SocketAddr;
    fn send(&mut self, message: Message<'_>) -> SendStatus;
    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus;
    fn join(&mut self, room: &RoomName, replay: Replay) -> Result<Joined, HubError>;
    fn leave(&mut self, room: &str) -> Result<(), HubError>;
    fn is_member(&self, room: &str) -> bool;
    fn publish(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
        skip_self: bool,
    ) -> Result<Published, HubError>;
    fn history(&mut self, room: &str, range: Range, limit: usize) -> Result<Page, HubError>;
    fn close(&mut self, reason: CloseReason);
    fn peer(&self) -> Peer;
}

/// A connection's state, its type forgotten.
///
/// Its drop is the handler's code, and runs wherever a connection ends: a panic in it is caught, logged
/// and counted like any other of the handler's.
pub(crate) struct BoxState {
    state: Option<Box<dyn Any + Send>>,
    panics: Arc<Counter>,
}

impl Drop for BoxState {
    fn drop(&mut self) {
        let state = self.state.take();
        if catch_unwind(AssertUnwindSafe(|| drop(state))).is_err() {
            log::error!("the drop of a handler's state panicked");
            self.panics.add_shared();
        }
    }
}

/// A handler, its state's type forgotten, so that routes with different handlers share one table.
pub(crate) trait Calls: Send + Sync {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal>;
    fn subprotocols(&self) -> &[&str];
    #[cfg_attr(not(test), expect(dead_code, reason = "the overflow policies come next"))]
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame>;
    fn open(&self, state: &mut BoxState, link: &mut dyn Link);
    fn message(&self, state: &mut BoxState, link: &mut dyn Link, message: Message<'_>);
    fn drain(&self, state: &mut BoxState, link: &mut dyn Link);
    fn close(&self, state: &mut BoxState, link: &mut dyn Link, reason: &CloseReason);
}

struct Typed<H>(H);

impl<H: Handler> Typed<H> {
    fn context<'a>(state: &'a mut BoxState, link: &'a mut dyn Link) -> Context<'a, H::State> {
        let state = state.state.as_mut().and_then(|state| state.downcast_mut());
        let state = state.expect("a state comes back to the handler that made it");
        Context { state, link }
    }
}

impl<H: Handler> Calls for Typed<H> {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal> {
        let state = self.0.on_upgrade(request)?;
        Ok(BoxState { state: Some(Box::new(state)), panics: Arc::clone(panics) })
    }

    fn subprotocols(&self) -> &[&str] {
        self.0.subprotocols()
    }

    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        self.0.notice(notice)
    }

    fn open(&self, state: &mut BoxState, link: &mut dyn Link) {
        self.0.on_open(&mut Self::context(state, link));
    }

    fn message(&self, state: &mut BoxState, link: &mut dyn Link, message: Message<'_>) {
        self.0.on_message(&mut Self::context(state, link), message);
    }

    fn drain(&self, state: &mut BoxState, link: &mut dyn Link) {
        self.0.on_drain(&mut Self::context(state, link));
    }

    fn close(&self, state: &mut BoxState, link: &mut dyn Link, reason: &CloseReason) {
        self.0.on_close(&mut Self::context(state, link), reason);
    }
}

/// The pause a client is asked to make, in whole seconds as `Retry-After` wants it: at least one.
pub(crate) fn retry_after_s(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}
