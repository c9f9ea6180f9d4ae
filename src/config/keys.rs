//! The table of keys, one row a setting. File keys, variables, flags, help, ranges and
//! `check-config` are all derived from it.
//!
//! A row says how its field is read and written, which values are legal, and whether a reload takes
//! it. A new setting is a field in [`Config`], its default, and a row here.

use std::{fmt, time::Duration};

use super::{
    group::Group,
    memory_max::MEMORY,
    secret,
    settings::Config,
    source::{self, Source},
    texts::{
        API_KEY, CLAIM, CLAIM_ITEM, COOKIE, EVENT, FILE, HMAC_SECRET, HOOK, HOST, JWKS_URL, LOG,
        NETWORK, ORIGIN, PEM, PUBLIC_KEYS, REDIS_PREFIX, REDIS_URL, ROOM, SIGNING, URL,
    },
    value::{Field, GIB, KIB, Kind, MIB, Value},
};

/// One setting: its names, help and range, and access to its field.
pub struct Key {
    name: &'static str,
    group: Group,
    help: &'static str,
    kind: Kind,
    is_live: bool,
    read: fn(&Config) -> Value,
    write: fn(&mut Config, Value) -> bool,
}

/// Makes a row. The key is named after the field, so neither can be renamed without the other.
///
/// A row with `live` is taken by a running server. Every other one needs a restart, so a key that
/// is not thought of is never said to hold when it does not.
macro_rules! key {
    ($group:ident, $field:ident, $kind:expr, $help:literal) => {
        key!(@ $group, $field, $kind, false, $help)
    };
    ($group:ident, $field:ident, $kind:expr, live, $help:literal) => {
        key!(@ $group, $field, $kind, true, $help)
    };
    (@ $group:ident, $field:ident, $kind:expr, $is_live:literal, $help:literal) => {
        Key {
            name: stringify!($field),
            group: Group::$group,
            help: $help,
            kind: $kind,
            is_live: $is_live,
            read: |config| config.$field.to_value(),
            write: |config, value| match Field::from_value(value) {
                Some(field) => {
                    config.$field = field;
                    true
                }
                None => false,
            },
        }
    };
}

/// The longest timeout: a longer one is a typing error.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The shortest time above zero: the resolution of the timers.
const INSTANT: Duration = Duration::from_millis(1);

