//! What the server answers on the admin listener by itself, and whom.

use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    config::Config,
    handler::AdminAnswer,
    http::{
        head::Request,
        response::{JSON, Status, retry_after_s},
        router::AdminTarget,
    },
    pool::worker_cx::WorkerCtx,
};

pub(super) fn internal_error() -> AdminAnswer {
    AdminAnswer::error(Status::InternalError, "internal", "internal error", None)
}

/// Answers what the server answers by itself.
pub(super) fn own_answer(
    target: AdminTarget,
    request: &Request<'_>,
    cx: &mut WorkerCtx,
) -> AdminAnswer {
    let shared = Arc::clone(&cx.shared);
    let may_read = || {
        let handler = shared.admin.handler.as_ref();
        let asked = || handler.is_some_and(|handler| handler.may_read_figures(request));
        catch_unwind(AssertUnwindSafe(asked)).unwrap_or(false)
    };
    if is_foreign(request, cx.config()) && !may_read() {
        let message = "a page of another origin, or another host name than that of the listener, \
                       needs a key with the scope read";
        return AdminAnswer::error(Status::Forbidden, "forbidden", message, None);
    }
    let has_figures = matches!(target, AdminTarget::Stats | AdminTarget::Metrics);
    if has_figures && !cx.config().is_admin_local() && !may_read() {
        let message = "this listener is not on the loopback, so figures need a key with the scope \
                       read, as Authorization: Bearer";
        let answer = AdminAnswer::error(Status::Unauthorized, "unauthorized", message, None);
        return answer.header("WWW-Authenticate", "Bearer");
    }
    let json = |body: serde_json::Result<String>| {
        body.map_or_else(|_| internal_error(), |body| AdminAnswer::ok(JSON, body))
    };
    match target {
        AdminTarget::Health => {
            let answer = json(serde_json::to_string(&shared.health()));
            unless(answer, shared.is_draining(), cx.config())
        }
        AdminTarget::Ready => {
            let ready = shared.readiness();
            let answer = json(serde_json::to_string(&ready));
            unless(answer, !ready.ready, cx.config())
        }
        AdminTarget::Stats => json(cx.stats()),
        AdminTarget::Metrics => {
            let (content_type, body) = cx.prometheus(request.header("Accept"));
            AdminAnswer::ok(content_type, body)
        }
        AdminTarget::MethodNotAllowed => method_not_allowed(),
    }
}

pub(super) fn method_not_allowed() -> AdminAnswer {
    let (status, word) = (Status::MethodNotAllowed, "method_not_allowed");
    let answer = AdminAnswer::error(status, word, "only GET and HEAD work here", None);
    answer.header("Allow", "GET, HEAD")
}

/// Makes `answer` a 503 if the server `is_unavailable`.
fn unless(answer: AdminAnswer, is_unavailable: bool, config: &Config) -> AdminAnswer {
    match is_unavailable && answer.status == Status::Ok {
        true => AdminAnswer {
            status: Status::Unavailable,
            retry_after_s: Some(retry_after_s(config.queue_timeout / 4)),
            ..answer
        },
        false => answer,
    }
}

/// Whether a page of a browser may have sent the request: one of another origin says so, and one
/// whose host name was bound to this address by a stranger sends that name.
fn is_foreign(request: &Request<'_>, config: &Config) -> bool {
    let is_own = |host: &str| {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.eq_ignore_ascii_case(&config.admin_host)
    };
    request.header("Origin").is_some() || !request.header("Host").is_none_or(is_own)
}
