//! Where a client connects to: an address as people type it, and a TCP connection there.

use std::{
    fmt, io,
    net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use http::Uri;

use super::error::{Error, ErrorKind};

/// What every refusal of an address ends with.
const ALLOWED: &str = "allowed is HOST, HOST:PORT[/PATH], ws://HOST[:PORT][/PATH] or the same with \
                       wss://, http:// or https://, for example localhost:3030, or \
                       unix:/FILE[:/PATH]";

/// How the address of a Unix socket begins.
const UNIX_PREFIX: &str = "unix:";

/// The name of a server on a Unix socket, for its `Host` header and its certificate.
const UNIX_HOST: &str = "localhost";

/// The port of a URL that names none (RFC 6455, section 3).
const URL_PORT: u16 = 80;

/// The same for a URL with TLS.
const SECURE_URL_PORT: u16 = 443;

/// The port of an address without a scheme that names none: that of the shipped server.
const PORT: u16 = 3030;

/// The path of an address without a scheme that names none: the shipped server's chat.
const PATH: &str = "/ws";

/// A server and the path of one of its routes, read from an address as people type it.
///
/// An address with a scheme is a URL (RFC 6455, section 3): `ws://`, or `http://` for the same,
/// and what it leaves out is port 80 and the path `/`. `wss://` and `https://` are with TLS (the
/// feature `tls`), and their port is 443. An address without a scheme is completed
/// to that of the shipped server: port 3030 and the path `/ws`.
///
/// | typed | meant |
/// |---|---|
/// | `localhost` | `ws://localhost:3030/ws` |
/// | `localhost:4000` | `ws://localhost:4000/ws` |
/// | `[::1]:4000/chat?token=x` | `ws://[::1]:4000/chat?token=x` |
/// | `ws://example.org` | `ws://example.org:80/` |
/// | `http://localhost:3030/ws` | `ws://localhost:3030/ws` |
/// | `wss://example.org/ws` | `wss://example.org:443/ws` |
/// | `unix:/run/chat.sock` | the Unix socket of this path, and there `/ws` |
/// | `unix:/run/chat.sock:/echo?x=y` | the same, and there `/echo?x=y` |
///
/// ```
/// use rusty_socks_client::Target;
///
/// let target = Target::parse("localhost")?;
/// assert_eq!(target.to_string(), "ws://localhost:3030/ws");
/// # Ok::<(), rusty_socks_client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    is_secure: bool,
    place: Place,
    /// Begins with `/` and carries the query, if any.
    path: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Net {
        /// As written, an IPv6 address in its brackets.
        host: String,
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(String),
}

impl Target {
    /// Reads an address. The error is [`ErrorKind::InvalidInput`], says what is wrong, and what is
    /// allowed.
    pub fn parse(address: &str) -> Result<Target, Error> {
        Target::parse_for(address, PATH)
    }

    /// Reads an address like [`parse`](Self::parse), but completes one without a scheme by
    /// `path`, which begins with `/`, in place of `/ws`.
    pub fn parse_for(address: &str, path: &str) -> Result<Target, Error> {
        let refuse = |reason: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("{address:?}: {reason}; {ALLOWED}")))
        };
        if address.contains('#') {
            return refuse("an address has no fragment (#…)");
        }
        if let Some(rest) = address.strip_prefix(UNIX_PREFIX) {
            let (file, typed) = match rest.split_once(":/") {
                Some((file, typed)) => (file, format!("/{typed}")),
                None => (rest, path.to_owned()),
            };
            if !file.starts_with('/') || file.contains(char::is_control) {
                return refuse("the file of a Unix socket begins with /");
            }
            return match typed.parse::<Uri>() {
                Ok(_) => {
                    let place = Place::Unix(file.to_owned());
                    Ok(Target { is_secure: false, place, path: typed })
                }
                Err(error) => refuse(&error.to_string()),
            };
        }
        let (is_url, is_secure, rest) = match address.split_once("://") {
            None => (false, false, address),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "ws" | "http" => (true, false, rest),
                "wss" | "https" if cfg!(feature = "tls") => (true, true, rest),
                "wss" | "https" => {
                    return refuse("TLS is needed for wss:// and https://, and is not built in");
                }
                _ => {
                    return refuse(
                        "the scheme must be ws:// or http:// (wss://, https:// for TLS)",
                    );
                }
            },
        };
        // Nobody who types `::1` means the port 1.
        let rest = match rest.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => rest.to_owned(),
        };
        let uri = match format!("ws://{rest}").parse::<Uri>() {
            Ok(uri) => uri,
            Err(_) if rest.is_empty() => return refuse("it names no host"),
            Err(error) => return refuse(&error.to_string()),
        };
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty())
        else {
            return refuse("it names no host");
        };
        if authority.as_str().contains('@') {
            return refuse("a user and password do not belong in it (use a header)");
        }
        let named_port = &authority.as_str()[authority.host().len()..];
        let port = match (named_port, authority.port_u16()) {
            ("", None) if is_url => url_port(is_secure),
            ("", None) => PORT,
            (_, Some(port)) if port > 0 => port,
            _ => return refuse("the port must be from 1 to 65535"),
        };
        let typed = match uri.path() {
            "" | "/" if !is_url => path,
            "" => "/",
            typed => typed,
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let place = Place::Net { host: authority.host().to_owned(), port };
        Ok(Target { is_secure, place, path: format!("{typed}{query}") })
    }

    /// The same place with TLS or without.
    pub fn secured(self, is_secure: bool) -> Target {
        Target { is_secure, ..self }
    }

    /// Whether it is to be spoken to through TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether it is on a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.place, Place::Unix(_))
    }

    #[cfg(feature = "tls")]
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            Place::Net { host, .. } => host,
            Place::Unix(_) => UNIX_HOST,
        }
    }

    /// The path and query for the request line of HTTP. Begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of the `Host` header; port 80, with TLS 443, goes unsaid, as browsers do.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Net { host, port } if *port == url_port(self.is_secure) => host.clone(),
            Place::Net { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => UNIX_HOST.to_owned(),
        }
    }

    /// Looks up the addresses of the host. Blocks for as long as the system's resolver does. The
    /// error is [`ErrorKind::Unreachable`], or [`ErrorKind::InvalidInput`] for a Unix socket, which
    /// has none.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let Place::Net { host, port } = &self.place else {
            let message = format!("{self}: a Unix socket has no address on a network");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = (name, *port).to_socket_addrs().map(Iterator::collect);
        let unknown =
            |why| Error::caused(ErrorKind::Unreachable, format!("cannot look up {name}"), why);
        match found {
            Ok(addresses) if Vec::<SocketAddr>::is_empty(&addresses) => {
                Err(unknown(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
            }
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(unknown(error)),
        }
    }

    /// Connects: to the Unix socket, or by TCP. There it tries each address of the host in turn,
    /// and gives what is left of the time to each. Blocks until `deadline` at most, the look-up
    /// aside.
    ///
    /// The error is [`ErrorKind::Timeout`] or [`ErrorKind::Unreachable`], and names each address
    /// and port that was tried.
    pub fn dial(&self, deadline: Instant) -> Result<TcpStream, Error> {
        if let Place::Unix(file) = &self.place {
            let cannot = |error| {
                Error::caused(ErrorKind::Unreachable, format!("cannot connect to {self}"), error)
            };
            return dial_unix(file).map_err(cannot);
        }
        let addresses = self.addresses()?;
        let mut kind = io::ErrorKind::NotFound;
        let mut tried = Vec::new();
        for (count, address) in addresses.iter().enumerate() {
            // An address that is silent leaves the others their share.
            let share = left(deadline) / (addresses.len() - count) as u32;
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    kind = error.kind();
                    tried.push(match kind {
                        io::ErrorKind::ConnectionRefused => format!("nobody listens on {address}"),
                        io::ErrorKind::TimedOut => format!("{address} does not answer in time"),
                        _ => format!("{address}: {error}"),
                    });
                }
            }
        }
        let blame = match kind {
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Unreachable,
        };
        let cause = io::Error::new(kind, tried.join("; "));
        Err(Error::caused(blame, format!("cannot connect to {self}"), cause))
    }
}

