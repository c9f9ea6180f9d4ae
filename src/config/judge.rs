//! Checks that the values are in their ranges and agree with each other.

use std::net::IpAddr;

use super::{
    api_keys,
    keys::Key,
    rooms,
    settings::Config,
    source::{self, Source},
    texts::UNIX_PREFIX,
    tls_pairs,
    url_list::urls,
    words::{Engine, IdentityMode},
};
use crate::error::Error;

/// Connections that an address or a user may have at least, however few there may be in all.
const CONN_PER_OWNER_MIN: usize = 32;

/// Why an admin listener that others reach is refused.
pub(crate) const ADMIN_NEEDS_KEY: &str = "must be a loopback address unless api_key or api_keys is \
    set, because whoever reaches the admin listener could read the figures";

impl Config {
    /// Returns how many connections one limited address may have.
    pub fn conn_per_ip_max(&self) -> usize {
        self.conn_per_owner_max(self.max_conn_per_ip)
    }

    /// Returns how many connections one user may have.
    pub fn conn_per_user_max(&self) -> usize {
        self.conn_per_owner_max(self.max_conn_per_user)
    }

    fn conn_per_owner_max(&self, max: usize) -> usize {
        if max == 0 { (self.max_conn / 2).max(CONN_PER_OWNER_MIN) } else { max }
    }

