//! A node, as it is listed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::metrics::Snapshot;

/// A node of several that are to their clients as one, or the only one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeSummary {
    /// The node's id, a UUID that is new for each start.
    pub node: String,
    /// The version of the server.
    pub version: String,
    /// Seconds since it was bound.
    pub uptime_s: f64,
    /// Whether it is shutting down.
    pub draining: bool,
    /// WebSocket connections that it serves.
    pub active_connections: usize,
    /// Sessions that it has, connected or away.
    pub sessions: usize,
    /// Rooms that it has.
    pub rooms: usize,
}

impl NodeSummary {
    /// Describes the node of this id.
    pub(crate) fn new(node: Uuid, stats: &Snapshot) -> NodeSummary {
        NodeSummary {
            node: node.to_string(),
            version: stats.version.to_owned(),
            uptime_s: stats.uptime_s,
            draining: stats.draining,
            active_connections: stats.active_connections,
            sessions: stats.sessions,
            rooms: stats.rooms,
        }
    }
}
