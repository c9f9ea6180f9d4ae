//! One room: its history, its roster, and how many members each worker has.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use uuid::Uuid;

use super::names::RoomName;
use crate::{
    config::Overflow,
    store::{History, HistoryBounds},
};

/// Identifies a room in letters. A room that was removed and made again has another key.
pub(crate) type RoomKey = u64;

/// One room. Shared by the directory and by every worker that has members in it.
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) name: RoomName,
    pub(crate) kind: RoomKind,
    /// The policy for a member that is too slow.
    pub(crate) overflow: Overflow,
    pub(crate) bounds: HistoryBounds,
    /// Held only to number, store and post one message; never across a system call.
    pub(crate) state: Mutex<RoomState>,
}

/// The kind of messages that a room carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomKind {
    /// Published messages.
    Messages,
    /// Presence notices of the room of this name. Clients see no numbers in them, so the gap notice
    /// of a client that missed some has none.
    Presence,
}

/// The state that the lock of a [`Room`] protects.
pub(crate) struct RoomState {
    pub(crate) history: History,
    /// Number of members on each worker.
    pub(crate) members: Box<[u32]>,
    /// Every session in this room, by client id, attached or away.
    pub(super) roster: HashMap<Uuid, RosterEntry>,
    /// Number of roster entries that are not shown to watchers yet.
    pub(crate) unshown: usize,
    /// The room that carries presence notices to the watchers; made for the first watcher.
    pub(super) channel: Option<Arc<Room>>,
    /// Whether the directory has dropped this room. Code that still holds the room must look its
    /// name up again.
    pub(super) gone: bool,
}

/// A session on a room's roster.
pub(super) struct RosterEntry {
    pub(super) name: Option<Arc<str>>,
    /// Whether watchers have been notified of the session.
    pub(super) shown: bool,
}

impl RoomState {
    /// Makes the state of an empty room, for `workers` workers.
    pub(super) fn new(workers: usize) -> RoomState {
        RoomState {
            history: History::new(),
            members: vec![0; workers].into(),
            roster: HashMap::new(),
            unshown: 0,
            channel: None,
            gone: false,
        }
    }

    /// Whether the room was dropped, so that a message published here would reach nobody.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn members_total(&self) -> usize {
        self.members.iter().map(|count| *count as usize).sum()
    }
}

/// Lists the workers that have members, each paired with `bytes`, the size of its letter.
pub(super) fn workers_with_members(
    members: &[u32],
    bytes: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    let with_members = members.iter().enumerate().filter(|(_, count)| **count > 0);
    with_members.map(move |(worker, _)| (worker, bytes))
}
