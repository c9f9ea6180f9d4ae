//! An upgrade from its request to its permit: its handler is asked, and it may wait in line.

use std::sync::Arc;

use super::{
    admission::{Answer, Ticket},
    asked::Lookup,
    conn_io::{ConnIo, Readiness},
    head::Head,
    jobs::{UpgradeAnswer, UpgradeJob},
    open::{Open, UpgradeRequest},
    timers::Millis,
    worker_cx::WorkerCtx,
};
use crate::{handler::Refusal, metrics::Refused};

/// An upgrade that a job thread asks the blocking handler about.
pub(crate) struct Asking {
    lookup: Lookup,
    answer: Arc<UpgradeAnswer>,
    /// It counts among the pending heads until it is answered.
    _head: Box<Head>,
}

/// An upgrade in the line of those that wait for a permit.
pub(crate) struct Waiting {
    ticket: Ticket,
    request: UpgradeRequest,
    since: Millis,
}

/// What becomes of an upgrade next.
pub(super) enum Next {
    Open(Box<Open>),
    Asking(Box<Asking>),
    Waiting(Box<Waiting>),
    Refused(Refused),
    RefusedByHandler(Refusal),
    /// Its end came together with its request, and raises no event of its own.
    Gone,
}

/// Lets a job thread ask the blocking handler about an upgrade. `bytes` are its request's head.
pub(super) fn ask_handler(
    lookup: Lookup,
    bytes: &[u8],
    head: Box<Head>,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) -> Next {
    if io.readiness.contains(Readiness::READ_CLOSED) {
        return Next::Gone;
    }
    let route = &cx.shared.routes[lookup.route];
    let answer = Arc::default();
    let job = UpgradeJob {
        handler: Arc::clone(&route.handler),
        hub: Arc::clone(&cx.shared.hub),
        panics: Arc::clone(&cx.shared.metrics.server.handler_panics),
        conn: io.id,
        client: lookup.client,
        head: bytes.into(),
        answer: Arc::clone(&answer),
    };
    if !route.jobs.as_ref().is_some_and(|jobs| jobs.ask(job)) {
        return Next::Refused(Refused::HandlerBusy);
    }
    io.set_deadline(cx.config().queue_timeout, cx);
    Next::Asking(Box::new(Asking { lookup, answer, _head: head }))
}

/// Asks for a permit for an upgrade that its handler takes.
pub(super) fn admit(request: UpgradeRequest, io: &mut ConnIo, cx: &mut WorkerCtx) -> Next {
    if request.client != io.remote
        && let Err(too_many) = io.set_client(request.client, cx)
    {
        return Next::Refused(too_many.refused());
    }
    match cx.shared.admission.ask(io.id) {
        Answer::Served(permit) => Next::Open(Open::begin(permit, request, None, io, cx)),
        Answer::Waits(_) if io.readiness.contains(Readiness::READ_CLOSED) => Next::Gone,
        Answer::Waits(ticket) => {
            if ticket.is_for_memory() {
                cx.shared.hub.account.metrics.memory_waits.add_shared();
            }
            io.set_deadline(cx.config().queue_timeout, cx);
            Next::Waiting(Box::new(Waiting { ticket, request, since: cx.now }))
        }
        Answer::Full if cx.shared.admission.is_held() => Next::Refused(Refused::Memory),
        Answer::Full => Next::Refused(Refused::Full),
        Answer::Draining => Next::Refused(Refused::Draining),
    }
}

impl Asking {
    /// Goes on with the handler's answer, if it is there.
    pub(super) fn go_on(self: Box<Asking>, io: &mut ConnIo, cx: &mut WorkerCtx) -> Next {
        match self.answer.take() {
            Some(Ok(state)) => {
                let Lookup { transport, client, route } = self.lookup;
                admit(UpgradeRequest { transport, client, route, state }, io, cx)
            }
            Some(Err(refusal)) => {
                io.remote = self.lookup.client;
                Next::RefusedByHandler(refusal)
            }
            None => Next::Asking(self),
        }
    }
}

impl Waiting {
    /// Opens the connection if a permit was set aside for it.
    pub(super) fn go_on(self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Next {
        let Waiting { ticket, request, since } = self;
        match ticket.claim() {
            Ok(permit) => {
                let waited_ms = Some(cx.now.saturating_sub(since));
                Next::Open(Open::begin(permit, request, waited_ms, io, cx))
            }
            Err(ticket) => Next::Waiting(Box::new(Waiting { ticket, request, since })),
        }
    }
}
