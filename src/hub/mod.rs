//! The hub: who is where, across workers, and the one place where a room's order is made.
//!
//! A publish takes the room's lock, numbers and stores the message, and posts one letter to each
//! worker that has members. Everyone therefore sees one order. No lock here is held across a system
//! call: sleeping workers are woken after the room is unlocked.

pub(crate) mod error;
pub(crate) mod names;
pub(crate) mod conn_id;
pub(crate) mod room;
pub(crate) mod notice;
pub(crate) mod send_status;
pub(crate) mod session_token;
mod inbox;
pub(crate) mod clock;
pub(crate) mod session;
pub(crate) mod mailbox;
pub(crate) mod rooms;
pub(crate) mod sessions;
pub(crate) mod conn_handle;
pub(crate) mod history;
pub(crate) mod publish;
pub(crate) mod direct;
mod locked_session;
pub(crate) mod presence;
pub(crate) mod memberships;
pub(crate) mod resume;
#[cfg(test)]
mod harness;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{Compression, Config};
use clock::Clock;
use error::RoomError;
use inbox::InboxBounds;
use mailbox::{Deferred, Mailboxes};
use names::RoomName;
use rooms::Rooms;
use sessions::Sessions;

/// Everything the workers share about rooms and sessions. One per server; usable from any thread.
pub(crate) struct Hub {
    pub(crate) rooms: Rooms,
    pub(crate) sessions: Sessions,
    pub(crate) mailboxes: Mailboxes,
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
    pub(crate) clock: Clock,
}

/// What a sweep found.
#[derive(Default)]
pub(crate) struct Swept {
    /// More sessions have run out than it ended.
    pub(crate) has_more: bool,
    /// A mailbox is behind.
    pub(crate) behind: bool,
}

impl Hub {
    pub(crate) fn new(config: &Config, mailboxes: Mailboxes, clock: Clock) -> Hub {
        Hub {
            rooms: Rooms::new(config, mailboxes.clone()),
            sessions: Sessions::new(matches!(clock, Clock::Stepped(_))),
            mailboxes,
            memberships_max: config.max_rooms_per_conn,
            history_bytes: AtomicUsize::new(0),
            compressible_bytes_min: (config.compression != Compression::Off)
                .then_some(config.compression_threshold),
            page_bytes_max: config.buffer_bytes / 2,
            inbox: InboxBounds {
                // What waited is sent at once when its client comes back, behind what it missed in
                // its rooms, and must fit its outbox.
                messages_max: config.inbox.min(config.buffer / 4),
                bytes_max: config.inbox_bytes.min(config.buffer_bytes / 4),
            },
            resume_window_ms: config.resume_window.as_millis() as u64,
            away_max: config.max_away_sessions,
            clock,
        }
    }

    /// Milliseconds since this hub was made.
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Makes a room if there is none of that name, so that it can be published to.
    pub(crate) fn open_room(&self, name: &RoomName) -> Result<(), RoomError> {
        let mut deferred = Deferred::default();
        let entered = self.rooms.enter(name, &mut deferred, |_, _| ());
        self.mailboxes.after_unlock(&deferred);
        entered.map(|_| ())
    }

    /// Drops aged messages, and the empty rooms that have none left. A bounded part of the rooms is
    /// looked at with each call; the next call goes on from there. Ends the sessions whose client
    /// did not come back.
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
}
