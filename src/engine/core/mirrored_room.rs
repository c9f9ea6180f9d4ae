//! One room on a node, and how far it is brought.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{hub::room::Room, store::Epoch};

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
    /// An epoch that it had before. Messages of it are of the past.
    pub(super) past: Option<Epoch>,
    /// The version of its presence.
    pub(super) version: u64,
    pub(super) vacant_since_ms: Option<u64>,
    pub(super) renewed_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for the link.
    Lost,
    Subscribing,
    Opening,
    Open,
    /// Redis has refused to open it, at this time. It is asked again, because those who are in it
    /// hear nothing until it agrees.
    Refused(u64),
}
