//! One room: its history, its roster, and how many members each worker has.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{names::RoomName, notice::NoticeFormatter, roster::Roster};
use crate::{
    config::Overflow,
    store::{Epoch, History, HistoryBounds, Position},
    ws::frame::PreparedFrame,
};

/// Identifies a room in letters. A room that was removed and made again has another key.
pub(crate) type RoomKey = u64;

/// One room. Shared by the directory and by every worker that has members in it.
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) name: RoomName,
    pub(crate) kind: RoomKind,
    /// The policy for a member that is too slow. Each member is told of it, so it stays.
    pub(crate) overflow: Overflow,
    /// Whether this is the default room, which exists as long as the server.
    pub(crate) is_default: bool,
    /// How often members were told of a loss or of a new epoch. Changed under the state's lock.
    pub(super) moves: AtomicU32,
    /// Held only to number, store and post one message; never across a system call.
    pub(crate) state: Mutex<RoomState>,
}

/// Where a connection joins a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// It gets the messages after this one.
    pub(crate) seq: u64,
    /// It is told of the losses and new epochs that are counted after this one.
    pub(crate) moves: u32,
}

impl Room {
    /// Where a connection joins that gets the messages after `seq`. The caller has the lock of the
    /// state.
    pub(super) fn entry_at(&self, seq: u64) -> Entry {
        Entry { seq, moves: self.moves.load(Ordering::Relaxed) }
    }

    /// Counts one more. The caller has the lock of the state.
    pub(super) fn note_move(&self) -> u32 {
        self.moves.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
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
    pub(crate) bounds: HistoryBounds,
    /// The number of the newest message that went to other rooms, too; 0 if there was none.
    pub(super) last_shared_seq: u64,
    /// Epochs before this one, which the engine still knows: the latest first, each with the
    /// number up to which its positions are good.
    pub(crate) elder: Vec<(Epoch, u64)>,
    /// Number of members on each worker.
    pub(crate) members: Box<[u32]>,
    /// Every session in this room, attached or away.
    pub(super) roster: Roster,
    /// The room that carries presence notices to the watchers; made for the first watcher.
    pub(super) channel: Option<Arc<Room>>,
    /// What words the notices to them, once there was one.
    pub(super) formatter: Option<Arc<dyn NoticeFormatter>>,
    /// The room's key in the list of rooms without members, while it is there.
    pub(super) vacancy: Option<u64>,
    pub(super) owner: Owner,
    /// Whether the room's messages come from the engine: it is a mirror of what the engine has.
    pub(super) is_live: bool,
    /// Whether the directory has dropped this room. Code that still holds the room must look its
    /// name up again.
    pub(super) gone: bool,
}

/// The client that a room belongs to, so that one session leaves a bounded number of rooms behind.
pub(super) enum Owner {
    /// No client has been in the room.
    Nobody,
    /// Only this client has been in the room. `is_left_behind` if the room is in the list of its
    /// session.
    One {
        client_id: Uuid,
        is_left_behind: bool,
    },
    Many,
}

impl RoomState {
    /// Makes the state of an empty room, for `workers` workers.
    pub(super) fn new(workers: usize, bounds: HistoryBounds) -> RoomState {
        RoomState {
            history: History::new(),
            bounds,
            last_shared_seq: 0,
            elder: Vec::new(),
            members: vec![0; workers].into(),
            roster: Roster::default(),
            channel: None,
            formatter: None,
            vacancy: None,
            owner: Owner::Nobody,
            is_live: false,
            gone: false,
        }
    }

    /// Whether the room was dropped, so that a message published here would reach nobody.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// How many are in it whom watchers do not know of yet.
    #[cfg(test)]
    pub(crate) fn unshown(&self) -> usize {
        self.roster.provisional().len()
    }

    /// Whether nobody is in it, connected or away.
    pub(crate) fn is_vacant(&self) -> bool {
        !self.roster.has_local() && self.members_total() == 0
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

    /// Whether a client has seen messages of this epoch that are not here yet: it comes from a node
    /// that has heard of them sooner.
    pub(crate) fn is_behind(&self, position: Position) -> bool {
        let here = self.history.position();
        here.epoch == position.epoch && here.seq < position.seq
    }

    /// Returns all messages after a position of this epoch or an earlier one, or `None` if they are
    /// not here or exceed `bytes_max`.
    pub(super) fn since(&self, position: Position, bytes_max: usize) -> Option<Vec<PreparedFrame>> {
        let position = self.in_this_epoch(position);
        // A mirror begins where its messages do, and the room had some before.
        let is_cut = self.is_live && position.seq < self.history.beginning().seq;
        if is_cut { None } else { self.history.since(position, bytes_max) }
    }

    /// Returns a position of an earlier epoch as one of this epoch, if it is still good.
    pub(crate) fn in_this_epoch(&self, position: Position) -> Position {
        let epoch = self.history.position().epoch;
        let is_good =
            |(elder, upto): &&(Epoch, u64)| *elder == position.epoch && position.seq <= *upto;
        match self.elder.iter().find(is_good) {
            Some(_) => Position { epoch, ..position },
            None => position,
        }
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
