//! The address of a Redis, as an operator writes it.
//!
//! Passwords are in no error, no log and no [`Debug`](fmt::Debug): whatever stands before the last
//! `@` is never quoted.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;

use crate::config::url_list::urls;

/// The port of a Redis, where an address has none.
const REDIS_PORT: u16 = 6379;

/// The port of a Sentinel, where an address has none.
const SENTINEL_PORT: u16 = 26379;

/// The most Sentinels that an address names.
const SENTINELS_MAX: usize = 16;

/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 4096;

/// What an address may look like, for the end of an error.
const FORMS: &str = "redis://[user[:password]@]host[:port][/database], rediss://… for TLS, \
    unix:///path[?db=database] or redis+sentinel://[user:password@]host[:port],…/name[/database]";

/// Where a Redis is, and as whom to speak with it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisAddress {
    pub(crate) place: Place,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
    /// For the Sentinels too.
    pub(crate) is_tls: bool,
}

/// Where a Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(HostPort),
    Unix(PathBuf),
    /// One of the Sentinels says where the primary of this name is.
    Sentinel {
        sentinels: Vec<HostPort>,
        primary: String,
    },
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an IP address; one of version 6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Who speaks to a Redis.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// `None`: the user `default`, which a Redis before ACLs has as well.
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

impl RedisAddress {
    /// Reads a list of addresses with commas between them. No two may lead to the same Redis, not
    /// even to different databases of it, because these have their channels in common.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<RedisAddress>, String> {
        let texts: Vec<&str> = urls(text).collect();
        let mut addresses: Vec<RedisAddress> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let told = |why: String| match texts.len() {
                1 => why,
                _ => format!("number {} of the list: {why}", index + 1),
            };
            if text.is_empty() || text.ends_with(',') {
                return Err(told("must have no empty entry before or behind it".to_owned()));
            }
            let address = RedisAddress::parse(text).map_err(told)?;
            if let Some(at) = addresses.iter().position(|other| other.place == address.place) {
                let place = address.shown_place();
                return Err(told(format!(
                    "must not be the same Redis as number {}: {place}",
                    at + 1
                )));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Where it is, for people: without the credentials.
    pub(crate) fn shown_place(&self) -> String {
        match &self.place {
            Place::Tcp(host) => host.to_string(),
            Place::Unix(path) => path.display().to_string(),
            Place::Sentinel { sentinels, primary } => {
                let sentinels: Vec<String> = sentinels.iter().map(HostPort::to_string).collect();
                format!("{primary} of {}", sentinels.join(","))
            }
        }
    }

    /// Reads an address. The error says what is wrong and what is allowed, without the credentials.
    pub(crate) fn parse(text: &str) -> Result<RedisAddress, String> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(format!("must have at most {ADDRESS_BYTES_MAX} bytes, not {}", text.len()));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must have no spaces and no control characters".to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("must be {FORMS}"));
        };
        match scheme {
            "redis" => Self::tcp(rest, false),
            "rediss" => Self::tcp(rest, true),
            "redis+sentinel" => Self::sentinel(rest, false),
            "rediss+sentinel" => Self::sentinel(rest, true),
            "unix" => Self::unix(rest),
            // Without a scheme at its front, the text may be anything, a password too.
            scheme if scheme.contains([':', '@']) => Err(format!("must be {FORMS}")),
            scheme => Err(format!("cannot be {scheme}://…: must be {FORMS}")),
        }
    }

    fn tcp(rest: &str, is_tls: bool) -> Result<RedisAddress, String> {
        let (credentials, rest) = credentials(rest)?;
        no_query(rest)?;
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains(',') {
            return Err("must name one host: several are for redis+sentinel://, and several \
                Redises have a whole URL each"
                .to_owned());
        }
        let place = Place::Tcp(HostPort::parse(host, REDIS_PORT)?);
        Ok(RedisAddress { place, credentials, database: database_of(database)?, is_tls })
    }

    fn sentinel(rest: &str, is_tls: bool) -> Result<RedisAddress, String> {
        let (credentials, rest) = credentials(rest)?;
        no_query(rest)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (primary, database) = path.split_once('/').unwrap_or((path, ""));
        if primary.is_empty() {
            let text = "must have the name of the primary, as the Sentinels know it, after the \
                        hosts: redis+sentinel://host:port/name";
            return Err(text.to_owned());
        }
        let sentinels: Vec<HostPort> = hosts
            .split(',')
            .map(|host| HostPort::parse(host, SENTINEL_PORT))
            .collect::<Result<_, _>>()?;
        if sentinels.len() > SENTINELS_MAX {
            let found = sentinels.len();
            return Err(format!("must name at most {SENTINELS_MAX} Sentinels, not {found}"));
        }
        let place = Place::Sentinel { sentinels, primary: decoded(primary, "the name")? };
        Ok(RedisAddress { place, credentials, database: database_of(database)?, is_tls })
    }

    fn unix(rest: &str) -> Result<RedisAddress, String> {
        let (credentials, rest) = match rest.starts_with('/') {
            true => (None, rest),
            false => credentials(rest)?,
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') || path.len() == 1 {
            return Err("must have an absolute path: unix:///path".to_owned());
        }
        let database = match query.split_once('=') {
            None if query.is_empty() => 0,
            Some(("db", database)) => database_of(database)?,
            _ => return Err("must have no query but ?db=database".to_owned()),
        };
        let place = Place::Unix(PathBuf::from(decoded(path, "the path")?));
        Ok(RedisAddress { place, credentials, database, is_tls: false })
    }
}

