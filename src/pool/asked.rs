//! What a request asks for.

use std::{
    borrow::Cow,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    conn_io::ConnIo,
    open::UpgradeRequest,
    shared::Shared,
    transport::{EventsRequest, Transport},
    worker_cx::WorkerCtx,
};
use crate::{
    config::{Compression, MetricsAccess},
    handler::{Refusal, erased::ask_upgrade as ask_handler},
    http::{
        body::BodyLength,
        event_stream::EVENT_STREAM,
        head::{BadHead, Request},
        origin,
        response::{JSON, Status, error_body},
        router::{self, Target},
    },
    memory::account::Level,
    metrics::Refused,
    ws::{
        extension::Takeover,
        handshake::{NotAnUpgrade, Upgrade, UpgradeFault},
    },
};

/// What a request turned out to be, with nothing borrowed from it.
pub(super) enum Asked {
    /// An answer as text, most often in JSON.
    Plain {
        status: Status,
        body: String,
        content_type: &'static str,
        advice: &'static str,
        closes: bool,
        head_only: bool,
    },
    /// A static page, by its index; `known` if the client has its body already.
    Page {
        page: usize,
        known: bool,
        closes: bool,
        head_only: bool,
    },
    Upgrade(UpgradeRequest),
    Lookup(Lookup),
    Post(PostRequest),
    /// A refused upgrade; the connection ends.
    Refused(RefusedRequest),
}

/// A refusal in the making.
pub(super) struct RefusedRequest {
    pub(super) why: Refused,
    pub(super) status: Status,
    pub(super) message: Cow<'static, str>,
    /// A header line with what would be right; may be empty.
    pub(super) advice: &'static str,
    /// Whether it answers a HEAD.
    pub(super) head_only: bool,
}

impl RefusedRequest {
    pub(super) fn new(
        why: Refused,
        status: Status,
        message: impl Into<Cow<'static, str>>,
    ) -> RefusedRequest {
        RefusedRequest { why, status, message: message.into(), advice: "", head_only: false }
    }
}

/// A post to an event stream, without its body.
pub(super) struct PostRequest {
    pub(super) length: BodyLength,
    /// Its client waits to be asked for the body.
    pub(super) expects_continue: bool,
    /// The connection ends with the answer.
    pub(super) closes: bool,
    /// Header lines of the answer, for the page that posts.
    pub(super) for_page: String,
}

/// An upgrade that is legal, and that its blocking handler was not asked about yet.
pub(super) struct Lookup {
    pub(super) transport: Transport,
    pub(super) client: SocketAddr,
    pub(super) route: usize,
}

/// Finds out what a request asks for. The handler of an upgrade is asked here, before any promise.
pub(super) fn ask(
    request: &Request<'_>,
    length: BodyLength,
    client: SocketAddr,
    io: &mut ConnIo,
    cx: &mut WorkerCtx,
) -> Asked {
    let shared = Arc::clone(&cx.shared);
    let head_only = request.method() == "HEAD";
    // A connection that has its answer makes room for those whose request is still to come.
    let is_last = io.stream.is_worn()
        || shared.is_draining()
        || shared.pending_heads.is_scarce()
        || shared.hub.account.level() >= Level::Shed;
    let closes = !request.keeps_alive() || is_last;
    if is_post(request, &shared) {
        let (expects_continue, for_page) = (request.expects_continue(), lines_for_page(request));
        return Asked::Post(PostRequest { length, expects_continue, closes, for_page });
    }
    if let Err(bad) = request.check_no_body(length) {
        return bad_head(bad);
    }
    let plain = |status, body, advice| Asked::Plain {
        status,
        body,
        content_type: JSON,
        advice,
        closes,
        head_only,
    };
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
        Target::Stats => json(cx.stats(), Status::Ok),
        Target::Metrics if cx.config().metrics == MetricsAccess::Public => {
            let (content_type, body) = cx.prometheus(request.header("Accept"));
            let status = Status::Ok;
            Asked::Plain { status, body, content_type, advice: "", closes, head_only }
        }
        Target::Metrics => {
            let message =
                "/metrics is served on the admin listener; with metrics = \"public\" here";
            plain(Status::NotFound, error_body("not_found", message, None), "")
        }
        Target::NotFound => {
            let message = "there is nothing here; try /health, /stats or a WebSocket route";
            plain(Status::NotFound, error_body("not_found", message, None), "")
        }
        Target::MethodNotAllowed => {
            let body = error_body("method_not_allowed", "only GET and HEAD work here", None);
            plain(Status::MethodNotAllowed, body, "Allow: GET, HEAD")
        }
        Target::Socket(route) => ask_upgrade(request, client, route, cx),
        Target::Page(page) => {
            let known = shared.pages[page].is_known_to(request);
            Asked::Page { page, known, closes, head_only }
        }
    }
}

