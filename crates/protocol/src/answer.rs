//! What a command is answered with.
//!
//! Each body is the fields behind `type` and `ref`. A body is read from the text of the whole
//! frame, because fields that a type does not know are passed over. Fields that a server always
//! writes may be missing all the same, in frames of older servers and of others; their
//! documentation says what they are then, where that is not empty, 0 or `false`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ErrorCode, Overflow, RoomSeq, Seconds, lenient};

/// The kinds of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The first frame of a connection.
    Welcome,
    /// A command was carried out.
    Ok,
    /// A `ping` was.
    Pong,
    /// A command was not carried out.
    Error,
}

/// An answer, for a server to write: `type`, `ref`, and the fields of `B`.
#[derive(Debug, Clone, Serialize)]
pub struct Answer<'a, B> {
    /// What kind of answer it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The command's `ref`, byte for byte.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a RawValue>,
    /// The other fields.
    #[serde(flatten)]
    pub body: B,
}

/// The beginning of any frame of a server, for a client to read: what it is, and whose answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Head<'a> {
    /// The frame's `type`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The `ref` of the command that is answered.
    #[serde(borrow, default, rename = "ref")]
    pub reference: Option<&'a RawValue>,
}

impl<'a, B> Answer<'a, B> {
    /// Answers a command that was carried out.
    pub fn ok(reference: Option<&'a RawValue>, body: B) -> Answer<'a, B> {
        Answer { kind: Kind::Ok, reference, body }
    }
}

impl<'a> Answer<'a, Welcome<'a>> {
    /// Greets a client.
    pub fn welcome(body: Welcome<'a>) -> Answer<'a, Welcome<'a>> {
        Answer { kind: Kind::Welcome, reference: None, body }
    }
}

impl<'a> Answer<'a, Error<'a>> {
    /// Answers a command that was not carried out.
    pub fn error(reference: Option<&'a RawValue>, body: Error<'a>) -> Answer<'a, Error<'a>> {
        Answer { kind: Kind::Error, reference, body }
    }
}

impl<'a> Answer<'a, Pong> {
    /// Answers a `ping`.
    pub fn pong(reference: Option<&'a RawValue>) -> Answer<'a, Pong> {
        Answer { kind: Kind::Pong, reference, body: Pong {} }
    }
}

/// Who a client is, where it is, and what the server is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The client's id, a UUID.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    /// The secret that takes the session up again; empty if there are no sessions.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// The default room, if the client is in it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Cow<'a, str>>,
    /// The life of that room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Cow<'a, str>>,
    /// The position in that room.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// Name and version of the server.
    #[serde(borrow, default)]
    pub server: Cow<'a, str>,
    /// A UUID that is another one after each start of the server.
    #[serde(borrow, default)]
    pub node: Cow<'a, str>,
    /// How often a quiet client is pinged; 0 if it is not.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub ping_s: Seconds,
    /// The largest message that the server takes; `usize::MAX` if it does not say.
    #[serde(default = "unlimited")]
    pub max_message_bytes: usize,
    /// How long the session waits for its client to come back.
    #[serde(default)]
    pub resume_window_s: Seconds,
    /// What the client may do.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub limits: Limits,
}

/// What one client may do, so that it can pace itself instead of being refused. A limit that is off
/// is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Messages a second, and as many at once.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_messages: Option<u32>,
    /// Bytes of messages a second, and as many at once.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_bytes: Option<u32>,
    /// Rooms, and as many patterns.
    #[serde(default)]
    pub max_rooms: usize,
}

/// `publish` to one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The message's number there.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// The server had the message already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// `publish` to several rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedToRooms<'a> {
    /// The rooms, with the message's number in each.
    #[serde(borrow, default)]
    pub rooms: Vec<RoomSeq<'a>>,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// The server had the message already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// `direct` and `broadcast`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent<'a> {
    /// Whom a direct message went to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Cow<'a, str>>,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// The server had the message already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// `join` of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joined<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The life of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// Messages after this one are delivered.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// Everything since `since` is in `messages`.
    #[serde(default)]
    pub recovered: bool,
    /// What happens to a member that is too slow.
    #[serde(default)]
    pub overflow: Overflow,
    /// What was missed since `since`, oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default)]
    pub messages: Vec<&'a RawValue>,
    /// Who is there, if that was asked for.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member<'a>>>,
    /// How many members there are, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// `leave` of a room or a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left<'a> {
    /// The room or pattern.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
}

/// `join` of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed<'a> {
    /// The pattern.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The rooms that it joined.
    #[serde(borrow, default)]
    pub rooms: Vec<MatchedRoom<'a>>,
}

/// A room that a pattern joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRoom<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The life of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// Messages after this one are delivered.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// What happens to a member that is too slow.
    #[serde(default)]
    pub overflow: Overflow,
}

/// `history`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The life of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// The room's position when the page was taken.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// Oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default)]
    pub messages: Vec<&'a RawValue>,
}

/// `presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// Who is there, as far as the server lists them.
    #[serde(borrow, default)]
    pub members: Vec<Member<'a>>,
    /// How many members there are.
    #[serde(default)]
    pub count: usize,
}

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member<'a> {
    /// Its id.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    /// The name that it goes by.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Cow<'a, str>>,
}

/// `resume`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed<'a> {
    /// The id that the client has again.
    #[serde(borrow, default)]
    pub client_id: Cow<'a, str>,
    /// The secret of the session, as it was before.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// The patterns of the session.
    #[serde(borrow, default)]
    pub patterns: Vec<Cow<'a, str>>,
    /// The rooms of the session.
    #[serde(borrow, default)]
    pub rooms: Vec<ResumedRoom<'a>>,
    /// Where the client is in its direct messages; those that it missed follow.
    #[serde(default)]
    pub direct: DirectState,
}

/// A room of a resumed session: joined, or with the `error` for which it could not be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResumedRoom<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// The life of the room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Cow<'a, str>>,
    /// Messages after this one are delivered.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// Everything since the client's position is in `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// What happens to a member that is too slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// What was missed, oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<&'a RawValue>>,
    /// Why the room could not be joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    /// Who is there, if the session watches the room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member<'a>>>,
    /// How many members there are, if the session watches the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// Where a client is in its direct messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectState {
    /// The number of the last one.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// All that were missed follow.
    #[serde(default)]
    pub recovered: bool,
}

impl Default for DirectState {
    /// Where nothing is said, nothing was missed.
    fn default() -> DirectState {
        DirectState { seq: 0, recovered: true }
    }
}

fn unlimited() -> usize {
    usize::MAX
}

/// `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

/// Why a command was not carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error<'a> {
    /// In a stable word.
    #[serde(default)]
    pub code: ErrorCode,
    /// For people; it may change.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// When to send the command again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
