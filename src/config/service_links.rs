//! Service links: variables that Kubernetes sets in a pod for each Service of its namespace. Those
//! of a Service called `rusty-socks` begin as the settings do.
//!
//! Source: kubernetes.io/docs/concepts/services-networking/service, "Environment variables".

use super::source::PREFIX;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Whether Kubernetes sets a variable `name` to `value` for a Service whose name begins with
/// `rusty-socks`. Such a variable is no setting, even where it has the name of one, as
/// `RUSTY_SOCKS_PORT=tcp://10.0.0.11:3030`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX.trim_end_matches('_')) else { return false };
    is_address(rest, value) || is_of_port(rest, value) || is_of_service(rest, value)
}

/// Whether it is `…_SERVICE_HOST`, or `…_SERVICE_PORT` perhaps with the name of a port.
fn is_of_service(name: &str, value: &str) -> bool {
    let is_port = || name.contains("_SERVICE_PORT_") || name.ends_with("_SERVICE_PORT");
    name.ends_with("_SERVICE_HOST") || (is_port() && value.parse::<u16>().is_ok())
}

/// Whether it is `…_PORT`, which has the protocol, address and port of a Service's first port.
fn is_address(name: &str, value: &str) -> bool {
    let scheme = value.split_once("://").map(|(scheme, _)| scheme);
    let has_protocol =
        |scheme: &str| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(scheme));
    name.ends_with("_PORT") && scheme.is_some_and(has_protocol)
}

/// Whether it is `…_PORT_3030_TCP`, or that with `_PROTO`, `_PORT` or `_ADDR` behind it.
fn is_of_port(name: &str, value: &str) -> bool {
    let bare = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end));
    let mut words = bare.unwrap_or(name).rsplit('_');
    let (protocol, number, port) = (words.next(), words.next(), words.next());
    !value.is_empty()
        && protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol))
        && number.is_some_and(|number| number.parse::<u16>().is_ok())
        && port == Some("PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_is_known_and_nothing_else() {
        for link in [
            "RUSTY_SOCKS_SERVICE_HOST=10.96.0.11",
            "RUSTY_SOCKS_SERVICE_PORT=3030",
            "RUSTY_SOCKS_SERVICE_PORT_WS=3030",
            "RUSTY_SOCKS_PORT=tcp://10.96.0.11:3030",
            "RUSTY_SOCKS_PORT_3030_TCP=tcp://10.96.0.11:3030",
            "RUSTY_SOCKS_PORT_3030_TCP_PROTO=tcp",
            "RUSTY_SOCKS_PORT_3030_TCP_PORT=3030",
            "RUSTY_SOCKS_PORT_3030_TCP_ADDR=10.96.0.11",
            "RUSTY_SOCKS_PORT_53_UDP_ADDR=fd00::b",
            "RUSTY_SOCKS_ADMIN_PORT=tcp://10.96.0.12:3031",
            "RUSTY_SOCKS_ADMIN_SERVICE_HOST=10.96.0.12",
            "RUSTY_SOCKS_ADMIN_PORT_3031_TCP_PORT=3031",
        ] {
            let (name, value) = link.split_once('=').unwrap();
            assert!(is_service_link(name, value), "{link}");
        }
        for other in [
            "RUSTY_SOCKS_PORT=3030",
            "RUSTY_SOCKS_PORT=3030x",
            "RUSTY_SOCKS_PORT=http://a",
            "RUSTY_SOCKS_PORT=",
            "RUSTY_SOCKS_ADMIN_PORT=3031",
            "RUSTY_SOCKS_HOST=tcp://10.96.0.11:3030",
            "RUSTY_SOCKS_SERVICE_PORT=many",
            "RUSTY_SOCKS_SERVICE_PORTS=1",
            "RUSTY_SOCKS_PORT_WS_TCP=1",
            "RUSTY_SOCKS_3030_TCP=1",
            "RUSTY_SOCKS_PORT_3030_TCP_ADDRESS=1",
            "OTHER_SERVICE_HOST=10.96.0.11",
        ] {
            let (name, value) = other.split_once('=').unwrap();
            assert!(!is_service_link(name, value), "{other}");
        }
    }
}
