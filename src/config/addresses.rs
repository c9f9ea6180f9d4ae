//! Which addresses have limits of their own.

use std::net::{IpAddr, Ipv4Addr};

/// The addresses for which the limits by address hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedAddresses {
    /// Those of the public internet. A proxy in front of the server is usually on the same machine
    /// or in a private network, and every client behind it has its address.
    Public,
    /// All addresses, this machine's too.
    All,
    /// No address.
    None,
}

impl LimitedAddresses {
    /// Whether the limits hold for clients at `ip`.
    pub fn holds_for(self, ip: IpAddr) -> bool {
        match self {
            LimitedAddresses::Public => is_public(ip.to_canonical()),
            LimitedAddresses::All => true,
            LimitedAddresses::None => false,
        }
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_local = ip.is_loopback() || ip.is_unspecified() || ip.is_link_local();
            !(is_local || ip.is_private() || is_shared(ip))
        }
        IpAddr::V6(ip) => {
            let is_local = ip.is_loopback() || ip.is_unspecified();
            !(is_local || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

/// Whether an address is of 100.64.0.0/10 (RFC 6598), which networks use among themselves.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_are_those_that_no_network_uses_among_its_own() {
        let holds = |ip: &str| LimitedAddresses::Public.holds_for(ip.parse().expect("an address"));
        for public in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(holds(public), "{public}");
        }
        let local = [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ];
        for local in local {
            assert!(!holds(local), "{local}");
        }
    }
}
