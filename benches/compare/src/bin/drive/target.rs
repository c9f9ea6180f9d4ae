//! What is loaded: an address on this machine and a path, and nothing else, so that a typing error
//! never becomes an attack on somebody's server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusty_socks_load::http_get;

/// Connections from one source address. The default range of local ports holds some 28,000, and
/// once every other one of them is taken, Linux searches so long for the next that `connect` takes
/// a millisecond.
pub(crate) const PER_SOURCE_MAX: usize = 10_000;
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self> {
        ensure!(url.contains("://"), "`{url}` is no URL, such as ws://127.0.0.1:3030/ws");
        let plain = url.strip_prefix("tcp://").map(|rest| format!("ws://{rest}"));
        let target = rusty_socks_client::Target::parse(plain.as_deref().unwrap_or(url))?;
        // No name is looked up, for it might stand for another machine.
        let host = target.authority().replace("localhost:", "127.0.0.1:");
        let address: SocketAddr =
            host.parse().with_context(|| format!("`{host}` is no IP address with a port"))?;
        let ip = address.ip();
        ensure!(
            ip.is_loopback(),
            "{ip} is not a loopback address; this driver loads only the machine it runs on"
        );
        Ok(Self { address, path: target.path().to_owned() })
    }
}

impl Target {
    /// Another path of the same server.
    pub(crate) fn beside(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The address that connection `index` comes from, where the system's choice would run out of
    /// ports. All of 127.0.0.0/8 is loopback, so each further address is a further range.
    pub(crate) fn source(&self, index: usize) -> Option<IpAddr> {
        let further = index / PER_SOURCE_MAX;
        if further == 0 || self.address.is_ipv6() {
            return None;
        }
        let last = u8::try_from(1 + further).expect("counts are bounded to few sources");
        Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
    }

    /// Asks for the page on a fresh connection, and returns when its whole body is there.
    pub(crate) fn page(&self) -> Result<Vec<u8>> {
        let stream = TcpStream::connect_timeout(&self.address, PAGE_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let target = rusty_socks_client::Target::parse(&self.address.to_string())?;
        let until = Instant::now() + PAGE_TIMEOUT;
        let page = http_get::get(stream, &target, None, &self.path, PAGE_BYTES_MAX, until)?;
        ensure!(page.status == 200, "{} answers {}", self.path, page.status);
        Ok(page.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_url_is_taken_apart() {
        let target: Target = "ws://127.0.0.1:3030/echo?x=1".parse().unwrap();
        assert_eq!(target.address, "127.0.0.1:3030".parse().unwrap());
        assert_eq!(target.path, "/echo?x=1");
        assert_eq!("tcp://localhost:1".parse::<Target>().unwrap().path, "/");
        assert!("ws://[::1]:1/".parse::<Target>().unwrap().address.is_ipv6());
    }

    #[test]
    fn other_machines_are_refused() {
        for url in
            ["ws://192.0.2.1:80/", "ws://0.0.0.0:80/", "ws://example.com:80/", "ws://[::]:80/"]
        {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }

    #[test]
    fn a_path_cannot_smuggle_a_header() {
        assert!("ws://127.0.0.1:1/a\r\nX: y".parse::<Target>().is_err());
    }

    #[test]
    fn many_connections_are_spread_over_sources() {
        let target: Target = "ws://127.0.0.1:1/".parse().unwrap();
        assert_eq!(target.source(PER_SOURCE_MAX - 1), None);
        assert_eq!(target.source(PER_SOURCE_MAX), "127.0.0.2".parse().ok());
        assert_eq!(target.source(3 * PER_SOURCE_MAX - 1), "127.0.0.3".parse().ok());
        let v6: Target = "ws://[::1]:1/".parse().unwrap();
        assert_eq!(v6.source(PER_SOURCE_MAX), None);
    }
}
