//! How the calls of one connection reach its handler.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{inline_conn::InlineConn, jobs::SerialQueue};
use crate::{
    handler::{
        erased::Call,
        instance::{HandlerInstance, on_panic},
    },
    hub::{conn_handle::Continuation, notice::Notice, question::Outcome, task::TaskAnswer},
    ws::frame::PreparedFrame,
};

/// Where the calls of one connection run.
pub(crate) enum Dispatch {
    /// On this worker, at once.
    Inline(HandlerInstance),
    /// On the threads of a blocking handler, when it is their turn.
    Queued(Arc<SerialQueue>),
}

impl Dispatch {
    /// Makes or queues a call. `false` asks that the connection be paused.
    #[inline]
    pub(super) fn call(&mut self, conn: &mut InlineConn<'_>, call: &Call<'_>) -> bool {
        match self {
            Dispatch::Inline(instance) => {
                instance.call(conn, call);
                true
            }
            Dispatch::Queued(queue) => queue.call(call),
        }
    }

    /// Gives the handler the answer of the task that it deferred. Those on other threads defer
    /// none.
    pub(super) fn answer(&mut self, conn: &mut InlineConn<'_>, answer: TaskAnswer) {
        match self {
            Dispatch::Inline(instance) => instance.answer(conn, answer),
            Dispatch::Queued(_) => answer.discard(),
        }
    }

    /// Goes on with what the handler asked the engine. Those on other threads wait there.
    pub(super) fn go_on(
        &mut self,
        conn: &mut InlineConn<'_>,
        next: Continuation,
        outcome: Outcome,
    ) {
        if let Dispatch::Inline(instance) = self {
            instance.go_on(conn, next, outcome);
        }
    }

    /// Asks the handler to put `notice` into words, on this worker wherever its calls run.
    pub(super) fn notice(
        &self,
        conn: &mut InlineConn<'_>,
        notice: &Notice<'_>,
    ) -> Option<PreparedFrame> {
        let handler = match self {
            Dispatch::Inline(instance) => &*instance.handler,
            Dispatch::Queued(queue) => queue.handler(),
        };
        let formatted = catch_unwind(AssertUnwindSafe(|| handler.notice(notice)));
        formatted.unwrap_or_else(|_| {
            let panics = Arc::clone(&conn.cx.shared.metrics.server.handler_panics);
            on_panic(conn, &panics);
            None
        })
    }
}
