//! New settings for the rooms that exist.

use std::{ops::Bound, sync::Arc};

use super::{
    names::RoomName,
    room::{Room, RoomState},
    room_limits::RoomLimits,
    rooms::Rooms,
};
use crate::{config::Config, store::HistoryBounds};

/// Rooms that a reload looks at in one look at the directory: each costs a look at all rules.
const RELOADED_ROOMS_MAX: usize = 64;

/// Messages that a reload drops from a room at once.
const SHRUNK_MAX: usize = 1024;

impl Rooms {
    /// Takes the settings of `config`. Rooms that exist get the bounds of their histories, and lose
    /// what is beyond them; their overflow policy stays. Takes long where there are many rooms, and
    /// holds each lock for a moment.
    pub(super) fn reload(&self, config: &Config) {
        self.directory.lock().limits = RoomLimits::new(config);
        // Rooms that are made from here on have the new settings already.
        let mut after = None;
        loop {
            let batch: Vec<(Arc<Room>, HistoryBounds)> = {
                let directory = self.directory.lock();
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let rooms = directory.by_name.range::<RoomName, _>((from, Bound::Unbounded));
                let with_bounds = |(name, room): (&RoomName, &Arc<Room>)| {
                    (Arc::clone(room), directory.limits.of(name).1)
                };
                rooms.take(RELOADED_ROOMS_MAX).map(with_bounds).collect()
            };
            let Some((last, _)) = batch.last() else { return };
            after = Some(last.name.clone());
            for (room, bounds) in batch {
                room.state.lock().bounds = bounds;
                loop {
                    let mut state = room.state.lock();
                    let RoomState { history, bounds, .. } = &mut *state;
                    let before = history.bytes();
                    let is_within = history.shrink(bounds, SHRUNK_MAX);
                    self.account.histories.change(before, history.bytes());
                    if is_within {
                        break;
                    }
                }
            }
        }
    }
}
