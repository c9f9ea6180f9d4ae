//! What people type for a URL, made into one.

/// The shipped server's port and path, for whom they need not be said.
const PORT: &str = ":3030";
const PATH: &str = "/ws";

/// Completes an address. With `is_any`, for servers of any kind, a URL with a scheme is left as it is.
pub(super) fn complete(typed: &str, is_any: bool) -> String {
    let (scheme, rest) = match typed.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, typed),
    };
    // What browsers call a page is where its WebSockets are.
    let (name, is_told) = match scheme.map(str::to_ascii_lowercase).as_deref() {
        None => ("ws", false),
        Some("http") => ("ws", true),
        Some("https") => ("wss", true),
        Some(_) => (scheme.unwrap_or("ws"), true),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let behind_host = authority.rfind(']').map_or(0, |at| at + 1);
    let has_port = authority[behind_host..].contains(':');
    let port = if has_port || is_told { "" } else { PORT };
    let has_path = !path.is_empty() && !path.starts_with('?') && path != "/";
    let default_path = if has_path || is_told && (is_any || path == "/") { "" } else { PATH };
    let path = if default_path.is_empty() { path } else { path.trim_start_matches('/') };
    format!("{name}://{authority}{port}{default_path}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_that_of_the_shipped_server() {
        for (typed, url) in [
            ("localhost", "ws://localhost:3030/ws"),
            ("localhost:4000", "ws://localhost:4000/ws"),
            ("localhost/", "ws://localhost:3030/ws"),
            ("localhost:4000/chat", "ws://localhost:4000/chat"),
            ("[::1]", "ws://[::1]:3030/ws"),
            ("[::1]:80?token=x", "ws://[::1]:80/ws?token=x"),
            ("ws://example.org", "ws://example.org/ws"),
            ("ws://example.org/", "ws://example.org/"),
            ("ws://example.org:1/x?y", "ws://example.org:1/x?y"),
            ("http://example.org/ws", "ws://example.org/ws"),
            ("https://example.org", "wss://example.org/ws"),
            ("", "ws://:3030/ws"),
        ] {
            assert_eq!(complete(typed, false), url, "{typed}");
        }
        assert_eq!(complete("ws://example.org", true), "ws://example.org");
        assert_eq!(complete("ws://example.org/", true), "ws://example.org/");
        assert_eq!(complete("localhost:9001", true), "ws://localhost:9001/ws");
    }
}
