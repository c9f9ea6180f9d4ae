//! One of the connections that were asked for, over all its tries.

use std::time::Instant;

use super::{handshake::Handshake, websocket::WebSocket};

/// A connection whose socket has not taken this much gets nothing more for now.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// One connection of the run, over all its tries. Belongs to one load thread.
pub(crate) struct Connection {
    pub(crate) stage: Stage,
    /// When it was first dialed: connect times count from here.
    pub(crate) began: Instant,
    /// How often it was dialed.
    pub(crate) dials: u32,
    /// Whether it counts against `--connecting`.
    pub(crate) connecting: bool,
}

/// Where a connection is in its life.
pub(crate) enum Stage {
    /// Not dialed, or resting after a refusal.
    NotDialed,
    Asking(Box<Handshake>),
    Open(Box<WebSocket>),
    /// Counted, and its socket closed.
    Gone,
}

impl Connection {
    pub(crate) fn new(began: Instant) -> Connection {
        Connection { stage: Stage::NotDialed, began, dials: 0, connecting: false }
    }

    /// Whether it takes a message: it is open, and its socket has taken nearly all of those before.
    pub(crate) fn takes_messages(&mut self) -> bool {
        let takes = |socket: &mut WebSocket| {
            !socket.has_ended() && socket.outbox_bytes() < OUTBOX_BYTES_MAX
        };
        self.socket().is_some_and(takes)
    }

    /// The open WebSocket, if it is one.
    pub(crate) fn socket(&mut self) -> Option<&mut WebSocket> {
        match &mut self.stage {
            Stage::Open(socket) => Some(socket),
            Stage::NotDialed | Stage::Asking(_) | Stage::Gone => None,
        }
    }
}
