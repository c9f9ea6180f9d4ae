//! A connection of the admin listener: HTTP requests with bodies, answered by the server itself or
//! by its [`AdminHandler`], in steps that are bounded in bytes, in time and in what they cost.
//!
//! [`AdminHandler`]: crate::AdminHandler

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    bound::BoundToken,
    closing::Stage,
    conn_io::ConnIo,
    live::{Live, LiveStep},
    timers::Millis,
    worker_cx::WorkerCtx,
};
use crate::{
    handler::{AdminAnswer, AdminContext, AdminStep, BodyCall, KeyCall, LaterCall},
    http::{
        body::{BadBody, BodyLength, BodyReader, CONTINUE},
        head::{HeaderSpace, Request},
        page::StaticPage,
        response::{Response, Status},
        router::admin_route,
    },
    metrics::Refused,
    ws::handshake::{NotAnUpgrade, Upgrade},
};

mod own_answers;

use own_answers::{internal_error, method_not_allowed, own_answer};

/// The pause after which a refused body may be sent again.
const BODIES_RETRY_S: u64 = 1;

/// A connection of the admin listener.
pub(crate) struct Admin {
    state: State,
    /// Whether no request has come yet.
    is_fresh: bool,
    /// Counts it among the connections of the admin listener.
    _token: BoundToken,
}

enum State {
    /// A request is due, or may come.
    Head,
    /// The body of a request is due.
    Body(Box<Reading>),
    /// A request is answered in a later turn.
    Later(Later),
    /// It is a WebSocket now, whose client is shown the figures.
    Live(Box<Live>),
    /// The connection ends when its last answer is written.
    Last,
}

/// A body on its way.
struct Reading {
    reader: BodyReader,
    then: BodyCall,
    exchange: Exchange,
    _token: BoundToken,
}

struct Later {
    call: LaterCall,
    at: Millis,
    exchange: Exchange,
}

/// What the answer to a request must be like.
#[derive(Clone, Copy)]
struct Exchange {
    closes: bool,
    head_only: bool,
}

/// How far a step came.
pub(super) enum AdminProgress {
    /// More input is needed, or none is looked at now.
    Wait,
    /// So many bytes were used.
    Used(usize),
    /// Nothing more is read.
    Last,
}

impl Admin {
    /// Bytes of a body that is not whole.
    pub(super) fn partial_bytes(&self) -> usize {
        match &self.state {
            State::Body(reading) => reading.reader.held_bytes(),
            State::Live(live) => live.partial_bytes(),
            State::Head | State::Later(_) | State::Last => 0,
        }
    }

    /// A connection whose first request is due; `token` counts it.
    pub(super) fn new(token: BoundToken, io: &mut ConnIo, cx: &mut WorkerCtx) -> Admin {
        io.set_deadline(cx.config().handshake_timeout, cx);
        Admin { state: State::Head, is_fresh: true, _token: token }
    }

