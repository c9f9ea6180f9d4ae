//! For whom limits are remembered.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

/// The owner of what is counted across connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// An IPv4 address, or the first 64 bits of an IPv6 address: a network gives each of its hosts
    /// that many addresses to choose from.
    Address(IpAddr),
    /// The user of an identity.
    User(Arc<str>),
}

/// Whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitOf {
    /// The limit of the client itself.
    Client,
    /// The limit of everyone at its address.
    Address,
    /// The limit of all clients of its user.
    User,
}

impl Owner {
    pub(crate) fn of_address(ip: IpAddr) -> Owner {
        Owner::Address(match ip.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            ip => ip,
        })
    }

    /// Returns whose limit is reached when this owner's is.
    pub(crate) fn limit(&self) -> LimitOf {
        match self {
            Owner::Address(_) => LimitOf::Address,
            Owner::User(_) => LimitOf::User,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_owner() {
        let of = |text: &str| Owner::of_address(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
