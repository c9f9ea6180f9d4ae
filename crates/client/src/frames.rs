//! The JSON of the chat protocol as a client writes and reads it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::{Member, Members, PrivateMessage, RoomMessage};

/// A command; absent fields are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Command<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rooms: Option<Rooms<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) echo: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Since<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presence: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    #[serde(rename = "ref")]
    pub(crate) reference: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Rooms<'a> {
    Names(&'a [String]),
    Positions(Vec<Known<'a>>),
}

#[derive(Debug, Serialize)]
pub(crate) struct Known<'a> {
    pub(crate) room: &'a str,
    pub(crate) epoch: &'a str,
    pub(crate) seq: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Since<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) seq: u64,
}

impl Command<'_> {
    pub(crate) fn text(&self) -> String {
        // Strings, numbers and JSON that is JSON already: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// No room ever counts so far. A number beyond it is a fault, and without them what is one more can
/// be told.
pub(crate) const SEQ_MAX: u64 = u64::MAX >> 1;

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
pub(crate) struct Inbound {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(rename = "ref")]
    pub(crate) reference: Option<Box<RawValue>>,
    pub(crate) client_id: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) room: Option<String>,
    pub(crate) epoch: Option<String>,
    #[serde(deserialize_with = "some_seq")]
    pub(crate) seq: Option<u64>,
    pub(crate) ping_s: Option<f64>,
    pub(crate) max_message_bytes: Option<usize>,
    pub(crate) limits: Option<Limits>,
    pub(crate) rooms: Vec<InRoom>,
    pub(crate) patterns: Vec<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) recovered: bool,
    pub(crate) repeated: bool,
    pub(crate) presence: bool,
    pub(crate) overflow: Option<String>,
    pub(crate) messages: Vec<MessageFrame>,
    pub(crate) members: Option<Vec<Member>>,
    pub(crate) count: Option<u64>,
    pub(crate) direct: Option<DirectState>,
    pub(crate) id: Option<String>,
    pub(crate) sender: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(crate) content: Option<Box<RawValue>>,
    pub(crate) timestamp: Option<String>,
    #[serde(deserialize_with = "some_seq")]
    pub(crate) from: Option<u64>,
    /// A number in `gap`, a client id in the answer to `direct`.
    pub(crate) to: Option<Box<RawValue>>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) reason: Option<String>,
    pub(crate) reconnect_after_ms: Option<u64>,
}

/// `null` is content like any other.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue>>::deserialize(input).map(Some)
}

/// What a `welcome` allows a second; older servers do not say.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    pub(crate) rate_messages: Option<f64>,
    pub(crate) rate_bytes: Option<f64>,
}

/// One room of several in an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InRoom {
    pub(crate) room: String,
    pub(crate) epoch: Option<String>,
    #[serde(deserialize_with = "seq")]
    pub(crate) seq: u64,
    pub(crate) recovered: bool,
    pub(crate) overflow: Option<String>,
    pub(crate) messages: Vec<MessageFrame>,
    pub(crate) members: Option<Vec<Member>>,
    pub(crate) count: Option<u64>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DirectState {
    #[serde(deserialize_with = "seq")]
    pub(crate) seq: u64,
    pub(crate) recovered: bool,
}

/// A message, live or replayed.
#[derive(Debug, Deserialize)]
pub(crate) struct MessageFrame {
    room: String,
    #[serde(deserialize_with = "seq")]
    seq: u64,
    #[serde(default)]
    rooms: Vec<RequestSlot>,
    id: String,
    #[serde(default)]
    sender: Option<String>,
    content: Box<RawValue>,
    timestamp: String,
    client_id: String,
}

#[derive(Debug, Deserialize)]
struct RequestSlot {
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
pub(crate) fn is_latest(overflow: Option<&String>) -> bool {
    overflow.is_some_and(|overflow| overflow == "latest")
}

pub(crate) fn members(listed: Option<Vec<Member>>, count: Option<u64>) -> Option<Members> {
    let members = listed?;
    let count = count.unwrap_or(members.len() as u64);
    Some(Members { members, count })
}

impl Inbound {
    /// The number we gave the command that this answers.
    pub(crate) fn reference(&self) -> Option<u64> {
        self.reference.as_ref()?.get().parse().ok()
    }

    /// The end of a gap.
    pub(crate) fn to_seq(&self) -> Option<u64> {
        self.to.as_ref()?.get().parse().ok().filter(|to| *to <= SEQ_MAX)
    }

    pub(crate) fn room_message(self) -> Option<RoomMessage> {
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

    pub(crate) fn private_message(self) -> Option<PrivateMessage> {
        Some(PrivateMessage {
            id: self.id?,
            sender: self.sender,
            content: self.content?,
            timestamp: self.timestamp.unwrap_or_default(),
            client_id: self.client_id?,
        })
    }

    pub(crate) fn member(self) -> Option<Member> {
        Some(Member { client_id: self.client_id?, sender: self.sender })
    }
}
