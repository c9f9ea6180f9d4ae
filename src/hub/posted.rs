//! What the client of an event stream has posted.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{conn_id::ConnId, stream_key::StreamKey};

/// A whole post.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) key: StreamKey,
    /// Which post of its stream it is, from 1.
    pub(crate) nth: u64,
    /// What it says, in frames of a client.
    pub(crate) frames: Vec<u8>,
    pub(crate) from: Poster,
}

/// The connection on which a post came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Poster {
    pub(crate) node: Uuid,
    pub(crate) conn: ConnId,
}

/// Which post, of which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostName {
    pub(crate) stream: ConnId,
    pub(crate) nth: u64,
}

/// What its stream says to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PostOutcome {
    /// All of it is handled.
    Handled,
    /// It is not the next one, or the one before is being handled.
    OutOfOrder,
    /// There is no such stream.
    Unknown,
    /// There is no space for it now, or it waits for its stream to be read: its client is to ask
    /// again.
    Busy,
}

impl Posted {
    pub(crate) fn name(&self) -> PostName {
        PostName { stream: self.key.conn, nth: self.nth }
    }
}
