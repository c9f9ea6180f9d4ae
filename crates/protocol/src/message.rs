//! A message that somebody published or sent.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lenient;

/// A frame of type `message`, `direct` or `broadcast`.
///
/// A message to a room has `room` and `seq`, one to several rooms has `rooms` too; a direct message
/// has `seq` alone, and a broadcast none of them. A server that delivers one message to many
/// connections writes this frame by hand, in the same order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message<'a> {
    /// `message`, `direct` or `broadcast`.
    #[serde(borrow, default, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The room, or the first of several.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Cow<'a, str>>,
    /// The number in `room`, or among the direct messages of the receiver.
    #[serde(
        default,
        deserialize_with = "lenient::some_seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub seq: Option<u64>,
    /// Every room with the number there, if they are several.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<RoomSeq<'a>>,
    /// A UUID.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The name that the sender goes by: a JSON string, byte for byte as it was given. It may hold
    /// half of a surrogate pair, which is no Rust text.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<&'a RawValue>,
    /// Any JSON, byte for byte as it was given.
    #[serde(borrow)]
    pub content: &'a RawValue,
    /// RFC 3339.
    #[serde(borrow, default)]
    pub timestamp: Cow<'a, str>,
    /// The publisher's, given by the server.
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
}

/// A room, and the number of a message in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSeq<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// The number.
    #[serde(deserialize_with = "lenient::seq")]
    pub seq: u64,
}
