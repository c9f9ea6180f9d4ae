//! What an operator may set, and what each setting is for.
//!
//! [`Config`] is a plain struct: an embedder fills it by hand, the binary loads it. Either way
//! [`Config::validate`] is the judge. The files, in reading order:
//!
//! - `mod.rs`: the settings, their defaults and the rules that bind several of them;
//! - `rooms.rs`: what may hold in some rooms instead, which the file alone can say;
//! - `keys.rs`: one table with a row for each setting, from which the file keys, the variables,
//!   the flags, the help text and the range checks all come;
//! - `value.rs`: what a value may be, and how it is read and shown;
//! - `load.rs`: defaults < TOML file < environment < flags; beside it `nearest.rs`, the name that
//!   was probably meant, and `source.rs`, who said what.

mod keys;
mod rooms;
mod value;

mod load;
mod nearest;
mod source;

use std::time::Duration;

pub use keys::{Group, Key};
pub use load::Loaded;
pub use rooms::RoomRule;
pub(crate) use rooms::RoomRules;
pub use source::Source;

use crate::error::Error;

/// Everything an operator may set.
///
/// A setting has one name everywhere: `max_conn` here and in the file, `RUSTY_SOCKS_MAX_CONN` in
/// the environment, `--max-conn` on the command line. Times are written there as seconds, with
/// decimals if need be (`0.5`); sizes as bytes or with a suffix (`64KiB`, `1MiB`, `1GiB`).
///
/// ```
/// use rusty_socks::Config;
///
/// let config = Config { port: 0, max_conn: 5_000, ..Config::default() };
/// config.validate().expect("these values are in range");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address to listen on: an IPv4 or IPv6 address without brackets, or a host name.
    ///
    /// All IPv4 interfaces by default, because inside a container nothing else can be reached.
    ///
    /// Default: 0.0.0.0. Range: a host name or an IP address, without port or brackets.
    pub host: String,

    /// TCP port to listen on. `0` picks a free one, which the server logs.
    ///
    /// Default: 3030. Range: 0 to 65535.
    pub port: u16,

    /// WebSocket sessions served at once; each holds one permit.
    ///
    /// Low by default, so that the first person to try the server also sees how it refuses.
    ///
    /// Unit: sessions. Default: 100. Range: 1 to 10000000.
    pub max_conn: usize,

    /// Messages that may wait for one slow client before the overflow policy acts.
    ///
    /// This bounds how far behind a client may fall; [`buffer_bytes`](Config::buffer_bytes)
    /// bounds what that costs.
    ///
    /// Unit: messages. Default: 1024. Range: 1 to 1000000.
    pub buffer: usize,

    /// Silence after which a connection is closed. Any byte received counts, a pong too.
    ///
    /// Twice [`ping`](Config::ping), so that one lost pong is forgiven.
    ///
    /// Unit: seconds. Default: 60. Range: 0.001 to 86400.
    pub timeout: Duration,

    /// Time between pings to a quiet client; zero turns them off.
    ///
    /// Half a minute also keeps most proxies and address translators from forgetting the
    /// connection.
    ///
    /// Unit: seconds. Default: 30. Range: 0 to 86400.
    pub ping: Duration,

    /// Worker threads. Each owns many connections, so this follows the cores, not the clients.
    ///
    /// Unit: threads. Default: 4. Range: 1 to 256.
    pub thread_pool_size: usize,

    /// Upgrades that may wait in line for a permit; beyond it they are rejected with a 503.
    ///
    /// Unit: upgrades. Default: 1000. Range: 0 to 1000000.
    pub max_queued_tasks: usize,

    /// Connections from one IP address; zero sets no limit.
    ///
    /// Off by default, because behind a proxy every client has the proxy's address.
    ///
    /// Unit: connections. Default: 0. Range: 0 to 10000000.
    pub max_conn_per_ip: usize,

    /// Origins a browser page may connect from, such as `https://example.com`; empty allows any.
    ///
    /// Comma separated in the environment and in flags, a list or such a string in the file.
    ///
    /// Default: empty. Range: scheme://host or scheme://host:port or null, without a path.
    pub allowed_origins: Vec<String>,

    /// Sockets whose request head has not arrived yet. Beyond it the acceptor itself answers
    /// with a canned 503, so that a flood of silent sockets cannot fill the workers.
    ///
    /// Unit: sockets. Default: 4096. Range: 1 to 1000000.
    pub max_pending_heads: usize,

    /// Closed connections that may linger so that the peer can read the last answer. Beyond it
    /// a socket is closed at once.
    ///
    /// Unit: sockets. Default: 1024. Range: 0 to 1000000.
    pub max_lingering: usize,

    /// Time a client has to send its request head.
    ///
    /// Unit: seconds. Default: 5. Range: 0.001 to 86400.
    pub handshake_timeout: Duration,

    /// Time an upgrade may wait in line for a permit before it gets the 503.
    ///
    /// Shorter than the patience of most clients, so that they hear the answer.
    ///
    /// Unit: seconds. Default: 10. Range: 0.001 to 86400.
    pub queue_timeout: Duration,

    /// Time a peer has to answer a close frame before its socket is closed regardless.
    ///
    /// Unit: seconds. Default: 3. Range: 0.001 to 86400.
    pub close_timeout: Duration,

    /// Time a shutdown spends on flushing what waits for clients before it cuts the rest off.
    ///
    /// Container platforms commonly kill after 30 seconds or less: set this below their figure.
    ///
    /// Unit: seconds. Default: 30. Range: 0.001 to 86400.
    pub drain_timeout: Duration,

    /// Largest message a client may send; a larger one closes the connection with 1009.
    ///
    /// At least 125, the largest control frame.
    ///
    /// Unit: bytes. Default: 64KiB. Range: 125 to 64MiB.
    pub max_message_bytes: usize,

    /// Bytes of a request head; beyond it the answer is 431.
    ///
    /// Unit: bytes. Default: 8KiB. Range: 512 to 1MiB.
    pub max_head_bytes: usize,

    /// Bytes that may wait for one slow client before the overflow policy acts. At least twice
    /// [`max_message_bytes`](Config::max_message_bytes).
    ///
    /// Times [`max_conn`](Config::max_conn) it is the worst case of memory in outboxes, though
    /// members of a room share each frame.
    ///
    /// Unit: bytes. Default: 1MiB. Range: 256 to 1GiB.
    pub buffer_bytes: usize,

    /// Whether messages are compressed (permessage-deflate, RFC 7692) where the client offers it.
    ///
    /// Default: off. Range: off or shared or dedicated.
    pub compression: Compression,

    /// How hard to compress, as zlib counts: 1 is fastest, 9 smallest.
    ///
    /// Unit: level. Default: 3. Range: 1 to 9.
    pub compression_level: u32,

    /// Size below which a message is sent uncompressed: a short one does not shrink by what
    /// compressing it costs.
    ///
    /// Unit: bytes. Default: 256. Range: 0 to 1MiB.
    pub compression_threshold: usize,

    /// Letters that may wait for one worker from other threads. At half of it the feeding
    /// workers stop reading their sockets, at the bound `publish` answers `overloaded`.
    ///
    /// Unit: letters. Default: 16384. Range: 2 to 10000000.
    pub mailbox: usize,

    /// Bytes in the letters that may wait for one worker, with the same two steps. At least
    /// twice [`max_message_bytes`](Config::max_message_bytes).
    ///
    /// Unit: bytes. Default: 64MiB. Range: 256 to 1GiB.
    pub mailbox_bytes: usize,

    /// Room each connection joins on open; empty for none.
    ///
    /// Default: lobby. Range: 1 to 128 bytes without control characters or *, or empty.
    pub default_room: String,

    /// Messages of the default room sent after the welcome, oldest first. At most
    /// [`history`](Config::history).
    ///
    /// Unit: messages. Default: 10. Range: 0 to 1000000.
    pub replay: usize,

    /// Messages kept per room.
    ///
    /// Unit: messages. Default: 100. Range: 0 to 1000000.
    pub history: usize,

    /// Bytes of messages kept per room.
    ///
    /// Times [`max_rooms`](Config::max_rooms) it is the worst case of memory in histories.
    ///
    /// Unit: bytes. Default: 256KiB. Range: 0 to 1GiB.
    pub history_bytes: usize,

    /// Age at which a kept message is forgotten. An empty room goes with its last message.
    ///
    /// Unit: seconds. Default: 3600. Range: 0.001 to 31536000.
    pub history_age: Duration,

    /// Rooms that may exist at once. Clients name rooms freely, so something must end it.
    ///
    /// Unit: rooms. Default: 10000. Range: 1 to 10000000.
    pub max_rooms: usize,

    /// Rooms one connection may be in at once, the default room included.
    ///
    /// Unit: rooms. Default: 100. Range: 1 to 100000.
    pub max_rooms_per_conn: usize,

    /// What holds in some rooms instead of [`overflow`](Config::overflow) and
    /// [`history`](Config::history), by their names or by patterns such as `prices.*`.
    ///
    /// Only the file can say it, in tables such as `[rooms."prices.*"]`; no variable and no flag
    /// names it, so it has no row in the table of keys. In a room holds the rule of its name, or
    /// else that of the longest pattern it matches.
    pub rooms: Vec<RoomRule>,

    /// What a client gets that is too slow for what is sent to its rooms.
    ///
    /// A close is what every client understands; the other two need one that knows the notice.
    ///
    /// Default: close. Range: close or gap or latest.
    pub overflow: Overflow,

    /// How long a session outlives its lost connection, so that the client can resume it; zero
    /// ends it at once.
    ///
    /// Long enough for a change of networks, short enough that others soon see who is gone.
    ///
    /// Unit: seconds. Default: 60. Range: 0 to 86400.
    pub resume_window: Duration,

    /// Sessions without a connection that are kept at once. Beyond it the one that is away for
    /// longest ends. At least [`max_conn`](Config::max_conn), if all may be cut off at once.
    ///
    /// Unit: sessions. Default: 10000. Range: 0 to 10000000.
    pub max_away_sessions: usize,

    /// Direct messages kept for one client, for when it is away or resumes.
    ///
    /// Unit: messages. Default: 100. Range: 0 to 100000.
    pub inbox: usize,

    /// Bytes of direct messages kept for one client.
    ///
    /// Unit: bytes. Default: 64KiB. Range: 0 to 1GiB.
    pub inbox_bytes: usize,

    /// Messages per second one connection may send; zero sets no limit.
    ///
    /// Unit: messages per second. Default: 0. Range: 0 to 1000000.
    pub rate_messages: u32,

    /// Bytes per second one connection may send; zero sets no limit.
    ///
    /// Unit: bytes per second. Default: 0. Range: 0 to 1GiB.
    pub rate_bytes: u32,

    /// Errors in a row after which a chat connection is closed with 4008; zero for never.
    ///
    /// A client that only makes mistakes is broken or hostile, and answering it costs work.
    ///
    /// Unit: errors. Default: 10. Range: 0 to 1000000.
    pub max_errors: u32,

    /// Whether `/echo` is served: every message comes back as it came. For conformance suites
    /// and load tests, and off otherwise because it is open to all.
    ///
    /// Default: false. Range: true or false.
    pub echo: bool,

    /// Whether clients of `/ws` may send to everyone who is connected there.
    ///
    /// Off by default, because one client then makes work for all.
    ///
    /// Default: false. Range: true or false.
    pub broadcast: bool,

    /// Which log lines are written, in the syntax of `RUST_LOG` without its `/regex` part:
    /// a level, or `target=level`, or several with commas between. `RUST_LOG` itself counts
    /// only when this key is not set.
    ///
    /// Default: info. Range: off, error, warn, info, debug or trace, or target=level, comma separated.
    pub log: String,

    /// How a log line looks: for people, or one JSON object a line for collectors.
    ///
    /// Default: text. Range: text or json.
    pub log_format: LogFormat,
}

