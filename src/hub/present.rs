//! The members of a room, as they are asked for and listed.

use std::sync::Arc;

use uuid::Uuid;

/// The most members that a [`Presence`] lists.
pub(super) const PRESENCE_MEMBERS_MAX: usize = 1000;

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The client's id.
    pub client_id: Uuid,
    /// The client's name in presence, if it set one.
    pub name: Option<Arc<str>>,
    /// The client's user, if it has one.
    pub user: Option<Arc<str>>,
}

/// The clients in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The members, at most 1,000 of them, in the order of their ids.
    pub members: Vec<Present>,
    /// The number of all members.
    pub count: usize,
}

/// A page of a room's members, in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersPage {
    /// The id after which the page begins; `None` for the first page.
    pub after: Option<Uuid>,
    /// The most members on the page; values above 1,000 count as 1,000.
    pub limit: usize,
}

impl MembersPage {
    /// The first page, with as many members as one answer may have.
    pub const FIRST: MembersPage = MembersPage { after: None, limit: PRESENCE_MEMBERS_MAX };
}
