//! Why the hub refuses.

/// Why the server did not do what a handler or a program asked. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomError {
    /// The connection is in that room already.
    AlreadyMember,
    /// The connection is not in that room.
    NotMember,
    /// No room of that name exists.
    NoSuchRoom,
    /// The server holds as many rooms as it may (`max_rooms`), and somebody is in each.
    TooManyRooms,
    /// The connection is in as many rooms as it may be (`max_rooms_per_conn`).
    TooManyMemberships,
    /// A worker's mailbox is full: nothing was stored, and nobody joined. Try again after a moment.
    Overloaded,
    /// There is no such client, or it has gone for good.
    NoSuchClient,
    /// One room was named twice.
    SameRoomTwice,
    /// The client is away, and as many messages as may be wait for it.
    InboxFull,
    /// There is no such session: the token is wrong, or its time has run out.
    NoSuchSession,
    /// This connection has used the session that it began with, so it takes up no other.
    NotFresh,
    /// Another connection has taken this session over.
    TakenOver,
}

impl std::fmt::Display for RoomError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RoomError::AlreadyMember => "already a member of this room",
            RoomError::NotMember => "not a member of this room",
            RoomError::NoSuchRoom => "there is no such room",
            RoomError::TooManyRooms => "the server has as many rooms as it may have",
            RoomError::TooManyMemberships => "this connection is in as many rooms as it may be",
            RoomError::Overloaded => "the server is behind; try again after a moment",
            RoomError::NoSuchClient => "there is no such client",
            RoomError::SameRoomTwice => "one room is named twice",
            RoomError::InboxFull => "the client is away, and its inbox is full",
            RoomError::NoSuchSession => "there is no such session, or it has ended",
            RoomError::NotFresh => {
                "a session can be resumed only by the first frame of a connection"
            }
            RoomError::TakenOver => "another connection has taken this session over",
        })
    }
}

impl std::error::Error for RoomError {}
