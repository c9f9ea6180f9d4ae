//! The router: finds the route of a request.

use super::head::Request;

/// The route of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `GET /health`: whether the server is healthy and accepts connections.
    Health,
    /// `GET /stats`: every gauge and counter.
    Stats,
    /// `GET /metrics`: the same for Prometheus.
    Metrics,
    /// A WebSocket route, by its index in the server's table.
    Socket(usize),
    /// A static page, by its index in the server's table.
    Page(usize),
    /// A known HTTP route that does not support the request's method.
    MethodNotAllowed,
    /// No route has this path.
    NotFound,
}

/// Paths that are reserved for the server.
pub(crate) const RESERVED_PATHS: [&str; 3] = ["/health", "/stats", "/metrics"];

/// Paths of the admin listener that are reserved for the server.
pub(crate) const RESERVED_ADMIN_PATHS: [&str; 4] = ["/health", "/ready", "/stats", "/metrics"];

/// What the admin listener answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminTarget {
    /// `GET /health`: as on the main port.
    Health,
    /// `GET /ready`: whether new clients should be sent here.
    Ready,
    /// `GET /stats`: as on the main port.
    Stats,
    /// `GET /metrics`: the same figures for Prometheus.
    Metrics,
    /// One of these, with another method.
    MethodNotAllowed,
}

/// Finds the route of `request` among those that the admin listener answers by itself. `None` if it
/// is none of them.
pub(crate) fn admin_route(request: &Request<'_>) -> Option<AdminTarget> {
    let target = match request.path() {
        "/health" => AdminTarget::Health,
        "/ready" => AdminTarget::Ready,
        "/stats" => AdminTarget::Stats,
        "/metrics" => AdminTarget::Metrics,
        _ => return None,
    };
    match request.method() {
        "GET" | "HEAD" => Some(target),
        _ => Some(AdminTarget::MethodNotAllowed),
    }
}

/// Finds the route of `request` among the HTTP routes, the WebSocket paths `sockets` and the static
/// pages `pages`.
pub(crate) fn route<'p>(
    request: &Request<'_>,
    sockets: impl IntoIterator<Item = &'p str>,
    pages: impl IntoIterator<Item = &'p str>,
) -> Target {
    let target = match request.path() {
        "/health" => Target::Health,
        "/stats" => Target::Stats,
        "/metrics" => Target::Metrics,
        path => {
            if let Some(found) = sockets.into_iter().position(|socket| socket == path) {
                return Target::Socket(found);
            }
            match pages.into_iter().position(|page| page == path) {
                Some(found) => Target::Page(found),
                None => return Target::NotFound,
            }
        }
    };
    match request.method() {
        "GET" | "HEAD" => target,
        _ => Target::MethodNotAllowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeaderSpace;

    #[test]
    fn routes_by_path_then_method() {
        for (line, target) in [
            ("GET /health", Target::Health),
            ("HEAD /stats?x", Target::Stats),
            ("GET /metrics", Target::Metrics),
            ("POST /health", Target::MethodNotAllowed),
            ("GET /echo?token=1", Target::Socket(1)),
            ("POST /ws", Target::Socket(0)),
            ("GET /", Target::Page(1)),
            ("HEAD /style.css?v=2", Target::Page(0)),
            ("POST /", Target::MethodNotAllowed),
            ("GET /ws/", Target::NotFound),
            ("GET *", Target::NotFound),
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut space = HeaderSpace::default();
            let parsed = Request::parse(head.as_bytes(), &mut space).expect("legal");
            let (request, _) = parsed.expect("whole");
            assert_eq!(route(&request, ["/ws", "/echo"], ["/style.css", "/"]), target, "{line}");
        }
    }
}
