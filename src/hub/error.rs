//! The hub's error type.

use crate::{identity::Permissions, limits::owner::LimitOf};

/// The reason why the server did not do what a handler or a program asked. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomError {
    /// The connection is already a member of the room.
    AlreadyMember,
    /// The connection is not a member of the room.
    NotMember,
    /// No room of this name exists.
    NoSuchRoom,
    /// The server has `max_rooms` rooms, and each of them has members.
    TooManyRooms,
    /// The client makes more rooms than `rate_rooms`, all clients of its user more than
    /// `rate_rooms_per_user`, or all clients at its address more than `rate_rooms_per_ip`.
    RoomsTooFast {
        /// Whose limit is reached.
        of: LimitOf,
        /// Milliseconds until it may make this one.
        retry_after_ms: u64,
    },
    /// The connection is in `max_rooms_per_conn` rooms.
    TooManyMemberships,
    /// The server has more rooms that match than one subscription may look at.
    PatternTooWide,
    /// A worker's mailbox is full. Nothing was stored, and nobody joined. Try again later.
    Overloaded,
    /// What several nodes share cannot be reached (`engine`). Try again later. If it was lost while
    /// it was asked, a message may have been stored: give it an id, and repeat it.
    EngineAway,
    /// Memory is short (`memory_max`). Nothing was stored, and nobody joined. Try again later.
    ShortOfMemory,
    /// The client reads slower than it is sent direct messages, and too many wait for it already.
    /// Try again later.
    ClientBehind,
    /// No client has this id, or its session has ended.
    NoSuchClient,
    /// A room is named twice.
    SameRoomTwice,
    /// Two rooms of one message are in different shards (`redis_url`), which have nothing in common
    /// that could number it: the places of two such rooms in the message.
    RoomsApart {
        /// The place of one of them.
        first: usize,
        /// The place of the other one.
        second: usize,
    },
    /// The client is away, and its inbox is full (`inbox`, `inbox_bytes`).
    InboxFull,
    /// No session has this token: the token is wrong, or the session has ended.
    NoSuchSession,
    /// The connection has already used the session that it began with, so it cannot resume another
    /// one.
    NotFresh,
    /// Another connection has taken the session over.
    TakenOver,
    /// The client has no permission for this.
    Forbidden(Permissions),
    /// The client has a user, and the new identity is of another one.
    OtherUser,
    /// The identity was revoked.
    Revoked,
    /// The user has `max_conn_per_user` connections.
    TooManyConnections,
}

impl std::fmt::Display for RoomError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RoomError::AlreadyMember => "already a member of this room",
            RoomError::NotMember => "not a member of this room",
            RoomError::NoSuchRoom => "there is no such room",
            RoomError::TooManyRooms => "the server has as many rooms as it may have",
            RoomError::RoomsTooFast { of: LimitOf::Client, .. } => {
                "the client makes more rooms than its rate allows"
            }
            RoomError::RoomsTooFast { of: LimitOf::Address, .. } => {
                "this address makes more rooms than the rate of an address allows"
            }
            RoomError::RoomsTooFast { of: LimitOf::User, .. } => {
                "this user makes more rooms than the rate of a user allows"
            }
            RoomError::TooManyMemberships => "this connection is in as many rooms as it may be",
            RoomError::PatternTooWide => {
                "the pattern matches more rooms than one subscription may look at; use a longer one"
            }
            RoomError::Overloaded => "the server is behind; try again after a moment",
            RoomError::EngineAway => {
                "the server cannot reach what its nodes share; try again after a moment"
            }
            RoomError::ShortOfMemory => "the server is short of memory; try again after a moment",
            RoomError::ClientBehind => {
                "the client is behind with its direct messages; try again after a moment"
            }
            RoomError::NoSuchClient => "there is no such client",
            RoomError::SameRoomTwice => "one room is named twice",
            RoomError::RoomsApart { first, second } => {
                return write!(
                    f,
                    "rooms {} and {} of this message are in different shards; rooms with the same \
                     {{tag}} in their names are in one",
                    first + 1,
                    second + 1,
                );
            }
            RoomError::InboxFull => "the client is away, and its inbox is full",
            RoomError::NoSuchSession => "there is no such session, or it has ended",
            RoomError::NotFresh => {
                "a session can be resumed only by the first frame of a connection"
            }
            RoomError::TakenOver => "another connection has taken this session over",
            RoomError::Forbidden(missing) => {
                return write!(f, "this client has no permission for this: {missing}");
            }
            RoomError::OtherUser => "a client keeps its user; connect anew for another one",
            RoomError::Revoked => "the token was revoked",
            RoomError::TooManyConnections => "this user has as many connections as a user may have",
        })
    }
}

impl std::error::Error for RoomError {}