    /// Checks that every value is in its range and that the values agree with each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config). The message has one line for each wrong
    /// key, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        error_of(self.problems(&|_| None))
    }

    /// Whether only this machine can reach the admin listener.
    pub fn is_admin_local(&self) -> bool {
        let address: Option<IpAddr> = self.admin_host.parse().ok();
        let is_local_name = self.admin_host == "localhost" || is_unix(&self.admin_host);
        address.map_or(is_local_name, |address| address.is_loopback())
    }

    /// Whether there is a key for the admin listener.
    pub(crate) fn has_api_key(&self) -> bool {
        !self.api_key.is_empty() || !self.api_keys.is_empty()
    }

    /// The host and the port of the admin listener, if there is one.
    pub(crate) fn admin_listener(&self) -> Option<(&str, u16)> {
        let port = self.admin_port.or(is_unix(&self.admin_host).then_some(0))?;
        Some((&self.admin_host, port))
    }

    /// Whether a server that has drained leaves what it knows to the next one.
    pub(crate) fn leaves_snapshot(&self) -> bool {
        !self.snapshot.is_empty()
    }

    /// Returns one sentence for each setting that is legal but probably not intended. Log them at
    /// the start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.ping.is_zero() && self.timeout <= self.ping {
            warnings.push(format!(
                "timeout ({} s) is not above ping ({} s): quiet clients are closed before a ping can keep them",
                self.timeout.as_secs_f64(),
                self.ping.as_secs_f64(),
            ));
        }
        let has_public_keys = !self.token_public_key.is_empty() || !self.token_jwks_url.is_empty();
        let is_on = self.identity != IdentityMode::Off;
        if is_on && has_public_keys && self.token_audience.is_empty() {
            warnings.push(
                "token_audience is not set: tokens that the issuer makes for others are good here"
                    .to_owned(),
            );
        }
        if !is_on && (has_public_keys || !self.token_hmac_secret.is_empty()) {
            warnings
                .push("identity is off: there are keys for tokens, but none is used".to_owned());
        }
        let is_safe_page = !self.allowed_origins.is_empty() || !self.tls_cert.is_empty();
        if is_on && !self.token_cookie.is_empty() && !is_safe_page {
            warnings.push(
                "token_cookie is set, but allowed_origins is not: a page of this host that came \
                 without TLS may use the cookie; list https://…"
                    .into(),
            );
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            warnings.push(
                "proxy_protocol is on, but trusted_proxies is empty: no header is believed".into(),
            );
        }
        if !self.snapshot.is_empty() && self.max_away_sessions < self.max_conn {
            warnings.push(format!(
                "max_away_sessions ({}) is below max_conn ({}): at a restart all clients are away, \
                 and a snapshot has no more sessions than may be",
                self.max_away_sessions, self.max_conn
            ));
        }
        for (url, secret, name) in [
            (&self.hook_url, &self.hook_secret, "hook"),
            (&self.events_url, &self.events_secret, "events"),
        ] {
            if !url.is_empty() && secret.is_empty() {
                warnings.push(format!(
                    "{name}_url is set without {name}_secret: the backend cannot tell this server's requests from others"
                ));
            }
        }
        warnings
    }

    /// Returns what is wrong with the values, each with its source if `source_of` knows it.
    ///
    /// The rules between keys are checked only if each key is legal by itself: an error that
    /// follows from another one only hides it.
    pub(super) fn problems<'a>(
        &self,
        source_of: &dyn Fn(&Key) -> Option<&'a Source>,
    ) -> Vec<String> {
        let of_keys = Config::keys().iter().filter_map(|key| key.problem(self, source_of(key)));
        let of_tables = rooms::problems(&self.rooms).into_iter().chain(tls_pairs::problems(self));
        let of_tables = of_tables.chain(api_keys::problems(self));
        let out_of_range: Vec<String> = of_keys.chain(of_tables).collect();
        if !out_of_range.is_empty() {
            return out_of_range;
        }

        let told = |name: &str| match Config::keys().iter().find(|key| key.name() == name) {
            Some(key) => source::told(key.name(), &key.show(self), source_of(key)),
            None => String::from(name),
        };
        let mut problems = Vec::new();
        for (name, host) in [("host", &self.host), ("admin_host", &self.admin_host)] {
            if cfg!(not(unix)) && is_unix(host) {
                problems.push(format!("{}: this system has no Unix sockets", told(name)));
            }
        }
        let largest = self.max_message_bytes.saturating_mul(2);
        if self.buffer_bytes < largest {
            problems.push(format!(
                "{}: must be at least twice {}, so that one largest message and its frame always fit",
                told("buffer_bytes"),
                told("max_message_bytes"),
            ));
        }
        if self.mailbox_bytes < largest {
            problems.push(format!(
                "{}: must be at least twice {}, so that one largest message fits below the half-way mark",
                told("mailbox_bytes"),
                told("max_message_bytes"),
            ));
        }
        if self.admin_listener().is_some() && !self.is_admin_local() && !self.has_api_key() {
            problems.push(format!("{}: {ADMIN_NEEDS_KEY}", told("admin_host")));
        }
        problems.extend(self.engine_problems(&told));
        let keys = [&self.token_hmac_secret, &self.token_public_key];
        let has_key = keys.iter().any(|key| !key.is_empty()) || !self.token_jwks_url.is_empty();
        let has_hook = !self.hook_url.is_empty() && self.hooks.iter().any(|hook| hook == "connect");
        if self.identity != IdentityMode::Off && !has_key && !has_hook {
            problems.push(format!(
                "{}: must have a key for tokens (token_hmac_secret, token_public_key or \
                 token_jwks_url), or a hook_url that is asked about connect",
                told("identity"),
            ));
        }
        let limiting = self.rooms.iter().find(|rule| rule.limits_access());
        if let Some(rule) = limiting.filter(|_| self.identity == IdentityMode::Off) {
            problems.push(format!(
                "{}: must not say users or token where {}; let it be optional or required, also if a \
                 connect hook says who clients are",
                rule.shown(),
                told("identity"),
            ));
        }
        let is_any_origin = self.allowed_origins.iter().any(|origin| origin == "*");
        if !self.token_cookie.is_empty() && is_any_origin {
            problems.push(format!(
                "{}: must not be * where {}, because any page could then act for its visitors",
                told("allowed_origins"),
                told("token_cookie"),
            ));
        }
        if self.replay > self.history {
            problems.push(format!(
                "{}: must be at most {}, because only kept messages can be replayed",
                told("replay"),
                told("history"),
            ));
        }
        let of_default_room = rooms::find(&self.rooms, &self.default_room);
        if let Some(rule) = of_default_room
            && rule.history.is_some_and(|history| history < self.replay)
        {
            problems.push(format!(
                "{}: must be at least {}, because the rule holds in the default room",
                rule.told("history"),
                told("replay"),
            ));
        }
        problems
    }

    /// Returns what is wrong between the settings of the engine.
    fn engine_problems(&self, told: &dyn Fn(&str) -> String) -> Vec<String> {
        let mut problems = Vec::new();
        let has_url = !self.redis_url.is_empty();
        match self.engine {
            Engine::Redis if cfg!(not(feature = "redis")) => problems.push(format!(
                "{}: this server was built without the cargo feature `redis`",
                told("engine")
            )),
            Engine::Redis if !has_url => problems.push(format!(
                "redis_url: must be set where {}, for example to redis://127.0.0.1:6379",
                told("engine")
            )),
            Engine::Memory if has_url => problems.push(format!(
                "{}: must not be set where {}, because nobody would notice that this server is alone",
                told("redis_url"),
                told("engine"),
            )),
            Engine::Redis | Engine::Memory => {}
        }
        let has_tls = || urls(self.redis_url.reveal()).any(|url| url.starts_with("rediss"));
        if self.redis_ca.is_some() && !has_tls() {
            problems.push(format!(
                "{}: must not be set unless a URL in redis_url begins with rediss, because there \
                 is no TLS",
                told("redis_ca")
            ));
        }
        if self.engine == Engine::Redis && self.leaves_snapshot() {
            problems.push(format!(
                "{}: must not be set where {}: Redis keeps rooms and sessions, and what is older \
                 must not come back",
                told("snapshot"),
                told("engine"),
            ));
        }
        problems
    }
}

