//! One room on a node, and how far it is brought.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    hub::{
        mirror::{Kept, remote::ShownAs},
        names::RoomName,
        room::Room,
    },
    store::{Epoch, Position},
};

/// Messages of one room that wait until it is open, and their bytes. Beyond it the room is opened
/// again.
pub(super) const HELD_MAX: usize = 4096;
pub(super) const HELD_BYTES_MAX: usize = 16 << 20;

/// A room on this node.
pub(super) struct MirroredRoom {
    pub(super) stage: Stage,
    pub(super) room: Option<Arc<Room>>,
    pub(super) channel: Bytes,
    /// Whether it is made if it does not exist.
    pub(super) may_make: bool,
    /// The bringings that wait for it.
    pub(super) waiting: Vec<u64>,
    /// Messages that came before it was open.
    pub(super) held: VecDeque<Bytes>,
    pub(super) held_bytes: usize,
    /// Some of them found no space.
    pub(super) has_missed: bool,
    /// The epoch of the message for which it is being opened again.
    pub(super) doubted: Option<Epoch>,
    /// Why it is not open though Redis has answered.
    pub(super) awaited: Awaited,
    /// Whether it is about to look again whether it has to wait for another room.
    pub(super) is_due: bool,
    /// The rooms that wait for it.
    pub(super) waiting_rooms: Vec<RoomName>,
    /// An epoch that it had before. Messages of it are of the past.
    pub(super) past: Option<Epoch>,
    /// The version of its presence.
    pub(super) version: u64,
    /// Since when Redis refuses to open it.
    pub(super) refused_since_ms: Option<u64>,
    pub(super) vacant_since_ms: Option<u64>,
    pub(super) renewed_ms: u64,
}

impl MirroredRoom {
    /// How long Redis has refused to open it.
    pub(super) fn refused_ms(&self, now_ms: u64) -> u64 {
        self.refused_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for the link.
    Lost,
    Subscribing,
    /// Waits for the answer of Redis, or for another room.
    Opening,
    Open,
    /// Redis has refused to open it, at this time. It is asked again, because those who are in it
    /// hear nothing until it agrees.
    Refused(u64),
}

/// What a room waits for that is not open.
pub(super) enum Awaited {
    /// For the answer of Redis.
    Nothing,
    /// With what Redis has said of it, for another room.
    ToTakeIn(Opened, AwaitedRoom),
    /// With a message that came to it, for another room.
    ToDeliver(AwaitedRoom),
}

/// A room that has to come up to a message first.
pub(super) struct AwaitedRoom {
    pub(super) name: RoomName,
    /// Whether Redis was asked for it since the message was numbered. An answer that was on its way
    /// before may end ahead of the message.
    pub(super) is_asked: bool,
}

impl Awaited {
    pub(super) fn room(&self) -> Option<&RoomName> {
        match self {
            Awaited::Nothing => None,
            Awaited::ToTakeIn(_, room) | Awaited::ToDeliver(room) => Some(&room.name),
        }
    }
}

/// What an open room is, as Redis says.
pub(super) struct Opened {
    pub(super) position: Position,
    pub(super) elder: Vec<(Epoch, u64)>,
    pub(super) version: u64,
    pub(super) kept: VecDeque<KeptAt>,
    pub(super) members: Vec<(Uuid, ShownAs)>,
    /// Those that this node has shown, or whose sessions it has, with the fences of what is shown.
    pub(super) ours: Vec<(Uuid, u64)>,
}

/// A message that is kept.
pub(super) struct KeptAt {
    pub(super) kept: Kept,
    /// All its rooms, if there are several.
    pub(super) others: Vec<Place>,
}

/// A room, and the number of a message there.
pub(super) type Place = (RoomName, Epoch, u64);