/// Connects to a Unix socket, without ever waiting. It is read and written as one of TCP is, so it
/// need not have a type of its own; but it has no addresses, and `set_nodelay` fails.
#[cfg(unix)]
fn dial_unix(file: &str) -> io::Result<TcpStream> {
    let stream = mio::net::UnixStream::connect(file).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => io::Error::new(error.kind(), "nobody listens there"),
        io::ErrorKind::WouldBlock => {
            io::Error::new(error.kind(), "too many connections wait there")
        }
        _ => error,
    })?;
    let stream = TcpStream::from(std::os::fd::OwnedFd::from(stream));
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(not(unix))]
fn dial_unix(_: &str) -> io::Result<TcpStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

fn url_port(is_secure: bool) -> u16 {
    if is_secure { SECURE_URL_PORT } else { URL_PORT }
}

/// The time until `deadline`, zero when it has passed.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Place::Unix(file) = &self.place {
            return write!(f, "{UNIX_PREFIX}{file}:{}", self.path);
        }
        let scheme = if self.is_secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_url_means_what_it_says() {
        for (url, authority, path) in [
            ("ws://example.org:3030/ws?a=b", "example.org:3030", "/ws?a=b"),
            ("ws://[::1]:9/x", "[::1]:9", "/x"),
            ("WS://h", "h", "/"),
            ("ws://h:80?q", "h", "/?q"),
            ("http://h/", "h", "/"),
            ("HTTP://h:81/ws", "h:81", "/ws"),
            #[cfg(feature = "tls")]
            ("wss://h/ws", "h", "/ws"),
            #[cfg(feature = "tls")]
            ("HTTPS://h:80", "h:80", "/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.authority().as_str(), target.path()), (authority, path), "{url}");
        }
    }

    #[test]
    fn what_an_address_leaves_out_is_that_of_the_shipped_server() {
        for (typed, meant) in [
            ("localhost", "ws://localhost:3030/ws"),
            ("localhost/", "ws://localhost:3030/ws"),
            ("localhost:80", "ws://localhost/ws"),
            ("localhost:4000/chat", "ws://localhost:4000/chat"),
            ("localhost?token=x", "ws://localhost:3030/ws?token=x"),
            ("127.0.0.1", "ws://127.0.0.1:3030/ws"),
            ("[::1]", "ws://[::1]:3030/ws"),
            ("::1", "ws://[::1]:3030/ws"),
            ("[::1]:80/?token=x", "ws://[::1]/ws?token=x"),
        ] {
            assert_eq!(Target::parse(typed).unwrap().to_string(), meant, "{typed}");
        }
        let meant = |typed| Target::parse_for(typed, "/echo").unwrap().to_string();
        assert_eq!(meant("localhost"), "ws://localhost:3030/echo");
        assert_eq!(meant("localhost/ws"), "ws://localhost:3030/ws");
        assert_eq!(meant("ws://localhost:3030"), "ws://localhost:3030/");
    }

    #[test]
    fn a_unix_socket_has_a_path_and_may_have_a_route() {
        for (typed, shown) in [
            ("unix:/run/chat.sock", "unix:/run/chat.sock:/ws"),
            ("unix:/run/chat.sock:/echo?x=y", "unix:/run/chat.sock:/echo?x=y"),
            ("unix:/a:b.sock", "unix:/a:b.sock:/ws"),
        ] {
            let target = Target::parse(typed).unwrap();
            assert_eq!(
                (target.to_string(), target.authority()),
                (shown.into(), "localhost".into())
            );
            assert_eq!(target.addresses().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_bad_address_is_told_what_is_allowed() {
        for address in [
            "",
            "/ws",
            "?q",
            ":3030",
            "ftp://h/",
            #[cfg(not(feature = "tls"))]
            "wss://h/",
            "wsss://h/",
            "://h",
            "ws://",
            "ws:///ws",
            "ws://:80/",
            "ws://h:0/",
            "ws://h:70000/",
            "h:70000",
            "h:port",
            "ws://h:/",
            "ws://u:p@h/",
            "u@h",
            "ws://h/#top",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "http://[::1/",
            "http://[::1]x/",
            "unix:",
            "unix:chat.sock",
            "unix:///run/chat.sock:/a b",
        ] {
            let error = Target::parse(address).expect_err(address);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().ends_with(ALLOWED), "{address}: {error}");
        }
    }

    #[test]
    fn a_failure_names_the_address_and_port_that_were_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let target = Target::parse(&format!("127.0.0.1:{port}")).unwrap();
        let error = target.dial(Instant::now() + Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let text = error.to_string();
        assert!(text.ends_with(&format!(": nobody listens on 127.0.0.1:{port}")), "{text}");
    }
}
