//! The JSON of the chat protocol as a client writes and reads it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::{Member, Members, PrivateMessage, RoomMessage};

/// A command; absent fields are left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Command<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rooms: Option<Rooms<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direct: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) echo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Since<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) presence: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) watch: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u64>,
    #[serde(rename = "ref")]
    pub(super) reference: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Rooms<'a> {
    Names(&'a [String]),
    Positions(Vec<Known<'a>>),
}

#[derive(Debug, Serialize)]
pub(super) struct Known<'a> {
    pub(super) room: &'a str,
    pub(super) epoch: &'a str,
    pub(super) seq: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Since<'a> {
    pub(super) epoch: &'a str,
    pub(super) seq: u64,
}

impl Command<'_> {
    pub(super) fn text(&self) -> String {
        // Strings, numbers and JSON that is JSON already: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// No room ever counts so far. A number beyond it is a fault, and without them what is one more can
/// be told.
pub(super) const SEQ_MAX: u64 = u64::MAX >> 1;

fn seq<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let seq = u64::deserialize(input)?;
    let beyond = || serde::de::Error::custom(format!("no message has the number {seq}"));
    (seq <= SEQ_MAX).then_some(seq).ok_or_else(beyond)
}

fn some_seq<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    seq(input).map(Some)
}

/// Any frame of the server. What is not known is passed over, for more will come.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Inbound {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "ref")]
    pub(super) reference: Option<Box<RawValue>>,
    pub(super) client_id: Option<String>,
    pub(super) session: Option<String>,
    pub(super) room: Option<String>,
    pub(super) epoch: Option<String>,
    #[serde(deserialize_with = "some_seq")]
    pub(super) seq: Option<u64>,
    pub(super) ping_s: Option<f64>,
    pub(super) max_message_bytes: Option<usize>,
    pub(super) limits: Option<Limits>,
    pub(super) rooms: Vec<InRoom>,
    pub(super) patterns: Vec<String>,
    pub(super) pattern: Option<String>,
    pub(super) recovered: bool,
    pub(super) repeated: bool,
    pub(super) presence: bool,
    pub(super) overflow: Option<String>,
    pub(super) messages: Vec<MessageFrame>,
    pub(super) members: Option<Vec<Member>>,
    pub(super) count: Option<u64>,
    pub(super) direct: Option<DirectState>,
    pub(super) id: Option<String>,
    pub(super) sender: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(super) content: Option<Box<RawValue>>,
    pub(super) timestamp: Option<String>,
    #[serde(deserialize_with = "some_seq")]
    pub(super) from: Option<u64>,
    /// A number in `gap`, a client id in the answer to `direct`.
    pub(super) to: Option<Box<RawValue>>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) reconnect_after_ms: Option<u64>,
}

/// `null` is content like any other.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue>>::deserialize(input).map(Some)
}

/// What a `welcome` allows a second; older servers do not say.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub(super) rate_messages: Option<f64>,
    pub(super) rate_bytes: Option<f64>,
}

/// One room of several in an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InRoom {
    pub(super) room: String,
    pub(super) epoch: Option<String>,
    #[serde(deserialize_with = "seq")]
    pub(super) seq: u64,
    pub(super) recovered: bool,
    pub(super) overflow: Option<String>,
    pub(super) messages: Vec<MessageFrame>,
    pub(super) members: Option<Vec<Member>>,
    pub(super) count: Option<u64>,
    pub(super) error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DirectState {
    #[serde(deserialize_with = "seq")]
    pub(super) seq: u64,
    pub(super) recovered: bool,
}

/// A message, live or replayed.
#[derive(Debug, Deserialize)]
pub(super) struct MessageFrame {
    room: String,
    #[serde(deserialize_with = "seq")]
    seq: u64,
    #[serde(default)]
    rooms: Vec<Place>,
    id: String,
    #[serde(default)]
    sender: Option<String>,
    content: Box<RawValue>,
    timestamp: String,
    client_id: String,
}

#[derive(Debug, Deserialize)]
struct Place {
    room: String,
    #[serde(deserialize_with = "seq")]
    seq: u64,
}

impl From<MessageFrame> for RoomMessage {
    fn from(frame: MessageFrame) -> RoomMessage {
        let MessageFrame { room, seq, rooms, id, sender, content, timestamp, client_id } = frame;
        let rooms = rooms.into_iter().map(|place| (place.room, place.seq)).collect();
        RoomMessage { room, seq, rooms, id, sender, content, timestamp, client_id }
    }
}

/// The latest of a room: older messages give way, and are not fetched.
pub(super) fn is_latest(overflow: Option<&String>) -> bool {
    overflow.is_some_and(|overflow| overflow == "latest")
}

pub(super) fn members(listed: Option<Vec<Member>>, count: Option<u64>) -> Option<Members> {
    let members = listed?;
    let count = count.unwrap_or(members.len() as u64);
    Some(Members { members, count })
}

impl Inbound {
    /// The number we gave the command that this answers.
    pub(super) fn reference(&self) -> Option<u64> {
        self.reference.as_ref()?.get().parse().ok()
    }

    /// The end of a gap.
    pub(super) fn to_seq(&self) -> Option<u64> {
        self.to.as_ref()?.get().parse().ok().filter(|to| *to <= SEQ_MAX)
    }

    pub(super) fn room_message(self) -> Option<RoomMessage> {
        Some(RoomMessage {
            room: self.room?,
            seq: self.seq?,
            rooms: self.rooms.into_iter().map(|place| (place.room, place.seq)).collect(),
            id: self.id?,
            sender: self.sender,
            content: self.content?,
            timestamp: self.timestamp.unwrap_or_default(),
            client_id: self.client_id?,
        })
    }

    pub(super) fn private_message(self) -> Option<PrivateMessage> {
        Some(PrivateMessage {
            id: self.id?,
            sender: self.sender,
            content: self.content?,
            timestamp: self.timestamp.unwrap_or_default(),
            client_id: self.client_id?,
        })
    }

    pub(super) fn member(self) -> Option<Member> {
        Some(Member { client_id: self.client_id?, sender: self.sender })
    }
}
