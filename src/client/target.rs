//! Where a client connects to: a `ws://` URL taken apart, and a TCP connection there.

use std::{
    fmt, io,
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use tungstenite::http::Uri;

use super::error::{Error, ErrorKind};

/// What every refusal of a URL ends with.
const ALLOWED: &str = "allowed is ws://host[:port][/path], for example ws://127.0.0.1:3030/ws";

/// The port of a `ws://` URL that names none.
const PORT_DEFAULT: u16 = 80;

/// A server and the path of its WebSocket route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As written, an IPv6 address in its brackets.
    host: String,
    port: u16,
    /// Begins with `/` and carries the query, if any.
    path: String,
}

impl Target {
    /// Takes a URL apart, or says what is wrong with it and what would be right.
    pub(super) fn parse(url: &str) -> Result<Target, Error> {
        let refuse = |reason: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("{url:?}: {reason}; {ALLOWED}")))
        };
        if url.contains('#') {
            return refuse("a WebSocket URL has no fragment (#…)");
        }
        let uri = match url.parse::<Uri>() {
            Ok(uri) => uri,
            Err(error) => return refuse(&error.to_string()),
        };
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => {}
            Some("wss") => return refuse("wss:// needs TLS, which this client is built without"),
            Some(_) | None => return refuse("the URL must begin with ws://"),
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty())
        else {
            return refuse("the URL names no host");
        };
        if authority.as_str().contains('@') {
            return refuse("a user and password do not belong in the URL (use a header)");
        }
        let named_port = &authority.as_str()[authority.host().len()..];
        let port = match (named_port, authority.port_u16()) {
            ("", None) => PORT_DEFAULT,
            (_, Some(port)) if port > 0 => port,
            _ => return refuse("the port must be from 1 to 65535"),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target { host: authority.host().to_owned(), port, path: format!("{slash}{path}") })
    }

    /// The request target of the upgrade.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value of the `Host` header; the default port goes unsaid, as browsers do.
    pub(super) fn authority(&self) -> String {
        match self.port {
            PORT_DEFAULT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// Tries each address of the name in turn, and gives what is left of the time to each.
    pub(super) fn dial(&self, deadline: Instant) -> Result<TcpStream, Error> {
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::TimedOut => ErrorKind::Timeout,
                _ => ErrorKind::Unreachable,
            };
            Error::caused(kind, format!("cannot connect to {self}"), error)
        };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<_> = (host, self.port).to_socket_addrs().map_err(failed)?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // An address that is silent leaves the others their share.
            let share = left(deadline) / (addresses.len() - tried) as u32;
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }
}

/// The time until `deadline`, zero when it has passed.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_and_path_are_told_apart() {
        for (url, authority, path) in [
            ("ws://example.org:3030/ws?a=b", "example.org:3030", "/ws?a=b"),
            ("ws://[::1]:9/x", "[::1]:9", "/x"),
            ("WS://h", "h", "/"),
            ("ws://h:80?q", "h", "/?q"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.authority().as_str(), target.path()), (authority, path));
        }
    }

    #[test]
    fn a_bad_url_is_told_what_is_allowed() {
        for url in [
            "",
            "localhost",
            "localhost:3030/ws",
            "/ws",
            "http://h/",
            "wss://h/",
            "ws://",
            "ws:///ws",
            "ws://:80/",
            "ws://h:0/",
            "ws://h:70000/",
            "ws://h:/",
            "ws://u:p@h/",
            "ws://h/#top",
            "ws://h/a b",
        ] {
            let error = Target::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with(ALLOWED), "{url}: {error}");
        }
        assert!(Target::parse("wss://h/").unwrap_err().to_string().contains("TLS"));
    }
}
