//! The texts that settings take: which are legal, and what people are told of that.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use log::LevelFilter;

use super::url_list::urls;

/// A rule for texts: a description for people, and a check.
pub(super) struct Rule {
    pub(super) range: &'static str,
    pub(super) legal: fn(&str) -> bool,
}

impl Rule {
    pub(super) fn allows(&self, text: &str) -> bool {
        (self.legal)(text)
    }
}

/// What a host begins with that is the path of a Unix socket.
pub(crate) const UNIX_PREFIX: &str = "unix:";

/// The longest path of a Unix socket that Linux takes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) const HOST: Rule = Rule {
    range: "a host name or an IP address, without port or brackets, or unix: and an absolute path",
    legal: |host| {
        if let Some(path) = host.strip_prefix(UNIX_PREFIX) {
            return path.starts_with('/')
                && path.len() <= SOCKET_PATH_BYTES_MAX
                && !path.contains(char::is_control);
        }
        // The operating system checks the zone of a link-local address ("%eth0").
        let address = host.split('%').next().unwrap_or(host);
        let strange = |c: char| c.is_whitespace() || c.is_control() || "[]/,".contains(c);
        !address.is_empty()
            && !host.contains(strange)
            && (!host.contains(':') || address.parse::<Ipv6Addr>().is_ok())
    },
};

pub(super) const ROOM: Rule = Rule {
    range: "1 to 128 bytes without control characters or *, or empty",
    legal: |room| room.len() <= 128 && !room.contains(|c: char| c.is_control() || c == '*'),
};

/// A key for the server API: what may stand behind `Bearer` (RFC 6750, 2.1).
pub(super) const API_KEY: Rule = Rule {
    range: "16 to 256 letters, digits and -._~+/=, or empty",
    legal: |key| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        key.is_empty() || ((16..=256).contains(&key.len()) && key.bytes().all(is_legal))
    },
};

/// A file that the server writes. Whether it can is seen at the start.
pub(super) const FILE: Rule = Rule {
    range: "the path of a file, or empty",
    legal: |path| path.len() <= 4000 && !path.contains(char::is_control) && !path.ends_with('/'),
};

pub(super) const PEM: Rule = Rule {
    range: "the path of a PEM file, or empty",
    legal: |path| path.len() <= 4096 && !path.contains(char::is_control),
};

/// Returns the host of a URL, of which `rest` is what follows the scheme, if host and port are as
/// they should be. A URL with a user name has none: it would show a password.
fn host(rest: &str) -> Option<&str> {
    let strange = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A colon within the brackets of an IPv6 address begins no port.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_proper = !host.is_empty()
        && host.starts_with('[') == host.ends_with(']')
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && !authority.contains('@')
        && !rest.contains(strange);
    is_proper.then_some(host)
}

/// An address of the operator's backend.
pub(super) const URL: Rule = Rule {
    range: "an http or https URL without a user name, or empty",
    legal: |url| match url.split_once("://") {
        Some(("https" | "http", rest)) => host(rest).is_some() && !rest.contains('#'),
        _ => url.is_empty(),
    },
};

/// What the operator's backend can be asked about.
pub(crate) const HOOKS: [&str; 3] = ["connect", "join", "publish"];

pub(super) const HOOK: Rule =
    Rule { range: "connect, join or publish", legal: |hook| HOOKS.contains(&hook) };

/// What the operator's backend can be told of.
pub(super) const EVENTS: [&str; 5] = ["connected", "disconnected", "joined", "left", "room_empty"];

pub(super) const EVENT: Rule = Rule {
    range: "connected, disconnected, joined, left or room_empty",
    legal: |event| EVENTS.contains(&event),
};

/// The address of Redis, or a list of them. Whether they are proper ones is seen where they are
/// parsed.
pub(super) const REDIS_URL: Rule = Rule {
    range: "redis, rediss, redis+sentinel, rediss+sentinel or unix URLs with commas between them, \
            64 at most, or empty",
    legal: |list| {
        list.is_empty() || urls(list).count() <= REDIS_URLS_MAX && urls(list).all(is_redis_url)
    },
};

fn is_redis_url(url: &str) -> bool {
    let is_strange = |c: char| c.is_whitespace() || c.is_control();
    match url.split_once("://") {
        Some(("redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" | "unix", rest)) => {
            !rest.is_empty()
                && !rest.ends_with(',')
                && url.len() <= REDIS_URL_BYTES_MAX
                && !rest.contains(is_strange)
        }
        _ => false,
    }
}

/// The most Redises among which rooms are spread.
pub(crate) const REDIS_URLS_MAX: usize = 64;

/// The longest address of Redis, which may name several machines.
const REDIS_URL_BYTES_MAX: usize = 4096;

/// What the names of all keys begin with. Braces would say which part of a name decides on which
/// machine of a cluster a key is.
pub(super) const REDIS_PREFIX: Rule = Rule {
    range: "1 to 64 letters, digits and _-:",
    legal: |prefix| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte);
        (1..=64).contains(&prefix.len()) && prefix.bytes().all(is_legal)
    },
};

/// A secret that signs requests.
pub(super) const SIGNING: Rule = Rule {
    range: "16 to 256 printable ASCII characters, or empty",
    legal: |secret| {
        let is_printable = secret.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        secret.is_empty() || ((16..=256).contains(&secret.len()) && is_printable)
    },
};

