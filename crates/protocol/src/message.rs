//! Messages that clients published or sent.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lenient;

/// A frame of type `message`, `direct` or `broadcast`.
///
/// A message to a room has `room` and `seq`, and one to several rooms also has `rooms`. A direct
/// message has `seq` alone, and a broadcast has none of them. The server formats this frame by
/// hand, with the fields in this order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message<'a> {
    /// `message`, `direct` or `broadcast`.
    #[serde(borrow, default, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The room, or the first of several.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Cow<'a, str>>,
    /// The sequence number in `room`, or among the direct messages of the receiver.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// All rooms with the sequence number in each, if there are several.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<RoomSeq<'a>>,
    /// The message's id, a UUID.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The name of the sender: a JSON string, byte for byte as given. It may contain half of a
    /// surrogate pair, which a Rust `str` cannot hold.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<&'a RawValue>,
    /// The content: any JSON, byte for byte as given.
    #[serde(borrow)]
    pub content: &'a RawValue,
    /// Time in RFC 3339 format.
    #[serde(borrow, default)]
    pub timestamp: Cow<'a, str>,
    /// The client id of the publisher, set by the server.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    /// The user of the publisher, if it has one, set by the server.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
}

/// A room, and the number of a message in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSeq<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// The sequence number.
    #[serde(deserialize_with = "lenient::seq")]
    pub seq: u64,
}