/// Every setting. The first eight are promised in `README.md`, and keep their names and meanings.
#[rustfmt::skip]
pub(super) static TABLE: &[Key] = &[
    key!(First, host, Kind::Text(HOST),
        "Address to listen on, IPv4 or IPv6 or a host name, or unix:/path"),
    key!(First, port, count("", 0, 65535),
        "TCP port; 0 picks a free one and logs it"),
    key!(First, max_conn, count("sessions", 1, 10_000_000), live,
        "WebSocket sessions served at once"),
    key!(First, buffer, count("messages", 1, 1_000_000), live,
        "Messages that may wait for one slow client before the overflow policy acts"),
    key!(First, timeout, seconds(INSTANT, DAY), live,
        "Seconds without a byte received (a pong counts) after which a connection is closed"),
    key!(First, ping, seconds(Duration::ZERO, DAY), live,
        "Seconds between pings to a quiet client; 0 turns them off"),
    key!(First, thread_pool_size, count("threads", 1, 256),
        "Worker threads"),
    key!(First, max_queued_tasks, count("upgrades", 0, 1_000_000), live,
        "Upgrades that may wait for a permit; beyond it they are rejected with a 503"),

    key!(Admission, limited_addresses, Kind::Word(&["public", "all", "none"]), live,
        "Addresses for which the limits by address hold; public spares local and private ones"),
    key!(Admission, max_conn_per_ip, count("connections", 0, 10_000_000), live,
        "Connections from one IP address; 0 is half of max_conn, but at least 32"),
    key!(Admission, rate_accepts_per_ip, count("connections per second", 0, 1_000_000), live,
        "Connections per second from one IP address, ten times as many at once; 0 sets no limit"),
    key!(Admission, max_conn_per_user, count("connections", 0, 10_000_000), live,
        "Connections of one user at once; 0 is half of max_conn, but at least 32"),
    key!(Admission, trusted_proxies, Kind::List(NETWORK), live,
        "Proxies that are believed about their clients' addresses, comma separated"),
    key!(Admission, proxy_protocol, Kind::Switch,
        "Whether each connection begins with a PROXY protocol header"),
    key!(Admission, allowed_origins, Kind::List(ORIGIN), live,
        "Origins a browser page may connect from, comma separated; empty is its own host, * any"),
    key!(Admission, max_pending_heads, count("sockets", 1, 1_000_000), live,
        "Sockets whose request head has not arrived yet; beyond it a canned 503"),
    key!(Admission, max_lingering, count("sockets", 0, 1_000_000), live,
        "Closed connections that may linger so that the peer can read the last answer"),

    key!(Time, handshake_timeout, seconds(INSTANT, DAY), live,
        "Seconds a client has to send its request head"),
    key!(Time, queue_timeout, seconds(INSTANT, DAY), live,
        "Seconds an upgrade may wait for a permit before it gets the 503"),
    key!(Time, close_timeout, seconds(INSTANT, DAY), live,
        "Seconds a peer has to answer a close frame"),
    key!(Time, drain_delay, seconds(Duration::ZERO, DAY), live,
        "Seconds a server that is told to stop goes on accepting, unready"),
    key!(Time, drain_timeout, seconds(INSTANT, DAY), live,
        "Seconds a shutdown spends on flushing what waits for clients"),

    key!(Size, max_message_bytes, bytes("bytes", 125, 64 * MIB), live,
        "Largest message a client may send; a larger one closes with 1009"),
    key!(Size, max_head_bytes, bytes("bytes", 512, MIB), live,
        "Largest request head; beyond it 431"),
    key!(Size, buffer_bytes, bytes("bytes", 256, GIB), live,
        "Bytes that may wait for one slow client; at least twice max_message_bytes"),
    key!(Size, memory_max, Kind::Text(MEMORY), live,
        "Memory the process may use, such as 512MiB or 80%; beyond it newcomers wait"),
    key!(Size, compression, Kind::Word(&["off", "shared", "dedicated"]),
        "permessage-deflate: off, shared (nothing kept per client) or dedicated (better ratio)"),
    key!(Size, compression_level, count("level", 1, 9),
        "How hard to compress: 1 is fastest, 9 smallest"),
    key!(Size, compression_threshold, bytes("bytes", 0, MIB),
        "Messages below this are sent uncompressed"),
    key!(Size, mailbox, count("letters", 2, 10_000_000),
        "Letters that may wait for one worker; beyond it publish answers overloaded"),
    key!(Size, mailbox_bytes, bytes("bytes", 256, GIB),
        "Bytes in those letters; at least twice max_message_bytes"),

    key!(Rooms, default_room, Kind::Text(ROOM),
        "Room each connection joins on open; empty for none"),
    key!(Rooms, replay, count("messages", 0, 1_000_000), live,
        "Messages of the default room sent after the welcome; at most history"),
    key!(Rooms, history, count("messages", 0, 1_000_000), live,
        "Messages kept per room"),
    key!(Rooms, history_bytes, bytes("bytes", 0, GIB), live,
        "Bytes of messages kept per room"),
    key!(Rooms, history_total_bytes, bytes("bytes", 0, 1024 * GIB), live,
        "Bytes of messages kept in all rooms; beyond it rooms that nobody is in go first"),
    key!(Rooms, history_age, seconds(INSTANT, YEAR), live,
        "Seconds after which a kept message is forgotten"),
    key!(Rooms, max_rooms, count("rooms", 1, 10_000_000), live,
        "Rooms that may exist at once"),
    key!(Rooms, max_rooms_per_conn, count("rooms", 1, 100_000), live,
        "Rooms one connection may be in at once"),

    key!(Sessions, overflow, Kind::Word(&["close", "gap", "latest"]), live,
        "What a slow client gets: close (4102), gap (told what it missed) or latest (newest only)"),
    key!(Sessions, resume_window, seconds(Duration::ZERO, DAY), live,
        "Seconds a session outlives its lost connection; 0 ends it at once"),
    key!(Sessions, max_away_sessions, count("sessions", 0, 10_000_000), live,
        "Sessions without a connection kept at once; beyond it the longest away ends"),
    key!(Sessions, snapshot, Kind::Text(FILE),
        "File in which a draining server leaves rooms and sessions to the next one; empty for none"),
    key!(Sessions, snapshot_max_age, seconds(INSTANT, DAY),
        "Seconds after which such a file is not read any more"),
    key!(Sessions, snapshot_bytes_max, bytes("bytes", 4 * KIB, 1024 * GIB),
        "Largest such file; beyond it the oldest messages are left out"),
    key!(Sessions, inbox, count("messages", 0, 100_000), live,
        "Direct messages kept for one client, for when it is away or resumes"),
    key!(Sessions, inbox_bytes, bytes("bytes", 0, GIB), live,
        "Bytes of direct messages kept for one client"),

    key!(Engine, engine, Kind::Word(&["memory", "redis"]),
        "Where rooms and sessions are kept: memory for one server, redis for many that are as one"),
    key!(Engine, redis_url, Kind::SecretUrl(REDIS_URL),
        "Addresses of Redis, with its password; as a flag only the file they are in"),
    key!(Engine, redis_ca, Kind::Text(PEM),
        "Authorities that must have signed the certificate of Redis, with TLS"),
    key!(Engine, redis_prefix, Kind::Text(REDIS_PREFIX),
        "What all keys in Redis begin with; servers with the same one belong together"),
    key!(Engine, redis_wait_replicas, count("replicas", 0, 10),
        "Replicas that must have a message before its publisher gets its ok; 0 waits for none"),

    key!(Clients, rate_messages, count("messages per second", 0, 1_000_000), live,
        "Messages per second one client may send; 0 sets no limit"),
    key!(Clients, rate_bytes, bytes("bytes per second", 0, GIB), live,
        "Bytes per second one client may send; 0 sets no limit"),
    key!(Clients, rate_rooms, count("rooms per minute", 0, 1_000_000), live,
        "Rooms per minute one client may make; 0 sets no limit"),
    key!(Clients, rate_messages_per_ip, count("messages per second", 0, 10_000_000), live,
        "Messages per second all clients at one IP address may send; 0 sets no limit"),
    key!(Clients, rate_bytes_per_ip, bytes("bytes per second", 0, GIB), live,
        "Bytes per second all clients at one IP address may send; 0 sets no limit"),
    key!(Clients, rate_rooms_per_ip, count("rooms per minute", 0, 1_000_000), live,
        "Rooms per minute all clients at one IP address may make; 0 sets no limit"),
    key!(Clients, rate_messages_per_user, count("messages per second", 0, 10_000_000), live,
        "Messages per second all clients of one user may send; 0 sets no limit"),
    key!(Clients, rate_bytes_per_user, bytes("bytes per second", 0, GIB), live,
        "Bytes per second all clients of one user may send; 0 sets no limit"),
    key!(Clients, rate_rooms_per_user, count("rooms per minute", 0, 1_000_000), live,
        "Rooms per minute all clients of one user may make; 0 sets no limit"),
    key!(Clients, max_errors, count("errors", 0, 1_000_000), live,
        "Errors in a row after which a chat connection is closed with 4008; 0 for never"),
    key!(Clients, page, Kind::Word(&["on", "off"]),
        "Serve the first page on / and the JavaScript client on /client.js"),
    key!(Clients, event_streams, Kind::Switch,
        "Let clients of /ws come without a WebSocket, by server-sent events and posts"),
    key!(Clients, echo, Kind::Switch,
        "Serve /echo, which returns every message as it came"),
    key!(Clients, broadcast, Kind::Switch, live,
        "Let clients of /ws send to everyone who is connected there"),

    key!(Hooks, hook_url, Kind::Text(URL),
        "Your backend, which is asked before a client connects, joins or publishes"),
    key!(Hooks, hooks, Kind::List(HOOK),
        "What the backend is asked about: connect, join, publish"),
    key!(Hooks, hook_timeout, seconds(INSTANT, MINUTE),
        "Seconds the backend has for its answer"),
    key!(Hooks, hook_fail, Kind::Word(&["closed", "open"]),
        "Without a proper answer in time: closed refuses, open allows"),
    key!(Hooks, hook_secret, Kind::Secret(SIGNING),
        "Secret that signs these requests; as a flag only the file it is in"),
    key!(Hooks, hook_threads, count("threads", 1, 256),
        "Threads that ask the backend"),
    key!(Hooks, hook_queue, count("requests", 1, 1_000_000),
        "Requests that may wait for one of these threads"),
    key!(Hooks, events_url, Kind::Text(URL),
        "Where events are sent, in batches"),
    key!(Hooks, events, Kind::List(EVENT),
        "Which events are sent, comma separated"),
    key!(Hooks, events_secret, Kind::Secret(SIGNING),
        "Secret that signs the batches; as a flag only the file it is in"),
    key!(Hooks, events_queue, count("events", 1, 1_000_000),
        "Events that may wait to be sent; beyond it they are dropped and counted"),

    key!(Admin, admin_host, Kind::Text(HOST),
        "Address of the admin listener, which serves the server API and the figures, or unix:/path"),
    key!(Admin, admin_port, Kind::Port,
        "TCP port of the admin listener; empty for none"),
    key!(Admin, max_admin_conn, count("connections", 1, 10_000), live,
        "Connections to the admin listener at once; beyond it a canned 503"),
    key!(Admin, api_key, Kind::Secret(API_KEY), live,
        "Key of the server API, which may do everything; as a flag only the file it is in"),
    key!(Admin, api_body_bytes, bytes("bytes", KIB, 64 * MIB), live,
        "Largest body of a request to the server API; beyond it 413"),
    key!(Admin, api_body_timeout, seconds(INSTANT, DAY), live,
        "Seconds a client of the server API has to send a body"),
    key!(Admin, max_api_bodies, count("bodies", 1, 10_000), live,
        "Bodies of the server API that are read at once; beyond it a 503"),
    key!(Admin, dashboard, Kind::Word(&["on", "off"]),
        "Serve the dashboard on /dashboard of the admin listener"),
    key!(Admin, max_live_viewers, count("viewers", 0, 10_000), live,
        "Viewers that are shown the figures once a second; beyond it they are closed with 1013"),
    key!(Admin, metrics, Kind::Word(&["admin", "public"]), live,
        "Serve /metrics on the admin listener alone (admin) or also on the main port (public)"),

    key!(Tls, tls_cert, Kind::Text(PEM), live,
        "Certificate chain; with it the port speaks TLS alone"),
    key!(Tls, tls_key, Kind::Text(PEM), live,
        "Private key of the certificate, without a passphrase"),
    key!(Tls, tls_client_ca, Kind::Text(PEM), live,
        "Authorities that must have signed each client's certificate"),

    key!(Identity, identity, Kind::Word(&["off", "optional", "required"]),
        "Whether clients say who they are, with a token (JWT)"),
    key!(Identity, token_hmac_secret, Kind::Secret(HMAC_SECRET), live,
        "Secret of tokens signed with HS256"),
    key!(Identity, token_hmac_secret_previous, Kind::Secret(HMAC_SECRET), live,
        "The secret before that one, whose tokens are still good"),
    key!(Identity, token_public_key, Kind::Secret(PUBLIC_KEYS), live,
        "Public keys of tokens signed with RS256, ES256 or EdDSA, in PEM"),
    key!(Identity, token_jwks_url, Kind::Text(JWKS_URL), live,
        "Address of the issuer's public keys (JWKS)"),
    key!(Identity, token_audience, Kind::List(CLAIM_ITEM), live,
        "Audiences of which a token must name one, comma separated; empty for any"),
    key!(Identity, token_issuer, Kind::Text(CLAIM), live,
        "Issuer that a token must name; empty for any"),
    key!(Identity, token_cookie, Kind::Text(COOKIE), live,
        "Name of a cookie that may hold the token; empty for none"),
    key!(Identity, token_in_query, Kind::Switch, live,
        "Whether the token may be in the address, as ?token="),
    key!(Identity, auth_timeout, seconds(INSTANT, DAY), live,
        "Seconds a client has to send its token in a frame, where one is required"),
    key!(Identity, token_grace, seconds(Duration::ZERO, DAY), live,
        "Seconds after the end of its token in which a client may send a new one"),

    key!(Logging, log, Kind::Text(LOG), live,
        "Which log lines are written, in the syntax of RUST_LOG"),
    key!(Logging, log_format, Kind::Word(&["text", "json"]),
        "Log lines for people (text) or for collectors (json)"),
    key!(Logging, access_log, Kind::Switch, live,
        "Log a line for each WebSocket connection at its end, and for each refusal"),
];