/// The shortest secret of an HMAC, in bytes (RFC 7518, 3.2).
pub(crate) const HMAC_SECRET_BYTES_MIN: usize = 32;

pub(super) const HMAC_SECRET: Rule = Rule {
    range: "32 to 4096 bytes, or empty",
    legal: |secret| secret.is_empty() || (HMAC_SECRET_BYTES_MIN..=4096).contains(&secret.len()),
};

/// Keys in PEM. Whether they are keys is seen where they are read.
pub(super) const PUBLIC_KEYS: Rule = Rule {
    range: "PEM that begins with -----BEGIN, or empty",
    legal: |text| text.is_empty() || text.trim_start().starts_with("-----BEGIN"),
};

/// The address of keys: over TLS, or from this machine, so that nobody on the way can put in keys.
pub(super) const JWKS_URL: Rule = Rule {
    range: "an https URL, or an http one on the loopback, or empty",
    legal: |url| match url.split_once("://") {
        Some(("https", rest)) => host(rest).is_some(),
        Some(("http", rest)) => host(rest).is_some_and(is_on_loopback),
        _ => url.is_empty(),
    },
};

/// Whether the host of a URL is this machine.
fn is_on_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) const CLAIM: Rule = Rule {
    range: "a text without control characters, or empty",
    legal: |text| !text.contains(char::is_control),
};

pub(super) const CLAIM_ITEM: Rule = Rule {
    range: "texts without control characters",
    legal: |text| !text.is_empty() && !text.contains(char::is_control),
};

/// The name of a cookie (RFC 6265, 4.1.1).
pub(super) const COOKIE: Rule = Rule {
    range: "the name of a cookie, or empty",
    legal: |name| {
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        name.bytes().all(is_legal)
    },
};

pub(super) const ORIGIN: Rule = Rule {
    range: "scheme://host or scheme://host:port or null, without a path, or *",
    legal: |origin| {
        let strange = |c: char| c.is_whitespace() || c.is_control() || "/,*".contains(c);
        match origin.split_once("://") {
            Some((scheme, host)) => {
                !scheme.is_empty()
                    && !host.is_empty()
                    && !scheme.contains(strange)
                    && !host.contains(strange)
            }
            None => origin == "null" || origin == "*",
        }
    },
};

pub(super) const NETWORK: Rule = Rule {
    range: "addresses, or networks as address/bits",
    legal: |entry| entry.parse::<IpAddr>().is_ok() || entry.parse::<IpNet>().is_ok(),
};

pub(super) const LOG: Rule = Rule {
    range: "off, error, warn, info, debug or trace, or target=level, comma separated",
    legal: |filter| filter.split(',').all(|directive| log_directive_is_legal(directive.trim())),
};

/// Levels that other programs have.
const NO_LEVELS: [&str; 12] = [
    "all", "critical", "crit", "emerg", "fatal", "none", "notice", "quiet", "silent", "verbose",
    "warning", "err",
];

/// Whether a logging directive is legal. Stricter than the logging backend, which ignores what it
/// cannot read: a bare word one letter away from a level is a typing error, not a target, and so is
/// one that others call a level. As a target it would silence everything else.
fn log_directive_is_legal(directive: &str) -> bool {
    let is_target = |target: &str| {
        let strange = |c: char| c.is_whitespace() || c.is_control() || "/=;".contains(c);
        !target.is_empty() && !target.contains(strange)
    };
    let is_level = |level: &str| level.parse::<LevelFilter>().is_ok();
    let is_slip = |word: &str| {
        let word = word.to_ascii_lowercase();
        let is_near = |level: LevelFilter| {
            strsim::osa_distance(&level.as_str().to_ascii_lowercase(), &word) == 1
        };
        NO_LEVELS.contains(&word.as_str()) || LevelFilter::iter().any(is_near)
    };
    match directive.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(directive) || (is_target(directive) && !is_slip(directive)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_are_told_of_lists_has_all_of_them() {
        assert!(HOOKS.iter().all(|hook| HOOK.range.contains(hook)));
        assert!(EVENTS.iter().all(|event| EVENT.range.contains(event)));
    }

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for good in [
            "",
            "https://id.example/keys",
            "https://id.example:8443/keys?a=b#c",
            "https://[2001:db8::1]/keys",
            "http://localhost/keys",
            "http://127.0.0.1:8080",
            "http://127.8.9.10/",
            "http://[::1]:8080/keys",
        ] {
            assert!(JWKS_URL.allows(good), "{good}");
        }
        for bad in [
            "https://",
            "https:///keys",
            "https://:443/keys",
            "https://?a",
            "https://id.example:99999/keys",
            "https://anna:secret@id.example/keys",
            "https://id.example/a key",
            "http://id.example/keys",
            "http://127.0.0.1@id.example/keys",
            "http://localhost@id.example/keys",
            "http://[::1].id.example/keys",
            "http://localhost:port/keys",
            "http://[::1/keys",
            "ftp://localhost/keys",
            "localhost/keys",
        ] {
            assert!(!JWKS_URL.allows(bad), "{bad}");
        }
    }
}
