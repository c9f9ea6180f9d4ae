//! Whose client a connection is that comes through a proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// The address of whoever connects through a Unix socket. Nobody has it on a network.
pub(crate) const UNIX_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The bits that an IPv4 address has before it where it is written as IPv6 (RFC 4291, section
/// 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// The proxies whose word about their clients' addresses is taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads the entries of `trusted_proxies`, which are legal.
    pub(crate) fn new(entries: &[String]) -> TrustedProxies {
        TrustedProxies(entries.iter().filter_map(|entry| network(entry)).collect())
    }

    /// Whether `ip` is a trusted proxy's. That of a Unix socket is: the permissions of its file say
    /// who may connect.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip == UNIX_PEER.ip() || self.0.iter().any(|network| network.contains(&ip))
    }

    /// Finds the client behind `peer`, given the values of the `X-Forwarded-For` headers in the
    /// order of the request.
    ///
    /// Each proxy appends the address that it was reached from. The list is therefore read from its
    /// end, and only as long as trusted proxies wrote it: everything further left may be forged.
    /// What is no address ends the reading as an untrusted proxy does.
    pub(crate) fn client_behind<'h>(
        &self,
        peer: SocketAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'h str>,
    ) -> SocketAddr {
        let mut client = peer;
        let mut hops = forwarded_for.rev().flat_map(|value| value.rsplit(','));
        while self.contains(client.ip()) {
            match hops.next().and_then(address) {
                Some(before) => client = before,
                None => break,
            }
        }
        client
    }
}

/// Reads an address, or a network as `10.0.0.0/8` writes it. A network of IPv4 addresses that are
/// written as IPv6 is one of IPv4.
pub(crate) fn network(entry: &str) -> Option<IpNet> {
    let network: IpNet = match entry.parse::<IpAddr>() {
        Ok(ip) => ip.into(),
        Err(_) => entry.parse().ok()?,
    };
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
        (ip @ IpAddr::V4(_), Some(bits)) if network.addr().is_ipv6() => IpNet::new(ip, bits).ok(),
        _ => Some(network),
    }
}

/// Reads a hop: an address, perhaps with a port. Without one the port is 0.
fn address(hop: &str) -> Option<SocketAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let with_ip = |ip: IpAddr| SocketAddr::new(ip, 0);
    let address: SocketAddr = bare.parse().map(with_ip).or_else(|_| hop.parse()).ok()?;
    of_network(address)
}

/// `address` as IPv4 where it is; `None` if no client on a network can have it.
pub(crate) fn of_network(mut address: SocketAddr) -> Option<SocketAddr> {
    address.set_ip(address.ip().to_canonical());
    (!address.ip().is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(trusted: &[&str], peer: &str, forwarded_for: &[&str]) -> String {
        let entries: Vec<String> = trusted.iter().map(|&entry| entry.into()).collect();
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        let proxies = TrustedProxies::new(&entries);
        proxies.client_behind(peer, forwarded_for.iter().copied()).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        assert_eq!(behind(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1:9");
        assert_eq!(behind(&["10.0.0.2"], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1:9");
    }

    #[test]
    fn the_list_is_read_from_its_end_through_trusted_proxies() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        let behind = |forwarded_for: &[&str]| behind(&trusted, "10.0.0.1", forwarded_for);
        assert_eq!(behind(&[]), "10.0.0.1:9");
        assert_eq!(behind(&["1.2.3.4"]), "1.2.3.4:0");
        assert_eq!(behind(&["6.6.6.6, 1.2.3.4,10.1.1.1"]), "1.2.3.4:0");
        assert_eq!(behind(&["6.6.6.6", "1.2.3.4", " 10.1.1.1 , fd00::7 "]), "1.2.3.4:0");
        assert_eq!(behind(&["10.9.9.9"]), "10.9.9.9:0");
    }

    #[test]
    fn the_peer_of_a_unix_socket_is_believed() {
        assert_eq!(behind(&[], "0.0.0.0", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4:0");
        assert_eq!(behind(&["1.2.3.4"], "0.0.0.0", &["6.6.6.6, 1.2.3.4"]), "6.6.6.6:0");
        assert_eq!(behind(&[], "0.0.0.0", &["unix:"]), "0.0.0.0:9");
    }

    #[test]
    fn what_is_no_address_ends_the_reading() {
        let trusted = ["10.0.0.0/8"];
        for (value, client) in [
            ("1.2.3.4, unknown", "10.0.0.1:9"),
            ("1.2.3.4, , 10.1.1.1", "10.1.1.1:0"),
            ("1.2.3.4\u{0}", "10.0.0.1:9"),
            ("", "10.0.0.1:9"),
            ("1.2.3.4, 0.0.0.0", "10.0.0.1:9"),
            ("1.2.3.4, ::", "10.0.0.1:9"),
            ("1.2.3.4, unix:", "10.0.0.1:9"),
        ] {
            assert_eq!(behind(&trusted, "10.0.0.1", &[value]), client, "{value}");
        }
    }

    #[test]
    fn a_hop_is_an_address_of_either_kind_with_or_without_a_port() {
        let trusted = ["::1", "127.0.0.1"];
        for (value, client) in [
            ("1.2.3.4:567", "1.2.3.4:567"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:567", "[2001:db8::1]:567"),
            ("::ffff:1.2.3.4", "1.2.3.4:0"),
        ] {
            assert_eq!(behind(&trusted, "::1", &[value]), client, "{value}");
        }
        assert_eq!(behind(&trusted, "::ffff:127.0.0.1", &["1.2.3.4"]), "1.2.3.4:0");
        for mapped in ["::ffff:10.0.0.0/104", "::ffff:10.9.0.1"] {
            assert_eq!(behind(&[mapped], "10.9.0.1", &["1.2.3.4"]), "1.2.3.4:0", "{mapped}");
        }
    }
}
