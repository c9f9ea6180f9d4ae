//! The replies to what a handler asks for.

use super::{
    context::Context,
    mode::{MayBlock, OnWorker},
};
use crate::hub::error::RoomError;

/// The answer to a call of a [`Context`]. The call takes effect whether or not its reply is used.
pub struct Reply<'a, S, T, M = OnWorker> {
    pub(super) ctx: Option<Context<'a, S, M>>,
    /// `None` once it is used.
    pub(super) outcome: Option<Pending<S, T, M>>,
}

/// What the reply to a call is, or comes from.
pub(super) enum Pending<S, T, M> {
    Is(Result<T, RoomError>),
    /// Asks the engine, whose answer comes later.
    Asks(Ask<S, T, M>),
}

/// What is done with an outcome.
pub(super) type Next<S, T, M> =
    Box<dyn FnOnce(&mut Context<'_, S, M>, Result<T, RoomError>) + Send>;

pub(super) type Ask<S, T, M> = Box<dyn FnOnce(&mut Context<'_, S, M>, Option<Next<S, T, M>>)>;

impl<S, T, M> Drop for Reply<'_, S, T, M> {
    /// Asks what was not asked yet.
    fn drop(&mut self) {
        if let (Some(ctx), Some(Pending::Asks(ask))) = (&mut self.ctx, self.outcome.take()) {
            ask(ctx, None);
        }
    }
}

impl<S, T, M> Reply<'_, S, T, M> {
    /// Runs `next` with the answer: before this call returns if the server keeps its rooms in
    /// memory, and later, between two calls of the handler, if it shares them with others
    /// ([`Config::engine`](crate::Config::engine)). Until then no message of this connection is
    /// handled. `next` does not run if the connection ends first.
    pub fn then(
        mut self,
        next: impl FnOnce(&mut Context<'_, S, M>, Result<T, RoomError>) + Send + 'static,
    ) {
        let Some(ctx) = &mut self.ctx else { return };
        match self.outcome.take() {
            Some(Pending::Is(outcome)) => next(ctx, outcome),
            Some(Pending::Asks(ask)) => ask(ctx, Some(Box::new(next))),
            None => {}
        }
    }
}

impl<S, T: Send + 'static> Reply<'_, S, T, MayBlock> {
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
        let (tell, told) = crossbeam_channel::bounded(1);
        self.then(move |_, outcome| {
            let _ = tell.send(outcome);
        });
        // It waits itself where it may block.
        told.try_recv().unwrap_or(Err(RoomError::EngineAway))
    }
}
