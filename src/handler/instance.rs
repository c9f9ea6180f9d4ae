//! A handler and its state for one connection, and what surrounds each call of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::erased::{BoxState, Call, DynHandler};
use crate::{
    hub::{
        conn_handle::{ConnHandle, Continuation},
        question::Outcome,
        task::TaskAnswer,
    },
    metrics::Counter,
    ws::close::CloseReason,
};

/// A handler and its state for one connection. Belongs to the thread that makes the calls: the
/// worker, or one job thread at a time.
pub(crate) struct HandlerInstance {
    pub(crate) handler: Arc<dyn DynHandler>,
    state: BoxState,
    /// No message was handled yet.
    is_fresh: bool,
    /// A message was handled, but for the answer of the engine.
    has_begun: bool,
}

impl HandlerInstance {
    pub(crate) fn new(handler: &Arc<dyn DynHandler>, state: BoxState) -> HandlerInstance {
        HandlerInstance { handler: Arc::clone(handler), state, is_fresh: true, has_begun: false }
    }

    /// Calls the handler, and does what the server owes its session after that call.
    #[inline]
    pub(crate) fn call(&mut self, conn: &mut dyn ConnHandle, call: &Call<'_>) {
        let HandlerInstance { handler, state, is_fresh, has_begun } = self;
        let outcome = catch_unwind(AssertUnwindSafe(|| handler.call(state, conn, call)));
        if outcome.is_err() {
            on_panic(conn, state.panics());
        }
        match call {
            Call::Message(_) if !*is_fresh => {}
            Call::Message(_) if outcome.is_ok_and(|stays_fresh| stays_fresh) => {}
            // What is asked may be to take up an earlier session.
            Call::Message(_) if conn.awaits_engine() => *has_begun = true,
            Call::Message(_) => {
                *is_fresh = false;
                begin_session(conn);
            }
            Call::Open | Call::Wake => {}
            Call::Drain => {
                let reason = conn.hub().drain_reason();
                conn.close(reason);
            }
            Call::Close(reason) => {
                if conn.hub().depart(conn.session(), (conn.id(), conn.remote_addr().ip()), reason) {
                    conn.on_backpressure();
                }
            }
        }
    }

    /// Gives the handler the answer of the task that it deferred.
    pub(crate) fn answer(&mut self, conn: &mut dyn ConnHandle, answer: TaskAnswer) {
        let HandlerInstance { handler, state, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| handler.answer(state, conn, answer))).is_err() {
            on_panic(conn, state.panics());
        }
    }

    /// Goes on with what the handler asked the engine.
    pub(crate) fn go_on(
        &mut self,
        conn: &mut dyn ConnHandle,
        next: Continuation,
        outcome: Outcome,
    ) {
        let HandlerInstance { state, is_fresh, has_begun, .. } = self;
        let go_on = AssertUnwindSafe(|| next(state.as_any(), conn, outcome));
        if catch_unwind(go_on).is_err() {
            on_panic(conn, state.panics());
        }
        if *has_begun && *is_fresh && !conn.awaits_engine() {
            *is_fresh = false;
            begin_session(conn);
        }
    }
}

/// Notes that the client has spoken: it takes up no earlier session any more, and is shown.
#[cold]
fn begin_session(conn: &mut dyn ConnHandle) {
    conn.session().set_begun();
    if conn.hub().confirm(conn.session()) {
        conn.on_backpressure();
    }
}

/// Closes the connection whose handler panicked; nothing else suffers.
#[cold]
pub(crate) fn on_panic(conn: &mut dyn ConnHandle, panics: &Counter) {
    log::error!("{} {}: the handler panicked", conn.remote_addr(), conn.session().client_id);
    panics.add_shared();
    conn.close(CloseReason::INTERNAL);
}
