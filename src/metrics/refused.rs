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
    /// The address opens more connections a second than `rate_accepts_per_ip`.
    AcceptRate,
    /// The origin of the request is not allowed.
    Origin,
    /// The client has no token, or no good one.
    Unauthorized,
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
    /// The admin listener has `max_admin_conn` connections.
    AdminFull,
    /// `max_api_bodies` bodies are being read.
    ApiBodies,
    /// `max_live_viewers` are shown the figures.
    LiveViewers,
    /// A body of the server API is too large.
    ApiBodyTooLarge,
    /// A body of the server API did not arrive within `api_body_timeout`.
    ApiBodyTimeout,
    /// A request to the admin listener has no key that allows it, or comes from a foreign page.
    ApiUnauthorized,
    /// Memory is short, and the line is full or was waited in for longer than `queue_timeout`.
    Memory,
}

impl Refused {
    pub(super) const ALL: [Refused; 20] = [
        Refused::Full,
        Refused::QueueTimeout,
        Refused::Draining,
        Refused::PendingHeads,
        Refused::PerIp,
        Refused::AcceptRate,
        Refused::Origin,
        Refused::Unauthorized,
        Refused::Handler,
        Refused::HandlerBusy,
        Refused::BadRequest,
        Refused::HeadTimeout,
        Refused::ProxyHeader,
        Refused::AdminFull,
        Refused::ApiBodies,
        Refused::LiveViewers,
        Refused::ApiBodyTooLarge,
        Refused::ApiBodyTimeout,
        Refused::ApiUnauthorized,
        Refused::Memory,
    ];

    /// Returns the stable name in `/stats` and in the body of the answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::QueueTimeout => "queue_timeout",
            Refused::Draining => "draining",
            Refused::PendingHeads => "pending_heads",
            Refused::PerIp => "per_ip",
            Refused::AcceptRate => "accept_rate",
            Refused::Origin => "origin",
            Refused::Unauthorized => "unauthorized",
            Refused::Handler => "handler",
            Refused::HandlerBusy => "handler_busy",
            Refused::BadRequest => "bad_request",
            Refused::HeadTimeout => "head_timeout",
            Refused::ProxyHeader => "proxy_header",
            Refused::AdminFull => "admin_full",
            Refused::ApiBodies => "api_bodies",
            Refused::LiveViewers => "live_viewers",
            Refused::ApiBodyTooLarge => "api_body_too_large",
            Refused::ApiBodyTimeout => "api_body_timeout",
            Refused::ApiUnauthorized => "api_unauthorized",
            Refused::Memory => "memory",
        }
    }
}

/// The counters of refusals at some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    pub(super) refused: [u64; Refused::ALL.len()],
    pub(super) slow: u64,
}
