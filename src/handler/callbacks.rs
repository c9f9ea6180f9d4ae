//! The callbacks of a route, which the embedder writes.

use std::time::Duration;

use super::{
    context::Context,
    mode::{MayBlock, Mode, OnWorker},
    refusal::Refusal,
};
use crate::{
    config::Config,
    http::head::Request,
    hub::{event::ServerEvent, names::RoomName, notice::Notice, task::TaskAnswer},
    identity::{Identity, Permissions},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// The code behind a WebSocket route.
///
/// One handler serves all connections of its route, from several threads at once. Data of one
/// connection belongs into its [`State`](Handler::State). Calls for one connection never overlap.
/// Their order is `on_upgrade`, `on_open`, any number of `on_message` and `on_wake`, at most one
/// `on_drain`, `on_close`. Each `on_open` is followed by exactly one `on_close`.
///
/// `M` says where the calls run. A plain `Handler` runs [`OnWorker`]: all other connections of the
/// worker wait for each call, so a call must be quick. A handler that waits for a database or a
/// file is a `Handler<MayBlock>`, mounted with [`blocking`](Handler::blocking). It cannot be
/// mounted on a worker; this does not compile:
///
/// ```compile_fail
/// # use rusty_socks::{Context, MayBlock, Message, Server};
/// let handler = |ctx: &mut Context<'_, (), MayBlock>, message: Message<'_>| {
///     ctx.send(message);
/// };
/// Server::builder().route("/", handler);
/// ```
///
/// A handler that works in either place implements `Handler<M>` for every [`Mode`].
///
/// A panic in a handler is logged and counted, and closes only its own connection, with 1011.
///
/// A closure `Fn(&mut Context<'_, ()>, Message<'_>)` is a handler too.
pub trait Handler<M: Mode = OnWorker>: Send + Sync + 'static {
    /// Data of one connection. Its calls never overlap, so it needs no lock.
    type State: Default + Send + 'static;

    /// Accepts or refuses an upgrade request (RFC 6455, 4.2), before the request takes a permit or
    /// a place in line. A [`Refusal`] is answered with its HTTP status, and the connection never
    /// opens.
    ///
    /// Like the other calls it runs where `M` says, so a blocking handler can look a user up here.
    /// The upgrade waits for that at most [`queue_timeout`](crate::Config::queue_timeout); then, or
    /// if too many upgrades wait, it is answered with a 503 (`handler_busy`).
    fn on_upgrade(&self, request: &Request<'_>) -> Result<Self::State, Refusal> {
        let _ = request;
        Ok(Self::State::default())
    }

    /// Returns the subprotocols that this handler speaks, as clients offer them in
    /// `Sec-WebSocket-Protocol` (RFC 6455, 1.9). The answer confirms the client's first offer that
    /// is listed here. If none is, the answer names no subprotocol, and the client decides whether
    /// to stay.
    ///
    /// Called on the worker, for every legal upgrade.
    fn subprotocols(&self) -> &[&str] {
        &[]
    }

    /// Returns `true` if every client must first show a secret that a browser does not add by
    /// itself (a cookie does not count). Pages of every origin may connect then, unless
    /// [`allowed_origins`](crate::Config::allowed_origins) says which. Default: `false`.
    fn is_open_to_all_origins(&self) -> bool {
        false
    }

    /// Returns whether clients may come without a WebSocket where a network lets none through: text
    /// messages go down as server-sent events (`GET` with `Accept: text/event-stream`) and come up
    /// as posts. To the handler such a connection is like any other, but it carries no binary
    /// message: one that is sent to it closes it with 1003. A carriage return in a text reaches its
    /// client as a line feed. Called once, when the handler is mounted. Default: `false`.
    fn takes_event_streams(&self) -> bool {
        false
    }

    /// Called when a connection has its permit and is open. Messages sent here go out after the
    /// 101.
    fn on_open(&self, ctx: &mut Context<'_, Self::State, M>) {
        let _ = ctx;
    }

    /// Handles one whole message.
    fn on_message(&self, ctx: &mut Context<'_, Self::State, M>, message: Message<'_>);

    /// Handles the answer of a task that the handler [deferred](Context::defer). No other call for
    /// this connection comes before, but for `on_drain` and `on_close`.
    fn on_answer(&self, ctx: &mut Context<'_, Self::State, M>, answer: TaskAnswer) {
        let _ = (ctx, answer);
    }

    /// Returns how many threads the handler wants for the tasks that it
    /// [defers](Context::defer), and how many may wait for them. Called once, when the handler is
    /// mounted. Default: `None`, no threads.
    fn task_threads(&self) -> Option<TaskThreads> {
        None
    }

    /// Called after the time that [`Context::wake_after`] asked for, without a message.
    fn on_wake(&self, ctx: &mut Context<'_, Self::State, M>) {
        let _ = ctx;
    }

    /// Called when the server drains. The connection is closed with 1001 (1012 if the
    /// server leaves a [`snapshot`](crate::Config::snapshot)) right after this call, so
    /// this is the place for a last message.
    fn on_drain(&self, ctx: &mut Context<'_, Self::State, M>) {
        let _ = ctx;
    }

    /// Called when a connection has ended, for whatever `reason`. The connection is still a member
    /// of its rooms, so a farewell can be published. Messages to the connection itself are dropped.
    fn on_close(&self, ctx: &mut Context<'_, Self::State, M>, reason: &CloseReason) {
        let _ = (ctx, reason);
    }

    /// Formats a notice from the server to a client in this handler's protocol. `None` sends no
    /// notice. A handler that returns `None` for [`Notice::Gap`] or [`Notice::PresenceGap`] has its
    /// slow clients closed with 4102, because they could not know what they missed.
    ///
    /// Called on any thread, while the server holds locks: format quickly, and do not call back
    /// into the server.
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let _ = notice;
        None
    }

    /// Told of what happens to the sessions of this handler and to their rooms. Does nothing by
    /// default.
    ///
    /// Called on any thread, while the server holds locks: note the event, and do not call back
    /// into the server.
    fn observe(&self, event: &ServerEvent<'_>) {
        let _ = event;
    }

    /// Returns counters and gauges of the handler's own, which `/stats` shows under
    /// [`handlers`](crate::Snapshot::handlers). Called on any thread.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Told of new settings that the running server has taken. Returns whether the server must ask
    /// anew what each client may do ([`permissions`](Handler::permissions)): clients leave the
    /// rooms that they may no longer be in, and get a [`Notice::Left`] about themselves. Does
    /// nothing by default.
    ///
    /// Called on the thread of the reload, while the handler serves.
    fn on_reload(&self, config: &Config) -> bool {
        let _ = config;
        false
    }

    /// Called once when the server has stopped and each connection has had its `on_close`. May
    /// block for `left`, the rest of the grace; [`Server::run`](crate::Server::run) waits.
    fn on_stop(&self, left: Duration) {
        let _ = left;
    }

    /// Decides what a client may do in `room`, or if that is `None`, whether it may send direct
    /// messages ([`Permissions::DIRECT`]). `identity` is that of
    /// [`Context::set_identity`]. What is missing is refused with
    /// [`RoomError::Forbidden`](crate::RoomError::Forbidden), and a pattern joins only the rooms
    /// that the client may join. Default: everything.
    ///
    /// Asked when a room is joined and when the identity changes, and remembered with the
    /// membership, so that a message costs no look-up. In rooms that the client is not in, the
    /// handler itself decides what it publishes.
    ///
    /// Called on any thread, while the server holds locks: decide quickly, and do not call back
    /// into the server. A panic permits nothing.
    fn permissions(&self, identity: Option<&Identity>, room: Option<&RoomName>) -> Permissions {
        let _ = (identity, room);
        Permissions::all()
    }

    /// Whether a session outlives its connection, for
    /// [`resume_window`](crate::Config::resume_window), so that a later connection can take it up
    /// with [`Context::resume`]. Default: `false`.
    fn resumable(&self) -> bool {
        false
    }

    /// Runs this handler on a pool of `threads` of its own, where it may block, and asks it about
    /// upgrades on as many others.
    ///
    /// At most `queue_max` messages, and as many upgrades, wait for these threads; 0 of either
    /// counts as 1. While a connection's messages wait beyond that, its socket is not read, so the
    /// client gets TCP backpressure. Calls for one connection still come in order, one at a time.
    fn blocking(self, threads: usize, queue_max: usize) -> Blocking<Self>
    where
        Self: Handler<MayBlock> + Sized,
    {
        Blocking { handler: self, threads, queue_max }
    }
}

impl<F, M: Mode> Handler<M> for F
where
    F: Fn(&mut Context<'_, (), M>, Message<'_>) + Send + Sync + 'static,
{
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, (), M>, message: Message<'_>) {
        self(ctx, message);
    }
}

/// The threads for the tasks that a handler on workers [defers](Context::defer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskThreads {
    /// Number of threads. 0 counts as 1.
    pub threads: usize,
    /// The most tasks that wait for a thread. 0 counts as 1.
    pub queue_max: usize,
}

/// A handler with threads of its own. Made by [`Handler::blocking`].
#[derive(Debug)]
pub struct Blocking<H> {
    pub(super) handler: H,
    pub(super) threads: usize,
    pub(super) queue_max: usize,
}
