//! `rusty_socks health`: one GET by hand, so that a container needs no other program for its check.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use rusty_socks::{Config, Error, config::Loaded};

use crate::exit::{self, Exit};

/// A server that is well answers in milliseconds. All of connecting, asking and reading fits in here.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than any health report holds. A stranger on the port must not fill the memory.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Asks `url`, or else the address that `configured` tells, and prints the body of the answer.
pub(crate) fn run(
    url: Option<&str>,
    configured: impl FnOnce() -> Result<Loaded, Error>,
) -> Result<Exit, Error> {
    let target = match url {
        Some(url) => Target::parse(url)?,
        None => Target::of(&configured()?.config)?,
    };
    match ask(&target) {
        Ok(answer) => {
            // The exit code is the answer; nobody may be reading the words.
            let _ = writeln!(io::stdout(), "{}", answer.body.trim_end());
            if answer.status == 200 {
                return Ok(Exit::Clean);
            }
            eprintln!("{}{target} answers {}", exit::PREFIX, answer.status);
        }
        Err(error) => eprintln!("{}cannot ask {target}: {error}", exit::PREFIX),
    }
    Ok(Exit::Failure)
}

/// Whom to ask for what.
#[derive(Debug, PartialEq)]
struct Target {
    /// A name or an address, IPv6 without brackets.
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// An address that stands for all of the machine's is asked on the loopback.
    fn of(config: &Config) -> Result<Target, Error> {
        if config.port == 0 {
            return Err(Error::config(
                "port = 0: the server chooses a port that is not known here; give --url",
            ));
        }
        let host = match config.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(address)) if address.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            _ => config.host.clone(),
        };
        Ok(Target { host, port: config.port, path: "/health".into() })
    }

    fn parse(url: &str) -> Result<Target, Error> {
        let wrong =
            || Error::config(format!("--url {url:?}: must look like http://127.0.0.1:3030/health"));
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if port.is_empty() => 80,
            None => return Err(wrong()),
        };
        // What would break the request line or a header is not sent.
        if host.is_empty() || url.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(wrong());
        }
        Ok(Target { host: host.into(), port, path: path.into() })
    }

    fn authority(&self) -> String {
        let Target { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

struct Answer {
    status: u16,
    body: String,
}

fn ask(target: &Target) -> io::Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = connect(target, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: rusty_socks/{}\r\nConnection: close\r\n\r\n",
        target.path,
        target.authority(),
        env!("CARGO_PKG_VERSION"),
    )?;

    // The server closes after the answer, as asked; a length that is reached ends the wait earlier.
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
    parse(&bytes, true)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed before the answer")
    })
}

/// Tries each address of a name in turn, like other clients.
fn connect(target: &Target, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        (target.host.as_str(), target.port).to_socket_addrs()?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The time that is left, which is never zero, for a zero timeout would mean none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(too_late()),
        left => Ok(left),
    }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()))
}

/// The answer in `bytes`, once it is whole. What is whole without a length only the end can tell.
fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            let text = format!("this is no HTTP answer: {error}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let body = &bytes[head_bytes..];
    let whole = match length {
        Some(length) => body.len() >= length,
        None => ended,
    };
    let answer = Answer {
        status: response.code.unwrap_or(0),
        body: String::from_utf8_lossy(&body[..length.unwrap_or(body.len()).min(body.len())]).into(),
    };
    Ok(whole.then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16, path: &str) -> Target {
        Target { host: host.into(), port, path: path.into() }
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, expected) in [
            ("http://127.0.0.1:3030/health", target("127.0.0.1", 3030, "/health")),
            ("http://example.org", target("example.org", 80, "/")),
            ("http://[::1]:8080/health?x=1", target("::1", 8080, "/health?x=1")),
        ] {
            assert_eq!(Target::parse(url).unwrap(), expected);
        }
        for url in [
            "",
            "http://",
            "https://a/health",
            "127.0.0.1:3030",
            "http://a:x/",
            "http://a:/",
            "http://[::1/",
            "http://[::1]x/",
            "http://a/\r\nX: y",
            "http://:80/",
            "http://a:99999/",
        ] {
            assert!(Target::parse(url).unwrap_err().is_config(), "{url}");
        }
    }

    #[test]
    fn any_address_means_the_loopback() {
        for (host, asked) in [
            ("0.0.0.0", "http://127.0.0.1:3030/health"),
            ("::", "http://[::1]:3030/health"),
            ("10.1.2.3", "http://10.1.2.3:3030/health"),
            ("example.org", "http://example.org:3030/health"),
        ] {
            let config = Config { host: host.into(), ..Config::default() };
            assert_eq!(Target::of(&config).unwrap().to_string(), asked);
        }
        assert!(Target::of(&Config { port: 0, ..Config::default() }).is_err());
    }

    #[test]
    fn an_answer_is_known_to_be_whole_byte_by_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for end in 0..text.len() {
            assert!(parse(&text[..end], false).unwrap().is_none(), "{end}");
        }
        let answer = parse(text, false).unwrap().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let text = b"HTTP/1.1 503 Busy\r\n\r\nwait";
        assert!(parse(text, false).unwrap().is_none());
        let answer = parse(text, true).unwrap().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "wait"));
        assert!(parse(b"SSH-2.0-x\r\n", true).is_err());
    }
}