/// Whether `host` is the path of a Unix socket.
fn is_unix(host: &str) -> bool {
    host.starts_with(UNIX_PREFIX)
}

/// Joins all problems into one error, one a line. Returns `Ok` if there is none.
pub(super) fn error_of(problems: Vec<String>) -> Result<(), Error> {
    if problems.is_empty() { Ok(()) } else { Err(Error::config(problems.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Secret;

    fn complaint(config: Config) -> String {
        config.validate().expect_err("the config should be refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_need_no_warning() {
        let config = Config::default();
        config.validate().unwrap();
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let text = complaint(Config { max_conn: 0, ..Config::default() });
        assert_eq!(text, "max_conn = 0: must be a whole number, 1 to 10000000");
    }

    #[test]
    fn all_values_at_fault_are_named_one_a_line() {
        let text = complaint(Config {
            thread_pool_size: 257,
            close_timeout: Duration::ZERO,
            max_message_bytes: usize::MAX,
            ..Config::default()
        });
        let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["thread_pool_size", "close_timeout", "max_message_bytes"]);
    }

    #[test]
    fn an_outbox_holds_the_largest_message() {
        let text = complaint(Config { buffer_bytes: 100 << 10, ..Config::default() });
        assert!(text.starts_with(
            "buffer_bytes = 100KiB: must be at least twice max_message_bytes = 64KiB"
        ));
        let just = Config { buffer_bytes: 128 << 10, ..Config::default() };
        just.validate().unwrap();
    }

    #[test]
    fn a_mailbox_holds_the_largest_message() {
        let text = complaint(Config {
            max_message_bytes: 64 << 20,
            buffer_bytes: 128 << 20,
            ..Config::default()
        });
        assert!(text.starts_with("mailbox_bytes = 64MiB: must be at least twice"), "{text}");
    }

    #[test]
    fn no_more_is_replayed_than_is_kept() {
        let text = complaint(Config { history: 5, ..Config::default() });
        assert!(text.starts_with("replay = 10: must be at most history = 5"), "{text}");
    }

    #[test]
    fn a_default_room_is_a_legal_name_or_empty() {
        let with = |room: &str| Config { default_room: room.into(), ..Config::default() };
        for legal in ["", "a", "café au lait", &"x".repeat(128)] {
            with(legal).validate().unwrap();
        }
        for illegal in ["a*", "*", "tab\there", "nul\0", &"x".repeat(129), &"é".repeat(65)] {
            assert!(complaint(with(illegal)).starts_with("default_room = "));
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name() {
        let with = |host: &str| Config { host: host.into(), ..Config::default() };
        for legal in ["0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "a.example.org"] {
            with(legal).validate().unwrap();
        }
        assert_eq!(with("unix:/run/a b.sock").validate().is_ok(), cfg!(unix));
        let admin = Config { admin_host: "unix:/run/admin.sock".into(), ..Config::default() };
        assert_eq!(admin.validate().is_ok(), cfg!(unix));
        assert!(admin.is_admin_local() && admin.admin_listener().is_some());
        assert_eq!(Config::default().admin_listener(), None);
        let long = format!("unix:/{}", "x".repeat(107));
        for illegal in ["unix:", "unix:x.sock", "unix:/a\nb", "unix", &long] {
            let is_name = illegal == "unix";
            assert_eq!(with(illegal).validate().is_ok(), is_name, "{illegal}");
        }
        for illegal in ["", " ", "[::1]", "localhost:3030", "http://x", "a b", "x\n", "1:2"] {
            assert!(complaint(with(illegal)).starts_with("host = "));
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        let with =
            |origin: &str| Config { allowed_origins: vec![origin.into()], ..Config::default() };
        for legal in
            ["https://example.com", "http://localhost:8080", "http://[::1]:80", "null", "*"]
        {
            with(legal).validate().unwrap();
        }
        for illegal in
            ["", "*.example", "example.com", "https://example.com/", "https://", "a://b c"]
        {
            assert!(complaint(with(illegal)).starts_with("allowed_origins = "), "{illegal}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let with =
            |entry: &str| Config { trusted_proxies: vec![entry.into()], ..Config::default() };
        for legal in ["10.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"] {
            with(legal).validate().unwrap();
        }
        for illegal in ["", "localhost", "10.0.0.0/33", "10.0.0.1:80", "[::1]", "10.0.0.0/ 8"] {
            assert!(complaint(with(illegal)).starts_with("trusted_proxies = "), "{illegal}");
        }
        let unheard = Config { proxy_protocol: true, ..Config::default() };
        assert!(unheard.warnings()[0].starts_with("proxy_protocol is on"));
    }

    #[test]
    fn a_snapshot_that_cannot_have_all_sessions_is_a_warning() {
        let crowd = Config { max_conn: 20_000, ..Config::default() };
        assert!(crowd.warnings().is_empty());
        let warnings = Config { snapshot: "/x".into(), ..crowd }.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("max_away_sessions"), "{warnings:?}");
    }

    #[test]
    fn a_cookie_for_pages_without_tls_is_a_warning() {
        let cookie = Config {
            identity: IdentityMode::Required,
            token_hmac_secret: Secret::new("s".repeat(32)),
            token_cookie: "auth".into(),
            ..Config::default()
        };
        assert!(cookie.warnings()[0].starts_with("token_cookie is set"));
        let allowed_origins = vec!["https://a.example".into()];
        assert!(Config { allowed_origins, ..cookie.clone() }.warnings().is_empty());
        assert!(Config { tls_cert: "chain.pem".into(), ..cookie }.warnings().is_empty());
    }

    #[test]
    fn a_log_filter_is_levels_and_targets() {
        let with = |log: &str| Config { log: log.into(), ..Config::default() };
        for legal in ["off", "INFO", "warn,rusty_socks=debug", "mio", "rusty_socks::pool=trace"] {
            with(legal).validate().unwrap();
        }
        for illegal in [
            "",
            ",",
            "inof",
            "warning",
            "rusty_socks=loud",
            "a=b=c",
            "info/regex",
            "info;mio",
            "a b",
            "=info",
        ] {
            assert!(complaint(with(illegal)).starts_with("log = "), "{illegal}");
        }
    }

    #[test]
    fn an_admin_listener_that_others_reach_needs_a_key() {
        let open = Config { admin_host: "0.0.0.0".into(), ..Config::default() };
        open.validate().unwrap();
        let open = Config { admin_port: Some(0), ..open };
        let told = complaint(open.clone());
        assert!(told.starts_with("admin_host = 0.0.0.0: must be a loopback address"), "{told}");
        Config { api_key: Secret::new("0123456789abcdef"), ..open.clone() }.validate().unwrap();
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
            Config { admin_host: host.into(), ..open.clone() }.validate().unwrap();
        }
    }

    #[test]
    fn a_backend_has_an_address_and_should_know_who_asks() {
        let with = |url: &str| Config { hook_url: url.into(), ..Config::default() };
        for legal in ["http://127.0.0.1:8000/", "https://a.example", "http://[::1]:1/a?b=c"] {
            with(legal).validate().unwrap();
        }
        for illegal in [
            "a.example",
            "ftp://a.example",
            "http://",
            "http://:80",
            "http://a@b/",
            "http://a b",
            "http://a/#b",
            "http://a:/",
            "http://a:65536",
            "http://[::1",
        ] {
            assert!(complaint(with(illegal)).starts_with("hook_url = "), "{illegal}");
        }
        let told = complaint(with("http://anna:se:cret@a/b?key=secret"));
        assert!(told.starts_with("hook_url = http://…@a/b?…: must be"), "{told}");
        let variable = [("RUSTY_SOCKS_HOOK_URL", "http://anna:secret@a/")];
        let error = Config::load_from(None, variable, [("", ""); 0]).unwrap_err().to_string();
        assert!(error.contains("http://…@a/") && !error.contains("secret"), "{error}");
        let told = complaint(Config { hooks: vec!["leave".into()], ..with("http://a") });
        assert!(told.contains("connect, join or publish"), "{told}");
        let unsigned = with("http://a");
        assert!(unsigned.warnings()[0].starts_with("hook_url is set without hook_secret"));
        let signed = Config { hook_secret: Secret::new("0123456789abcdef"), ..unsigned };
        assert!(signed.warnings().is_empty());
    }

    #[test]
    fn redis_has_an_address_and_nothing_else_has() {
        let at = |url: &str| Config {
            engine: Engine::Redis,
            redis_url: Secret::new(url),
            ..Config::default()
        };
        for legal in [
            "redis://localhost",
            "rediss://anna:hush@a.example:6380/3",
            "unix:///run/redis.sock?db=1",
            "redis+sentinel://a:26379,b:26379/main",
            "rediss+sentinel://a/main",
            "redis://a,rediss://:hush@b/1,redis+sentinel://c,d/main",
        ] {
            at(legal).validate().unwrap();
            let alone = Config { engine: Engine::Memory, ..at(legal) };
            assert!(complaint(alone).contains("must not be set where engine = memory"));
        }
        assert!(complaint(at("")).starts_with("redis_url: must be set where engine = redis"));
        let many = ["redis://a"; 65].join(",");
        for illegal in [
            "localhost",
            "http://a",
            "redis://",
            "redis://a b",
            "redis://a\n",
            "redis://a,",
            "redis://a,,redis://b",
            ",redis://a",
            "redis://a,http://b",
            &many,
        ] {
            assert!(complaint(at(illegal)).starts_with("redis_url = "), "{illegal}");
        }
        let told = complaint(Config { engine: Engine::Memory, ..at("redis://:hush@a:1/2") });
        assert!(told.starts_with("redis_url = redis://…@a:1/2: must not"), "{told}");
        let variables = [("RUSTY_SOCKS_REDIS_URL", "http://anna:hush@a/")];
        let error = Config::load_from(None, variables, [("", ""); 0]).unwrap_err().to_string();
        assert!(error.contains("http://…@a/") && !error.contains("hush"), "{error}");
        assert!(!format!("{:?}", at("redis://:hush@a")).contains("hush"));
    }

    #[test]
    fn an_engine_is_judged_with_what_it_makes_needless() {
        let redis = Config {
            engine: Engine::Redis,
            redis_url: Secret::new("redis://a"),
            ..Config::default()
        };
        let told = complaint(Config { snapshot: "/x".into(), ..redis.clone() });
        assert!(told.starts_with("snapshot = /x: must not be set where engine = redis"), "{told}");
        let told = complaint(Config { redis_ca: Some("ca.pem".into()), ..redis.clone() });
        assert!(told.starts_with("redis_ca = ca.pem: must not be set unless"), "{told}");
        let tls = Config { redis_url: Secret::new("rediss://a"), ..redis.clone() };
        Config { redis_ca: Some("ca.pem".into()), ..tls }.validate().unwrap();
        for illegal in ["", "a{b}", "a b", &"x".repeat(65)] {
            let told = complaint(Config { redis_prefix: illegal.into(), ..redis.clone() });
            assert!(told.starts_with("redis_prefix = "), "{told}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_is_no_text_is_refused() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let path = OsStr::from_bytes(b"\xff.pem").into();
        let told = complaint(Config { redis_ca: Some(path), ..Config::default() });
        assert!(told.contains("must be the path of a PEM file"), "{told}");
    }

    #[test]
    fn tokens_need_a_key_unless_a_backend_says_who_connects() {
        let required = Config { identity: IdentityMode::Required, ..Config::default() };
        assert!(complaint(required.clone()).contains("must have a key for tokens"));
        let asked = Config { hook_url: "http://a".into(), ..required };
        asked.validate().unwrap();
        let others = Config { hooks: vec!["join".into()], ..asked };
        assert!(complaint(others).contains("a hook_url that is asked about connect"));
    }

    #[test]
    fn a_timeout_within_the_ping_is_a_warning() {
        let config = Config { timeout: Duration::from_secs(30), ..Config::default() };
        config.validate().unwrap();
        assert_eq!(config.warnings().len(), 1);
        let no_ping = Config { ping: Duration::ZERO, ..config };
        assert!(no_ping.warnings().is_empty());
    }
}