    /// Whether the connection ends when everything is written.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.state, State::Last)
    }

    /// Whether a request is being answered, so that no other is read.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Later(_))
    }

    /// Whether it shows the figures to a viewer.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Handles what it can of the front of `input`: a head, a part of a body, or a frame.
    pub(super) fn read(
        &mut self,
        input: &mut [u8],
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) -> AdminProgress {
        match &mut self.state {
            State::Last => AdminProgress::Last,
            State::Later(_) => AdminProgress::Wait,
            State::Head => self.read_head(input, io, cx),
            State::Live(live) => match live.read(input, io, cx) {
                LiveStep::Wait => AdminProgress::Wait,
                LiveStep::Used(used) => AdminProgress::Used(used),
                LiveStep::Over => {
                    self.end_live(io, cx);
                    AdminProgress::Last
                }
            },
            State::Body(reading) => match reading.reader.read(input) {
                Err(bad) => self.refuse_body(bad, io, cx),
                Ok(used) if reading.reader.is_done() => {
                    self.on_body(io, cx);
                    AdminProgress::Used(used)
                }
                Ok(0) => AdminProgress::Wait,
                Ok(used) => AdminProgress::Used(used),
            },
        }
    }

    fn read_head(&mut self, input: &[u8], io: &mut ConnIo, cx: &mut WorkerCtx) -> AdminProgress {
        if !io.outbox.fits(0, &cx.limits.outbox) {
            // A client that pipelines requests must read the answers before there are more.
            io.has_backlog = true;
            io.list_dirty(&mut cx.work);
            return AdminProgress::Wait;
        }
        if input.is_empty() {
            return AdminProgress::Wait;
        }
        let mut space = HeaderSpace::default();
        let head_bytes_max = cx.config().max_head_bytes;
        let refuse = |status, reason: &str, head_only| {
            let answer = AdminAnswer::error(status, Refused::BadRequest.name(), reason, None);
            (answer, Exchange { closes: true, head_only })
        };
        let too_large = "the request head is too large";
        let (answer, exchange) = match Request::parse_with_body(input, &mut space) {
            Ok(Some((request, length, used))) if used <= head_bytes_max => {
                self.is_fresh = false;
                let request = request.with_remote(io.remote);
                self.on_request(&request, length, io, cx);
                return AdminProgress::Used(used);
            }
            Ok(Some((request, ..))) => {
                refuse(Status::HeadTooLarge, too_large, request.method() == "HEAD")
            }
            Ok(None) if input.len() > head_bytes_max => {
                refuse(Status::HeadTooLarge, too_large, false)
            }
            Ok(None) => return AdminProgress::Wait,
            Err(bad) => refuse(bad.status, bad.reason, bad.head_only),
        };
        self.is_fresh = false;
        cx.shared.metrics.refuse(Refused::BadRequest);
        self.answer(answer, exchange, io, cx);
        AdminProgress::Last
    }

    fn on_request(
        &mut self,
        request: &Request<'_>,
        length: BodyLength,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        let shared = Arc::clone(&cx.shared);
        let has_body = length != BodyLength::Sized(0);
        let is_last = shared.is_draining() || shared.admin_conns.is_scarce();
        let exchange = Exchange {
            closes: is_last || !request.keeps_alive(),
            head_only: request.method() == "HEAD",
        };
        // A body that nobody reads would be parsed as the next request.
        let unread = Exchange { closes: exchange.closes || has_body, ..exchange };
        if let Some(target) = admin_route(request) {
            let answer = own_answer(target, request, cx);
            return self.answer(answer, unread, io, cx);
        }
        if let Some(page) = shared.admin.pages.iter().find(|page| page.path == request.path()) {
            return self.give_page(page, request, unread, io, cx);
        }
        let Some(handler) = &shared.admin.handler else {
            let message = "there is nothing here; try /health, /ready, /stats or /metrics";
            let answer = AdminAnswer::error(Status::NotFound, "not_found", message, None);
            return self.answer(answer, unread, io, cx);
        };
        match call(cx, |ctx| handler.on_request(ctx, request)) {
            AdminStep::Body(bytes_max, then) => {
                self.await_body(request, (length, bytes_max), then, exchange, io, cx);
            }
            AdminStep::Live(key) => self.begin_live(request, key, unread, io, cx),
            step => self.apply(step, unread, io, cx),
        }
    }

    /// Answers with a page, whose body may be larger than what else may wait for a client.
    fn give_page(
        &mut self,
        page: &StaticPage,
        request: &Request<'_>,
        exchange: Exchange,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        if !matches!(request.method(), "GET" | "HEAD") {
            return self.answer(method_not_allowed(), exchange, io, cx);
        }
        cx.shared.metrics.server.admin_requests_total.add_shared();
        let Exchange { closes, head_only } = exchange;
        let known = page.is_known_to(request);
        let mut head = Vec::with_capacity(512);
        page.write_head(&mut head, cx.date(), known, closes);
        io.queue_bytes(&mut head, cx);
        if !known && !head_only && !page.body().is_empty() {
            io.outbox.push_shared(page.body(), &mut cx.scratch.spare);
        }
        self.state = if closes { State::Last } else { State::Head };
        io.set_deadline(cx.config().handshake_timeout, cx);
    }

    /// Answers with a 101, and shows the figures to whoever has shown a key, or shows it first.
    fn begin_live(
        &mut self,
        request: &Request<'_>,
        key: Option<KeyCall>,
        exchange: Exchange,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        let upgrade = match Upgrade::check(request.upgrade(), None) {
            Ok(upgrade) => upgrade,
            Err(NotAnUpgrade { fault, reason, advice }) => {
                let why = Refused::BadRequest;
                cx.shared.metrics.refuse(why);
                let answer = AdminAnswer::error(Status::of_fault(fault), why.name(), reason, None);
                let answer = AdminAnswer { header: advice.to_owned(), ..answer };
                return self.answer(answer, Exchange { closes: true, ..exchange }, io, cx);
            }
        };
        cx.shared.metrics.server.admin_requests_total.add_shared();
        io.outbox.push_own(0, &mut cx.scratch.spare, |out| upgrade.respond(out, None));
        io.list_dirty(&mut cx.work);
        match Live::begin(key, io, cx) {
            Some(live) => self.state = State::Live(Box::new(live)),
            None => self.end_live(io, cx),
        }
    }

    /// The Close of a viewer is queued.
    fn end_live(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        self.state = State::Last;
        io.list_dirty(&mut cx.work);
        io.set_deadline(cx.config().close_timeout, cx);
    }

    /// Begins to read a body, if there may be another and it is not too large.
    fn await_body(
        &mut self,
        request: &Request<'_>,
        (length, bytes_max): (BodyLength, usize),
        then: BodyCall,
        exchange: Exchange,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        let last = Exchange { closes: true, ..exchange };
        let expects = request.values("Expect").collect::<Vec<_>>();
        if expects.iter().any(|expected| !expected.eq_ignore_ascii_case("100-continue")) {
            let message = "the only expectation that is met is 100-continue";
            let status = Status::ExpectationFailed;
            let answer = AdminAnswer::error(status, "expectation_failed", message, None);
            return self.answer(answer, last, io, cx);
        }
        let bytes_max = bytes_max.min(cx.config().api_body_bytes);
        let reader = match BodyReader::new(length, bytes_max) {
            Ok(reader) if reader.is_done() => {
                let step = call(cx, |ctx| then(ctx, Vec::new()));
                return self.apply(step, exchange, io, cx);
            }
            Ok(reader) => reader,
            Err(bad) => {
                self.refuse_body(bad, io, cx);
                return;
            }
        };
        let Some(token) = cx.shared.api_bodies.take() else {
            cx.shared.metrics.refuse(Refused::ApiBodies);
            let message = "as many bodies are being read as max_api_bodies allows";
            let (why, status) = (Refused::ApiBodies.name(), Status::Unavailable);
            let answer = AdminAnswer::error(status, why, message, Some(BODIES_RETRY_S));
            return self.answer(answer, last, io, cx);
        };
        if !expects.is_empty() && request.is_http_1_1() {
            io.queue_bytes(&mut CONTINUE.to_vec(), cx);
        }
        io.set_deadline(cx.config().api_body_timeout, cx);
        self.state = State::Body(Box::new(Reading { reader, then, exchange, _token: token }));
    }

    /// Hands a body over that has come.
    fn on_body(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        if let State::Body(reading) = std::mem::replace(&mut self.state, State::Head) {
            let Reading { reader, then, exchange, .. } = *reading;
            let step = call(cx, |ctx| then(ctx, reader.finish()));
            self.apply(step, exchange, io, cx);
        }
    }

    fn refuse_body(&mut self, bad: BadBody, io: &mut ConnIo, cx: &mut WorkerCtx) -> AdminProgress {
        let (why, status, message) = match bad {
            BadBody::TooLarge => {
                (Refused::ApiBodyTooLarge, Status::ContentTooLarge, "the body is too large")
            }
            BadBody::Malformed(message) => (Refused::BadRequest, Status::BadRequest, message),
        };
        cx.shared.metrics.refuse(why);
        let word = if bad == BadBody::TooLarge { "too_large" } else { why.name() };
        let answer = AdminAnswer::error(status, word, message, None);
        self.answer(answer, Exchange { closes: true, head_only: false }, io, cx);
        AdminProgress::Last
    }

    /// Does what a call of the handler has decided.
    fn apply(&mut self, step: AdminStep, exchange: Exchange, io: &mut ConnIo, cx: &mut WorkerCtx) {
        match step {
            AdminStep::Answer(answer) => self.answer(answer, exchange, io, cx),
            AdminStep::Continue(after, call) => {
                let at = cx.after(after);
                self.state = State::Later(Later { call, at, exchange });
                cx.timers.clear(io.slot(), &mut io.deadline);
                match after {
                    Duration::ZERO => io.list_ready(&mut cx.work),
                    after => io.set_deadline(after, cx),
                }
            }
            AdminStep::Body(..) | AdminStep::Live(_) => {
                log::error!("the admin handler asked for a body or an upgrade too late");
                self.answer(internal_error(), exchange, io, cx);
            }
        }
    }

    /// Goes on with a request whose time has come.
    pub(super) fn go_on(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Later(later) if cx.now >= later.at => {
                let step = call(cx, |ctx| (later.call)(ctx));
                self.apply(step, later.exchange, io, cx);
                if !self.is_busy() {
                    io.has_backlog = !io.stash.is_empty();
                    io.list_ready(&mut cx.work);
                }
            }
            state => self.state = state,
        }
    }

    fn answer(
        &mut self,
        answer: AdminAnswer,
        exchange: Exchange,
        io: &mut ConnIo,
        cx: &mut WorkerCtx,
    ) {
        cx.shared.metrics.server.admin_requests_total.add_shared();
        if answer.status == Status::Unauthorized || answer.status == Status::Forbidden {
            cx.shared.metrics.refuse(Refused::ApiUnauthorized);
        }
        let Exchange { closes, head_only } = exchange;
        let retry = answer.retry_after_s.map_or(String::new(), |s| format!("Retry-After: {s}"));
        let response = Response {
            status: answer.status,
            body: &answer.body,
            headers: &[&answer.header, &retry],
            closes,
            head_only,
        };
        let mut out = Vec::with_capacity(512 + answer.body.len());
        response.write_as(answer.content_type, &mut out, cx.date());
        io.queue_bytes(&mut out, cx);
        // It closes when the answer is out, however long that takes a client that reads.
        self.state = if closes { State::Last } else { State::Head };
        io.set_deadline(cx.config().handshake_timeout, cx);
    }

    /// The deadline has passed. Returns how the connection ends, unless it does not.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Option<Stage> {
        let (why, message) = match &mut self.state {
            State::Live(live) => {
                if !live.on_deadline(io, cx) {
                    self.end_live(io, cx);
                }
                return None;
            }
            // In the turn of the connection, like any other request: it has a budget.
            State::Later(_) => {
                cx.timers.clear(io.slot(), &mut io.deadline);
                io.list_ready(&mut cx.work);
                return None;
            }
            State::Head | State::Last if io.is_reading(cx) => {
                io.set_deadline(cx.config().handshake_timeout, cx);
                return None;
            }
            State::Last => return Some(Stage::Flush),
            State::Head if !self.is_fresh && io.stash.is_empty() => return Some(Stage::Flush),
            State::Head => (Refused::HeadTimeout, "the request head did not come in time"),
            State::Body(_) => (Refused::ApiBodyTimeout, "the request body did not come in time"),
        };
        cx.shared.metrics.refuse(why);
        let answer = AdminAnswer::error(Status::RequestTimeout, why.name(), message, None);
        self.answer(answer, Exchange { closes: true, head_only: false }, io, cx);
        None
    }
}

/// Makes a call of the handler, and counts what it has cost.
fn call(cx: &mut WorkerCtx, make: impl FnOnce(&mut AdminContext<'_>) -> AdminStep) -> AdminStep {
    let shared = Arc::clone(&cx.shared);
    let mut ctx = AdminContext::new(&shared.hub, cx);
    let step = catch_unwind(AssertUnwindSafe(|| make(&mut ctx)));
    let (spent, behind) = ctx.outcome();
    cx.spent += spent;
    if behind {
        cx.on_backpressure();
    }
    step.unwrap_or_else(|_| {
        shared.metrics.server.handler_panics.add_shared();
        log::error!("the admin handler panicked");
        AdminStep::Answer(internal_error())
    })
}
