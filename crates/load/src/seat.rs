//! What each connection of a fan-out is for, and where it goes.

use super::args::FanoutFlags;

/// What one connection is for.
pub(crate) struct Seat {
    pub(crate) publishes: bool,
    pub(crate) room: usize,
    /// Which of the servers it goes to, in turn.
    pub(crate) turn: usize,
}

impl FanoutFlags {
    /// What the connection of this number is for. The members of each room are spread over the
    /// servers, and its first subscriber is not where its first publisher is.
    pub(crate) fn seat(&self, number: usize) -> Seat {
        let (publishers, rooms) = (self.publishers as usize, self.rooms as usize);
        let publishes = number < publishers;
        let place = if publishes { number } else { number - publishers };
        let room = place % rooms;
        let turn = place / rooms + room + usize::from(!publishes);
        Seat { publishes, room, turn }
    }
}
