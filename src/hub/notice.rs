//! What the server tells clients of its own accord, before a handler puts it into words.

use uuid::Uuid;

use super::{
    names::{RoomName, RoomPattern},
    present::Present,
};
use crate::{config::Overflow, store::Position, ws::frame::PreparedFrame};

/// Something that the server has to tell a client; [`Handler::notice`] says it in the handler's
/// protocol.
///
/// [`Handler::notice`]: crate::Handler::notice
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Another client is in the room now. Sent to the clients that watch the room.
    Joined {
        /// The room.
        room: &'a RoomName,
        /// The client that came.
        client_id: Uuid,
        /// The name that this client goes by, if it gave one.
        name: Option<&'a str>,
    },
    /// Another client is not in the room any more. Sent to the clients that watch the room.
    Left {
        /// The room.
        room: &'a RoomName,
        /// The client that went.
        client_id: Uuid,
        /// The name that this client went by, if it gave one.
        name: Option<&'a str>,
    },
    /// Several clients came or went within a moment; each is named once. Sent to the clients that
    /// watch the room, in place of [`Notice::Joined`] and [`Notice::Left`], where many come and go.
    PresenceChanged {
        /// The room.
        room: &'a RoomName,
        /// The clients that are in the room now and were not before. The client that is told may be
        /// among them.
        joined: &'a [Present],
        /// The clients that were in the room before and are not now.
        left: &'a [Present],
    },
    /// The client was too slow for messages `from..=to` of the room, and did not get them.
    Gap {
        /// The room.
        room: &'a RoomName,
        /// The first message that was not delivered.
        from: u64,
        /// The last message that was not delivered.
        to: u64,
    },
    /// The client was too slow for notices of who came and went.
    PresenceGap {
        /// The room.
        room: &'a RoomName,
    },
    /// A new room matches a pattern that the client subscribed to, and the client is in it.
    Matched {
        /// The pattern.
        pattern: &'a RoomPattern,
        /// The room.
        room: &'a RoomName,
        /// Messages after this position are delivered.
        position: Position,
        /// What happens to a member that is too slow.
        overflow: Overflow,
    },
    /// A new room matches a pattern that the client subscribed to, but the client is in as many
    /// rooms as it may be.
    Unmatched {
        /// The pattern.
        pattern: &'a RoomPattern,
        /// The room.
        room: &'a RoomName,
    },
}

/// Puts notices into words: a handler does. Usable from any thread.
pub(crate) trait NoticeFormatter: Send + Sync {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame>;
}
