//! The members of a room, as they are asked for and listed.

use std::sync::Arc;

use uuid::Uuid;

/// Members that a [`Presence`] lists at most.
pub(super) const PRESENCE_MEMBERS_MAX: usize = 1000;

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub client_id: Uuid,
    /// The name that this client goes by, if it gave one.
    pub name: Option<Arc<str>>,
}

/// The clients in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The members, in the order of their ids and at most 1,000 of them.
    pub members: Vec<Present>,
    /// How many members there are.
    pub count: usize,
}

/// Which of a room's members are asked for, in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersPage {
    /// Those behind this id; without it, the first.
    pub after: Option<Uuid>,
    /// At most so many, and never more than 1,000.
    pub limit: usize,
}

impl MembersPage {
    /// The first members, as many as one answer has.
    pub const FIRST: MembersPage = MembersPage { after: None, limit: PRESENCE_MEMBERS_MAX };
}
