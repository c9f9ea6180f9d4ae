//! Rooms that come out of a snapshot.

use std::sync::Arc;

use super::{ROOM_BYTES, Rooms};
use crate::hub::{
    names::RoomName,
    room::{Room, RoomKind},
};

impl Rooms {
    /// Makes a room that is in no directory yet.
    pub(in crate::hub) fn make(&self, name: &RoomName) -> Room {
        let limits = self.directory.lock().limits.of(name);
        self.new_room(name, RoomKind::Messages, limits)
    }

    /// Returns how many rooms there may be beside those that are there.
    pub(in crate::hub) fn places_left(&self) -> usize {
        let directory = self.directory.lock();
        let counted = directory.by_name.len() - directory.uncounted;
        directory.limits.rooms_max.saturating_sub(counted)
    }

    /// Puts a room that was made outside the directory into it. If there is one of that name, as
    /// there is of the default room, that one gets its history. Returns the room, or `None` if
    /// there are too many.
    pub(in crate::hub) fn put(&self, room: Room) -> Option<Arc<Room>> {
        let mut directory = self.directory.lock();
        let bytes = room.state.lock().history.bytes();
        if let Some(there) = directory.by_name.get(&room.name) {
            let restored = room.state.into_inner();
            let mut state = there.state.lock();
            self.account.histories.change(state.history.bytes(), bytes);
            state.history = restored.history;
            state.owner = restored.owner;
            drop(state);
            return Some(Arc::clone(there));
        }
        if directory.by_name.len() - directory.uncounted >= directory.limits.rooms_max {
            return None;
        }
        let room = Arc::new(room);
        directory.by_name.insert(room.name.clone(), Arc::clone(&room));
        self.account.rooms.add(ROOM_BYTES);
        self.account.histories.add(bytes);
        Some(room)
    }
}
