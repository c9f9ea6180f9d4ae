//! Which rooms a session is in, for its handles to see.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Whether a session is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomState {
    /// Not, and it has not been asked for.
    Out,
    /// It is asked for, and the answer is to come.
    Joining,
    /// It is, by its name or by a pattern, by a subscription or without one. Connections come and
    /// go meanwhile.
    Joined,
}

/// The rooms that a session is in or about to be. The session's thread writes it, and no lock is
/// held for longer than one look or change.
#[derive(Debug, Default)]
pub(crate) struct RoomStates(Mutex<BTreeMap<String, RoomState>>);

impl RoomStates {
    pub(crate) fn of(&self, room: &str) -> RoomState {
        self.0.lock().get(room).copied().unwrap_or(RoomState::Out)
    }

    pub(crate) fn set(&self, room: &str, state: RoomState) {
        let mut states = self.0.lock();
        match state {
            RoomState::Out => drop(states.remove(room)),
            state => drop(states.insert(room.to_owned(), state)),
        }
    }

    /// The session is over.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}
