//! Where a connection's handler runs.

use std::sync::Arc;

use super::{inline_conn::InlineConn, jobs::SerialQueue};
use crate::{
    handler::erased::{BoxState, DynHandler},
    hub::notice::Notice,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// Where a connection's handler runs.
pub(crate) enum Service {
    /// On this worker.
    Inline { handler: Arc<dyn DynHandler>, state: BoxState },
    /// On the threads of a blocking handler.
    Jobs(Arc<SerialQueue>),
}

impl Service {
    /// Asks the handler to put `notice` into words, on this worker wherever its calls run.
    pub(super) fn notice(
        &self,
        mut conn: InlineConn<'_>,
        notice: &Notice<'_>,
    ) -> Option<PreparedFrame> {
        let handler = match self {
            Service::Inline { handler, .. } => &**handler,
            Service::Jobs(queue) => queue.handler(),
        };
        let mut frame = None;
        conn.call(|_| frame = handler.notice(notice));
        frame
    }

    /// Tells the handler that its connection is open.
    pub(super) fn open(&mut self, mut conn: InlineConn<'_>) {
        match self {
            Service::Inline { handler, state } => conn.call(|conn| handler.open(state, conn)),
            Service::Jobs(queue) => queue.open(),
        }
    }

    /// Gives the handler a message. `false` asks that the connection be paused.
    pub(super) fn message(&mut self, mut conn: InlineConn<'_>, message: Message<'_>) -> bool {
        match self {
            Service::Inline { handler, state } => {
                conn.call(|conn| handler.message(state, conn, message));
                true
            }
            Service::Jobs(queue) => queue.message(message),
        }
    }

    /// Tells the handler that the server drains. `false` when the handler's jobs will ask for the
    /// close.
    pub(super) fn drain(&mut self, mut conn: InlineConn<'_>) -> bool {
        match self {
            Service::Inline { handler, state } => {
                conn.call(|conn| handler.drain(state, conn));
                true
            }
            Service::Jobs(queue) => {
                queue.drain();
                false
            }
        }
    }

    /// Tells the handler that its connection is over, drops its state, and lets the session go on
    /// or end.
    pub(super) fn close(self, mut conn: InlineConn<'_>, reason: CloseReason) {
        match self {
            Service::Inline { handler, mut state } => {
                conn.call(|conn| handler.close(&mut state, conn, &reason));
                let InlineConn { core, desk, session } = conn;
                if desk.shared.hub.depart(session, core.id, &reason) {
                    desk.on_backpressure();
                }
            }
            Service::Jobs(queue) => queue.close(reason),
        }
    }
}
