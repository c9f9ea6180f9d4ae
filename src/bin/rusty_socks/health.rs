//! `rusty_socks health`: one GET by hand, so that a container needs no other program for its check.

use std::{
    error::Error as _,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use rusty_socks::{Config, Error, config::Loaded};
use rusty_socks_client::{self as client, Target, TlsConnector, TlsOptions};
use rusty_socks_load::{
    TlsArgs,
    http_get::{self, HttpAnswer},
};

use crate::exit::{Exit, PREFIX, say};

/// How long connecting, asking and reading may take together. A healthy server answers in
/// milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More than any health report holds. A stranger on the port must not fill the memory.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The header that a server with `proxy_protocol` expects in front: version 2, command LOCAL, which
/// means that the connection is nobody else's.
const PROXY_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The route that is asked where the address names none.
const PATH: &str = "/health";

/// Asks `url`, or else the address that `configured` tells, and prints the body of the answer.
pub(crate) fn run(
    url: Option<&str>,
    tls: &TlsArgs,
    configured: impl FnOnce() -> Result<Loaded, Error>,
) -> Result<Exit, Error> {
    let (target, options, preamble) = match url {
        Some(url) => {
            let parse = |url: &str| {
                let target = Target::parse_for(url, PATH);
                target.map_err(|error| Error::config(format!("--url {error}")))
            };
            let target = match parse(url)? {
                root if root.path() == "/" => parse(&[url.trim_end_matches('/'), PATH].concat())?,
                target => target,
            };
            (target, tls.options(), &b""[..])
        }
        None => {
            let config = configured()?.config;
            let preamble = if config.proxy_protocol { PROXY_LOCAL } else { b"" };
            // The certificate is for the name that clients know, and not for the loopback. Whoever
            // may listen on the port there can do more than show a wrong one.
            (configured_target(&config)?, TlsOptions::default().insecure(), preamble)
        }
    };
    // A health check is plain HTTP, whatever else an address is for.
    let url = target.to_string().replacen("ws", "http", usize::from(!target.is_unix()));
    let connector = target.is_secure().then(|| options.connector()).transpose();
    let connector = connector.map_err(|error| Error::config(format!("--ca {error}")))?;
    let answer = match ask(&target, connector.as_ref(), preamble) {
        Ok(answer) => answer,
        Err(reason) => {
            say(&format!("{PREFIX}cannot ask {url}: {reason}"));
            return Ok(Exit::Failure);
        }
    };
    let body = String::from_utf8_lossy(&answer.body);
    match writeln!(io::stdout(), "{}", body.trim_end()) {
        Ok(()) => {}
        // A reader that hung up wants the exit code alone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            say(&format!("{PREFIX}cannot write to standard output: {error}"));
            return Ok(Exit::Failure);
        }
    }
    if answer.status == 200 {
        return Ok(Exit::Clean);
    }
    say(&format!("{PREFIX}{url} answers {}", answer.status));
    Ok(Exit::Failure)
}

/// Where the configured server listens. An address that stands for all of the machine's is asked
/// on the loopback.
fn configured_target(config: &Config) -> Result<Target, Error> {
    let is_unix = config.host.starts_with("unix:");
    if config.port == 0 && !is_unix {
        return Err(Error::config(
            "port = 0: the server chooses a port that is not known here; give --url",
        ));
    }
    let address = match config.host.parse::<IpAddr>() {
        Ok(ip) => {
            let ip = match ip {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            SocketAddr::new(ip, config.port).to_string()
        }
        Err(_) if is_unix => config.host.clone(),
        Err(_) => format!("{}:{}", config.host, config.port),
    };
    let target = Target::parse_for(&address, PATH);
    let target = target.map_err(|error| Error::config(format!("host = {error}")))?;
    Ok(target.secured(config.has_tls()))
}

/// The answer, or what to tell of its absence: the address and port that were tried among it.
fn ask(target: &Target, tls: Option<&TlsConnector>, preamble: &[u8]) -> Result<HttpAnswer, String> {
    let deadline = Instant::now() + TIMEOUT;
    // What the URL is was said already; its cause has the addresses that were tried.
    let cause = |error: client::Error| match error.source() {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    };
    let mut stream = target.dial(deadline).map_err(cause)?;
    let peer = stream.peer_addr();
    stream.write_all(preamble).map_err(|error| error.to_string())?;
    http_get::get(stream, target, tls, target.path(), ANSWER_BYTES_MAX, deadline).map_err(|error| {
        match peer {
            Ok(peer) if error.kind() == io::ErrorKind::TimedOut => {
                format!("{peer} gave no answer within {} s", TIMEOUT.as_secs())
            }
            Ok(peer) => format!("{peer}: {error}"),
            Err(_) => error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_means_the_loopback() {
        for (host, asked) in [
            ("0.0.0.0", "ws://127.0.0.1:3030/health"),
            ("::", "ws://[::1]:3030/health"),
            ("::1", "ws://[::1]:3030/health"),
            ("10.1.2.3", "ws://10.1.2.3:3030/health"),
            ("example.org", "ws://example.org:3030/health"),
        ] {
            let config = Config { host: host.into(), ..Config::default() };
            assert_eq!(configured_target(&config).unwrap().to_string(), asked);
        }
        assert!(configured_target(&Config { port: 0, ..Config::default() }).is_err());
    }
}
