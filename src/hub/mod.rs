//! The hub: who is where, across workers, and the one place where a room's order is made.
//!
//! A publish takes the room's lock, numbers and stores the message, and posts one letter to each worker
//! that has members. Everyone therefore sees one order. No lock here is held across a system call:
//! sleeping workers are woken after the room is unlocked.

pub(crate) mod mailbox;
pub(crate) mod rooms;
pub(crate) mod sessions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    config::{Compression, Config},
    store::{History, HistoryBounds, Position, Range},
    ws::frame::{Kind, Message, PreparedFrame},
};
use mailbox::{ConnId, Letter, Post, WorkerSet};
use rooms::{Room, RoomName, Rooms};
use sessions::Sessions;

/// Everything the workers share about rooms and sessions. One per server; usable from any thread.
pub(crate) struct Hub {
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Sessions,
    pub(crate) post: Post,
    /// Rooms that one connection may be in.
    pub(crate) memberships_max: usize,
    bounds: HistoryBounds,
    history_bytes: AtomicUsize,
    /// The size from which a message is compressed, if any is.
    compressible_bytes_min: Option<usize>,
    /// A recovered gap or a page above this would itself overflow the outbox it is sent to.
    page_bytes_max: usize,
    started: Instant,
}

/// A message on its way to a room.
///
/// It is sent as it stands, or, made with [`Publication::around_seq`], with its sequence number spliced
/// in. The number is known only once the room has given it, and formatting the rest under the room's
/// lock would make everyone wait.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    kind: Kind,
    before_seq: &'a [u8],
    after_seq: Option<&'a [u8]>,
}

impl<'a> Publication<'a> {
    /// A text message that reads `before`, the sequence number in decimal, `after`.
    pub fn around_seq(before: &'a str, after: &'a str) -> Publication<'a> {
        Publication {
            kind: Kind::Text,
            before_seq: before.as_bytes(),
            after_seq: Some(after.as_bytes()),
        }
    }

    fn encode(&self, seq: u64) -> PreparedFrame {
        match self.after_seq {
            None => PreparedFrame::from_parts(self.kind, &[self.before_seq]),
            Some(after) => {
                let mut digits = [0; 20];
                let digits = decimal(seq, &mut digits);
                PreparedFrame::from_parts(self.kind, &[self.before_seq, digits, after])
            }
        }
    }
}

/// The decimal digits of `number`, written without allocating.
fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut start = space.len();
    loop {
        start -= 1;
        space[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &space[start..];
        }
    }
}

impl<'a, M: Into<Message<'a>>> From<M> for Publication<'a> {
    fn from(message: M) -> Self {
        let message = message.into();
        Publication { kind: message.kind(), before_seq: message.as_bytes(), after_seq: None }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The message's number in its room.
    pub seq: u64,
    /// A worker it goes to is behind. The publisher should pause; the server itself stops reading
    /// from the sockets of the worker it was published on.
    pub behind: bool,
}

/// Which earlier messages a new member wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// None.
    Nothing,
    /// The newest, at most so many.
    Latest(usize),
    /// Everything since a position the client had reached, or, where that is not kept, none of it.
    Since(Position),
}

/// What a join found.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's position at the moment of joining: everything behind it will be delivered.
    pub position: Position,
    /// Whether [`Replay::Since`] was asked for and everything since then is in `replay`.
    pub recovered: bool,
    /// The earlier messages, up to `position`, oldest first.
    pub replay: Vec<PreparedFrame>,
}

/// A page of a room's history.
#[derive(Debug, Clone)]
pub struct Page {
    /// The room's position when the page was taken.
    pub position: Position,
    /// The messages, oldest first.
    pub messages: Vec<PreparedFrame>,
}

/// Why the hub did not do as asked. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubError {
    /// The connection is in that room already.
    AlreadyMember,
    /// The connection is not in that room.
    NotMember,
    /// No room of that name exists.
    NoSuchRoom,
    /// The server holds as many rooms as it may (`max_rooms`).
    TooManyRooms,
    /// The connection is in as many rooms as it may be (`max_rooms_per_conn`).
    TooManyMemberships,
    /// A worker's mailbox is full: nothing was stored. Try again after a moment.
    Overloaded,
}

impl std::fmt::Display for HubError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HubError::AlreadyMember => "already a member of this room",
            HubError::NotMember => "not a member of this room",
            HubError::NoSuchRoom => "there is no such room",
            HubError::TooManyRooms => "the server has as many rooms as it may have",
            HubError::TooManyMemberships => "this connection is in as many rooms as it may be",
            HubError::Overloaded => "the server is behind; try again after a moment",
        })
    }
}

impl std::error::Error for HubError {}

impl Hub {
    pub(crate) fn new(config: &Config, post: Post) -> Hub {
        let bounds = HistoryBounds {
            messages_max: config.history,
            bytes_max: config.history_bytes,
            age_max: config.history_age,
        };
        Hub {
            rooms: Rooms::new(config.max_rooms, post.workers()),
            sessions: Sessions::default(),
            post,
            memberships_max: config.max_rooms_per_conn,
            bounds,
            history_bytes: AtomicUsize::new(0),
            compressible_bytes_min: (config.compression != Compression::Off)
                .then_some(config.compression_threshold),
            page_bytes_max: config.buffer_bytes / 2,
            started: Instant::now(),
        }
    }

