//! Type-erased handlers and connection states.

use std::{
    any::Any,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{callbacks::Handler, context::Context, mode::Mode, refusal::Refusal};
use crate::{
    config::Config,
    http::head::Request,
    hub::{
        conn_handle::ConnHandle,
        event::ServerEvent,
        names::RoomName,
        notice::{Notice, NoticeFormatter},
        task::TaskAnswer,
    },
    identity::{Identity, Permissions},
    metrics::{Counter, names},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// A connection's state, type-erased.
///
/// Dropping the state runs the embedder's code wherever a connection ends, so a panic in it is
/// caught, logged and counted like any panic of the handler.
pub(crate) struct BoxState {
    state: Option<Box<dyn Any + Send>>,
    panics: Arc<Counter>,
}

impl BoxState {
    /// The state, whatever its type.
    pub(super) fn as_any(&mut self) -> &mut dyn Any {
        let state = self.state.as_deref_mut();
        state.expect("it is there until it is dropped")
    }

    /// Counts the panics of the handler that made this state.
    pub(super) fn panics(&self) -> &Counter {
        &self.panics
    }
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

/// A handler, type-erased so that routes with different handlers share one table.
pub(crate) trait DynHandler: NoticeFormatter {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal>;
    fn subprotocols(&self) -> &[&str];
    fn is_open_to_all_origins(&self) -> bool;
    fn resumable(&self) -> bool;
    fn figures(&self) -> Vec<(&'static str, u64)>;
    fn stop(&self, left: Duration);
    /// Tells of new settings. Returns whether permissions may be others now.
    fn reload(&self, config: &Config) -> bool;
    /// Makes a call. Returns whether the handler wants the session to stay fresh, though it was
    /// given a message.
    fn call(&self, state: &mut BoxState, conn: &mut dyn ConnHandle, call: &Call<'_>) -> bool;
    /// Gives the answer of a deferred task.
    fn answer(&self, state: &mut BoxState, conn: &mut dyn ConnHandle, answer: TaskAnswer);
}

/// Asks a handler about an upgrade. A panic refuses it.
pub(crate) fn ask_upgrade(
    handler: &dyn DynHandler,
    request: &Request<'_>,
    panics: &Arc<Counter>,
) -> Result<BoxState, Refusal> {
    catch_unwind(AssertUnwindSafe(|| handler.upgrade(request, panics))).unwrap_or_else(|_| {
        panics.add_shared();
        log::error!("the handler of {} panicked at an upgrade", request.path());
        Err(Refusal::internal())
    })
}

/// A call of a handler, for a connection that has its permit.
pub(crate) enum Call<'a> {
    Open,
    Message(Message<'a>),
    Wake,
    Drain,
    Close(&'a CloseReason),
}

/// The calls of a handler: each [`Call`], and that with an answer.
#[derive(Clone, Copy)]
pub(crate) enum CallName {
    Open,
    Message,
    Answer,
    Wake,
    Drain,
    Close,
}

names!(CallName { Open, Message, Answer, Wake, Drain, Close });

impl Call<'_> {
    #[inline]
    pub(crate) fn name(&self) -> CallName {
        match self {
            Call::Open => CallName::Open,
            Call::Message(_) => CallName::Message,
            Call::Wake => CallName::Wake,
            Call::Drain => CallName::Drain,
            Call::Close(_) => CallName::Close,
        }
    }
}

/// A handler of type `H` as a [`DynHandler`].
pub(super) struct Erased<H, M>(H, PhantomData<M>);

impl<H: Handler<M>, M: Mode> NoticeFormatter for Erased<H, M> {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        self.0.notice(notice)
    }

    fn observe(&self, event: &ServerEvent<'_>) {
        self.0.observe(event);
    }

    fn permissions(&self, identity: Option<&Identity>, room: Option<&RoomName>) -> Permissions {
        self.0.permissions(identity, room)
    }
}

impl<H: Handler<M>, M: Mode> Erased<H, M> {
    pub(super) fn new(handler: H) -> Erased<H, M> {
        Erased(handler, PhantomData)
    }

    fn context<'a>(
        state: &'a mut BoxState,
        conn: &'a mut dyn ConnHandle,
    ) -> Context<'a, H::State, M> {
        let state = state.state.as_mut().and_then(|state| state.downcast_mut());
        let state = state.expect("a state comes back to the handler that made it");
        Context::new(state, conn)
    }
}

impl<H: Handler<M>, M: Mode> DynHandler for Erased<H, M> {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal> {
        let state = self.0.on_upgrade(request)?;
        Ok(BoxState { state: Some(Box::new(state)), panics: Arc::clone(panics) })
    }

    fn subprotocols(&self) -> &[&str] {
        self.0.subprotocols()
    }

    fn is_open_to_all_origins(&self) -> bool {
        self.0.is_open_to_all_origins()
    }

    fn resumable(&self) -> bool {
        self.0.resumable()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let figures = catch_unwind(AssertUnwindSafe(|| self.0.figures()));
        figures.unwrap_or_else(|_| {
            log::error!("a handler panicked when it was asked for its figures");
            Vec::new()
        })
    }

    fn stop(&self, left: Duration) {
        if catch_unwind(AssertUnwindSafe(|| self.0.on_stop(left))).is_err() {
            log::error!("a handler panicked when the server had stopped");
        }
    }

    fn reload(&self, config: &Config) -> bool {
        let reloaded = catch_unwind(AssertUnwindSafe(|| self.0.on_reload(config)));
        reloaded.unwrap_or_else(|_| {
            log::error!("a handler panicked when it was told of new settings");
            true
        })
    }

    fn call(&self, state: &mut BoxState, conn: &mut dyn ConnHandle, call: &Call<'_>) -> bool {
        let mut ctx = Self::context(state, conn);
        match call {
            Call::Open => self.0.on_open(&mut ctx),
            Call::Message(message) => self.0.on_message(&mut ctx, *message),
            Call::Wake => self.0.on_wake(&mut ctx),
            Call::Drain => self.0.on_drain(&mut ctx),
            Call::Close(reason) => self.0.on_close(&mut ctx, reason),
        }
        ctx.stays_fresh()
    }

    fn answer(&self, state: &mut BoxState, conn: &mut dyn ConnHandle, answer: TaskAnswer) {
        self.0.on_answer(&mut Self::context(state, conn), answer);
    }
}