/// How messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, whatever the client offers.
    Off,
    /// Each message by itself: nothing is kept for a connection, and a message to a room is
    /// compressed once for all its members.
    Shared,
    /// With the context of earlier messages, where the client agrees: a better ratio, for some
    /// hundred KiB a connection and a compression for each delivery.
    Dedicated,
}

/// What a client gets that is too slow for what is sent to its rooms.
///
/// Its connection goes on under `Gap` and `Latest`, so both need a handler that puts the notice
/// into words ([`Handler::notice`](crate::Handler::notice)); where it has none, it is `Close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Its connection is closed with 4102.
    Close,
    /// It misses messages and is told which, so that it can fetch them from the history.
    Gap,
    /// Of what waits for it, it gets the newest message alone, and is told which it missed: for
    /// rooms whose messages are states, where an old one is worth nothing.
    Latest,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, target and message in columns.
    Text,
    /// For collectors: one JSON object a line with `ts`, `level`, `target` and `message`.
    Json,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            host: "0.0.0.0".into(),
            port: 3030,
            max_conn: 100,
            buffer: 1024,
            timeout: Duration::from_secs(60),
            ping: Duration::from_secs(30),
            thread_pool_size: 4,
            max_queued_tasks: 1000,
            max_conn_per_ip: 0,
            allowed_origins: Vec::new(),
            max_pending_heads: 4096,
            max_lingering: 1024,
            handshake_timeout: Duration::from_secs(5),
            queue_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(30),
            max_message_bytes: 64 << 10,
            max_head_bytes: 8 << 10,
            buffer_bytes: 1 << 20,
            compression: Compression::Off,
            compression_level: 3,
            compression_threshold: 256,
            mailbox: 16384,
            mailbox_bytes: 64 << 20,
            default_room: "lobby".into(),
            replay: 10,
            history: 100,
            history_bytes: 256 << 10,
            history_age: Duration::from_secs(3600),
            max_rooms: 10_000,
            max_rooms_per_conn: 100,
            rooms: Vec::new(),
            overflow: Overflow::Close,
            resume_window: Duration::from_secs(60),
            max_away_sessions: 10_000,
            inbox: 100,
            inbox_bytes: 64 << 10,
            rate_messages: 0,
            rate_bytes: 0,
            max_errors: 10,
            echo: false,
            broadcast: false,
            log: "info".into(),
            log_format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Every setting there is, in the order that help and `check-config` show.
    pub fn keys() -> &'static [Key] {
        keys::TABLE
    }

    /// Whether every value is in its range and the values agree with each other.
    ///
    /// The error names every key at fault, one a line, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        error_of(self.problems(&|_| None))
    }

    /// What is legal but probably not meant, one sentence each. Worth a log line at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.ping.is_zero() && self.timeout <= self.ping {
            warnings.push(format!(
                "timeout ({} s) is not above ping ({} s): quiet clients are closed before a ping can keep them",
                self.timeout.as_secs_f64(),
                self.ping.as_secs_f64(),
            ));
        }
        warnings
    }

    /// What is wrong with the values, each told with its source where `source_of` knows one.
    ///
    /// The rules between keys are asked only once each key is good in itself: a complaint that
    /// follows from another one only hides it.
    fn problems<'a>(&self, source_of: &dyn Fn(&Key) -> Option<&'a Source>) -> Vec<String> {
        let of_keys = Config::keys().iter().filter_map(|key| key.problem(self, source_of(key)));
        let out_of_range: Vec<String> = of_keys.chain(rooms::problems(&self.rooms)).collect();
        if !out_of_range.is_empty() {
            return out_of_range;
        }

        let told = |name| match Config::keys().iter().find(|key| key.name() == name) {
            Some(key) => source::told(key.name(), &key.show(self), source_of(key)),
            None => String::from(name),
        };
        let mut problems = Vec::new();
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
        if self.replay > self.history {
            problems.push(format!(
                "{}: must be at most {}, for no more than what is kept can be replayed",
                told("replay"),
                told("history"),
            ));
        }
        let of_default_room = rooms::find(&self.rooms, &self.default_room);
        if let Some(rule) = of_default_room
            && rule.history.is_some_and(|history| history < self.replay)
        {
            problems.push(format!(
                "{}: must be at least {}, for it holds in the default room",
                rule.told("history"),
                told("replay"),
            ));
        }
        problems
    }
}

