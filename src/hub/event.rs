//! Events: what happens to sessions and rooms, for handlers that pass it on.

use uuid::Uuid;

use super::names::RoomName;
use crate::ws::close::CloseReason;

/// Something that has happened to a session or a room. [`Handler::observe`] is told.
///
/// A session is known from its first message, or from its first second. One that ends before, or
/// that takes up an earlier session, causes no events.
///
/// [`Handler::observe`]: crate::Handler::observe
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum ServerEvent<'a> {
    /// A session is known now, or has a connection again.
    Connected {
        /// The client.
        client_id: Uuid,
        /// The client's user, if it has one.
        user: Option<&'a str>,
        /// Whether it has resumed its session. Then no `Disconnected` need have come before: its
        /// new connection may have taken the session over.
        resumed: bool,
    },
    /// A session has lost its connection.
    Disconnected {
        /// The client.
        client_id: Uuid,
        /// The client's user, if it has one.
        user: Option<&'a str>,
        /// How the connection ended.
        reason: &'a CloseReason,
    },
    /// A session has joined a room.
    Joined {
        /// The room.
        room: &'a RoomName,
        /// The client.
        client_id: Uuid,
        /// The client's name in presence, if it set one.
        name: Option<&'a str>,
        /// The client's user, if it has one.
        user: Option<&'a str>,
    },
    /// A session has left a room: it asked to, or it has ended.
    Left {
        /// The room.
        room: &'a RoomName,
        /// The client.
        client_id: Uuid,
        /// The client's name in presence, if it had set one.
        name: Option<&'a str>,
        /// The client's user, if it has one.
        user: Option<&'a str>,
    },
    /// Nobody is in a room any more, connected or away.
    RoomEmpty {
        /// The room.
        room: &'a RoomName,
    },
}
