//! The commands of a session: its own, and those on the wire.

use std::fmt;

use crate::ask::Request;

/// A command of the session's own.
pub(crate) enum InternalCommand {
    Resume,
    /// Out of a room or pattern that is not wanted, or to be joined again.
    Unjoin {
        room: String,
    },
    Rejoin {
        room: String,
    },
    RejoinPattern {
        pattern: String,
    },
    Fetch {
        room: String,
        /// The epoch of the room when this was asked: a page that comes in another one is void.
        epoch: String,
        after: u64,
    },
    Recount {
        room: String,
    },
    /// A new token, in place of one that is about to end.
    Renew {
        token: String,
    },
}

impl fmt::Debug for InternalCommand {
    /// Shows no token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InternalCommand::Resume => f.write_str("Resume"),
            InternalCommand::Renew { .. } => f.write_str("Renew"),
            InternalCommand::Unjoin { room } => write!(f, "Unjoin {room:?}"),
            InternalCommand::Rejoin { room } => write!(f, "Rejoin {room:?}"),
            InternalCommand::RejoinPattern { pattern } => write!(f, "RejoinPattern {pattern:?}"),
            InternalCommand::Fetch { room, after, .. } => write!(f, "Fetch {room:?} {after}"),
            InternalCommand::Recount { room } => write!(f, "Recount {room:?}"),
        }
    }
}

/// An internal command in its order among the others.
#[derive(Debug)]
pub(crate) struct QueuedCommand {
    pub(crate) command: InternalCommand,
    pub(crate) number: u64,
    /// How often the server put it off.
    pub(crate) attempts: u32,
}

impl InternalCommand {
    /// The room or pattern that it joins or leaves.
    pub(crate) fn moves(&self) -> Option<&str> {
        match self {
            InternalCommand::Unjoin { room }
            | InternalCommand::Rejoin { room }
            | InternalCommand::RejoinPattern { pattern: room } => Some(room),
            InternalCommand::Resume
            | InternalCommand::Renew { .. }
            | InternalCommand::Fetch { .. }
            | InternalCommand::Recount { .. } => None,
        }
    }
}

/// What is on the wire.
#[derive(Debug)]
pub(crate) enum InFlight {
    Request(Request),
    Internal(QueuedCommand),
}
