//! The hub: who is where, across workers, and the one place where a room's order is made.
//!
//! A publish takes the room's lock, numbers and stores the message, and posts one letter to each worker
//! that has members. Everyone therefore sees one order. No lock here is held across a system call:
//! sleeping workers are woken after the room is unlocked.

pub(crate) mod publish;
pub(crate) mod rooms;
pub(crate) mod seats;
pub(crate) mod presence;
pub(crate) mod sessions;
pub(crate) mod resume;
pub(crate) mod direct;
pub(crate) mod notice;
pub(crate) mod mailbox;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use crate::{
    config::{Compression, Config, Overflow},
    store::{History, Position, Range},
    ws::frame::PreparedFrame,
};
use direct::InboxBounds;
use mailbox::Post;
use rooms::{Room, RoomState, Rooms};
use sessions::Sessions;

/// Everything the workers share about rooms and sessions. One per server; usable from any thread.
pub(crate) struct Hub {
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Sessions,
    pub(crate) post: Post,
    /// Rooms that one connection may be in.
    pub(crate) memberships_max: usize,
    history_bytes: AtomicUsize,
    /// The size from which a message is compressed, if any is.
    compressible_bytes_min: Option<usize>,
    /// A recovered gap or a page above this would itself overflow the outbox it is sent to.
    page_bytes_max: usize,
    inbox: InboxBounds,
    /// How long a session waits for its client to come back.
    resume_window_ms: u64,
    away_max: usize,
    started: Instant,
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
    /// Everything since the room was made, or, where that is not kept, none of it.
    FromStart,
}

/// What a join found.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The room's position at the moment of joining: everything behind it will be delivered.
    pub position: Position,
    /// Whether [`Replay::Since`] or [`Replay::FromStart`] was asked for and everything since then is in `replay`.
    pub recovered: bool,
    /// The earlier messages, up to `position`, oldest first.
    pub replay: Vec<PreparedFrame>,
    /// What the room does for a member that is too slow.
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

/// Why the hub did not do as asked. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomError {
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
    /// A worker's mailbox is full: nothing was stored, and nobody joined. Try again after a moment.
    Overloaded,
    /// There is no such client, or it has gone for good.
    NoSuchClient,
    /// One room was named twice.
    SameRoomTwice,
    /// The client is away, and as many messages as may be wait for it.
    InboxFull,
    /// There is no such session: the token is wrong, or its time has run out.
    NoSuchSession,
    /// This connection has begun a session of its own, so it takes up no other.
    NotFresh,
    /// Another connection has taken this session over.
    TakenOver,
}

/// What a sweep found.
#[derive(Default)]
pub(crate) struct Swept {
    /// More sessions have run out than it ended.
    pub(crate) has_more: bool,
    /// A mailbox is behind.
    pub(crate) behind: bool,
}

impl std::fmt::Display for RoomError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RoomError::AlreadyMember => "already a member of this room",
            RoomError::NotMember => "not a member of this room",
            RoomError::NoSuchRoom => "there is no such room",
            RoomError::TooManyRooms => "the server has as many rooms as it may have",
            RoomError::TooManyMemberships => "this connection is in as many rooms as it may be",
            RoomError::Overloaded => "the server is behind; try again after a moment",
            RoomError::NoSuchClient => "there is no such client",
            RoomError::SameRoomTwice => "one room is named twice",
            RoomError::InboxFull => "the client is away, and its inbox is full",
            RoomError::NoSuchSession => "there is no such session, or it has ended",
            RoomError::NotFresh => {
                "a session can be resumed only by the first frame of a connection"
            }
            RoomError::TakenOver => "another connection has taken this session over",
        })
    }
}

impl std::error::Error for RoomError {}

impl Hub {
    pub(crate) fn new(config: &Config, post: Post) -> Hub {
        Hub {
            rooms: Rooms::new(config, post.clone()),
            sessions: Sessions::new(),
            post,
            memberships_max: config.max_rooms_per_conn,
            history_bytes: AtomicUsize::new(0),
            compressible_bytes_min: (config.compression != Compression::Off)
                .then_some(config.compression_threshold),
            page_bytes_max: config.buffer_bytes / 2,
            inbox: InboxBounds {
                // What waited is sent at once when its client comes back, behind what it missed in its
                // rooms, and must fit its outbox.
                messages_max: config.inbox.min(config.buffer / 4),
                bytes_max: config.inbox_bytes.min(config.buffer_bytes / 4),
            },
            resume_window_ms: config.resume_window.as_millis() as u64,
            away_max: config.max_away_sessions,
            started: Instant::now(),
        }
    }

    /// Milliseconds since this hub was made.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// What a new member is given of what was before.
    fn replay(
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

    /// A page of what the room keeps, of at most `limit` messages.
    pub(crate) fn history(&self, room: &Room, range: Range, limit: usize) -> Page {
        let now_ms = self.now_ms();
        let mut state = room.state.lock();
        self.change(&mut state.history, |history| history.expire(now_ms, &room.bounds));
        Page {
            position: state.history.position(),
            messages: state.history.page(range, limit, self.page_bytes_max),
        }
    }

    /// Lets go of aged messages and of the empty rooms that have none left. A bounded part of the rooms
    /// is looked at with each call; the next call goes on from there. Ends the sessions whose client did
    /// not come back.
    pub(crate) fn sweep(&self) -> Swept {
        let now_ms = self.now_ms();
        self.rooms.sweep(|room, history| {
            self.change(history, |history| history.expire(now_ms, &room.bounds));
        });
        self.expire_sessions()
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
mod harness;
