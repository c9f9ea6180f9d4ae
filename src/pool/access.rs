//! The access log: a line for each WebSocket connection at its end, and for each refusal.

use std::{net::SocketAddr, sync::Arc};

use uuid::Uuid;

use super::{timers::Millis, worker_cx::WorkerCtx};
use crate::{config::Config, http::response::Status, metrics::Refused, ws::close::CloseReason};

/// The target of these lines, by which a logger can tell them from others.
const TARGET: &str = "rusty_socks::access";

/// What is counted of one WebSocket connection for its line.
pub(super) struct Access {
    began: Millis,
    /// What had been sent before the upgrade was answered.
    sent_before: u64,
    pub(super) bytes_in: u64,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    path: Box<str>,
    end: Option<End>,
}

/// Why a connection ended, and whose it was.
struct End {
    client_id: Uuid,
    user: Option<Arc<str>>,
    reason: CloseReason,
}

impl Access {
    /// Begins to count for a connection that is open from now on, if there is an access log.
    pub(super) fn begin(sent_before: u64, route: usize, cx: &WorkerCtx) -> Option<Box<Access>> {
        cx.config().access_log.then(|| {
            Box::new(Access {
                began: cx.now,
                sent_before,
                bytes_in: 0,
                messages_in: 0,
                messages_out: 0,
                path: cx.shared.routes[route].path.as_str().into(),
                end: None,
            })
        })
    }

    /// Notes why the connection ended. Its last bytes may still be on their way.
    pub(super) fn end(&mut self, client_id: Uuid, user: Option<Arc<str>>, reason: &CloseReason) {
        self.end = Some(End { client_id, user, reason: reason.clone() });
    }

    /// Notes that the connection was cut off before its Close could be sent.
    pub(super) fn cut_off(&mut self) {
        if let Some(end) = &mut self.end {
            end.reason = CloseReason::LOST;
        }
    }

    /// Writes the line of a connection that is gone.
    pub(super) fn log(&self, remote: SocketAddr, bytes_sent: u64, now: Millis) {
        let Some(End { client_id, user, reason }) = &self.end else { return };
        log::info!(
            target: TARGET,
            remote:% = remote,
            client_id:% = client_id,
            user = user.as_deref(),
            path = &*self.path,
            seconds = now.saturating_sub(self.began) as f64 / 1000.0,
            bytes_in = self.bytes_in,
            bytes_out = bytes_sent - self.sent_before,
            messages_in = self.messages_in,
            messages_out = self.messages_out,
            code = reason.code(),
            reason = reason.reason();
            "connection ended"
        );
    }
}

/// Writes the line of a connection that was refused, if there is an access log.
pub(super) fn log_refused(config: &Config, remote: SocketAddr, status: Status, why: Refused) {
    if config.access_log {
        log::info!(
            target: TARGET,
            remote:% = remote,
            status = status.code(),
            reason = why.name();
            "connection refused"
        );
    }
}
