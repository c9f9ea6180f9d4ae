//! What a client says.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A command with its `ref`, for a client to write.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'a, R> {
    /// The command.
    #[serde(flatten)]
    pub command: Command<'a>,
    /// Comes back in the answer: a string or a number.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<R>,
}

/// A command, for a client to write.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Command<'a> {
    /// A message to a room, or without one to the default room.
    Publish {
        /// The room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<Cow<'a, str>>,
        /// Several rooms, in place of `room`.
        #[serde(skip_serializing_if = "Option::is_none")]
        rooms: Option<Vec<Cow<'a, str>>>,
        /// What is said.
        #[serde(flatten)]
        content: Content<'a>,
        /// Have the message delivered to this client too.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        echo: bool,
    },
    /// A message to one client.
    Direct {
        /// Its `client_id`.
        to: Cow<'a, str>,
        /// What is said.
        #[serde(flatten)]
        content: Content<'a>,
    },
    /// A message to everyone who is connected.
    Broadcast {
        /// What is said.
        #[serde(flatten)]
        content: Content<'a>,
    },
    /// Be in a room, or in all rooms that match a pattern.
    Join {
        /// The room or pattern.
        room: Cow<'a, str>,
        /// Hand out what was missed after this position.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Position<'a>>,
        /// Tell who is there, and who comes and goes.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        presence: bool,
        /// The name in presence.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
    },
    /// Be no longer in a room, or subscribed to a pattern.
    Leave {
        /// The room or pattern.
        room: Cow<'a, str>,
    },
    /// Ask for a page of what a room keeps; the newest without `before` and `after`.
    History {
        /// The room.
        room: Cow<'a, str>,
        /// The newest messages below this number.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// The oldest messages above this number.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// At most so many.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Ask who is in a room.
    Presence {
        /// The room.
        room: Cow<'a, str>,
        /// Begin or end to be told who comes and goes.
        #[serde(skip_serializing_if = "Option::is_none")]
        watch: Option<bool>,
    },
    /// Take up an earlier session.
    Resume {
        /// The secret that its `welcome` told.
        session: Cow<'a, str>,
        /// The positions reached.
        rooms: Vec<RoomPosition<'a>>,
        /// The number of the last direct message.
        #[serde(skip_serializing_if = "Option::is_none")]
        direct: Option<u64>,
    },
    /// Ask for a `pong`.
    Ping,
}

/// What a message says, for a client to write.
#[derive(Debug, Clone, Serialize)]
pub struct Content<'a> {
    /// Any JSON.
    pub content: &'a RawValue,
    /// A UUID by which a repeat is known for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The name that the sender goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Cow<'a, str>>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Cow<'a, str>>,
}

/// A position in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position<'a> {
    /// The life of the room.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last message before the position.
    pub seq: u64,
}

/// A room, and a position in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomPosition<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// The life of the room.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last message before the position.
    pub seq: u64,
}

/// Every field that a command may have, for a server to read.
///
/// All of it is borrowed and unread, so that what is passed on is passed on byte for byte, what is
/// not needed costs nothing, and an error can name the field that is wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "they are named as in the protocol")]
pub struct CommandFields<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    pub reference: Option<&'a RawValue>,
    #[serde(borrow)]
    pub room: Option<&'a RawValue>,
    /// `null` is content like any other, so only a missing field is `None`.
    #[serde(borrow, deserialize_with = "present")]
    pub content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub sender: Option<&'a RawValue>,
    #[serde(borrow)]
    pub timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    pub echo: Option<&'a RawValue>,
    #[serde(borrow)]
    pub since: Option<&'a RawValue>,
    #[serde(borrow)]
    pub before: Option<&'a RawValue>,
    #[serde(borrow)]
    pub after: Option<&'a RawValue>,
    #[serde(borrow)]
    pub limit: Option<&'a RawValue>,
    #[serde(borrow)]
    pub presence: Option<&'a RawValue>,
    #[serde(borrow)]
    pub watch: Option<&'a RawValue>,
    #[serde(borrow)]
    pub to: Option<&'a RawValue>,
    #[serde(borrow)]
    pub session: Option<&'a RawValue>,
    #[serde(borrow)]
    pub rooms: Option<&'a RawValue>,
    #[serde(borrow)]
    pub direct: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}
