//! Notices from the server to clients, before a handler formats them.

use uuid::Uuid;

use super::{
    event::ServerEvent,
    names::{RoomName, RoomPattern},
    present::Present,
};
use crate::{
    config::Overflow,
    identity::{Identity, Permissions},
    store::Position,
    ws::frame::PreparedFrame,
};

/// A notice from the server to a client. [`Handler::notice`] formats it in the handler's protocol.
///
/// [`Handler::notice`]: crate::Handler::notice
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Another client joined the room. Sent to clients that watch the room.
    Joined {
        /// The room.
        room: &'a RoomName,
        /// The client that joined.
        client_id: Uuid,
        /// The client's name in presence, if it set one.
        name: Option<&'a str>,
        /// The client's user, if it has one.
        user: Option<&'a str>,
    },
    /// Another client left the room. Sent to clients that watch the room. About the client itself:
    /// it may no longer be in the room, since the rules have changed, and has left it.
    Left {
        /// The room.
        room: &'a RoomName,
        /// The client that left.
        client_id: Uuid,
        /// The client's name in presence, if it had set one.
        name: Option<&'a str>,
        /// The client's user, if it has one.
        user: Option<&'a str>,
    },
    /// Several clients joined or left the room within a short time; each is named once. Sent to the
    /// clients that watch the room, in place of [`Notice::Joined`] and [`Notice::Left`], if many
    /// join and leave.
    PresenceChanged {
        /// The room.
        room: &'a RoomName,
        /// The clients that are in the room now and were not before. The receiving client may be
        /// among them.
        joined: &'a [Present],
        /// The clients that were in the room before and are not now.
        left: &'a [Present],
    },
    /// The client was too slow, and did not get messages `from..=to` of the room.
    Gap {
        /// The room.
        room: &'a RoomName,
        /// The first message that was not delivered.
        from: u64,
        /// The last message that was not delivered.
        to: u64,
    },
    /// The client was too slow, and did not get all presence notices of the room.
    PresenceGap {
        /// The room.
        room: &'a RoomName,
    },
    /// The room goes on at another position, because the engine behind it has failed over and may
    /// have lost its newest messages. The position replaces the client's: its `seq` may be smaller
    /// than that of messages that were delivered, and those numbers are given again. Sent in order
    /// with the room's messages, to all members. Only with an engine that many servers share.
    Epoch {
        /// The room.
        room: &'a RoomName,
        /// The room's position. The next message is `seq`+1.
        position: Position,
    },
    /// A new room matches a pattern of the client's, and the client is now a member.
    Matched {
        /// The pattern.
        pattern: &'a RoomPattern,
        /// The room.
        room: &'a RoomName,
        /// The room's position at the join. Messages after this position are delivered.
        position: Position,
        /// The room's policy for a member that is too slow.
        overflow: Overflow,
    },
    /// A new room matches a pattern of the client's, but the client is already in
    /// `max_rooms_per_conn` rooms and did not join.
    Unmatched {
        /// The pattern.
        pattern: &'a RoomPattern,
        /// The room.
        room: &'a RoomName,
    },
}

/// What the hub asks of a handler: to format notices, to decide permissions, and to hear of events.
/// Usable from any thread.
pub(crate) trait NoticeFormatter: Send + Sync {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame>;

    fn permissions(&self, identity: Option<&Identity>, room: Option<&RoomName>) -> Permissions {
        let _ = (identity, room);
        Permissions::all()
    }

    /// Told of what happens to the handler's sessions and their rooms.
    fn observe(&self, _: &ServerEvent<'_>) {}
}
