//! The HTTP phase of a connection: requests, their answers and refusals.

use std::sync::Arc;

use super::{
    access,
    asked::{Asked, Lookup, PostRequest, RefusedRequest, ask, bad_head, too_large},
    bound::BoundToken,
    closing::Stage,
    conn_io::{ConnIo, Readiness},
    open::UpgradeRequest,
    proxy_header::{self, ProxyHeader},
    timers::Millis,
    worker_cx::WorkerCtx,
};
use crate::{
    handler::Refusal,
    http::{
        head::{HeaderSpace, Request},
        response::{JSON, Response, Status, error_body, retry_after_s},
    },
    hub::send_status::SendStatus,
    metrics::Refused,
    tls,
};

/// How long a drain waits for the first request of a connection, or for the rest of a post, since
/// something last came.
pub(super) const FIRST_REQUEST_MS: Millis = 500;

/// A connection that speaks HTTP.
pub(crate) struct Head {
    awaits: Awaited,
    _token: BoundToken,
}

/// Which request is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The header of the PROXY protocol, before the first request.
    ProxyHeader,
    /// The first one; it must come.
    First,
    /// Another one, if the client likes.
    Next,
    /// None: the connection ends when its last answer is written.
    None,
}

/// What a step of the HTTP phase comes to, and how many bytes were used for it.
pub(super) enum HeadStep {
    /// There is no whole request, or none that may be answered now.
    Wait,
    Answered(usize),
    /// The connection ends with the answer that is queued; nothing more is read.
    Last,
    Upgrade(usize, UpgradeRequest),
    /// An upgrade that its handler is to be asked about on a job thread; with the request's head.
    Lookup(usize, Lookup),
    /// A post, whose body is due.
    Post(usize, PostRequest),
}

impl Head {
    /// A connection whose first request is due; `token` counts it among those.
    pub(super) fn new(token: BoundToken, io: &mut ConnIo, cx: &mut WorkerCtx) -> Box<Head> {
        io.set_deadline(cx.config().handshake_timeout, cx);
        let awaits = if cx.config().proxy_protocol { Awaited::ProxyHeader } else { Awaited::First };
        Box::new(Head { awaits, _token: token })
    }

    /// Reads the header of the PROXY protocol off the front of `input`, and believes it if a
    /// trusted proxy sent it.
    fn read_proxy_header(&mut self, input: &[u8], io: &mut ConnIo, cx: &mut WorkerCtx) -> HeadStep {
        match proxy_header::read(input) {
            ProxyHeader::Partial => HeadStep::Wait,
            ProxyHeader::Whole { len, source } => {
                self.awaits = Awaited::First;
                let is_believed = cx.trusted_proxies.contains(io.remote.ip());
                if let Some(source) = source.filter(|_| is_believed)
                    && let Err(too_many) = io.set_client(source, cx)
                {
                    if io.stream.is_tls() {
                        return refuse_before_tls(too_many.refused(), io, cx);
                    }
                    refuse_unavailable(too_many.refused(), io, cx);
                    return HeadStep::Last;
                }
                match io.stream.begin_tls(&input[len..]) {
                    Ok(taken) => {
                        if io.stream.is_tls() {
                            // What was taken is looked at as if it came now.
                            io.readiness.insert(Readiness::READABLE);
                            io.list_ready(&mut cx.work);
                        }
                        HeadStep::Answered(len + taken)
                    }
                    Err(()) => refuse_before_tls(Refused::BadRequest, io, cx),
                }
            }
            ProxyHeader::Invalid => {
                let message = "each connection must begin with a PROXY protocol header, version 1 \
                               or 2, because the setting proxy_protocol is on";
                let why = Refused::ProxyHeader;
                refuse(&RefusedRequest::new(why, Status::BadRequest, message), io, cx);
                HeadStep::Last
            }
        }
    }

