//! Reading a room's history: at a join, and page by page.

use super::{
    Hub,
    error::RoomError,
    room::{Room, RoomState},
};
use crate::{
    config::Overflow,
    store::{History, Position, Range},
    ws::frame::PreparedFrame,
};

/// The earlier messages that a new member asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// No earlier messages.
    Nothing,
    /// The newest messages, at most this many.
    Latest(usize),
    /// All messages since the position that the client had reached, or none if not all of them are
    /// kept.
    Since(Position),
    /// All messages since the room was made, or none if not all of them are kept.
    FromStart,
}

/// The result of a join.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's position at the join. Every message after this position is delivered.
    pub position: Position,
    /// Whether [`Replay::Since`] or [`Replay::FromStart`] was asked for and `replay` has all those
    /// messages.
    pub recovered: bool,
    /// The earlier messages, up to and including `position`, oldest first.
    pub replay: Vec<PreparedFrame>,
    /// The room's policy for a member that is too slow.
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
    /// Reads the earlier messages that `replay` asks for, at most `bytes_max` of them.
    pub(super) fn replay(
        &self,
        room: &Room,
        state: &mut RoomState,
        replay: Replay,
        bytes_max: usize,
    ) -> Joined {
        let now_ms = self.now_ms();
        let RoomState { history, bounds, .. } = &mut *state;
        self.change(history, |history| history.expire(now_ms, bounds));
        let position = state.history.position();
        // A mirror begins in the midst of a room's life: what was before may have been missed.
        let begins_seq = self.engine.as_ref().map_or(0, |_| state.history.beginning().seq);
        let since = |since| {
            let since = Some(state.in_this_epoch(since)).filter(|since| since.seq >= begins_seq);
            match since.and_then(|since| state.history.since(since, bytes_max)) {
                Some(missed) => (true, missed),
                None => (false, Vec::new()),
            }
        };
        let (recovered, replay) = match replay {
            Replay::Nothing => (false, Vec::new()),
            Replay::Latest(count) => (false, state.history.page(Range::Latest, count, bytes_max)),
            Replay::Since(position) => since(position),
            Replay::FromStart => since(Position { seq: 0, ..position }),
        };
        Joined { position, recovered, replay, overflow: room.overflow }
    }

    /// Reads a page of the room's history, of at most `limit` messages.
    pub(crate) fn history(
        &self,
        room: &Room,
        range: Range,
        limit: usize,
    ) -> Result<Page, RoomError> {
        // The answer is a copy, which waits for its client.
        self.check_memory()?;
        let now_ms = self.now_ms();
        let mut state = room.state.lock();
        let RoomState { history, bounds, .. } = &mut *state;
        self.change(history, |history| history.expire(now_ms, bounds));
        Ok(Page {
            position: state.history.position(),
            messages: state.history.page(range, limit, self.limits.page_bytes_max()),
        })
    }

    /// Changes a history, and keeps the sum of the bytes of all histories up to date.
    pub(super) fn change(&self, history: &mut History, change: impl FnOnce(&mut History)) {
        let before = history.bytes();
        change(history);
        self.account.histories.change(before, history.bytes());
    }
}
