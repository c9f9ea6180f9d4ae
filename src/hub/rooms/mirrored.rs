//! Rooms that are shared with other nodes, as the engine brings them.

use std::sync::{Arc, atomic::Ordering};

use super::Rooms;
use crate::{
    hub::{
        error::RoomError,
        mailbox::Deferred,
        names::RoomName,
        room::{Room, RoomState},
    },
    store::{History, HistoryBounds, Position},
};

impl Rooms {
    /// Leaves the making of rooms to the engine from now on.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Runs `change` on the room `name`. If it is not here it is made, and begins at `position`.
    pub(in crate::hub) fn enter_mirror<R>(
        &self,
        name: &RoomName,
        position: Position,
        deferred: &mut Deferred,
        change: impl FnOnce(&Arc<Room>, &mut RoomState) -> R,
    ) -> Result<(Arc<Room>, R), RoomError> {
        let make = |_: &_| Ok(History::at(position, position.seq));
        self.enter_made(name, deferred, make, change)
    }

    /// Returns what a room of this name keeps of its messages, whether or not it is here.
    pub(crate) fn bounds_of(&self, name: &RoomName) -> HistoryBounds {
        self.directory.lock().limits.of(name).1
    }

    /// Lets go of a mirror that nobody is in. Returns whether it went.
    pub(crate) fn drop_mirror(&self, room: &Arc<Room>) -> bool {
        let mut directory = self.directory.lock();
        let mut state = room.state.lock();
        if state.gone || room.is_default || !state.is_vacant() {
            return state.gone;
        }
        let history = self.remove(&mut directory, room, &mut state);
        drop((state, directory));
        drop(history);
        true
    }
}
