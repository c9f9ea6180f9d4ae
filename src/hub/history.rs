//! What a room remembers, as members are given it: with a join, and page by page.

use super::{
    Hub,
    room::{Room, RoomState},
};
use crate::{
    config::Overflow,
    store::{History, Position, Range},
    ws::frame::PreparedFrame,
};

/// Which earlier messages a new member wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// None.
    Nothing,
    /// The newest, at most so many.
    Latest(usize),
    /// Everything since a position the client had reached, or, where that is not kept, none of it.
    Since(Position),
    /// Everything since the room was made, or, where that is not kept, none of it.
    FromStart,
}

/// What a join found.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's position at the moment of joining: every message after it will be delivered.
    pub position: Position,
    /// Whether [`Replay::Since`] or [`Replay::FromStart`] was asked for and everything since then
    /// is in `replay`.
    pub recovered: bool,
    /// The earlier messages, up to `position`, oldest first.
    pub replay: Vec<PreparedFrame>,
    /// What happens to a member that is too slow.
    pub overflow: Overflow,
}

/// A page of a room's history.
#[derive(Debug, Clone)]
pub struct Page {
    /// The room's position when the page was taken.
    pub position: Position,
    /// The messages, oldest first.
    pub messages: Vec<PreparedFrame>,
}

impl Hub {
    /// Reads what a new member is given of what was before, at most `bytes_max` of it.
    pub(super) fn replay(
        &self,
        room: &Room,
        state: &mut RoomState,
        replay: Replay,
        bytes_max: usize,
    ) -> Joined {
        let now_ms = self.now_ms();
        self.change(&mut state.history, |history| history.expire(now_ms, &room.bounds));
        let history = &state.history;
        let position = history.position();
        let since = |since| match history.since(since, bytes_max) {
            Some(missed) => (true, missed),
            None => (false, Vec::new()),
        };
        let (recovered, replay) = match replay {
            Replay::Nothing => (false, Vec::new()),
            Replay::Latest(count) => (false, history.page(Range::Latest, count, bytes_max)),
            Replay::Since(position) => since(position),
            Replay::FromStart => since(Position { seq: 0, ..position }),
        };
        Joined { position, recovered, replay, overflow: room.overflow }
    }

    /// Reads a page of what the room keeps, of at most `limit` messages.
    pub(crate) fn history(&self, room: &Room, range: Range, limit: usize) -> Page {
        let now_ms = self.now_ms();
        let mut state = room.state.lock();
        self.change(&mut state.history, |history| history.expire(now_ms, &room.bounds));
        Page {
            position: state.history.position(),
            messages: state.history.page(range, limit, self.page_bytes_max),
        }
    }

    /// Changes a history and keeps count of what all of them hold.
    pub(super) fn change(&self, history: &mut History, change: impl FnOnce(&mut History)) {
        let before = history.bytes();
        change(history);
        self.bytes.histories.change(before, history.bytes());
    }
}