/// Shows an address as [`RedisAddress::parse`] reads it, with `…` for the credentials.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.is_tls { "s" } else { "" };
        let whom = if self.credentials.is_some() { "…@" } else { "" };
        match &self.place {
            Place::Tcp(host) => write!(f, "redis{secure}://{whom}{host}/{}", self.database),
            Place::Unix(path) => {
                write!(f, "unix://{whom}{}?db={}", path.display(), self.database)
            }
            Place::Sentinel { sentinels, primary } => {
                write!(f, "redis{secure}+sentinel://{whom}")?;
                for (index, host) in sentinels.iter().enumerate() {
                    write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
                }
                write!(f, "/{primary}/{}", self.database)
            }
        }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

impl HostPort {
    fn parse(text: &str, default_port: u16) -> Result<HostPort, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let Some((host, port)) = rest.split_once(']') else {
                    return Err(format!("{text:?} has no ]: must be [address]:port"));
                };
                let Ok(_) = host.parse::<std::net::Ipv6Addr>() else {
                    return Err(format!("[{host}] is no IPv6 address: must be [address]:port"));
                };
                match port.strip_prefix(':') {
                    None if !port.is_empty() => {
                        return Err(format!("{text:?}: must be [address]:port"));
                    }
                    port => (host, port),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err("must have a host: host[:port]".to_owned());
        }
        let is_legal = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if let Some(c) = host.chars().find(|c| !is_legal(*c)) {
            return Err(format!(
                "must have a host of letters, digits, dots and dashes, without {c:?}"
            ));
        }
        let port = match port {
            None => default_port,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                format!("port {port:?} of {host}: must be a whole number, 1 to 65535")
            })?,
        };
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(set)")
    }
}

/// Takes the credentials from the front of what follows `://`. A password may have any character,
/// even where somebody did not encode it, because nothing behind it has a `@`.
fn credentials(rest: &str) -> Result<(Option<Credentials>, &str), String> {
    let Some((whom, rest)) = rest.rsplit_once('@') else { return Ok((None, rest)) };
    let (user, password) = whom.split_once(':').unwrap_or((whom, ""));
    if password.is_empty() {
        let text = "must have a password before the @: user:password@, or :password@ for the user \
                    default";
        return Err(text.to_owned());
    }
    let user = decoded(user, "the user")?;
    let credentials = Credentials {
        user: Some(user).filter(|user| !user.is_empty()),
        password: decoded(password, "the password")?,
    };
    Ok((Some(credentials), rest))
}

/// Decodes `%41` and the like. `what` names the text, which is not shown.
fn decoded(text: &str, what: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| format!("{what}: must be UTF-8 when it is decoded"))
}

fn no_query(rest: &str) -> Result<(), String> {
    match rest.contains(['?', '#']) {
        true => Err("must have no query: the database is a part of the path".to_owned()),
        false => Ok(()),
    }
}

