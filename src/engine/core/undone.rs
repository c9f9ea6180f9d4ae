//! The orders that Redis refused, or that were lost with the link.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::hub::names::RoomName;

/// What is to be told again. There is at most one entry for each order that was under way, or for
/// each session.
#[derive(Default)]
pub(super) struct Undone {
    /// Clients that are not in a room any more, with their fences.
    pub(super) hidden: BTreeMap<(RoomName, Uuid), u64>,
    /// Sessions that have ended, with their fences.
    pub(super) ended: BTreeMap<Uuid, u64>,
    /// Sessions of this node that were not written down as they are.
    pub(super) unwritten: BTreeSet<Uuid>,
    /// Sessions that were asked for from other nodes in vain, and may be this node's.
    pub(super) returned: BTreeSet<Uuid>,
}
