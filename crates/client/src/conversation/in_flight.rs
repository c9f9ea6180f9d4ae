//! The commands of a session: its own, and those on the wire.

use crate::ask::Request;

/// A command of the session's own.
#[derive(Debug)]
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
        after: u64,
    },
    Recount {
        room: String,
    },
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
