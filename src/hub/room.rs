//! One room: its history, its roster, and how many members each worker has.

use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{names::RoomName, roster::Roster};
use crate::{
    config::Overflow,
    store::{History, HistoryBounds},
};

/// Names one life of a room in letters: a room that went and came back has another key.
pub(crate) type RoomKey = u64;

/// One room. Shared by the directory and by every worker that has members in it.
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) name: RoomName,
    pub(crate) kind: RoomKind,
    /// What happens to a member that is too slow.
    pub(crate) overflow: Overflow,
    pub(crate) bounds: HistoryBounds,
    /// It is the default room: there from the start, and for as long as the server is.
    pub(crate) is_default: bool,
    /// Held for as long as it takes to number, store and post one message; never across a system
    /// call.
    pub(crate) state: Mutex<RoomState>,
}

/// What is sent to a room's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomKind {
    /// What is published.
    Messages,
    /// Notices of who comes to the room of this name and who goes. They are not numbered for
    /// clients, so a client that misses some is told only that it did.
    Presence,
}

/// What the lock of a [`Room`] protects.
pub(crate) struct RoomState {
    pub(crate) history: History,
    /// How many members each worker has.
    pub(crate) members: Box<[u32]>,
    /// Every session in this room, whether it has a connection or is away.
    pub(super) roster: Roster,
    /// The room that carries presence notices to the watchers; made for the first of them.
    pub(super) channel: Option<Arc<Room>>,
    /// Where it stands in the list of rooms that nobody is in, if nobody is.
    pub(super) vacancy: Option<u64>,
    pub(super) owner: Owner,
    /// The directory has dropped this room; code that still holds it must look the name up again.
    pub(super) gone: bool,
}

/// Whose a room is, so that one session leaves only so many behind.
pub(super) enum Owner {
    /// Nobody was in it yet.
    Nobody,
    /// Nobody but this client was in it; with `is_left_behind` it stands in its session's list.
    One {
        client_id: Uuid,
        is_left_behind: bool,
    },
    Many,
}

impl RoomState {
    /// State of a room that nobody is in, for `workers` workers.
    pub(super) fn new(workers: usize) -> RoomState {
        RoomState {
            history: History::new(),
            members: vec![0; workers].into(),
            roster: Roster::default(),
            channel: None,
            vacancy: None,
            owner: Owner::Nobody,
            gone: false,
        }
    }

    /// Whether nobody would ever see what is published here.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// How many are in it whom watchers do not know of yet.
    #[cfg(test)]
    pub(crate) fn unshown(&self) -> usize {
        self.roster.provisional().len()
    }

    /// Whether nobody is in it, connected or away.
    pub(super) fn is_vacant(&self) -> bool {
        self.roster.is_empty() && self.members_total() == 0
    }

    /// Notes that a client comes.
    pub(super) fn note_owner(&mut self, client: Uuid) {
        match self.owner {
            Owner::Nobody => {
                self.owner = Owner::One { client_id: client, is_left_behind: false };
            }
            Owner::One { client_id, .. } if client_id != client => self.owner = Owner::Many,
            Owner::One { .. } | Owner::Many => {}
        }
    }

    pub(crate) fn members_total(&self) -> usize {
        self.members.iter().map(|count| *count as usize).sum()
    }
}

/// Lists the workers that have members, each with the `bytes` of the letter that it is sent.
pub(super) fn workers_with_members(
    members: &[u32],
    bytes: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    let with_members = members.iter().enumerate().filter(|(_, count)| **count > 0);
    with_members.map(move |(worker, _)| (worker, bytes))
}