    /// Handles one request off the front of `input`.
    pub(super) fn read(&mut self, input: &[u8], io: &mut ConnIo, cx: &mut WorkerCtx) -> HeadStep {
        if self.awaits == Awaited::None {
            return HeadStep::Last;
        }
        if io.outbox.status(&cx.limits.http_outbox) == SendStatus::Behind {
            // A client that pipelines requests must read the answers before there are more.
            io.has_backlog = true;
            io.list_dirty(&mut cx.work);
            return HeadStep::Wait;
        }
        if input.is_empty() {
            return HeadStep::Wait;
        }
        if self.awaits == Awaited::ProxyHeader {
            return self.read_proxy_header(input, io, cx);
        }
        let mut space = HeaderSpace::default();
        let head_bytes_max = cx.config().max_head_bytes;
        let (asked, used) = match Request::parse_with_body(input, &mut space) {
            Ok(Some((request, _, used))) if used > head_bytes_max => {
                (too_large(request.method() == "HEAD"), used)
            }
            Ok(Some((request, length, used))) => {
                let shared = Arc::clone(&cx.shared);
                let forwarded_for = request.values("X-Forwarded-For");
                let client = cx.trusted_proxies.client_behind(io.remote, forwarded_for);
                let request =
                    request.with_remote(client).with_authenticator(&shared.hub.authenticator);
                let asked = ask(&request, length, client, io, cx);
                cx.spent += request.spent();
                if matches!(asked, Asked::Refused(_)) {
                    // The connection ends with it, and whose it was is logged.
                    io.remote = client;
                }
                (asked, used)
            }
            Ok(None) if input.len() > head_bytes_max => (too_large(false), input.len()),
            Ok(None) => return HeadStep::Wait,
            Err(bad) => (bad_head(bad), input.len()),
        };
        match asked {
            Asked::Plain { status, body, content_type, advice, closes, head_only } => {
                let headers = [advice];
                let response =
                    Response { status, body: &body, headers: &headers, closes, head_only };
                respond(content_type, &response, io, cx);
                if closes {
                    return HeadStep::Last;
                }
                self.await_next(Awaited::Next, io, cx);
            }
            Asked::Page { page, known, closes, head_only } => {
                give_page(page, known, closes, head_only, io, cx);
                // It closes when the page is out, however long that takes a client that reads.
                self.await_next(if closes { Awaited::None } else { Awaited::Next }, io, cx);
            }
            Asked::Refused(refused) => {
                refuse(&refused, io, cx);
                return HeadStep::Last;
            }
            Asked::Upgrade(request) => return HeadStep::Upgrade(used, request),
            Asked::Lookup(lookup) => return HeadStep::Lookup(used, lookup),
            Asked::Post(post) => return HeadStep::Post(used, post),
        }
        HeadStep::Answered(used)
    }

    fn await_next(&mut self, awaits: Awaited, io: &mut ConnIo, cx: &mut WorkerCtx) {
        self.awaits = awaits;
        io.set_deadline(cx.config().handshake_timeout, cx);
    }

    /// Goes on after an answer that was given for it.
    pub(super) fn go_on(&mut self, closes: bool, io: &mut ConnIo, cx: &mut WorkerCtx) {
        self.await_next(if closes { Awaited::None } else { Awaited::Next }, io, cx);
    }

    /// Whether the connection ends when everything is written.
    pub(super) fn is_last(&self) -> bool {
        self.awaits == Awaited::None
    }

    /// Whether the first request may be on its way still: a client that was accepted just before
    /// the server drained is to be told so.
    pub(super) fn is_expected(&self, io: &ConnIo, now: Millis) -> bool {
        let is_first = matches!(self.awaits, Awaited::ProxyHeader | Awaited::First);
        is_first && now.saturating_sub(io.last_rx) < FIRST_REQUEST_MS
    }

    /// Whether nothing is lost if it ends: no request is under way, and no answer on the way to a
    /// client that reads.
    pub(super) fn is_idle(&self, io: &ConnIo) -> bool {
        let is_between = self.awaits == Awaited::Next && io.stash.is_empty();
        if io.has_unsent() { io.is_blocked() } else { is_between }
    }

