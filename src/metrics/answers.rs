//! Parts of what is answered about the server.

use serde::Serialize;

/// The answer of `/health`.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    /// `ok` or `draining`.
    pub(crate) status: &'static str,
    pub(crate) active_connections: usize,
    pub(crate) max_connections: usize,
    pub(crate) queued: usize,
    pub(crate) uptime_s: f64,
}

/// The answer of `/ready`.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    /// Why not: `draining`, `full` or `engine`.
    pub(crate) reasons: Vec<&'static str>,
    /// What is worse than it should be though clients are served: `late_turns`, or `engine` where
    /// some of several shards are away.
    pub(crate) degraded: Vec<&'static str>,
    /// Why the engine cannot be reached, or which shards of it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) engine: Option<String>,
}

/// One worker's part of a [`Snapshot`](super::Snapshot).
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Open sockets of this worker.
    pub sockets: usize,
    /// Letters from other threads that wait for this worker.
    pub mailbox: usize,
    /// Letters refused because this worker's mailbox was full.
    pub mailbox_refused: usize,
    /// Turns of this worker.
    pub turns: u64,
    /// Messages received by this worker.
    pub messages_in: u64,
    /// Messages that this worker queued for clients.
    pub messages_out: u64,
    /// Bytes received by this worker.
    pub bytes_in: u64,
    /// Bytes written by this worker.
    pub bytes_out: u64,
}

/// One shard's part of a [`Snapshot`](super::Snapshot): one of the Redises that servers share.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// Its number in the list, from 1 on.
    pub shard: usize,
    /// Where it is: the host and port, the path of the socket, or the primary and its Sentinels.
    pub redis: String,
    /// Whether it is reached, and takes everything.
    pub up: bool,
    /// Questions that wait for it.
    pub waiting: usize,
}
