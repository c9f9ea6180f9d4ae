//! The settings of rooms: how many there may be, and what holds in each.

use super::names::RoomName;
use crate::{
    config::{Config, Overflow, RoomRules},
    store::HistoryBounds,
};

/// The settings of rooms, which a reload replaces.
pub(super) struct RoomLimits {
    pub(super) rooms_max: usize,
    rules: RoomRules,
    /// The bounds of rooms without a rule of their own.
    bounds: HistoryBounds,
}

impl RoomLimits {
    pub(super) fn new(config: &Config) -> RoomLimits {
        RoomLimits {
            rooms_max: config.max_rooms,
            rules: config.room_rules(),
            bounds: HistoryBounds {
                messages_max: config.history,
                bytes_max: config.history_bytes,
                age_max: config.history_age,
            },
        }
    }

    /// Returns what holds in a room of this name.
    pub(super) fn of(&self, name: &RoomName) -> (Overflow, HistoryBounds) {
        let settings = self.rules.of(name.as_str());
        (settings.overflow, HistoryBounds { messages_max: settings.history, ..self.bounds })
    }
}
