//! The HTTP phase of a connection: answers, refusals, and the way into the line or through the
//! door.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    admission::{Answer, Permit},
    closing::Stage,
    connection::{Connection, Open, Phase, Waiting},
    desk::Desk,
    inline_conn::InlineConn,
    jobs::SerialQueue,
    service::Service,
    timers::Millis,
};
use crate::{
    config::Compression,
    handler::{Refusal, erased::BoxState},
    http::{
        head::{BadHead, HeaderSpace, Request},
        response::{Response, Status, error_body, retry_after_s},
        router::{self, Target},
    },
    hub::notice::NoticeFormatter,
    metrics::Refused,
    ws::{
        deflate::Deflate,
        endpoint::Endpoint,
        extension::Takeover,
        handshake::{NotAnUpgrade, Upgrade},
    },
};

/// How long a newcomer may be silent before it is shown in presence. Who resumes an earlier session
/// says so at once, and must not be seen to come and go under another name.
const NEWCOMER_QUIET_MS: Millis = 1000;

/// What a request turned out to be, with nothing borrowed from it.
enum Asked {
    /// An answer in JSON.
    Plain { status: Status, body: String, advice: &'static str, closes: bool, head_only: bool },
    /// A static page, by its index; `known` if the client has its body already.
    Page { page: usize, known: bool, closes: bool, head_only: bool },
    /// A proper upgrade that its handler would take.
    Upgrade { upgrade: Upgrade, route: usize, state: BoxState },
    /// A refused upgrade; the connection ends.
    Refused(Refuse),
}

/// A refusal in the making.
struct Refuse {
    why: Refused,
    status: Status,
    message: Cow<'static, str>,
    /// A header line that tells what would be right; may be empty.
    advice: &'static str,
    /// Whether it answers a HEAD.
    head_only: bool,
}

impl Refuse {
    fn new(why: Refused, status: Status, message: impl Into<Cow<'static, str>>) -> Refuse {
        Refuse { why, status, message: message.into(), advice: "", head_only: false }
    }
}

impl Connection {
    /// Handles one request off the front of `input`. `None` when it is not whole yet.
    pub(super) fn head_step(&mut self, input: &[u8], desk: &mut Desk) -> Option<usize> {
        if input.is_empty() {
            return None;
        }
        let mut space = HeaderSpace::default();
        let head_bytes_max = desk.config().max_head_bytes;
        let (asked, used) = match Request::parse(input, &mut space) {
            Ok(Some((request, used))) if used > head_bytes_max => {
                (too_large(request.method() == "HEAD"), used)
            }
            Ok(Some((request, used))) => (ask(&request.with_remote(self.core.remote), desk), used),
            Ok(None) if input.len() > head_bytes_max => (too_large(false), input.len()),
            Ok(None) => return None,
            Err(bad) => (bad_head(bad), input.len()),
        };
        match asked {
            Asked::Plain { status, body, advice, closes, head_only } => {
                let headers = [advice];
                let response =
                    Response { status, body: &body, headers: &headers, closes, head_only };
                self.respond(&response, desk);
                if !closes {
                    self.await_next(desk);
                }
            }
            Asked::Page { page, known, closes, head_only } => {
                self.give_page(page, known, closes, head_only, desk);
            }
            Asked::Refused(refuse) => self.refuse(&refuse, desk),
            Asked::Upgrade { upgrade, route, state } => self.admit(upgrade, route, state, desk),
        }
        Some(used)
    }

    /// Asks for a permit, and opens, waits or refuses accordingly.
    fn admit(&mut self, upgrade: Upgrade, route: usize, state: BoxState, desk: &mut Desk) {
        match desk.shared.admission.ask(self.core.id) {
            Answer::Served(permit) => self.open(permit, &upgrade, route, state, None, desk),
            // Its end came together with its request, and will not be told again.
            Answer::Waits(_) if self.core.peer_ended => {
                self.phase = Phase::Gone;
                self.core.list_dirty(desk);
            }
            Answer::Waits(ticket) => {
                let since = desk.now;
                let waiting = Waiting { ticket, upgrade, route, state, since };
                self.phase = Phase::Waiting(Box::new(waiting));
                let at = desk.after(desk.config().queue_timeout);
                desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
            }
            Answer::Full => self.refuse_unavailable(Refused::Full, desk),
            Answer::Draining => self.refuse_unavailable(Refused::Draining, desk),
        }
    }

    /// A permit was set aside for this connection.
    pub(super) fn on_admitted(&mut self, desk: &mut Desk) {
        let waiting = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Waiting(waiting) => waiting,
            // The drain or the timeout came first, and its answer is on its way.
            other => {
                self.phase = other;
                return;
            }
        };
        let Waiting { ticket, upgrade, route, state, since } = *waiting;
        match ticket.claim() {
            Ok(permit) => {
                let waited = desk.now.saturating_sub(since);
                self.open(permit, &upgrade, route, state, Some(waited), desk);
                let mut stash = std::mem::take(&mut self.core.stash);
                let used = self.advance(&mut stash, desk);
                self.core.stash.extend_from_slice(&stash[used..]);
                self.core.list_ready(desk);
            }
            Err(ticket) => {
                let waiting = Waiting { ticket, upgrade, route, state, since };
                self.phase = Phase::Waiting(Box::new(waiting));
            }
        }
    }

