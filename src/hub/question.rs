//! What is asked of the engine, and what it answers.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    error::RoomError,
    names::{RoomName, RoomPattern},
    session::Session,
    session_token::SessionToken,
    shards::Shards,
};
use crate::store::Position;

/// What is asked of the engine.
pub(crate) enum Question {
    /// Bring rooms to this node: those of these names, which are made if they do not exist and may
    /// be made, and those that there are of a pattern. A room with a position is brought up to
    /// there, as a client has seen it that was on a quicker node before.
    Bring {
        rooms: Vec<(RoomName, Option<Position>)>,
        may_make: bool,
        pattern: Option<RoomPattern>,
    },
    /// Bring a session to this node, with its rooms and with those of these that there are, each
    /// up to its position.
    BringSession {
        token: SessionToken,
        route: u16,
        /// The user of the client that asks, if it has one.
        user: Option<Arc<str>>,
        positions: Vec<(RoomName, Position)>,
        /// When the connection that asks began, on the clock of the hub.
        began_ms: u64,
    },
    Publish(Publish),
    Direct {
        by: By,
        to: Uuid,
        message: Bytes,
        id: Option<Uuid>,
    },
    /// To everyone of this route.
    Broadcast {
        route: u16,
        message: Bytes,
    },
    /// Tell each node, this one too.
    Announce(Bytes),
    /// Tell one node.
    Tell {
        node: Uuid,
        message: Bytes,
    },
}

/// Who publishes.
#[derive(Clone)]
pub(crate) enum By {
    Session(Arc<Session>),
    /// A publisher outside of any connection, and its name.
    Publisher(Box<str>),
}

/// A message for rooms.
pub(crate) struct Publish {
    pub(crate) by: By,
    pub(crate) rooms: Vec<RoomName>,
    /// Whether rooms that do not exist are made.
    pub(crate) may_make: bool,
    /// The message, as [`Envelope`](super::envelope::Envelope) reads it.
    pub(crate) message: Bytes,
    pub(crate) id: Option<Uuid>,
}

impl Question {
    /// The shard that it waits for, or for most: the first one if it needs all, or any.
    pub(super) fn shard(&self, shards: Shards) -> usize {
        let room = match self {
            Question::Publish(publish) => publish.rooms.first(),
            Question::Bring { rooms, .. } => rooms.first().map(|(room, _)| room),
            Question::BringSession { token, .. } => return shards.of_client(token.client_id()),
            Question::Direct { to, .. } => return shards.of_client(*to),
            Question::Broadcast { .. } | Question::Announce(_) | Question::Tell { .. } => None,
        };
        room.map_or(0, |room| shards.of_room(room))
    }

    /// Estimated bytes that it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        let message = match self {
            Question::Publish(Publish { message, .. })
            | Question::Direct { message, .. }
            | Question::Broadcast { message, .. }
            | Question::Announce(message)
            | Question::Tell { message, .. } => message.len(),
            Question::Bring { .. } | Question::BringSession { .. } => 0,
        };
        size_of::<Question>() + message
    }
}

/// What the engine answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// What was to be brought is here, and what was to be told is told.
    Done,
    /// The numbers of a message, in the order of its rooms.
    Numbered { seqs: Box<[u64]>, repeated: bool },
}

/// The answer, or why there is none.
pub(crate) type Outcome = Result<Answer, RoomError>;

impl By {
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match self {
            By::Session(session) => Some(session),
            By::Publisher(_) => None,
        }
    }
}

impl std::fmt::Display for By {
    /// Names it among all who publish.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            By::Session(session) => session.client_id.fmt(f),
            By::Publisher(name) => write!(f, "-{name}"),
        }
    }
}
