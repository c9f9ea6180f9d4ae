//! The answers to commands.
//!
//! A body has the fields besides `type` and `ref`. Parse a body from the text of the whole frame:
//! unknown fields are ignored. A field may be missing in frames of older or other servers; it is
//! then empty, 0 or `false`, unless its documentation says otherwise.

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
    /// A command succeeded.
    Ok,
    /// The answer to a `ping`.
    Pong,
    /// A command failed.
    Error,
}

/// An answer, for a server to format: `type`, `ref`, and the fields of `B`.
#[derive(Debug, Clone, Serialize)]
pub struct Answer<'a, B> {
    /// The kind of the answer.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The command's `ref`, byte for byte.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'a RawValue>,
    /// The other fields.
    #[serde(flatten)]
    pub body: B,
}

/// The `type` and `ref` of any frame from a server, for a client to parse first.
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
    /// Answers a command that succeeded.
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
    /// Answers a command that failed.
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

/// The body of `welcome`: the client's identity and position, and facts about the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome<'a> {
    /// The client's id, a UUID.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    /// The secret that resumes the session; empty if the server has no sessions.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// The default room, if the client is in it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Cow<'a, str>>,
    /// The epoch of the default room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Cow<'a, str>>,
    /// The position in the default room.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// Name and version of the server.
    #[serde(borrow, default)]
    pub server: Cow<'a, str>,
    /// A UUID that is new after each start of the server.
    #[serde(borrow, default)]
    pub node: Cow<'a, str>,
    /// Time between pings to a quiet client; 0 if there are none.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub ping_s: Seconds,
    /// The largest message that the server accepts; `usize::MAX` if the server does not state it.
    #[serde(default = "unlimited")]
    pub max_message_bytes: usize,
    /// How long the session outlives a lost connection.
    #[serde(default)]
    pub resume_window_s: Seconds,
    /// The limits of the client.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub limits: Limits,
    /// The client's user, if it has one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    /// Seconds until the client's token ends, if it has one that does.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub token_expires_s: Option<u64>,
}

/// The limits of one client, so that it can pace itself instead of being refused. A limit that is
/// off is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Messages a second, which is also the burst size.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_messages: Option<u32>,
    /// Bytes of messages a second, which is also the burst size.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_bytes: Option<u32>,
    /// Rooms a minute that the client may make, which is also the burst size.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_rooms: Option<u32>,
    /// Rooms that the client may be in; also the limit for patterns.
    #[serde(default)]
    pub max_rooms: usize,
    /// What all clients at the client's address may do together; absent where no such limit holds.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub address: Option<AddressLimits>,
    /// What all clients of the client's user may do together; absent for a client without a user.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<UserLimits>,
}

/// The limits of all clients at one address together, or in one IPv6 network of 64 bits. A limit
/// that is off is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressLimits {
    /// Messages a second.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_messages: Option<u32>,
    /// Bytes of messages a second.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_bytes: Option<u32>,
    /// Rooms made a minute.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_rooms: Option<u32>,
    /// Connections a second.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_connections: Option<u32>,
    /// Connections at once.
    #[serde(default)]
    pub max_connections: usize,
}

/// The limits of all clients of one user together. A limit that is off is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Messages a second.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_messages: Option<u32>,
    /// Bytes of messages a second.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_bytes: Option<u32>,
    /// Rooms made a minute.
    #[serde(default, deserialize_with = "lenient::limit", skip_serializing_if = "Option::is_none")]
    pub rate_rooms: Option<u32>,
    /// Connections at once.
    #[serde(default)]
    pub max_connections: usize,
}

/// The answer to a `publish` to one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The message's sequence number in the room.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// Whether the message is a repeat, which was not published again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// The answer to a `publish` to several rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedToRooms<'a> {
    /// The rooms, with the message's number in each.
    #[serde(borrow, default)]
    pub rooms: Vec<RoomSeq<'a>>,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// Whether the message is a repeat, which was not published again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// The answer to `direct` and `broadcast`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent<'a> {
    /// The client that a direct message went to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Cow<'a, str>>,
    /// The message's id.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// Whether the message is a repeat, which was not published again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// The answer to a `join` of a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joined<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The epoch of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// Messages after this one are delivered.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// Whether `messages` has all messages since `since`.
    #[serde(default)]
    pub recovered: bool,
    /// The policy of the room for a member that is too slow.
    #[serde(default)]
    pub overflow: Overflow,
    /// The messages since `since`, oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default)]
    pub messages: Vec<&'a RawValue>,
    /// The members, if `presence` was set.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member<'a>>>,
    /// The number of members, if `presence` was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// The answer to a `leave` of a room or a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left<'a> {
    /// The room or pattern.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
}

/// The answer to a `join` of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed<'a> {
    /// The pattern.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The rooms that were joined.
    #[serde(borrow, default)]
    pub rooms: Vec<MatchedRoom<'a>>,
}

/// A room that was joined by a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRoom<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The epoch of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// Messages after this one are delivered.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// The policy of the room for a member that is too slow.
    #[serde(default)]
    pub overflow: Overflow,
}

/// The answer to `history`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The epoch of the room.
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    /// The room's position when the page was taken.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// The messages, oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default)]
    pub messages: Vec<&'a RawValue>,
}

/// The answer to `presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    /// The members that the server lists.
    #[serde(borrow, default)]
    pub members: Vec<Member<'a>>,
    /// How many members there are.
    #[serde(default)]
    pub count: usize,
}

/// A client in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member<'a> {
    /// The client's id.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    /// The client's name in presence.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Cow<'a, str>>,
    /// The client's user, if it has one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
}

/// The answer to `resume`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed<'a> {
    /// The client id of the session, which the client has again.
    #[serde(borrow, default)]
    pub client_id: Cow<'a, str>,
    /// The secret of the session, unchanged.
    #[serde(borrow, default)]
    pub session: Cow<'a, str>,
    /// The patterns of the session.
    #[serde(borrow, default)]
    pub patterns: Vec<Cow<'a, str>>,
    /// The rooms of the session.
    #[serde(borrow, default)]
    pub rooms: Vec<ResumedRoom<'a>>,
    /// The position in the direct messages. The missed ones follow as frames.
    #[serde(default)]
    pub direct: DirectState,
}

/// A room of a resumed session: joined, or with the `error` why it could not be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResumedRoom<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// The epoch of the room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Cow<'a, str>>,
    /// Messages after this one are delivered.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// Whether `messages` has all messages since the client's position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// The policy of the room for a member that is too slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// The missed messages, oldest first: a [`Message`](crate::Message) each.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<&'a RawValue>>,
    /// The reason why the room could not be joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    /// The members, if the session watches the room.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member<'a>>>,
    /// The number of members, if the session watches the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// The position of a client in its direct messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectState {
    /// The number of the last direct message.
    #[serde(default, deserialize_with = "lenient::seq")]
    pub seq: u64,
    /// Whether all missed messages follow.
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

/// The answer to `auth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated<'a> {
    /// The client's user.
    #[serde(borrow, default)]
    pub user: Cow<'a, str>,
    /// Seconds until the token ends, if it does.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub token_expires_s: Option<u64>,
    /// The rooms that the client may no longer be in, and has left.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Cow<'a, str>>,
}

/// The answer to `ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

/// The body of `error`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error<'a> {
    /// The stable code.
    #[serde(default)]
    pub code: ErrorCode,
    /// A text for people, which may change.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Milliseconds after which to send the command again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
