//! What an embedder writes: the callbacks of a route.

use super::{
    context::Context,
    mode::{MayBlock, Mode, OnWorker},
    refusal::Refusal,
};
use crate::{
    http::head::Request,
    hub::notice::Notice,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// What a WebSocket route does with its connections.
///
/// One handler serves all connections of its route, from several threads at once; what belongs to
/// one connection goes into its [`State`](Handler::State). The calls for one connection never
/// overlap and come in order: `on_upgrade`, `on_open`, any number of `on_message`, at most one
/// `on_drain`, `on_close`. `on_open` and `on_close` come in pairs.
///
/// `M` says where the calls run. A plain `Handler` runs [`OnWorker`]: everything else on the worker
/// waits for it, so it must be quick. A handler that waits for a database or a file is a
/// `Handler<MayBlock>`, mounted with [`blocking`](Handler::blocking). It cannot be mounted on a
/// worker; this does not compile:
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
/// A panic in a handler closes that one connection with 1011, is logged and counted, and nothing
/// else.
///
/// A closure `Fn(&mut Context<'_, ()>, Message<'_>)` is a handler too.
pub trait Handler<M: Mode = OnWorker>: Send + Sync + 'static {
    /// What the handler remembers about one connection.
    type State: Default + Send + 'static;

    /// Looks at the upgrade request before anything is promised. Runs on the worker, whatever `M`
    /// is. A refusal is answered with its HTTP status; the connection never opens.
    fn on_upgrade(&self, request: &Request<'_>) -> Result<Self::State, Refusal> {
        let _ = request;
        Ok(Self::State::default())
    }

    /// Names the subprotocols that this handler speaks, as clients offer them in
    /// `Sec-WebSocket-Protocol` (RFC 6455, 1.9). The first offer that is among them is confirmed in
    /// the answer; where none is, the answer names none, and the client decides whether to stay.
    ///
    /// Called on the worker, at every upgrade that [`on_upgrade`](Handler::on_upgrade) takes.
    fn subprotocols(&self) -> &[&str] {
        &[]
    }

    /// Begins a connection that has its permit. The 101 goes out before whatever is sent here.
    fn on_open(&self, ctx: &mut Context<'_, Self::State, M>) {
        let _ = ctx;
    }

    /// Handles a whole message.
    fn on_message(&self, ctx: &mut Context<'_, Self::State, M>, message: Message<'_>);

    /// Says farewell when the server drains: the connection is closed with 1001 right after this
    /// call.
    fn on_drain(&self, ctx: &mut Context<'_, Self::State, M>) {
        let _ = ctx;
    }

    /// Ends a connection. It is still a member of its rooms, so a farewell can be published; what
    /// is sent to the connection itself goes nowhere.
    fn on_close(&self, ctx: &mut Context<'_, Self::State, M>, reason: &CloseReason) {
        let _ = (ctx, reason);
    }

    /// Puts into words what the server has to tell a client of this handler. `None` tells nothing;
    /// where messages would be lost untold, the slow client is closed with 4102 instead.
    ///
    /// Called where the notice arises, on any thread, and while the server holds locks: it must
    /// only format, quickly, and not call back into the server.
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let _ = notice;
        None
    }

    /// Whether a session outlives its connection, for
    /// [`resume_window`](crate::Config::resume_window), so that [`Context::resume`] can take it up
    /// on another one.
    fn resumable(&self) -> bool {
        false
    }

    /// Mounts this handler on a pool of `threads` of its own, where it may block.
    ///
    /// At most `queue_max` messages wait for those threads; 0 of either counts as 1. While a
    /// connection's messages are behind, its socket is not read, so the pressure reaches the client
    /// as TCP backpressure. Calls for one connection still come in order, one at a time.
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

/// A handler with threads of its own; made by [`Handler::blocking`].
#[derive(Debug)]
pub struct Blocking<H> {
    pub(super) handler: H,
    pub(super) threads: usize,
    pub(super) queue_max: usize,
}
