//! The commands of clients.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A command with its `ref`, for a client to format.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'a, R> {
    /// The command.
    #[serde(flatten)]
    pub command: Command<'a>,
    /// Repeated in the answer: a string or a number.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<R>,
}

/// A command, for a client to format.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Command<'a> {
    /// Publish a message to a room, by default the default room.
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
        /// Deliver the message to this client too.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        echo: bool,
    },
    /// Send a message to one client.
    Direct {
        /// The `client_id` of the receiver.
        to: Cow<'a, str>,
        /// What is said.
        #[serde(flatten)]
        content: Content<'a>,
    },
    /// Send a message to all other connections.
    Broadcast {
        /// What is said.
        #[serde(flatten)]
        content: Content<'a>,
    },
    /// Join a room, or all rooms that match a pattern.
    Join {
        /// The room or pattern.
        room: Cow<'a, str>,
        /// Also return the messages after this position.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Position<'a>>,
        /// Also return the members, and send presence notices from now on.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        presence: bool,
        /// The name in presence.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Cow<'a, str>>,
    },
    /// Leave a room, or end the subscription to a pattern.
    Leave {
        /// The room or pattern.
        room: Cow<'a, str>,
    },
    /// Read a page of a room's history; the newest one without `before` and `after`.
    History {
        /// The room.
        room: Cow<'a, str>,
        /// The newest messages below this number.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// The oldest messages above this number.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// The most messages to return.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// List the members of a room.
    Presence {
        /// The room.
        room: Cow<'a, str>,
        /// Begin or end presence notices.
        #[serde(skip_serializing_if = "Option::is_none")]
        watch: Option<bool>,
    },
    /// Resume an earlier session.
    Resume {
        /// The secret from the session's `welcome`.
        session: Cow<'a, str>,
        /// The positions that the client had reached.
        rooms: Vec<RoomPosition<'a>>,
        /// The number of the last direct message that the client got.
        #[serde(skip_serializing_if = "Option::is_none")]
        direct: Option<u64>,
    },
    /// Say who the client is, or renew that.
    Auth {
        /// The token, a JWT.
        token: Cow<'a, str>,
    },
    /// Ask for a `pong`.
    Ping,
}

/// The content of a message, for a client to format.
#[derive(Debug, Clone, Serialize)]
pub struct Content<'a> {
    /// Any JSON.
    pub content: &'a RawValue,
    /// A UUID by which the server recognises a repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The name of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Cow<'a, str>>,
    /// Time in RFC 3339 format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Cow<'a, str>>,
}

/// A position in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position<'a> {
    /// The epoch of the room.
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
    /// The epoch of the room.
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    /// The last message before the position.
    pub seq: u64,
}

/// All fields that a command may have, for a server to parse.
///
/// The values are borrowed and not parsed yet: they can be passed on byte for byte, unneeded ones
/// cost nothing, and an error can name the wrong field.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "named as in the protocol")]
pub struct CommandFields<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    pub reference: Option<&'a RawValue>,
    #[serde(borrow)]
    pub room: Option<&'a RawValue>,
    /// `None` only if the field is missing: `null` is content too.
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
    #[serde(borrow)]
    pub token: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}
