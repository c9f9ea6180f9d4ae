//! Where the load goes: a `ws://` URL taken apart.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use tungstenite::http::Uri;

/// What every refusal of a URL ends with.
const ALLOWED: &str = "allowed is ws://host[:port][/path], for example ws://127.0.0.1:3030/ws";

/// The port of a `ws://` URL that names none.
const PORT_DEFAULT: u16 = 80;

/// How long one address of a name with several may take to show that somebody listens there.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);

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
    pub(super) fn parse(url: &str) -> Result<Target, String> {
        let refuse = |reason: &str| Err(format!("{reason}; {ALLOWED}"));
        if url.contains('#') {
            return refuse("a WebSocket URL has no fragment (#…)");
        }
        let uri = match url.parse::<Uri>() {
            Ok(uri) => uri,
            Err(error) => return refuse(&error.to_string()),
        };
        match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws") => {}
            Some("wss") => return refuse("wss:// (TLS) is not supported yet"),
            Some(_) | None => return refuse("the URL must begin with ws://"),
        }
        let Some(authority) = uri.authority() else {
            return refuse("the URL names no host");
        };
        if authority.as_str().contains('@') {
            return refuse(
                "a user and password do not belong in the URL (use -H 'Authorization: …')",
            );
        }
        let named_port = &authority.as_str()[authority.host().len()..];
        let port = match (named_port, authority.port_u16()) {
            ("", None) => PORT_DEFAULT,
            (_, Some(port)) if port > 0 => port,
            _ => return refuse("the port must be from 1 to 65535"),
        };
        if authority.host().is_empty() {
            return refuse("the URL names no host");
        }
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
        if self.port == PORT_DEFAULT {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The one address all connections go to, reachable from `sources` where these are given.
    ///
    /// A name may stand for several addresses, as `localhost` does, and the server may listen on
    /// only one of them; so each is tried with one connection, lest the whole fleet be refused at
    /// the wrong door.
    pub(super) fn resolve(&self, sources: &[IpAddr]) -> Result<SocketAddr, String> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (host, self.port)
            .to_socket_addrs()
            .map_err(|error| format!("cannot resolve {host}: {error}"))?;
        let fitting: Vec<SocketAddr> = addresses
            .filter(|address| sources.iter().all(|source| source.is_ipv4() == address.is_ipv4()))
            .collect();
        match fitting.as_slice() {
            [] if sources.is_empty() => Err(format!("{host} has no address")),
            [] => Err(format!(
                "{host} has no address of the same family (IPv4, IPv6) as every --source"
            )),
            [only] => Ok(*only),
            [first, ..] => {
                let listening = fitting
                    .iter()
                    .find(|address| TcpStream::connect_timeout(address, TRIAL_TIMEOUT).is_ok());
                Ok(*listening.unwrap_or(first))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, u16, String) {
        let target = Target::parse(url).unwrap();
        (target.host, target.port, target.path)
    }

    #[test]
    fn host_port_and_path_are_told_apart() {
        assert_eq!(
            parsed("ws://example.org:3030/ws?a=b"),
            ("example.org".into(), 3030, "/ws?a=b".into())
        );
        assert_eq!(parsed("ws://[::1]:9/x"), ("[::1]".into(), 9, "/x".into()));
        assert_eq!(parsed("WS://h/ws"), ("h".into(), 80, "/ws".into()));
    }

    #[test]
    fn port_and_path_have_defaults() {
        assert_eq!(parsed("ws://example.org"), ("example.org".into(), 80, "/".into()));
        assert_eq!(parsed("ws://example.org?a=b"), ("example.org".into(), 80, "/?a=b".into()));
        assert_eq!(Target::parse("ws://example.org:80/").unwrap().authority(), "example.org");
        assert_eq!(Target::parse("ws://[::1]:81/").unwrap().authority(), "[::1]:81");
    }

    #[test]
    fn a_bad_url_is_told_what_is_allowed() {
        let bad = [
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
            "ws://h:x/",
            "ws://u:p@h/",
            "ws://h/#top",
            "ws://h/a b",
        ];
        for url in bad {
            let reason = Target::parse(url).expect_err(url);
            assert!(reason.ends_with(ALLOWED), "{url}: {reason}");
        }
        assert!(Target::parse("wss://h/").unwrap_err().contains("not supported yet"));
    }

    #[test]
    fn sources_choose_the_family() {
        let target = Target::parse("ws://127.0.0.1:9/").unwrap();
        assert!(target.resolve(&["127.0.0.2".parse().unwrap()]).is_ok());
        assert!(target.resolve(&["::1".parse().unwrap()]).unwrap_err().contains("family"));
    }
}
