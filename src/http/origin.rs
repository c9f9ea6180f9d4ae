//! Whether a browser's page may connect, by the `Origin` of its upgrade (RFC 6455, section 10.2).

/// The entry of `allowed_origins` that lets every page connect.
pub(crate) const ANY: &str = "*";

/// Tells whether a page of `origin` may open a connection to `host`, the request's `Host`.
///
/// A client that is no browser sends no `Origin`, and may. A page may if `allowed` names its origin
/// or is `*`. If `allowed` is empty, a page may connect to the host and port that it came from, and
/// a page of this machine (`localhost`) to a server on this machine, whatever their ports. All
/// others are refused: a browser sends cookies and reaches private networks for any page that asks.
///
/// Where the server `has_tls` itself, a page that came without TLS is another origin: whoever is on
/// the way may have written it. Behind a proxy the server cannot know how its pages come.
pub(crate) fn may_connect(
    origin: Option<&str>,
    host: Option<&str>,
    allowed: &[String],
    has_tls: bool,
) -> bool {
    let Some(origin) = origin else { return true };
    if !allowed.is_empty() {
        return allowed.iter().any(|known| known == ANY || known.eq_ignore_ascii_case(origin));
    }
    // A page without an origin of its own, such as a file, sends `null`.
    let (Some((scheme, page)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    let is_same = !page.is_empty() && page.eq_ignore_ascii_case(host);
    let is_as_safe = !has_tls || scheme.eq_ignore_ascii_case("https");
    (is_same && is_as_safe) || (is_loopback(page) && is_loopback(host))
}

/// Whether a host, with or without a port, is this machine by its name or address.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => host.split(':').next(),
    };
    let Some(name) = name else { return false };
    match name.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(allowed: &[&str], cases: &[(Option<&str>, &str, bool)]) {
        let allowed: Vec<String> = allowed.iter().map(|&origin| origin.into()).collect();
        for &(origin, host, may) in cases {
            let is_allowed = may_connect(origin, Some(host), &allowed, false);
            assert_eq!(is_allowed, may, "{origin:?} to {host}");
        }
    }

    #[test]
    fn by_default_pages_of_the_same_host_and_of_this_machine_may() {
        check(
            &[],
            &[
                (None, "a.example", true),
                (Some("https://a.example"), "a.example", true),
                (Some("https://A.example:8443"), "a.EXAMPLE:8443", true),
                (Some("https://a.example"), "a.example:3030", false),
                (Some("https://evil.example"), "a.example", false),
                (Some("https://a.example.evil.example"), "a.example", false),
                (Some("http://localhost:5173"), "localhost:3030", true),
                (Some("http://127.0.0.1"), "localhost:3030", true),
                (Some("http://[::1]:80"), "127.0.0.2:3030", true),
                (Some("http://localhost:5173"), "a.example", false),
                (Some("http://a.example"), "localhost:3030", false),
                (Some("http://localhost.evil.example"), "localhost:3030", false),
                (Some("http://127.0.0.1.evil.example"), "localhost:3030", false),
                (Some("http://[::1"), "localhost", true),
                (Some("null"), "localhost:3030", false),
                (Some(""), "", false),
                (Some("://"), "", false),
            ],
        );
        assert!(!may_connect(Some("http://localhost"), None, &[], false));
    }

    #[test]
    fn a_page_without_tls_is_another_origin_than_a_server_with_it() {
        let may = |origin, host| may_connect(Some(origin), Some(host), &[], true);
        assert!(!may("http://a.example", "a.example"));
        assert!(may("HTTPS://a.example", "a.example"));
        assert!(may("http://localhost:5173", "localhost:3030"), "nobody is on the way");
        assert!(may_connect(None, Some("a.example"), &[], true));
        let listed = ["http://a.example".to_owned()];
        assert!(may_connect(Some("http://a.example"), Some("a.example"), &listed, true));
    }

    #[test]
    fn a_list_says_all() {
        let list = ["https://a.example", "null"];
        check(
            &list,
            &[
                (None, "b.example", true),
                (Some("HTTPS://A.example"), "b.example", true),
                (Some("null"), "b.example", true),
                (Some("https://b.example"), "b.example", false),
                (Some("http://localhost"), "localhost", false),
            ],
        );
        check(&[ANY], &[(Some("https://evil.example"), "b.example", true)]);
    }
}