const fn count(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Count { unit, min, max }
}

const fn bytes(unit: &'static str, min: u64, max: u64) -> Kind {
    Kind::Bytes { unit, min, max }
}

const fn seconds(min: Duration, max: Duration) -> Kind {
    Kind::Seconds { min, max }
}

impl Config {
    /// Returns every setting, in the order of help and `check-config`.
    pub fn keys() -> &'static [Key] {
        TABLE
    }
}

impl Key {
    /// Returns the name in the file and in [`Config`], such as `max_conn`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a running server takes a change of this key. Of the certificates it does so only if
    /// it has TLS already.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Returns the environment variable, such as `RUSTY_SOCKS_MAX_CONN`.
    pub fn variable(&self) -> String {
        format!("{}{}", source::PREFIX, self.name.to_ascii_uppercase())
    }

    /// Returns the long flag with its dashes, such as `--max-conn`. That of a secret takes a file,
    /// such as `--api-key-file`.
    pub fn flag(&self) -> String {
        let name = self.file_name().unwrap_or_else(|| self.name.to_owned());
        format!("--{}", name.replace('_', "-"))
    }

    /// Returns the name under which a file is given that the value is read from, such as
    /// `api_key_file`; `None` if the value is no secret.
    pub fn file_name(&self) -> Option<String> {
        self.is_secret().then(|| format!("{}_file", self.name))
    }

