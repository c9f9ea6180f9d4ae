//! One session of a node, as far as Redis knows it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::hub::{mirror::remote::ShownAs, names::RoomName, session::Session};

/// A session of this node, as far as Redis knows it.
pub(super) struct KeptSession {
    pub(super) session: Arc<Session>,
    pub(super) fence: u64,
    /// The rooms in which it is shown.
    pub(super) rooms: BTreeSet<RoomName>,
    pub(super) shown: ShownAs,
    /// What was written last.
    pub(super) written: Option<Bytes>,
    pub(super) renewed_ms: u64,
}
