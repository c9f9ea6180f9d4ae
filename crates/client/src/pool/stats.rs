//! What can be seen of a pool.

use crate::error::Error;

/// A pool at one instant.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Its sessions, in the order in which they were made.
    pub sessions: Vec<SessionStats>,
    /// Publishes that are unanswered.
    pub unanswered: usize,
    /// The bytes of their contents.
    pub unanswered_bytes: usize,
}

/// One session of a pool.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionStats {
    /// The server that it is at, or tries to reach.
    pub server: String,
    /// Whether it takes publishes.
    pub health: SessionHealth,
    /// Why it does not, or did not the last time.
    pub last_error: Option<Error>,
    /// Publishes that it has, or that wait for it.
    pub unanswered: usize,
    /// Rooms that it is in.
    pub rooms: usize,
    /// Publishes that the server has confirmed.
    pub published: u64,
    /// Publishes that ended with an error.
    pub failed: u64,
    /// How often it had a connection again.
    pub reconnects: u64,
}

/// Whether a session of a pool takes publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionHealth {
    /// It is connected.
    Connected,
    /// It has no connection, and is trying to get one.
    Disconnected,
    /// It has ended, and another one will take its place.
    Over,
}