    /// Milliseconds since this hub was made.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Counts a member of `worker` into the room, which is made if need be. The replay and
    /// the position from which letters will come are read in the same instant; `announce` is
    /// called in it too, and may post a letter that must come before the first message.
    pub(crate) fn join(
        &self,
        name: &RoomName,
        worker: usize,
        replay: Replay,
        announce: impl FnOnce(&Arc<Room>, &Joined),
    ) -> Result<(Arc<Room>, Joined), HubError> {
        let now_ms = self.now_ms();
        self.rooms.enter(name, |room, state| {
            self.change(&mut state.history, |history| history.expire(now_ms, &self.bounds));
            let (history, bytes_max) = (&state.history, self.page_bytes_max);
            let (recovered, replay) = match replay {
                Replay::Nothing => (false, Vec::new()),
                Replay::Latest(count) => (false, history.page(Range::Latest, count, bytes_max)),
                Replay::Since(since) => match history.since(since, bytes_max) {
                    Some(missed) => (true, missed),
                    None => (false, Vec::new()),
                },
            };
            let joined = Joined { position: history.position(), recovered, replay };
            state.members[worker] += 1;
            announce(room, &joined);
            joined
        })
    }

    /// Takes one member of `worker` out of the room's count.
    pub(crate) fn leave(&self, room: &Room, worker: usize) {
        let mut state = room.state.lock();
        state.members[worker] = state.members[worker].saturating_sub(1);
    }

    /// Numbers, stores and posts a message; `except` does not get it.
    pub(crate) fn publish(
        &self,
        room: &Room,
        publication: &Publication<'_>,
        except: Option<ConnId>,
    ) -> Result<Published, HubError> {
        let now_ms = self.now_ms();
        let mut workers = WorkerSet::default();
        let mut state = room.state.lock();
        if state.is_gone() {
            return Err(HubError::NoSuchRoom);
        }
        let seq = state.history.position().seq + 1;
        let frame = publication.encode(seq);
        let frame = match self.compressible_bytes_min {
            Some(bytes_min) => frame.compressible(bytes_min),
            None => frame,
        };
        let Some(behind) = self.reserve(&state.members, frame.len(), &mut workers) else {
            drop(state);
            (0..self.post.workers()).for_each(|worker| self.post.settle(worker));
            return Err(HubError::Overloaded);
        };
        for worker in workers.iter() {
            let frame = frame.clone();
            self.post.put(worker, Letter::Deliver { room: room.key, seq, frame, except });
        }
        let kept = frame.plain();
        self.change(&mut state.history, |history| history.append(kept, now_ms, &self.bounds));
        drop(state);
        self.post.ring(&workers);
        Ok(Published { seq, behind })
    }

    /// Reserves a place for a letter at every worker with members, or at none; tells whether one of them
    /// is behind.
    fn reserve(&self, members: &[u32], bytes: usize, reserved: &mut WorkerSet) -> Option<bool> {
        let mut behind = false;
        for worker in (0..members.len()).filter(|worker| members[*worker] > 0) {
            match self.post.reserve(worker, bytes) {
                Some(is_behind) => {
                    reserved.insert(worker);
                    behind |= is_behind;
                }
                None => {
                    reserved.iter().for_each(|worker| self.post.cancel(worker, bytes));
                    return None;
                }
            }
        }
        Some(behind)
    }

    /// A page of what the room keeps, of at most `limit` messages.
    pub(crate) fn history(&self, room: &Room, range: Range, limit: usize) -> Page {
        let now_ms = self.now_ms();
        let mut state = room.state.lock();
        self.change(&mut state.history, |history| history.expire(now_ms, &self.bounds));
        Page {
            position: state.history.position(),
            messages: state.history.page(range, limit, self.page_bytes_max),
        }
    }

    /// Lets go of aged messages and of the empty rooms that have none left. A bounded part of the rooms
    /// is looked at with each call; the next call goes on from there.
    pub(crate) fn sweep(&self) {
        let now_ms = self.now_ms();
        self.rooms.sweep(|history| {
            self.change(history, |history| history.expire(now_ms, &self.bounds));
        });
    }

    /// Bytes kept in all histories together.
    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes.load(Ordering::Relaxed)
    }

    /// Changes a history and keeps count of what all of them hold.
    fn change(&self, history: &mut History, change: impl FnOnce(&mut History)) {
        let before = history.bytes();
        change(history);
        // The sum wraps where a history has shrunk, and wraps back: the difference is what is added.
        self.history_bytes.fetch_add(history.bytes().wrapping_sub(before), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_is_spliced_between_the_parts() {
        let frame = Publication::around_seq("{\"seq\":", "}").encode(u64::MAX);
        assert_eq!(frame.payload(), b"{\"seq\":18446744073709551615}");
        assert_eq!(Publication::around_seq("", "").encode(0).payload(), b"0");
        assert_eq!(Publication::from("as it stands").encode(7).payload(), b"as it stands");
    }
}