/// Reads the number of a database; none is 0.
fn database_of(text: &str) -> Result<u32, String> {
    match text {
        "" => Ok(0),
        text if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map_err(|_| format!("database {text}: must be at most {}", u32::MAX))
        }
        text => Err(format!("database {text:?}: must be a whole number, such as 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisAddress {
        RedisAddress::parse(text).expect(text)
    }

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp(HostPort { host: host.to_owned(), port })
    }

    #[test]
    fn a_list_has_each_redis_once() {
        let list = "redis://:pw@a,rediss://b:1/2,redis+sentinel://c,d/main,unix:///run/r.sock";
        let places = RedisAddress::parse_list(list).expect("a list");
        let places: Vec<String> = places.iter().map(RedisAddress::shown_place).collect();
        assert_eq!(places, ["a:6379", "b:1", "main of c:26379,d:26379", "/run/r.sock"]);
        for (list, told) in [
            ("", "must have no empty entry"),
            ("redis://a,", "must have no empty entry"),
            ("redis://a,,redis://b", "number 1 of the list: must have no empty entry"),
            (",redis://a", "number 1 of the list: must have no empty entry"),
            ("redis://a,b", "several Redises have a whole URL each"),
            ("redis://a,http://b", "number 2 of the list: cannot be http://…"),
            (
                "redis://:secret@a,redis://b,redis://:secret@a:6379/1",
                "number 3 of the list: must not be the same Redis as number 1: a:6379",
            ),
            (
                "redis+sentinel://a,b/m,redis+sentinel://:secret@a,b/m/3",
                "number 2 of the list: must not be the same Redis as number 1: m of a:26379",
            ),
            ("redis://a,redis://:secret@b:x", "number 2 of the list: port"),
        ] {
            let error = RedisAddress::parse_list(list).expect_err(list);
            assert!(error.contains(told), "{list}: {error}");
            assert!(!error.contains("secret"), "{list}: {error}");
        }
    }

    #[test]
    fn a_host_is_enough() {
        let address = parsed("redis://localhost");
        assert_eq!(address.place, tcp("localhost", 6379));
        assert_eq!((address.credentials, address.database, address.is_tls), (None, 0, false));
        assert!(parsed("rediss://cache.example.org/").is_tls);
    }

    #[test]
    fn everything_else_may_be_given() {
        let address = parsed("rediss://al%40ice:p%3aw@[::1]:7000/12");
        assert_eq!(address.place, tcp("::1", 7000));
        let credentials = address.credentials.expect("credentials");
        assert_eq!(credentials.user.as_deref(), Some("al@ice"));
        assert_eq!(credentials.password, "p:w");
        assert_eq!(address.database, 12);
    }

    #[test]
    fn a_password_may_be_written_as_it_is() {
        let credentials = parsed("redis://:a/b?c#d@e%f:1@host").credentials.expect("credentials");
        assert_eq!((credentials.user, credentials.password.as_str()), (None, "a/b?c#d@e%f:1"));
    }

    #[test]
    fn a_unix_socket_has_a_path_and_a_database() {
        let address = parsed("unix:///run/redis%20/s@x.sock?db=3");
        assert_eq!(address.place, Place::Unix("/run/redis /s@x.sock".into()));
        assert_eq!((address.database, address.credentials), (3, None));
        assert!(parsed("unix://:pw@/run/redis.sock").credentials.is_some());
    }

    #[test]
    fn sentinels_come_with_the_name_of_the_primary() {
        let address = parsed("redis+sentinel://u:p@a:1,b,[::2]:3/mymaster/4");
        let host = |host: &str, port| HostPort { host: host.to_owned(), port };
        let sentinels = vec![host("a", 1), host("b", 26379), host("::2", 3)];
        assert_eq!(address.place, Place::Sentinel { sentinels, primary: "mymaster".to_owned() });
        assert_eq!(address.database, 4);
        assert!(parsed("rediss+sentinel://a/m").is_tls);
    }

    #[test]
    fn an_address_shows_itself_without_credentials() {
        for (text, shown) in [
            ("redis://host", "redis://host:6379/0"),
            ("rediss://u:secret@[::1]:1/2", "rediss://…@[::1]:1/2"),
            ("unix://:secret@/a/b", "unix://…@/a/b?db=0"),
            ("redis+sentinel://:secret@a,b:2/m", "redis+sentinel://…@a:26379,b:2/m/0"),
        ] {
            let address = parsed(text);
            assert_eq!(address.to_string(), shown);
            let debug = format!("{address:?} {:?}", address.credentials);
            assert!(!debug.contains("secret"), "{debug}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_never_the_password() {
        let many = format!("redis+sentinel://{}a/m", "a,".repeat(SENTINELS_MAX));
        let long = format!("redis://{}", "a".repeat(ADDRESS_BYTES_MAX));
        for (text, told) in [
            ("", "must be redis://"),
            ("localhost:6379", "must be redis://"),
            ("user:secret@host://", "must be redis://"),
            ("http://:secret@host", "cannot be http://…: must be redis://"),
            ("redis://", "must have a host"),
            ("redis://:secret@", "must have a host"),
            ("redis://:secret@:6379", "must have a host"),
            ("redis://secret@host", "must have a password before the @"),
            ("redis://:@host", "must have a password before the @"),
            ("redis://:%ff@host", "the password: must be UTF-8"),
            ("redis://:secret@host:0", "port \"0\" of host: must be a whole number, 1 to 65535"),
            ("redis://host:70000", "port \"70000\" of host: must be"),
            ("redis://host:", "port \"\" of host: must be"),
            ("redis://::1", "must have a host"),
            ("redis://[::1", "has no ]"),
            ("redis://[::x]", "[::x] is no IPv6 address"),
            ("redis://[::1]6379", "must be [address]:port"),
            ("redis://a,b", "must name one host"),
            ("redis://ho$t", "without '$'"),
            ("redis://host/x", "database \"x\": must be a whole number"),
            ("redis://host/-1", "database \"-1\": must be a whole number"),
            ("redis://host/99999999999", "database 99999999999: must be at most"),
            ("redis://host?db=1", "must have no query"),
            ("redis://host /1", "must have no spaces"),
            ("unix://run/redis.sock", "must have an absolute path"),
            ("unix:///", "must have an absolute path"),
            ("unix:///a?password=secret", "must have no query but ?db="),
            ("redis+sentinel://a:1", "must have the name of the primary"),
            ("redis+sentinel://a:1,/m", "must have a host"),
            (&many, "must name at most 16 Sentinels, not 17"),
            (&long, "must have at most 4096 bytes, not"),
        ] {
            let error = RedisAddress::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