    /// Answers a head that does not come in time; a connection that is idle between requests just
    /// ends. Returns how, unless the client still reads.
    pub(super) fn on_deadline(&mut self, io: &mut ConnIo, cx: &mut WorkerCtx) -> Option<Stage> {
        if io.is_reading(cx) {
            io.set_deadline(cx.config().handshake_timeout, cx);
            return None;
        }
        if self.awaits == Awaited::Next && io.stash.is_empty() {
            return Some(Stage::Flush);
        }
        if io.stream.is_handshaking() {
            // Nothing can be said to this client.
            cx.shared.metrics.refuse(Refused::HeadTimeout);
            io.stream.count_failed(&cx.tls);
            log::debug!("{}: no TLS: the handshake did not end in time", io.remote);
            return Some(Stage::Flush);
        }
        let message = "the request head did not come in time";
        refuse(&RefusedRequest::new(Refused::HeadTimeout, Status::RequestTimeout, message), io, cx);
        Some(Stage::FlushThenLinger)
    }
}

/// Answers an upgrade that cannot be served with a 503.
pub(super) fn refuse_unavailable(why: Refused, io: &mut ConnIo, cx: &mut WorkerCtx) {
    let message = match why {
        Refused::Draining => "the server is shutting down",
        Refused::QueueTimeout => "the server stayed full for too long",
        Refused::Memory => "the server is short of memory",
        Refused::PerIp => "too many connections from this address",
        Refused::AcceptRate => "too many connections a second from this address",
        Refused::HandlerBusy => "the handler is busy",
        _ => "the server is full",
    };
    refuse(&RefusedRequest::new(why, Status::Unavailable, message), io, cx);
}

/// Refuses a client behind a proxy whose handshake has not begun.
fn refuse_before_tls(why: Refused, io: &mut ConnIo, cx: &mut WorkerCtx) -> HeadStep {
    cx.shared.metrics.refuse(why);
    access::log_refused(cx.config(), io.remote, Status::Unavailable, why);
    io.queue_bytes(&mut tls::REFUSAL.to_vec(), cx);
    HeadStep::Last
}

/// Answers, without TLS, a client that does not speak it.
pub(super) fn refuse_plain_http(io: &mut ConnIo, cx: &mut WorkerCtx) {
    let message = "this port speaks TLS: use https:// or wss://";
    refuse(&RefusedRequest::new(Refused::BadRequest, Status::BadRequest, message), io, cx);
}

/// Answers with a refusal, and counts it. The connection is to linger, so that the client can read
/// it.
fn refuse(refused: &RefusedRequest, io: &mut ConnIo, cx: &mut WorkerCtx) {
    let RefusedRequest { why, status, message, advice, head_only } = refused;
    cx.shared.metrics.refuse(*why);
    log::debug!("{}: {} {}: {message}", io.remote, status.code(), why.name());
    access::log_refused(cx.config(), io.remote, *status, *why);
    // Coming back sooner than the line moves would only be refused again.
    let retry_after = retry_after_s(cx.config().queue_timeout / 4);
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
    respond(JSON, &response, io, cx);
}

fn respond(content_type: &str, response: &Response<'_>, io: &mut ConnIo, cx: &mut WorkerCtx) {
    let mut out = Vec::with_capacity(512 + response.body.len());
    response.write_as(content_type, &mut out, cx.date());
    io.queue_bytes(&mut out, cx);
}

/// Answers with a page. Its body is shared, and may be larger than what else may wait for a client.
fn give_page(
    page: usize,
    known: bool,
    closes: bool,
    head_only: bool,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) {
    let mut head = Vec::with_capacity(256);
    let shared = Arc::clone(&cx.shared);
    let page = &shared.pages[page];
    page.write_head(&mut head, cx.date(), known, closes);
    io.queue_bytes(&mut head, cx);
    if !known && !head_only && !page.body().is_empty() {
        io.outbox.push_shared(page.body(), &mut cx.scratch.spare);
    }
}

/// Answers an upgrade that its handler refused on a job thread.
pub(super) fn refuse_by_handler(refusal: Refusal, io: &mut ConnIo, cx: &mut WorkerCtx) {
    refuse(&refusal.into(), io, cx);
}
