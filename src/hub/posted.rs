//! What the client of an event stream has posted, on its way to the stream.

use super::{conn_id::ConnId, stream_key::StreamKey};

/// A whole post.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) key: StreamKey,
    /// Which post of its stream it is, from 1.
    pub(crate) nth: u64,
    /// What it says, in frames of a client.
    pub(crate) frames: Vec<u8>,
    /// The connection on which it came.
    pub(crate) from: ConnId,
}

/// Which post, of which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PostName {
    pub(crate) stream: ConnId,
    pub(crate) nth: u64,
}

/// What its stream says to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostOutcome {
    /// All of it is handled.
    Handled,
    /// It is not the next one, or the one before is being handled.
    OutOfOrder,
    /// There is no such stream.
    Unknown,
}

impl Posted {
    pub(crate) fn name(&self) -> PostName {
        PostName { stream: self.key.conn, nth: self.nth }
    }
}
