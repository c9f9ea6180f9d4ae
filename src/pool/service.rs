//! Where a connection's handler runs, and what a panic in it costs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{core::Core, desk::Desk, jobs::Lane, link::WorkerLink};
use crate::{
    handler::calls::{BoxState, Calls, Link},
    hub::{notice::Notice, sessions::Session},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// Where a connection's handler runs.
pub(crate) enum Service {
    /// On this worker.
    Inline { calls: Arc<dyn Calls>, state: BoxState },
    /// On the threads of a blocking handler.
    Jobs(Arc<Lane>),
}

/// One connection's tools for a call of its handler.
pub(super) struct Caller<'a> {
    pub(super) core: &'a mut Core,
    pub(super) desk: &'a mut Desk,
    pub(super) session: &'a mut Arc<Session>,
}

impl Service {
    /// Asks the handler to put `notice` into words, on this worker wherever its calls run.
    pub(super) fn notice(&self, caller: Caller<'_>, notice: &Notice<'_>) -> Option<PreparedFrame> {
        let calls = match self {
            Service::Inline { calls, .. } => &**calls,
            Service::Jobs(lane) => lane.calls(),
        };
        let mut words = None;
        caller.call(|_| words = calls.notice(notice));
        words
    }

    /// Tells the handler that its connection is open.
    pub(super) fn open(&mut self, caller: Caller<'_>) {
        match self {
            Service::Inline { calls, state } => caller.call(|link| calls.open(state, link)),
            Service::Jobs(lane) => lane.open(),
        }
    }

    /// Gives the handler a message. `false` asks that the connection be paused.
    pub(super) fn message(&mut self, caller: Caller<'_>, message: Message<'_>) -> bool {
        match self {
            Service::Inline { calls, state } => {
                caller.call(|link| calls.message(state, link, message));
                true
            }
            Service::Jobs(lane) => lane.message(message),
        }
    }

    /// Tells the handler that the server drains. `false` when the handler's jobs will ask for the close.
    pub(super) fn drain(&mut self, caller: Caller<'_>) -> bool {
        match self {
            Service::Inline { calls, state } => {
                caller.call(|link| calls.drain(state, link));
                true
            }
            Service::Jobs(lane) => {
                lane.drain();
                false
            }
        }
    }

    /// Tells the handler that its connection is over, drops its state, and lets the session go on or end.
    pub(super) fn close(self, caller: Caller<'_>, reason: CloseReason) {
        match self {
            Service::Inline { calls, mut state } => {
                let Caller { core, desk, session } = caller;
                Caller { core, desk, session }.call(|link| calls.close(&mut state, link, &reason));
                if desk.shared.hub.depart(session, core.id, &reason) {
                    desk.feel_pressure();
                }
            }
            Service::Jobs(lane) => lane.close(reason),
        }
    }
}

impl Caller<'_> {
    /// Runs handler code. A panic in it costs this one connection and nothing else.
    fn call(self, call: impl FnOnce(&mut dyn Link)) {
        let Caller { core, desk, session } = self;
        let mut link = WorkerLink { core, desk, session };
        if catch_unwind(AssertUnwindSafe(|| call(&mut link))).is_err() {
            log::error!("{} {}: the handler panicked", link.core.remote, link.session.client_id);
            link.desk.shared.metrics.server.handler_panics.add_shared();
            link.close(CloseReason::INTERNAL);
        }
    }
}