    /// Returns the variable for such a file, such as `RUSTY_SOCKS_API_KEY_FILE`.
    pub fn file_variable(&self) -> Option<String> {
        self.is_secret().then(|| format!("{}_FILE", self.variable()))
    }

    /// Whether the value is a secret, which is never shown, or an address that is shown without its
    /// password.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_) | Kind::SecretUrl(_))
    }

    /// Returns one line of help.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Returns the heading under which help lists the key.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Returns the unit, such as `seconds`; empty if the value is not a quantity.
    pub fn unit(&self) -> &'static str {
        self.kind.unit()
    }

    /// Returns the default as an operator would write it; `empty` for an empty text or list.
    pub fn default(&self) -> String {
        self.show(&Config::default())
    }

    /// Returns the allowed values, such as `1 to 256` or `text or json`.
    pub fn range(&self) -> String {
        self.kind.range()
    }

    /// Whether the value is true or false, so that the bare flag means true.
    pub fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch)
    }

    /// Returns the value in `config` as an operator would write it: `empty` for an empty text or
    /// list, and quotes around a text that a terminal would garble.
    pub fn show(&self, config: &Config) -> String {
        self.kind.show((self.read)(config))
    }

    /// Whether the two have different values.
    pub(super) fn differs(&self, one: &Config, other: &Config) -> bool {
        (self.read)(one) != (self.read)(other)
    }

    /// Copies the value from one configuration to another.
    pub(super) fn copy(&self, from: &Config, to: &mut Config) {
        // A value that was read from the field is of its kind.
        let is_set = (self.write)(to, (self.read)(from));
        debug_assert!(is_set, "{}", self.name);
    }

    /// Returns what was written for the key as a message may show it.
    pub(super) fn told(&self, written: &str) -> String {
        match self.kind {
            Kind::Secret(_) => secret::SHOWN.to_owned(),
            Kind::SecretUrl(_) => secret::shown_links(written),
            Kind::Text(_) => secret::shown_address(written),
            _ => written.to_owned(),
        }
    }

    /// Returns what must be written, for the end of an error message.
    pub(super) fn demand(&self) -> String {
        self.kind.demand()
    }

    /// Returns what must be written instead of `text`, for the end of an error message, with the
    /// most similar word that is allowed.
    pub(super) fn correction(&self, text: &str) -> String {
        self.kind.correction(text)
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Sets the field from `text`. Returns `false`, with the field unchanged, if the text is not of
    /// the key's kind or out of its range.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        match self.kind.parse(text) {
            Some(value) => self.kind.allows(&value) && (self.write)(config, value),
            None => false,
        }
    }

    /// Returns what is wrong with the value in `config`, or `None` if it is legal.
    pub(super) fn problem(&self, config: &Config, source: Option<&Source>) -> Option<String> {
        if self.kind.allows(&(self.read)(config)) {
            return None;
        }
        let told = source::told(self.name, &self.show(config), source);
        Some(format!("{told}: {}", self.demand()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> &'static Key {
        TABLE.iter().find(|key| key.name == name).unwrap()
    }

    fn fields_of_config() -> Vec<String> {
        let printed = format!("{:#?}", Config::default());
        let outermost = printed.lines().filter_map(|line| line.strip_prefix("    "));
        outermost
            .filter(|line| !line.starts_with([' ', '}', ']', ')']))
            .filter_map(|line| Some(line.split_once(':')?.0.to_string()))
            // Rules for rooms, further certificates and further keys can only be set in the file.
            .filter(|field| !["rooms", "tls", "api_keys"].contains(&field.as_str()))
            .collect()
    }

    #[test]
    fn each_field_has_one_row_in_the_same_order() {
        let rows: Vec<&str> = TABLE.iter().map(|key| key.name).collect();
        assert_eq!(rows, fields_of_config());
    }

    #[test]
    fn the_documentation_of_each_field_states_what_the_table_says() {
        // A checkout on Windows may have CR LF, and a long line is wrapped.
        let source = include_str!("settings.rs").replace("\r\n", "\n");
        let source = source.replace("\n    /// ", " ");
        for key in TABLE {
            let unit = match key.unit() {
                "" => String::new(),
                unit => format!("Unit: {unit}. "),
            };
            let facts = format!(
                "/// {unit}Default: {}. Range: {}.\n    pub {}:",
                key.default(),
                key.range(),
                key.name
            );
            assert!(source.contains(&facts), "settings.rs does not say\n{facts}");
        }
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        for key in TABLE {
            let shown = match key.default().as_str() {
                "empty" => String::new(),
                shown => shown.to_string(),
            };
            let mut config = Config::default();
            assert!(key.set(&mut config, &shown), "{} = {shown}", key.name);
            assert_eq!(config, Config::default());
        }
    }

    #[test]
    fn both_ends_of_each_range_can_be_set_and_nothing_beyond() {
        for key in TABLE {
            let (min, max, below, above) = match key.kind {
                Kind::Count { min, max, .. } | Kind::Bytes { min, max, .. } => {
                    let below = min.checked_sub(1).map_or("-1".into(), |n| n.to_string());
                    (min.to_string(), max.to_string(), below, (max + 1).to_string())
                }
                Kind::Seconds { min, max } => {
                    let below = if min.is_zero() { "-0.001" } else { "0" };
                    let [min, max] = [min, max].map(|time| time.as_secs_f64());
                    (min.to_string(), max.to_string(), below.into(), (max + 0.5).to_string())
                }
                Kind::Switch
                | Kind::Word(_)
                | Kind::Text(_)
                | Kind::List(_)
                | Kind::Secret(_)
                | Kind::SecretUrl(_)
                | Kind::Port => {
                    continue;
                }
            };
            let mut config = Config::default();
            for good in [min, max] {
                assert!(key.set(&mut config, &good), "{} = {good}", key.name);
                assert!(key.problem(&config, None).is_none());
            }
            let before = config.clone();
            for bad in [below, above] {
                assert!(!key.set(&mut config, &bad), "{} = {bad}", key.name);
            }
            assert_eq!(config, before);
        }
    }

    #[test]
    fn a_list_is_split_at_commas_and_may_be_empty() {
        let mut config = Config::default();
        let origins = key("allowed_origins");
        assert!(origins.set(&mut config, "https://a.example, http://b.example:8080"));
        assert_eq!(config.allowed_origins, ["https://a.example", "http://b.example:8080"]);
        assert!(!origins.set(&mut config, "https://a.example,,https://b.example"));
        assert!(origins.set(&mut config, ""));
        assert!(config.allowed_origins.is_empty());
    }

    #[test]
    fn a_key_has_one_name_in_three_spellings() {
        let key = key("thread_pool_size");
        assert_eq!(key.variable(), "RUSTY_SOCKS_THREAD_POOL_SIZE");
        assert_eq!(key.flag(), "--thread-pool-size");
    }
}
