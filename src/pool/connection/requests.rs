//! A connection that is not served yet, or no more: its requests, and its upgrade.

use super::{Connection, Phase};
use crate::{
    metrics::Refused,
    pool::{
        admin::AdminProgress,
        closing::Stage,
        costs::COST_PER_TURN_MAX,
        head::{HeadStep, refuse_by_handler, refuse_unavailable},
        post::PostStep,
        transport::Transport,
        upgrade::{self, Next},
        worker_cx::WorkerCtx,
    },
};

/// HTTP requests answered on one connection before the others get their turn.
const REQUESTS_PER_TURN_MAX: usize = 16;

/// What a request costs, as [`WorkerCtx::spent`] counts it.
const REQUEST_COST: usize = 16;

impl Connection {
    /// Handles the input of a connection that is not served yet, or no more, until it is. Returns
    /// what is left.
    // Out of the way of messages.
    #[inline(never)]
    pub(super) fn advance_unserved<'i>(
        &mut self,
        mut rest: &'i mut [u8],
        cx: &mut WorkerCtx,
    ) -> &'i mut [u8] {
        let mut requests = 0;
        let spent_max = cx.spent + COST_PER_TURN_MAX;
        loop {
            match &mut self.phase {
                Phase::Head(head) => match head.read(rest, &mut self.io, cx) {
                    HeadStep::Wait => break,
                    HeadStep::Answered(used) => {
                        rest = &mut rest[used..];
                        requests += 1;
                        if self.is_enough(requests, spent_max, rest, cx) {
                            break;
                        }
                    }
                    HeadStep::Last => {
                        if !head.is_last() {
                            self.close(Stage::FlushThenLinger, cx);
                        }
                        return &mut [];
                    }
                    HeadStep::Post(used, request) => {
                        rest = &mut rest[used..];
                        self.begin_post(request, cx);
                    }
                    HeadStep::Upgrade(used, request) => {
                        rest = behind(rest, used, &request.transport);
                        let next = upgrade::admit(request, &mut self.io, cx);
                        self.go_on(next, cx);
                    }
                    HeadStep::Lookup(used, lookup) => {
                        let left = matches!(lookup.transport, Transport::WebSocket(_));
                        let (bytes, behind) = rest.split_at_mut(used);
                        if let Phase::Head(head) = std::mem::replace(&mut self.phase, Phase::Gone) {
                            let next = upgrade::ask_handler(lookup, bytes, head, &mut self.io, cx);
                            self.go_on(next, cx);
                        }
                        rest = if left { behind } else { &mut [] };
                    }
                },
                Phase::Admin(admin) => match admin.read(rest, &mut self.io, cx) {
                    AdminProgress::Wait => break,
                    AdminProgress::Used(used) => {
                        rest = &mut rest[used..];
                        requests += 1;
                        if self.is_enough(requests, spent_max, rest, cx) {
                            break;
                        }
                    }
                    AdminProgress::Last => return &mut [],
                },
                Phase::Posting(post) => match post.read(rest, &mut self.io, cx) {
                    PostStep::Wait => break,
                    PostStep::Used(used) => rest = &mut rest[used..],
                    PostStep::Answer(answer) => {
                        self.answer_post(&answer, cx);
                        requests += 1;
                        if self.is_enough(requests, spent_max, rest, cx) {
                            break;
                        }
                    }
                },
                Phase::Asking(_) | Phase::Waiting(_) | Phase::Open(_) => break,
                Phase::Closing(closing) => {
                    closing.read(&mut rest, &mut self.io, cx);
                    return rest;
                }
                Phase::Gone => return &mut [],
            }
        }
        rest
    }

    /// Counts one of the `requests` that were answered now. Returns whether the others must get
    /// their turn, and what is left waits.
    fn is_enough(
        &mut self,
        requests: usize,
        spent_max: usize,
        rest: &[u8],
        cx: &mut WorkerCtx,
    ) -> bool {
        cx.spent += REQUEST_COST;
        let is_enough = requests == REQUESTS_PER_TURN_MAX || cx.spent >= spent_max;
        if is_enough {
            self.io.has_backlog = !rest.is_empty();
            self.io.list_ready(&mut cx.work);
        }
        is_enough
    }

    /// An upgrade that waited can go on: it was admitted, or its handler has answered.
    pub(in crate::pool) fn on_upgrade(&mut self, cx: &mut WorkerCtx) {
        let next = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Asking(asking) => asking.go_on(&mut self.io, cx),
            Phase::Waiting(waiting) => waiting.go_on(&mut self.io, cx),
            // The drain or the timeout came first, and the answer to that is on its way.
            other => {
                self.phase = other;
                return;
            }
        };
        self.go_on(next, cx);
        let stash = std::mem::take(&mut self.io.stash);
        self.advance_stash(stash, cx);
        self.io.list_ready(&mut cx.work);
    }

    /// Goes on with an upgrade.
    fn go_on(&mut self, next: Next, cx: &mut WorkerCtx) {
        match next {
            Next::Open(open) => self.phase = Phase::Open(open),
            Next::Asking(asking) => self.phase = Phase::Asking(asking),
            Next::Waiting(waiting) => self.phase = Phase::Waiting(waiting),
            Next::Refused(why) => self.refuse(why, cx),
            Next::RefusedByHandler(refusal) => {
                refuse_by_handler(refusal, &mut self.io, cx);
                self.close(Stage::FlushThenLinger, cx);
            }
            Next::Gone => {
                self.phase = Phase::Gone;
                self.io.list_dirty(&mut cx.work);
            }
        }
    }

    /// Answers an upgrade with a 503.
    pub(in crate::pool) fn refuse(&mut self, why: Refused, cx: &mut WorkerCtx) {
        refuse_unavailable(why, &mut self.io, cx);
        self.close(Stage::FlushThenLinger, cx);
    }
}

/// What of `rest` is behind a request of so many bytes. The client of an event stream has nothing
/// more to say on its connection.
fn behind<'i>(rest: &'i mut [u8], used: usize, transport: &Transport) -> &'i mut [u8] {
    match transport {
        Transport::WebSocket(_) => &mut rest[used..],
        Transport::Events(_) => &mut [],
    }
}
