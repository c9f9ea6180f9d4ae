//! The settings: meanings, ranges and defaults.

use std::{path::PathBuf, time::Duration};

use super::{
    addresses::LimitedAddresses,
    api_key::ApiKey,
    memory_max::MemoryMax,
    secret::Secret,
    tables::{RoomRule, TlsPair},
    words::{
        Compression, Dashboard, Engine, FirstPage, HookFail, IdentityMode, LogFormat,
        MetricsAccess, Overflow,
    },
};

/// All settings of a server.
///
/// A setting has one name everywhere: `max_conn` here and in the file, `RUSTY_SOCKS_MAX_CONN` in
/// the environment, `--max-conn` on the command line. Outside Rust, times are in seconds and may
/// have decimals (`0.5`); sizes are in bytes or have a suffix (`64KiB`, `1MiB`, `1GiB`).
///
/// ```
/// use rusty_socks::Config;
///
/// let config = Config { port: 0, max_conn: 5_000, ..Config::default() };
/// config.validate().expect("these values are in range");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address to listen on: an IPv4 or IPv6 address without brackets, or a host name; or
    /// `unix:/path` for a Unix socket, which has no port.
    ///
    /// All IPv4 interfaces by default, because inside a container nothing else can be reached.
    ///
    /// The file of a Unix socket has mode 0660, and is removed when the server stops. Whoever may
    /// connect there counts as one of [`trusted_proxies`](Config::trusted_proxies).
    ///
    /// Default: 0.0.0.0. Range: a host name or an IP address, without port or brackets, or unix:
    /// and an absolute path.
    pub host: String,

    /// TCP port to listen on. `0` picks a free one, which the server logs.
    ///
    /// Default: 3030. Range: 0 to 65535.
    pub port: u16,

    /// WebSocket sessions served at once; each holds one permit.
    ///
    /// The default is low, so that a first try also shows how the server refuses.
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
    /// Twice [`ping`](Config::ping), so that one pong may be lost.
    ///
    /// Unit: seconds. Default: 60. Range: 0.001 to 86400.
    pub timeout: Duration,

    /// Time between pings to a quiet client; zero turns them off.
    ///
    /// Half a minute also keeps most proxies and NATs from dropping the connection.
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

    /// Addresses for which the limits by address hold: this one and those that end in `_per_ip`.
    /// An IPv6 address counts with all others of its first 64 bits.
    ///
    /// By default those of the public internet, because a proxy in front of the server is usually
    /// on the same machine or in a private network, and all clients behind it have its address.
    ///
    /// Default: public. Range: public or all or none.
    pub limited_addresses: LimitedAddresses,

    /// Connections from one IP address; zero is half of [`max_conn`](Config::max_conn), but at
    /// least 32.
    ///
    /// Unit: connections. Default: 0. Range: 0 to 10000000.
    pub max_conn_per_ip: usize,

    /// Connections per second from one IP address, remembered across them; zero sets no limit. Ten
    /// times as many may come at once.
    ///
    /// Unit: connections per second. Default: 100. Range: 0 to 1000000.
    pub rate_accepts_per_ip: u32,

    /// Connections that clients of one user may have at once; zero is half of
    /// [`max_conn`](Config::max_conn), but at least 32. A lost connection counts until the server
    /// notices.
    ///
    /// Unit: connections. Default: 0. Range: 0 to 10000000.
    pub max_conn_per_user: usize,

    /// Proxies whose word about their clients' addresses is taken: addresses, or networks such as
    /// `10.0.0.0/8`.
    ///
    /// Behind them the client is the last address in `X-Forwarded-For` that is not itself a
    /// trusted proxy's, or the one in the header of [`proxy_protocol`](Config::proxy_protocol).
    /// Limits by address, logs and handlers see that one. From anybody else these headers are
    /// ignored, because anybody can write them. The proxies themselves have no limit by address.
    ///
    /// Default: empty. Range: addresses, or networks as address/bits.
    pub trusted_proxies: Vec<String>,

    /// Whether each connection begins with a header of the PROXY protocol, version 1 or 2.
    ///
    /// A connection without one is refused. What the header says is believed only from
    /// [`trusted_proxies`](Config::trusted_proxies).
    ///
    /// Default: false. Range: true or false.
    pub proxy_protocol: bool,

    /// Origins a browser page may connect from, such as `https://example.com`; `*` allows any.
    ///
    /// Empty allows pages of the host and port that they connect to (if the server has a
    /// certificate, only pages that came through TLS), and pages of `localhost` to connect to
    /// `localhost`. Where identity is required, there is no `token_cookie` and no hook is asked
    /// about `connect`, any page may. A client that sends no `Origin` is not a browser, and always
    /// may. Comma separated in the environment and in flags, a list or such a string in the file.
    ///
    /// Default: empty. Range: scheme://host or scheme://host:port or null, without a path, or *.
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
    /// Shorter than the timeout of most clients, so that they get the answer.
    ///
    /// Unit: seconds. Default: 10. Range: 0.001 to 86400.
    pub queue_timeout: Duration,

    /// Time a peer has to answer a close frame before its socket is closed regardless.
    ///
    /// Unit: seconds. Default: 3. Range: 0.001 to 86400.
    pub close_timeout: Duration,

    /// Time for which a server that is told to stop goes on serving and accepting, while `/ready`
    /// answers 503: a load balancer needs a few seconds to send nobody here any more.
    ///
    /// Unit: seconds. Default: 0. Range: 0 to 86400.
    pub drain_delay: Duration,

    /// Time a shutdown gives clients to read their last messages and close; then it cuts the rest
    /// off.
    ///
    /// Container platforms commonly kill after 30 seconds or less: set this below their limit.
    ///
    /// Unit: seconds. Default: 30. Range: 0.001 to 86400.
    pub drain_timeout: Duration,

    /// Largest message a client may send; a larger one closes the connection with 1009.
    ///
    /// At least 125, the largest control frame.
    ///
    /// Unit: bytes. Default: 64KiB. Range: 125 to 64MiB.
    pub max_message_bytes: usize,

    /// Largest request head; a larger one is answered with 431.
    ///
    /// Unit: bytes. Default: 8KiB. Range: 512 to 1MiB.
    pub max_head_bytes: usize,

    /// Bytes that may wait for one slow client before the overflow policy acts. At least twice
    /// [`max_message_bytes`](Config::max_message_bytes).
    ///
    /// Multiplied by [`max_conn`](Config::max_conn), the worst case of memory in outboxes, though
    /// members of a room share each frame.
    ///
    /// Unit: bytes. Default: 1MiB. Range: 256 to 1GiB.
    pub buffer_bytes: usize,

    /// Memory that the process may use. At 85 % of it newcomers wait in line. At 95 % publishes are
    /// answered `overloaded`, and memory is taken back: idle HTTP connections, clients that do not
    /// read, rooms that nobody is in, and the sessions longest away, in this order.
    ///
    /// A percentage is of the memory of the process's cgroup, or of the machine if it has less; it
    /// can be known on Linux alone, and is `off` elsewhere. The rest is for what the account of
    /// memory does not see.
    ///
    /// Default: 80%. Range: 16MiB to 1024GiB, or 1% to 100% of what there is, or off.
    pub memory_max: MemoryMax,

    /// Whether messages are compressed (permessage-deflate, RFC 7692) where the client offers it.
    ///
    /// Default: off. Range: off or shared or dedicated.
    pub compression: Compression,

    /// How hard to compress, as zlib counts: 1 is fastest, 9 smallest.
    ///
    /// Unit: level. Default: 3. Range: 1 to 9.
    pub compression_level: u32,

    /// Size below which a message is sent uncompressed, because a short message saves less than
    /// compressing it costs.
    ///
    /// Unit: bytes. Default: 256. Range: 0 to 1MiB.
    pub compression_threshold: usize,

    /// Letters that may wait for one worker from other threads. At half of it, the workers that
    /// feed the mailbox stop reading their sockets; at the bound, `publish` fails with
    /// `overloaded`.
    ///
    /// Unit: letters. Default: 16384. Range: 2 to 10000000.
    pub mailbox: usize,

    /// Bytes in the letters that may wait for one worker, with the same two steps as
    /// [`mailbox`](Config::mailbox). At least twice
    /// [`max_message_bytes`](Config::max_message_bytes).
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
    /// All rooms together keep [`history_total_bytes`](Config::history_total_bytes).
    ///
    /// Unit: bytes. Default: 256KiB. Range: 0 to 1GiB.
    pub history_bytes: usize,

    /// Bytes of messages kept in all rooms together. Beyond it, rooms without members are removed
    /// first, those left longest ago before others, and then the oldest messages of large rooms.
    ///
    /// Unit: bytes. Default: 256MiB. Range: 0 to 1024GiB.
    pub history_total_bytes: usize,

    /// Age at which a kept message is dropped. A room without members is removed with its last
    /// message.
    ///
    /// Unit: seconds. Default: 3600. Range: 0.001 to 31536000.
    pub history_age: Duration,

    /// Rooms that may exist at once, beside the default room. Clients choose the names of rooms,
    /// so their number needs a bound. Beyond it, the room that has been without members
    /// longest is removed.
    ///
    /// Unit: rooms. Default: 10000. Range: 1 to 10000000.
    pub max_rooms: usize,

    /// Rooms one connection may be in at once, the default room included.
    ///
    /// Unit: rooms. Default: 100. Range: 1 to 100000.
    pub max_rooms_per_conn: usize,

    /// Rules for some rooms, by name or by pattern such as `prices.*`, that replace
    /// [`overflow`](Config::overflow) and [`history`](Config::history) there.
    ///
    /// Can only be set in the file, in tables such as `[rooms."prices.*"]`; there is no variable,
    /// no flag and no row in the table of keys. For a room, the rule of its name holds, or else
    /// that of the longest matching pattern.
    pub rooms: Vec<RoomRule>,

    /// Policy for a client that is too slow for the messages of its rooms.
    ///
    /// Every client understands a close; the other two need a client that knows the notice.
    ///
    /// Default: close. Range: close or gap or latest.
    pub overflow: Overflow,

    /// How long a session outlives its lost connection, so that the client can resume it; zero
    /// ends it at once.
    ///
    /// Long enough for a change of networks, short enough that others soon see a client leave.
    ///
    /// Unit: seconds. Default: 60. Range: 0 to 86400.
    pub resume_window: Duration,

    /// Sessions without a connection that are kept at once. Beyond it, the one that is away longest
    /// ends, but first those that are seconds old and whose client joined no room and published
    /// nothing with an id. One address has half of them at most, if limits hold for it
    /// ([`limited_addresses`](Config::limited_addresses)). Set it to at least
    /// [`max_conn`](Config::max_conn) if all clients may lose their connections at once.
    ///
    /// Unit: sessions. Default: 10000. Range: 0 to 10000000.
    pub max_away_sessions: usize,

    /// The file in which a server that drains leaves its rooms and sessions to the next one, so
    /// that a restart loses no message; empty for none.
    ///
    /// Its directory must exist, be writable, and belong to the server alone: the file has messages
    /// and the secrets of sessions. Needs the cargo feature `snapshot`.
    ///
    /// Default: empty. Range: the path of a file, or empty.
    pub snapshot: String,

    /// Age at which such a file is not read any more.
    ///
    /// Unit: seconds. Default: 300. Range: 0.001 to 86400.
    pub snapshot_max_age: Duration,

    /// Largest such file. What does not fit is left out: of all rooms, the oldest messages first.
    ///
    /// Unit: bytes. Default: 1GiB. Range: 4KiB to 1024GiB.
    pub snapshot_bytes_max: usize,

    /// Direct messages kept for one client, for when it is away or resumes.
    ///
    /// Unit: messages. Default: 100. Range: 0 to 100000.
    pub inbox: usize,

    /// Bytes of direct messages kept for one client.
    ///
    /// Unit: bytes. Default: 64KiB. Range: 0 to 1GiB.
    pub inbox_bytes: usize,

    /// Where the state that clients share is kept: in the memory of this server, or in Redis. With
    /// Redis, all servers that have the same [`redis_url`](Config::redis_url) and
    /// [`redis_prefix`](Config::redis_prefix) are to their clients as one. Needs the cargo feature
    /// `redis`.
    ///
    /// A [`snapshot`](Config::snapshot) is refused then: rooms and sessions are in Redis already.
    ///
    /// Default: memory. Range: memory or redis.
    pub engine: Engine,

    /// Address of Redis 6.2 or newer, or of Valkey. Must be set if [`engine`](Config::engine) is
    /// `redis`, and only then. One of:
    ///
    /// - `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for TLS;
    /// - `unix:///path[?db=database]`;
    /// - `redis+sentinel://[user:password@]host[:port][,…]/name[/database]`, which asks Sentinel
    ///   where the primary of that name is, or `rediss+sentinel://…` for TLS to both.
    ///
    /// User and password are percent-encoded. Shown without them.
    ///
    /// With commas between several of them, rooms and sessions are spread over as many Redises, of
    /// which each is a shard of its own. All servers must have the same list in the same order.
    ///
    /// Default: empty. Range: redis, rediss, redis+sentinel, rediss+sentinel or unix URLs with
    /// commas between them, 64 at most, or empty.
    pub redis_url: Secret,

    /// Authorities that must have signed the certificate of Redis, with TLS; without it, those
    /// that browsers trust.
    ///
    /// Default: empty. Range: the path of a PEM file, or empty.
    pub redis_ca: Option<PathBuf>,

    /// What the names of all keys and channels in Redis begin with. Servers with different prefixes
    /// share one Redis and know nothing of each other.
    ///
    /// Default: rusty_socks. Range: 1 to 64 letters, digits and _-:.
    pub redis_prefix: String,

    /// Replicas of Redis that must have a message before its publisher gets its `ok`, so that a
    /// failover loses nothing that was acknowledged. Each publish then takes as long as they do.
    ///
    /// Unit: replicas. Default: 0. Range: 0 to 10.
    pub redis_wait_replicas: usize,

    /// Messages per second one client may send, commands included; zero sets no limit.
    ///
    /// Unit: messages per second. Default: 1000. Range: 0 to 1000000.
    pub rate_messages: u32,

    /// Bytes per second one client may send; zero sets no limit.
    ///
    /// Unit: bytes per second. Default: 8MiB. Range: 0 to 1GiB.
    pub rate_bytes: u32,

    /// Rooms per minute one client may make; zero sets no limit.
    ///
    /// Unit: rooms per minute. Default: 600. Range: 0 to 1000000.
    pub rate_rooms: u32,

    /// Messages per second all clients at one IP address may send together; zero sets no limit.
    ///
    /// Unit: messages per second. Default: 10000. Range: 0 to 10000000.
    pub rate_messages_per_ip: u32,

    /// Bytes per second all clients at one IP address may send together; zero sets no limit.
    ///
    /// Unit: bytes per second. Default: 64MiB. Range: 0 to 1GiB.
    pub rate_bytes_per_ip: u32,

    /// Rooms per minute all clients at one IP address may make together; zero sets no limit.
    ///
    /// Unit: rooms per minute. Default: 6000. Range: 0 to 1000000.
    pub rate_rooms_per_ip: u32,

    /// Messages per second all clients of one user may send together; zero sets no limit. A client
    /// has a user if it shows a token, or if its handler says so.
    ///
    /// Unit: messages per second. Default: 10000. Range: 0 to 10000000.
    pub rate_messages_per_user: u32,

    /// Bytes per second all clients of one user may send together; zero sets no limit.
    ///
    /// Unit: bytes per second. Default: 64MiB. Range: 0 to 1GiB.
    pub rate_bytes_per_user: u32,

    /// Rooms per minute all clients of one user may make together; zero sets no limit.
    ///
    /// Unit: rooms per minute. Default: 6000. Range: 0 to 1000000.
    pub rate_rooms_per_user: u32,

    /// Errors in a row after which a chat connection is closed with 4008; zero for never.
    ///
    /// A client that only makes mistakes is broken or hostile, and answering it costs work.
    ///
    /// Unit: errors. Default: 10. Range: 0 to 1000000.
    pub max_errors: u32,

    /// Whether the program serves its first page on `/`, and the JavaScript client on `/client.js`.
    ///
    /// A library's server has the [pages](crate::Builder::page) that it is given, whatever
    /// this says.
    ///
    /// Default: on. Range: on or off.
    pub page: FirstPage,

    /// Whether clients of `/ws` may come without a WebSocket, where a network lets none through:
    /// text goes down as server-sent events and up in posts.
    ///
    /// Default: true. Range: true or false.
    pub event_streams: bool,

    /// Whether to serve `/echo`, which returns every message unchanged. For conformance suites and
    /// load tests; off by default, because anyone can use it.
    ///
    /// Default: false. Range: true or false.
    pub echo: bool,

    /// Whether clients of `/ws` may send to all other connections of `/ws`.
    ///
    /// Off by default, because one client could then make work for all.
    ///
    /// Default: false. Range: true or false.
    pub broadcast: bool,

    /// Your backend, which is asked with an HTTP POST before a client connects, joins or publishes;
    /// empty for nobody. See `docs/hooks.md`. Needs the cargo feature `hooks`.
    ///
    /// Default: empty. Range: an http or https URL without a user name, or empty.
    pub hook_url: String,

    /// What the backend is asked about, if [`hook_url`](Config::hook_url) is set.
    ///
    /// Default: connect,join,publish. Range: connect, join or publish.
    pub hooks: Vec<String>,

    /// Time the backend has for its answer, the wait for a thread included.
    ///
    /// The client that asked waits so long; nobody else does.
    ///
    /// Unit: seconds. Default: 3. Range: 0.001 to 60.
    pub hook_timeout: Duration,

    /// What a client gets when the backend gives no proper answer in time: `closed` refuses,
    /// `open` allows.
    ///
    /// Default: closed. Range: closed or open.
    pub hook_fail: HookFail,

    /// Secret with which requests to [`hook_url`](Config::hook_url) are signed, so that the backend
    /// knows who asks. Empty signs nothing.
    ///
    /// Default: empty. Range: 16 to 256 printable ASCII characters, or empty.
    pub hook_secret: Secret,

    /// Threads that ask the backend: so many requests are under way at once.
    ///
    /// Unit: threads. Default: 8. Range: 1 to 256.
    pub hook_threads: usize,

    /// Requests that may wait for one of these threads. Beyond it
    /// [`hook_fail`](Config::hook_fail) decides at once.
    ///
    /// Unit: requests. Default: 1000. Range: 1 to 1000000.
    pub hook_queue: usize,

    /// Where events are sent, in batches, with an HTTP POST; empty for nowhere. See
    /// `docs/hooks.md`. Needs the cargo feature `hooks`.
    ///
    /// Default: empty. Range: an http or https URL without a user name, or empty.
    pub events_url: String,

    /// Which events are sent, if [`events_url`](Config::events_url) is set.
    ///
    /// Default: connected,disconnected,joined,left,room_empty. Range: connected, disconnected,
    /// joined, left or room_empty.
    pub events: Vec<String>,

    /// Secret with which the batches of events are signed. Empty signs nothing.
    ///
    /// Default: empty. Range: 16 to 256 printable ASCII characters, or empty.
    pub events_secret: Secret,

    /// Events that may wait to be sent. Beyond it they are dropped; the next batch says how many.
    ///
    /// Unit: events. Default: 10000. Range: 1 to 1000000.
    pub events_queue: usize,

    /// Address of the admin listener, which serves the server API and the figures: as
    /// [`host`](Config::host).
    ///
    /// The loopback by default. An address that others can reach needs a key, and then `/stats` and
    /// `/metrics` need one too. A Unix socket is local, and needs no port.
    ///
    /// Default: 127.0.0.1. Range: a host name or an IP address, without port or brackets, or unix:
    /// and an absolute path.
    pub admin_host: String,

    /// TCP port of the admin listener; `0` picks a free one, which the server logs. Without a port
    /// there is no admin listener, unless [`admin_host`](Config::admin_host) is a Unix socket.
    ///
    /// Default: empty. Range: 0 to 65535, or empty.
    pub admin_port: Option<u16>,

    /// Connections to the admin listener at once, apart from all others, so that nobody outside can
    /// lock the operator out. Beyond it a canned 503.
    ///
    /// Unit: connections. Default: 64. Range: 1 to 10000.
    pub max_admin_conn: usize,

    /// The key that a program must show to use the server API. It may do everything.
    ///
    /// Better read from a file that `api_key_file` or `RUSTY_SOCKS_API_KEY_FILE` names; there is no
    /// flag for the key itself, because every user of the machine sees flags.
    ///
    /// Default: empty. Range: 16 to 256 letters, digits and -._~+/=, or empty.
    pub api_key: Secret,

    /// Further keys of the server API, each with a name, scopes and rooms.
    ///
    /// Can only be set in the file, in tables `[[api_keys]]`; there is no variable, no flag and no
    /// row in the table of keys.
    pub api_keys: Vec<ApiKey>,

    /// Largest body of a request to the server API; a larger one is answered with 413. One message
    /// has at most [`max_message_bytes`](Config::max_message_bytes) all the same.
    ///
    /// Unit: bytes. Default: 1MiB. Range: 1KiB to 64MiB.
    pub api_body_bytes: usize,

    /// Time a client of the server API has to send a body.
    ///
    /// Unit: seconds. Default: 10. Range: 0.001 to 86400.
    pub api_body_timeout: Duration,

    /// Bodies of requests to the server API that are read at once; beyond it a 503. Multiplied by
    /// [`api_body_bytes`](Config::api_body_bytes), the memory that they can take.
    ///
    /// Unit: bodies. Default: 16. Range: 1 to 10000.
    pub max_api_bodies: usize,

    /// Whether the program serves its dashboard on `/dashboard` of the admin listener.
    ///
    /// A library's server has the [pages](crate::Builder::admin_page_with) that it is given,
    /// whatever this says.
    ///
    /// Default: on. Range: on or off.
    pub dashboard: Dashboard,

    /// Viewers on the admin listener that are shown the figures once a second
    /// ([`AdminStep::Live`](crate::AdminStep::Live)), such as dashboards that are open. Further
    /// ones are closed with 1013, and so are those who come when three quarters of
    /// [`max_admin_conn`](Config::max_admin_conn) are in use.
    ///
    /// Unit: viewers. Default: 16. Range: 0 to 10000.
    pub max_live_viewers: usize,

    /// Who may read `/metrics`: clients of the admin listener alone, or also those of the main
    /// port, as they may read `/stats`.
    ///
    /// Default: admin. Range: admin or public.
    pub metrics: MetricsAccess,

    /// Certificate chain of the server, its own certificate first. With it the server speaks TLS
    /// 1.2 and 1.3, and nothing else, on its port. Needs the cargo feature `tls`.
    ///
    /// The file is read again every 10 seconds; new connections get a changed certificate.
    ///
    /// Default: empty. Range: the path of a PEM file, or empty.
    pub tls_cert: String,

    /// Private key of that certificate, without a passphrase.
    ///
    /// Default: empty. Range: the path of a PEM file, or empty.
    pub tls_key: String,

    /// Authorities for certificates of clients. With it each client must show a certificate that
    /// one of them has signed.
    ///
    /// Default: empty. Range: the path of a PEM file, or empty.
    pub tls_client_ca: String,

    /// Further certificates, for other names. A client gets the first one that is for the name it
    /// asks for, or else [`tls_cert`](Config::tls_cert), or else the first of all.
    ///
    /// In the file they are tables: `[[tls]]` with `cert` and `key`. They have no variable and no
    /// flag. At most 100. They need the cargo feature `tls`.
    pub tls: Vec<TlsPair>,

    /// Whether clients must say who they are, with a token (a JWT, RFC 7519): never, if they like,
    /// or always. A bad token is refused in either case. Anything but never needs the cargo feature
    /// `identity`.
    ///
    /// Under `required`, what no token and no [rule](RoomRule::join) grants is denied.
    ///
    /// Default: off. Range: off or optional or required.
    pub identity: IdentityMode,

    /// The secret of tokens signed with HS256.
    ///
    /// Default: empty. Range: 32 to 4096 bytes, or empty.
    pub token_hmac_secret: Secret,

    /// The secret before that one, which is good until the tokens signed with it have ended.
    ///
    /// Default: empty. Range: 32 to 4096 bytes, or empty.
    pub token_hmac_secret_previous: Secret,

    /// Public keys of tokens signed with RS256, ES256 or EdDSA, in PEM: one, or several one after
    /// the other. Not shown, like a secret, because it is long.
    ///
    /// Default: empty. Range: PEM that begins with -----BEGIN, or empty.
    pub token_public_key: Secret,

    /// Address of a JWKS (RFC 7517), from which public keys are fetched: at the start, every ten
    /// minutes, and at most every 30 seconds for a key that is not known.
    ///
    /// Default: empty. Range: an https URL, or an http one on the loopback, or empty.
    pub token_jwks_url: String,

    /// Audiences (claim `aud`), of which a token must name one; empty for any.
    ///
    /// Set it wherever the issuer makes tokens for others too.
    ///
    /// Default: empty. Range: texts without control characters.
    pub token_audience: Vec<String>,

    /// The issuer (claim `iss`) that a token must name; empty for any.
    ///
    /// Default: empty. Range: a text without control characters, or empty.
    pub token_issuer: String,

    /// Name of a cookie that may hold the token; empty for none. Cookies come with a page that the
    /// user did not write, so [`allowed_origins`](Config::allowed_origins) must not be `*` then.
    ///
    /// Default: empty. Range: the name of a cookie, or empty.
    pub token_cookie: String,

    /// Whether the token may be in the query of the address, as `?token=`. Off by default, because
    /// addresses are logged.
    ///
    /// Default: false. Range: true or false.
    pub token_in_query: bool,

    /// Time a client has to send its token in a frame, where one is required.
    ///
    /// Unit: seconds. Default: 10. Range: 0.001 to 86400.
    pub auth_timeout: Duration,

    /// Time after the end of its token in which a client may still send a new one. Then it is
    /// closed with 4203.
    ///
    /// Unit: seconds. Default: 25. Range: 0 to 86400.
    pub token_grace: Duration,

    /// Which log lines are written, in the syntax of `RUST_LOG` without its `/regex` part: a
    /// level, or `target=level`, or several with commas between. `RUST_LOG` itself counts only
    /// if this key is not set.
    ///
    /// Default: info. Range: off, error, warn, info, debug or trace, or target=level, comma
    /// separated.
    pub log: String,

    /// Format of log lines: text for people, or one JSON object a line for collectors.
    ///
    /// Default: text. Range: text or json.
    pub log_format: LogFormat,

    /// Whether a line is logged for each WebSocket connection at its end, and for each that is
    /// refused. The lines have the target `rusty_socks::access` and the level info, and say what
    /// they say in fields: who, for how long, how many bytes and messages, and why it ended.
    ///
    /// Default: false. Range: true or false.
    pub access_log: bool,
}
