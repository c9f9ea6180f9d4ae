//! The reasons for which connections and upgrades are refused.

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All permits are in use and the line is full.
    Full,
    /// The upgrade waited in line for longer than `queue_timeout`.
    QueueTimeout,
    /// The server is draining.
    Draining,
    /// `max_pending_heads` sockets have not sent their request head.
    PendingHeads,
    /// The address already has `max_conn_per_ip` connections.
    PerIp,
    /// The origin of the request is not allowed.
    Origin,
    /// The handler refused the upgrade.
    Handler,
    /// The blocking handler had too much to do, or took longer than `queue_timeout` for the
    /// upgrade.
    HandlerBusy,
    /// The request or the upgrade is malformed.
    BadRequest,
    /// The request head did not arrive within `handshake_timeout`.
    HeadTimeout,
    /// The connection does not begin with the header that `proxy_protocol` demands.
    ProxyHeader,
}

impl Refused {
    pub(super) const ALL: [Refused; 11] = [
        Refused::Full,
        Refused::QueueTimeout,
        Refused::Draining,
        Refused::PendingHeads,
        Refused::PerIp,
        Refused::Origin,
        Refused::Handler,
        Refused::HandlerBusy,
        Refused::BadRequest,
        Refused::HeadTimeout,
        Refused::ProxyHeader,
    ];

    /// Returns the stable name in `/stats` and in the body of the answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::QueueTimeout => "queue_timeout",
            Refused::Draining => "draining",
            Refused::PendingHeads => "pending_heads",
            Refused::PerIp => "per_ip",
            Refused::Origin => "origin",
            Refused::Handler => "handler",
            Refused::HandlerBusy => "handler_busy",
            Refused::BadRequest => "bad_request",
            Refused::HeadTimeout => "head_timeout",
            Refused::ProxyHeader => "proxy_header",
        }
    }
}
