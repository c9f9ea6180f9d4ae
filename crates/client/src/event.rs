//! What a session yields, and what it answers: plain data.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::CloseReason;

/// What a [`Session`](super::Session) yields, in the order in which it is to be taken in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The server knows this client. Also after each reconnect.
    Connected {
        /// The id of this client to others.
        client_id: String,
        /// Whether this is still the session of before. If it is not, and there was one, a
        /// [`SessionLost`](Event::SessionLost) has said so.
        resumed: bool,
    },
    /// The connection is gone; the session will try again after `retry_in`.
    Disconnected {
        /// The close code and its text; 1006 for a connection that was lost or never made.
        reason: CloseReason,
        /// How long it rests.
        retry_in: Duration,
    },
    /// The session could not be resumed: one has a new client id, and others were told that one has
    /// left. Rooms are joined again, and what can be recovered follows.
    SessionLost {
        /// The new one.
        client_id: String,
    },
    /// The server will close the connection soon.
    Closing {
        /// Why.
        reason: String,
        /// When to come back; the session keeps to it.
        reconnect_after: Option<Duration>,
    },
    /// A message in a room. Each comes once, and those of a room in order.
    Message(RoomMessage),
    /// A message to this client alone.
    Direct(PrivateMessage),
    /// A message to everyone. Not kept: who is away misses it.
    Broadcast(PrivateMessage),
    /// Somebody came into a room whose presence is watched.
    Joined {
        /// The room.
        room: String,
        /// The one that came or left.
        member: Member,
    },
    /// Somebody left it.
    Left {
        /// The room.
        room: String,
        /// The one that came or left.
        member: Member,
    },
    /// The members of a room whose presence is watched, after they may have changed unseen.
    Members {
        /// The room.
        room: String,
        /// All of them, as far as the server lists them.
        members: Members,
    },
    /// Messages of a room that cannot be had any more.
    Lost {
        /// The room.
        room: String,
        /// The first and the last; `None` if the numbers are not known, because the room began
        /// anew, or because the server has lost its newest messages, yielded or not, and gives
        /// their numbers again.
        range: Option<(u64, u64)>,
    },
    /// Direct messages were lost while this client was away.
    DirectLost,
    /// A new room was joined through a pattern.
    Matched {
        /// The pattern.
        pattern: String,
        /// The room.
        room: String,
    },
    /// A new room fits a pattern, and one is in as many rooms as one may be.
    Unmatched {
        /// The pattern.
        pattern: String,
        /// The room.
        room: String,
    },
    /// This client may not be in a room any more: after a reconnect the server does not let it
    /// back, or a new token or new rules of the server do not allow it.
    Excluded {
        /// The room or pattern.
        room: String,
        /// The server's error code.
        code: String,
    },
}

/// What a [`Subscription`](super::Subscription) yields of its room, in the order in which it is to
/// be taken in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RoomEvent {
    /// A message. Each comes once, and in order. One to several rooms comes in each of them with
    /// its number there.
    Message(RoomMessage),
    /// Somebody came in. Only with [`JoinOptions::presence`](super::JoinOptions), as the next two.
    Joined(Member),
    /// Somebody left.
    Left(Member),
    /// The members, after they may have changed unseen.
    Members(Members),
    /// Messages that cannot be had any more; see [`Event::Lost`].
    Lost {
        /// The first and the last, if the numbers are known.
        range: Option<(u64, u64)>,
    },
    /// Events that were not taken in time: the queue of this subscription was full, and the oldest
    /// have gone. [`Room::history`](super::Room::history) may have the messages.
    Missed {
        /// How many.
        events: u64,
        /// The numbers of the first and the last message among them, if there were any.
        messages: Option<(u64, u64)>,
    },
}

/// A message in a room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RoomMessage {
    /// The room it came through.
    pub room: String,
    /// Its number there.
    pub seq: u64,
    /// Every room it was published to with its number there, if these are several.
    pub rooms: Vec<(String, u64)>,
    /// Its id, a UUID.
    pub id: String,
    /// The name that the sender goes by. U+FFFD stands for half of a surrogate pair, which JSON
    /// may hold.
    pub sender: Option<String>,
    /// JSON, byte for byte as it was published.
    pub content: Box<RawValue>,
    /// RFC 3339.
    pub timestamp: String,
    /// The client id of the publisher.
    pub client_id: String,
    /// The user of the publisher, if it has one.
    pub user: Option<String>,
}

/// A message that is in no room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PrivateMessage {
    /// Its id, a UUID.
    pub id: String,
    /// The name that the sender goes by. U+FFFD stands for half of a surrogate pair, which JSON
    /// may hold.
    pub sender: Option<String>,
    /// JSON, byte for byte as it was sent.
    pub content: Box<RawValue>,
    /// RFC 3339.
    pub timestamp: String,
    /// The client id of the sender.
    pub client_id: String,
    /// The user of the sender, if it has one.
    pub user: Option<String>,
}

impl RoomMessage {
    /// Every room it is in, with its number there.
    pub(crate) fn positions(&self) -> Vec<(String, u64)> {
        match self.rooms.is_empty() {
            true => vec![(self.room.clone(), self.seq)],
            false => self.rooms.clone(),
        }
    }

    /// The content as a value of the caller's. A string in it that holds half of a surrogate pair
    /// is no Rust text, and an error: the field `content` has it as it was published.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }
}

impl PrivateMessage {
    /// The content as a value of the caller's. A string in it that holds half of a surrogate pair
    /// is no Rust text, and an error: the field `content` has it as it was sent.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }
}

/// Somebody in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The id of the client.
    pub client_id: String,
    /// The name given when joining.
    pub sender: Option<String>,
    /// The user of the client, if it has one.
    pub user: Option<String>,
}

/// The members of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// At most as many as the server lists.
    pub members: Vec<Member>,
    /// How many members there are.
    pub count: u64,
}

/// A position in a room: opaque, and good for [`JoinOptions::since`](super::JoinOptions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Another one when the room began anew.
    pub epoch: String,
    /// The number of the last message.
    pub seq: u64,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The room, the first of them if there are several.
    pub room: String,
    /// The message's number there.
    pub seq: u64,
    /// Every room with its number there.
    pub rooms: Vec<(String, u64)>,
    /// The message's id.
    pub id: String,
    /// The server had it already, from an attempt whose answer was lost.
    pub repeated: bool,
}

/// The answer to a direct message or a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// The message's id.
    pub id: String,
    /// The server had it already, from an attempt whose answer was lost.
    pub repeated: bool,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entered {
    /// The room or pattern.
    pub room: String,
    /// The position from which messages follow; `None` for a pattern, and for a room that was left
    /// meanwhile.
    pub position: Option<Position>,
    /// With `since`: whether everything missed was there. It is yielded as events.
    pub recovered: bool,
    /// The members, if presence was asked for.
    pub members: Option<Members>,
    /// The rooms of a pattern that exist already.
    pub rooms: Vec<String>,
}

impl Entered {
    pub(crate) fn empty(room: &str) -> Entered {
        Entered {
            room: room.to_owned(),
            position: None,
            recovered: false,
            members: None,
            rooms: Vec::new(),
        }
    }
}

/// A page of history, oldest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The room's position.
    pub position: Position,
    /// What was asked for.
    pub messages: Vec<RoomMessage>,
}
