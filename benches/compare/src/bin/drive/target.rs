//! What is loaded: an address on this machine and a path, and nothing else, so that a typing error
//! never becomes an attack on somebody's server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use tokio_tungstenite::tungstenite::http::Uri;

/// Connections from one source address. The default range of local ports holds some 28,000, and
/// once every other one of them is taken, Linux searches so long for the next that `connect` takes
/// a millisecond.
pub(crate) const PER_SOURCE_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let scheme = uri.scheme_str().context("a URL looks like ws://127.0.0.1:3030/ws")?;
        ensure!(
            matches!(scheme, "ws" | "http" | "tcp"),
            "the scheme `{scheme}` is none of ws, http, tcp"
        );
        let port = uri.port_u16().context("the URL needs a port")?;
        let host = uri.host().unwrap_or_default();
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip.parse().with_context(|| format!("`{host}` is no IP address"))?,
        };
        if !ip.is_loopback() {
            bail!("{ip} is not a loopback address; this driver loads only the machine it runs on");
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { address: SocketAddr::new(ip, port), path: path.to_owned() })
    }
}

impl Target {
    /// The address that connection `index` comes from, where the system's choice would run out of
    /// ports. All of 127.0.0.0/8 is loopback, so each further address is a further range.
    pub(crate) fn source(&self, index: usize) -> Option<SocketAddr> {
        let further = index / PER_SOURCE_MAX;
        if further == 0 || self.address.is_ipv6() {
            return None;
        }
        let last = u8::try_from(1 + further).expect("counts are bounded to few sources");
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))
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
        assert_eq!(target.source(PER_SOURCE_MAX), "127.0.0.2:0".parse().ok());
        assert_eq!(target.source(3 * PER_SOURCE_MAX - 1), "127.0.0.3:0".parse().ok());
        let v6: Target = "ws://[::1]:1/".parse().unwrap();
        assert_eq!(v6.source(PER_SOURCE_MAX), None);
    }
}