    fn open(
        &mut self,
        permit: Permit,
        upgrade: &Upgrade,
        route: usize,
        state: BoxState,
        waited_ms: Option<u64>,
        desk: &mut Desk,
    ) {
        self.core.outbox.push_own(0, &mut desk.spare, |out| upgrade.respond(out, waited_ms));
        self.core.list_dirty(desk);
        self.core.deflate = upgrade.compression.map(|agreed| Box::new(Deflate::new(agreed)));
        // A client cannot be silent before it was let in.
        self.core.last_rx = desk.now;
        let metrics = &desk.shared.metrics;
        metrics.server.accepted_total.add_shared();
        if let Some(waited_ms) = waited_ms {
            metrics.queue_wait.record(std::time::Duration::from_millis(waited_ms));
        }
        let chosen = &desk.shared.routes[route];
        let formatter: Arc<dyn NoticeFormatter> = Arc::clone(&chosen.handler) as _;
        let resumable = chosen.handler.resumable();
        let sessions = &desk.shared.hub.sessions;
        let mut session = sessions.begin(self.core.id, route as u16, resumable, formatter);
        log::debug!("{} {}: open", self.core.remote, session.client_id);
        let mut service = match &chosen.jobs {
            None => Service::Inline { handler: Arc::clone(&chosen.handler), state },
            Some(jobs) => Service::Jobs(SerialQueue::new(
                jobs,
                &desk.shared.hub,
                &desk.shared.metrics.server.handler_panics,
                &chosen.handler,
                (self.core.id, self.core.remote),
                &session,
                state,
            )),
        };
        service.open(InlineConn { core: &mut self.core, desk, session: &mut session });
        let endpoint = Endpoint::default();
        let show_at = if resumable { desk.now + NEWCOMER_QUIET_MS } else { 0 };
        let open = Open { endpoint, session, is_fresh: true, service, permit, pinged: 0, show_at };
        self.phase = Phase::Open(Box::new(open));
        self.watch(desk);
    }

    /// Takes a connection out of the line with a 503.
    pub(super) fn refuse_waiting(&mut self, why: Refused, desk: &mut Desk) {
        self.refuse_unavailable(why, desk);
    }

    /// A head that does not come in time is told so; an idle connection between requests just ends.
    pub(super) fn head_timeout(&mut self, idle: bool, desk: &mut Desk) {
        if idle {
            return self.begin_closing(Stage::Flush, None, desk);
        }
        let message = "the request head did not come in time";
        let refuse = Refuse::new(Refused::HeadTimeout, Status::RequestTimeout, message);
        self.refuse(&refuse, desk);
    }

    fn refuse_unavailable(&mut self, why: Refused, desk: &mut Desk) {
        let message = match why {
            Refused::Draining => "the server is shutting down",
            Refused::QueueTimeout => "no place became free in time",
            _ => "the server is full",
        };
        self.refuse(&Refuse::new(why, Status::Unavailable, message), desk);
    }

    /// Answers with a refusal, counts it, and ends the connection so that the client can read it.
    fn refuse(&mut self, refuse: &Refuse, desk: &mut Desk) {
        let Refuse { why, status, message, advice, head_only } = refuse;
        desk.shared.metrics.refuse(*why);
        log::debug!("{}: {} {}: {message}", self.core.remote, status.code(), why.name());
        // Coming back sooner than the line moves would only be refused again.
        let retry_after = retry_after_s(desk.config().queue_timeout / 4);
        let retry = format!("Retry-After: {retry_after}");
        let is_unavailable = *status == Status::Unavailable;
        let body = error_body(why.name(), message, is_unavailable.then_some(retry_after));
        let headers = [*advice, if is_unavailable { &retry } else { "" }];
        let response = Response {
            status: *status,
            body: &body,
            headers: &headers,
            closes: true,
            head_only: *head_only,
        };
        self.respond(&response, desk);
    }

    /// After an answer the next request is due.
    fn await_next(&mut self, desk: &mut Desk) {
        if let Phase::Head { answered, .. } = &mut self.phase {
            *answered = true;
        }
        let at = desk.after(desk.config().handshake_timeout);
        desk.timers.set(self.core.slot(), &mut self.core.deadline, at);
    }

    /// Answers with a page. Its body is shared, and may be larger than what else may wait for a
    /// client.
    fn give_page(
        &mut self,
        page: usize,
        known: bool,
        closes: bool,
        head_only: bool,
        desk: &mut Desk,
    ) {
        let mut head = Vec::with_capacity(256);
        let shared = Arc::clone(&desk.shared);
        let page = &shared.pages[page];
        page.write_head(&mut head, desk.date(), known, closes);
        self.core.outbox.push_own(0, &mut desk.spare, |outbox| outbox.append(&mut head));
        if !known && !head_only && !page.body().is_empty() {
            self.core.outbox.push_shared(page.body(), &mut desk.spare);
        }
        self.core.list_dirty(desk);
        // It closes when the page is out, however long that takes a client that reads.
        if let Phase::Head { last, .. } = &mut self.phase {
            *last = closes;
        }
        self.await_next(desk);
    }