/// Whether it is a post to an event stream.
fn is_post(request: &Request<'_>, shared: &Shared) -> bool {
    let mut routes = shared.routes.iter().filter(|route| route.takes_event_streams);
    request.method() == "POST" && routes.any(|route| route.path == request.path())
}

/// The header lines that let a page read the answer, whatever its origin (WHATWG Fetch, 3.3): only
/// a page that knows the stream's name is told anything.
fn lines_for_page(request: &Request<'_>) -> String {
    request.header("Origin").map_or_else(String::new, |origin| {
        format!(
            "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n\
             Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n"
        )
    })
}

/// What a request to a WebSocket's route asks for, if that is an event stream instead.
fn events_request(request: &Request<'_>) -> Option<EventsRequest> {
    let headers = request.upgrade().headers;
    if request.method() != "GET" || headers.has_token("Upgrade", "websocket") {
        return None;
    }
    let event_stream = headers.items("Accept").find_map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        name.trim().eq_ignore_ascii_case(EVENT_STREAM).then_some(parameters)
    })?;
    // Within `Accept`, because a page may set that without asking first.
    let mut parameters = event_stream.split(';').filter_map(|parameter| parameter.split_once('='));
    let padding = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("padding"));
    let padding = padding.and_then(|(_, bytes)| bytes.trim().parse().ok()).unwrap_or(0);
    Some(EventsRequest { lines: lines_for_page(request), padding })
}

fn ask_upgrade(request: &Request<'_>, client: SocketAddr, route: usize, cx: &WorkerCtx) -> Asked {
    let takeover = match cx.config().compression {
        Compression::Off => None,
        Compression::Shared => Some(Takeover::Never),
        Compression::Dedicated => Some(Takeover::Allowed),
    };
    let takes_event_streams = cx.shared.routes[route].takes_event_streams;
    let upgrade = match events_request(request).filter(|_| takes_event_streams) {
        Some(events) => Ok(Transport::Events(events)),
        None => Upgrade::check(request.upgrade(), takeover).map(Transport::WebSocket),
    };
    let mut transport = match upgrade {
        Ok(transport) => transport,
        Err(NotAnUpgrade { fault, reason, advice }) => {
            let takes_posts = takes_event_streams && fault == UpgradeFault::MethodNotAllowed;
            let advice = if takes_posts { "Allow: GET, POST" } else { advice };
            let (status, head_only) = (Status::of_fault(fault), request.method() == "HEAD");
            let refuse = RefusedRequest::new(Refused::BadRequest, status, reason);
            return Asked::Refused(RefusedRequest { advice, head_only, ..refuse });
        }
    };
    let (handler, jobs) = (&cx.shared.routes[route].handler, &cx.shared.routes[route].jobs);
    let panics = &cx.shared.metrics.server.handler_panics;
    let is_open = catch_unwind(AssertUnwindSafe(|| {
        if let Transport::WebSocket(upgrade) = &mut transport {
            upgrade.choose_subprotocol(request.upgrade().headers, handler.subprotocols());
        }
        handler.is_open_to_all_origins()
    }));
    let Ok(is_open) = is_open else {
        panics.add_shared();
        return Asked::Refused(Refusal::internal().into());
    };
    let allowed = &cx.config().allowed_origins;
    let (page, host) = (request.header("Origin"), request.header("Host"));
    let is_open = is_open && allowed.is_empty();
    if !is_open && !origin::may_connect(page, host, allowed, cx.shared.tls.is_some()) {
        let message = "pages of this origin may not connect; the setting allowed_origins lists those \
                       that may";
        let refused = RefusedRequest::new(Refused::Origin, Status::Forbidden, message);
        return Asked::Refused(refused);
    }
    if jobs.is_some() {
        return Asked::Lookup(Lookup { transport, client, route });
    }
    let answer = ask_handler(&**handler, request, panics);
    match answer {
        Ok(state) => Asked::Upgrade(UpgradeRequest { transport, client, route, state }),
        Err(refusal) => Asked::Refused(refusal.into()),
    }
}

impl From<Refusal> for RefusedRequest {
    fn from(Refusal { status, message }: Refusal) -> RefusedRequest {
        match status {
            Status::Unauthorized => {
                // Each 401 says how to authenticate (RFC 9110, 15.5.2).
                let refused = RefusedRequest::new(Refused::Unauthorized, status, message);
                RefusedRequest { advice: "WWW-Authenticate: Bearer", ..refused }
            }
            _ => RefusedRequest::new(Refused::Handler, status, message),
        }
    }
}

pub(super) fn bad_head(bad: BadHead) -> Asked {
    let BadHead { status, reason, head_only } = bad;
    Asked::Refused(RefusedRequest {
        head_only,
        ..RefusedRequest::new(Refused::BadRequest, status, reason)
    })
}

pub(super) fn too_large(head_only: bool) -> Asked {
    let (status, reason) = (Status::HeadTooLarge, "the request head is too large");
    bad_head(BadHead { status, reason, head_only })
}
