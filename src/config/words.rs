//! The settings whose value is one of a few words.

/// Whether clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityMode {
    /// Nobody does, and no token is looked at.
    Off,
    /// A client with a token has a user; one without is anonymous.
    Optional,
    /// A client without a token is refused.
    Required,
}

/// Who may do something in a room, where a rule says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone who is connected.
    Everyone,
    /// Those with a user, whatever their token grants.
    Users,
    /// Those whose token grants it.
    Token,
}

/// How messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// No compression, whatever the client offers.
    Off,
    /// Each message is compressed by itself: nothing is kept for a connection, and a message to a
    /// room is compressed once for all its members.
    Shared,
    /// Messages are compressed with the context of earlier ones, if the client agrees: a better
    /// ratio, at the cost of some hundred KiB a connection and one compression for each delivery.
    Dedicated,
}

/// The policy for a client that is too slow for the messages of its rooms.
///
/// Under `Gap` and `Latest` the connection stays open, so both need a handler that formats the
/// notice ([`Handler::notice`](crate::Handler::notice)); without one, the policy is `Close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Closes the connection with 4102.
    Close,
    /// Skips messages, and tells the client which, so that it can read them from the history.
    Gap,
    /// Delivers only the newest of the waiting messages, and tells the client which it missed: for
    /// rooms whose messages are states, where an old one is worth nothing.
    Latest,
}

/// Whether the program has a page for those who open its address in a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPage {
    /// There is one on `/`, and the JavaScript client on `/client.js`.
    On,
    /// Both paths are a 404.
    Off,
}

/// Whether the program has a dashboard on its admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dashboard {
    /// There is one on `/dashboard`.
    On,
    /// Its paths are a 404.
    Off,
}

/// What a client gets when the backend of the [hooks](crate::Config::hook_url) gives no proper
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFail {
    /// The client is refused.
    Closed,
    /// The client is allowed what it asked for.
    Open,
}

/// Where the state that clients share is kept: the order of rooms, their histories and members, and
/// sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// In the memory of this server, which is alone.
    Memory,
    /// In Redis: servers with the same [`Config::redis_url`](crate::Config::redis_url) and
    /// [`Config::redis_prefix`](crate::Config::redis_prefix) are to their clients as one.
    Redis,
}

/// Where `/metrics` is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsAccess {
    /// On the admin listener alone.
    Admin,
    /// On the main port too.
    Public,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people: time, level, target and message in columns.
    Text,
    /// One JSON object a line for collectors, with `ts`, `level`, `target` and `message`.
    Json,
}