    fn respond(&mut self, response: &Response<'_>, desk: &mut Desk) {
        let mut out = Vec::with_capacity(512 + response.body.len());
        response.write(&mut out, desk.date());
        self.core.outbox.push_own(0, &mut desk.spare, |outbox| outbox.append(&mut out));
        self.core.list_dirty(desk);
        if response.closes {
            self.begin_closing(Stage::FlushThenLinger, None, desk);
        }
    }
}

/// Finds out what a request asks for. The handler of an upgrade is asked here, before any promise.
fn ask(request: &Request<'_>, desk: &Desk) -> Asked {
    let shared = &desk.shared;
    let head_only = request.method() == "HEAD";
    let closes = !request.keeps_alive() || shared.is_draining();
    let plain = |status, body, advice| Asked::Plain { status, body, advice, closes, head_only };
    let json = |body: serde_json::Result<String>, status| match body {
        Ok(body) => plain(status, body, ""),
        Err(error) => {
            plain(Status::InternalError, error_body("internal", &error.to_string(), None), "")
        }
    };
    let paths = shared.routes.iter().map(|route| route.path.as_str());
    let pages = shared.pages.iter().map(|page| page.path.as_str());
    match router::route(request, paths, pages) {
        Target::Health => {
            let status = if shared.is_draining() { Status::Unavailable } else { Status::Ok };
            json(serde_json::to_string(&shared.health()), status)
        }
        Target::Stats => json(serde_json::to_string(&shared.snapshot()), Status::Ok),
        Target::NotFound => {
            let message = "there is nothing here; try /health, /stats or a WebSocket route";
            plain(Status::NotFound, error_body("not_found", message, None), "")
        }
        Target::MethodNotAllowed => {
            let body = error_body("method_not_allowed", "only GET and HEAD work here", None);
            plain(Status::MethodNotAllowed, body, "Allow: GET, HEAD")
        }
        Target::Socket(route) => ask_upgrade(request, route, desk),
        Target::Page(page) => {
            let known = shared.pages[page].is_known_to(request);
            Asked::Page { page, known, closes, head_only }
        }
    }
}

fn ask_upgrade(request: &Request<'_>, route: usize, desk: &Desk) -> Asked {
    let refused = |why, status, message: String| Asked::Refused(Refuse::new(why, status, message));
    let takeover = match desk.config().compression {
        Compression::Off => None,
        Compression::Shared => Some(Takeover::Never),
        Compression::Dedicated => Some(Takeover::Allowed),
    };
    let mut upgrade = match Upgrade::check(request.upgrade(), takeover) {
        Ok(upgrade) => upgrade,
        Err(NotAnUpgrade { fault, reason, advice }) => {
            let (status, head_only) = (Status::of_fault(fault), request.method() == "HEAD");
            let refuse = Refuse::new(Refused::BadRequest, status, reason);
            return Asked::Refused(Refuse { advice, head_only, ..refuse });
        }
    };
    if !is_allowed_origin(request.header("Origin"), &desk.config().allowed_origins) {
        let message = "this origin is not allowed".to_owned();
        return refused(Refused::Origin, Status::Forbidden, message);
    }
    let handler = &desk.shared.routes[route].handler;
    let panics = &desk.shared.metrics.server.handler_panics;
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let state = handler.upgrade(request, panics)?;
        upgrade.choose_subprotocol(request.upgrade().headers, handler.subprotocols());
        Ok(state)
    }));
    match asked {
        Ok(Ok(state)) => Asked::Upgrade { upgrade, route, state },
        Ok(Err(Refusal { status, message })) => refused(Refused::Handler, status, message),
        Err(_) => {
            panics.add_shared();
            log::error!("the handler of {} panicked at an upgrade", request.path());
            refused(Refused::Handler, Status::InternalError, "internal error".to_owned())
        }
    }
}

/// Whether a page of `origin` may connect. A client that is no browser sends none, and may.
fn is_allowed_origin(origin: Option<&str>, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    allowed.is_empty() || allowed.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

fn bad_head(bad: BadHead) -> Asked {
    let BadHead { status, reason, head_only } = bad;
    Asked::Refused(Refuse { head_only, ..Refuse::new(Refused::BadRequest, status, reason) })
}

fn too_large(head_only: bool) -> Asked {
    let (status, reason) = (Status::HeadTooLarge, "the request head is too large");
    bad_head(BadHead { status, reason, head_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked_only_where_there_are_both() {
        let allowed = ["https://a.example".to_owned()];
        assert!(is_allowed_origin(None, &allowed));
        assert!(is_allowed_origin(Some("HTTPS://A.example"), &allowed));
        assert!(!is_allowed_origin(Some("https://b.example"), &allowed));
        assert!(is_allowed_origin(Some("null"), &[]));
    }
}