/// All problems as one error, one a line; no problem is no error.
fn error_of(problems: Vec<String>) -> Result<(), Error> {
    if problems.is_empty() { Ok(()) } else { Err(Error::config(problems.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for illegal in ["", " ", "[::1]", "localhost:3030", "http://x", "a b", "x\n", "1:2"] {
            assert!(complaint(with(illegal)).starts_with("host = "));
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        let with =
            |origin: &str| Config { allowed_origins: vec![origin.into()], ..Config::default() };
        for legal in ["https://example.com", "http://localhost:8080", "http://[::1]:80", "null"] {
            with(legal).validate().unwrap();
        }
        for illegal in ["", "*", "example.com", "https://example.com/", "https://", "a://b c"] {
            assert!(complaint(with(illegal)).starts_with("allowed_origins = "), "{illegal}");
        }
    }

    #[test]
    fn a_log_filter_is_levels_and_targets() {
        let with = |log: &str| Config { log: log.into(), ..Config::default() };
        for legal in ["off", "INFO", "warn,rusty_socks=debug", "mio", "rusty_socks::pool=trace"] {
            with(legal).validate().unwrap();
        }
        for illegal in ["", ",", "inof", "rusty_socks=loud", "a=b=c", "info/regex", "a b", "=info"]
        {
            assert!(complaint(with(illegal)).starts_with("log = "), "{illegal}");
        }
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
