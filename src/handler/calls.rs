//! A handler and its connection's state with their types forgotten, and its way to that connection.

use std::{
    any::Any,
    marker::PhantomData,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Context, Handler, Mode, Refusal, Request, SendStatus};
use crate::{
    hub::{
        Hub,
        notice::{Notice, Wording},
        rooms::Room,
        seats::Door,
        sessions::Session,
    },
    metrics::Counter,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// How a [`Context`] reaches its connection: directly on the worker, or by letter from a job.
pub(crate) trait Link: Door {
    fn hub(&self) -> &Arc<Hub>;
    fn session(&self) -> &Arc<Session>;
    fn remote_addr(&self) -> SocketAddr;
    fn send(&mut self, message: Message<'_>) -> SendStatus;
    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus;
    /// A room that the connection is in. The directory, which everyone shares, is not asked.
    fn own_room(&self, name: &str) -> Option<Arc<Room>>;
    fn close(&mut self, reason: CloseReason);
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
pub(crate) trait Calls: Wording {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal>;
    fn subprotocols(&self) -> &[&str];
    fn resumable(&self) -> bool;
    fn open(&self, state: &mut BoxState, link: &mut dyn Link);
    fn message(&self, state: &mut BoxState, link: &mut dyn Link, message: Message<'_>);
    fn drain(&self, state: &mut BoxState, link: &mut dyn Link);
    fn close(&self, state: &mut BoxState, link: &mut dyn Link, reason: &CloseReason);
}

/// A handler as [`Calls`].
pub(super) struct Typed<H, M>(H, PhantomData<M>);

impl<H: Handler<M>, M: Mode> Wording for Typed<H, M> {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        self.0.notice(notice)
    }
}

impl<H: Handler<M>, M: Mode> Typed<H, M> {
    pub(super) fn new(handler: H) -> Typed<H, M> {
        Typed(handler, PhantomData)
    }

    fn context<'a>(state: &'a mut BoxState, link: &'a mut dyn Link) -> Context<'a, H::State, M> {
        let state = state.state.as_mut().and_then(|state| state.downcast_mut());
        let state = state.expect("a state comes back to the handler that made it");
        Context::new(state, link)
    }
}

impl<H: Handler<M>, M: Mode> Calls for Typed<H, M> {
    fn upgrade(&self, request: &Request<'_>, panics: &Arc<Counter>) -> Result<BoxState, Refusal> {
        let state = self.0.on_upgrade(request)?;
        Ok(BoxState { state: Some(Box::new(state)), panics: Arc::clone(panics) })
    }

    fn subprotocols(&self) -> &[&str] {
        self.0.subprotocols()
    }

    fn resumable(&self) -> bool {
        self.0.resumable()
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
