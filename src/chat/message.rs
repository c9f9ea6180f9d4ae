//! The frame of a message, formatted by hand because it is sent most often.
//!
//! Equals the `Message` of the protocol's crate, split where the rooms insert sequence numbers.

use std::cell::RefCell;

use chrono::{SecondsFormat, Utc};
use uuid::Uuid;

use super::{command::Content, json::push_string};

/// The beginning of the frame of a room's message.
const ROOM_HEAD: &str = "{\"type\":\"message\",\"room\":";

/// The beginning of the frame of a direct message, up to its number.
pub(super) const DIRECT_HEAD: &str = "{\"type\":\"direct\",\"seq\":";

/// Formats a message to one room. Returns where in it the number is to stand.
pub(super) fn to_room(room: &str, client_id: Uuid, content: &Content<'_>) -> (String, usize) {
    let mut out = String::with_capacity(head_bytes(room) + tail_bytes(content));
    push_room_head(&mut out, room);
    let at = out.len();
    push_tail(&mut out, client_id, content);
    (out, at)
}

/// How much space the beginning of a frame is given.
fn head_bytes(room: &str) -> usize {
    48 + room.len()
}

/// Formats the beginning of a message to a room, up to its number.
fn push_room_head(out: &mut String, room: &str) {
    out.push_str(ROOM_HEAD);
    push_string(out, room);
    out.push_str(",\"seq\":");
}

/// Formats a message to several rooms: each text is followed by the number in the room with that
/// index; the last text is the end.
pub(super) fn to_rooms(
    rooms: &[String],
    client_id: Uuid,
    content: &Content<'_>,
) -> (Vec<(String, usize)>, String) {
    let mut texts = Vec::with_capacity(rooms.len() + 1);
    for (index, room) in rooms.iter().enumerate() {
        let mut text = String::new();
        if index == 0 {
            let mut head = String::with_capacity(head_bytes(room));
            push_room_head(&mut head, room);
            texts.push((head, 0));
            text.push_str(",\"rooms\":[{\"room\":");
        } else {
            text.push_str("},{\"room\":");
        }
        push_string(&mut text, room);
        text.push_str(",\"seq\":");
        texts.push((text, index));
    }
    (texts, format!("}}]{}", tail(client_id, content)))
}

/// Formats a broadcast.
pub(super) fn broadcast(client_id: Uuid, content: &Content<'_>) -> String {
    format!("{{\"type\":\"broadcast\"{}", tail(client_id, content))
}

/// Formats the end of every message frame: id, sender, content, time, client id and user.
pub(super) fn tail(client_id: Uuid, content: &Content<'_>) -> String {
    let mut out = String::with_capacity(tail_bytes(content));
    push_tail(&mut out, client_id, content);
    out
}

/// How much space the end of a frame is given.
fn tail_bytes(content: &Content<'_>) -> usize {
    192 + content.content.len() + content.user.len()
}

fn push_tail(out: &mut String, client_id: Uuid, content: &Content<'_>) {
    let mut space = Uuid::encode_buffer();
    out.push_str(",\"id\":\"");
    out.push_str(content.id.hyphenated().encode_lower(&mut space));
    if let Some(sender) = content.sender {
        out.push_str("\",\"sender\":");
        out.push_str(sender);
    } else {
        out.push('"');
    }
    out.push_str(",\"content\":");
    out.push_str(content.content);
    out.push_str(",\"timestamp\":");
    match content.timestamp {
        Some(timestamp) => out.push_str(timestamp),
        None => with_timestamp(|now| out.push_str(now)),
    }
    out.push_str(",\"client_id\":\"");
    out.push_str(client_id.hyphenated().encode_lower(&mut space));
    out.push('"');
    out.push_str(content.user);
    out.push('}');
}

/// Calls `with` with the current time as a JSON string, formatted at most once a millisecond on
/// each thread.
fn with_timestamp(with: impl FnOnce(&str)) {
    thread_local! {
        static STAMP: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    STAMP.with_borrow_mut(|(at, text)| {
        let now = Utc::now();
        if now.timestamp_millis() != *at {
            *at = now.timestamp_millis();
            *text = format!("\"{}\"", now.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
        with(text);
    });
}

#[cfg(test)]
mod tests {
    use rusty_socks_protocol::{Message, RoomSeq};
    use serde_json::value::RawValue;

    use super::*;

    /// Checks that the protocol's type formats the same frame.
    fn is_of_the_protocol(text: &str) -> Message<'_> {
        let message: Message<'_> = serde_json::from_str(text).expect("a message");
        assert_eq!(serde_json::to_string(&message).expect("JSON"), text);
        message
    }

    #[test]
    fn each_message_is_one_of_the_protocol() {
        let client_id = Uuid::new_v4();
        let say = |sender, timestamp| Content {
            content: "[1,  \"\\u00e9\"]",
            id: Uuid::new_v4(),
            is_own_id: true,
            sender,
            timestamp,
            user: sender.map_or("", |_| ",\"user\":\"u 1\""),
        };
        for content in [say(None, None), say(Some("\"a\\nb\""), Some("\"2025-03-15T12:00:00Z\""))] {
            let tail = tail(client_id, &content);
            let (text, at) = to_room("a \"room\"", client_id, &content);
            let text = format!("{}7{}", &text[..at], &text[at..]);
            let message = is_of_the_protocol(&text);
            assert_eq!((message.room.as_deref(), message.seq), (Some("a \"room\""), Some(7)));
            assert_eq!(message.content.get(), content.content);
            assert_eq!(message.sender.map(RawValue::get), content.sender);
            assert_eq!(message.client_id, client_id.to_string());
            assert_eq!(message.user.as_deref(), content.sender.map(|_| "u 1"));

            let text = format!("{DIRECT_HEAD}7{tail}");
            assert_eq!(is_of_the_protocol(&text).kind, "direct");
            assert_eq!(is_of_the_protocol(&broadcast(client_id, &content)).kind, "broadcast");

            let (texts, tail) = to_rooms(&["a".into(), "b".into()], client_id, &content);
            let numbered = |(text, index): &(String, usize)| format!("{text}{}", index + 1);
            let text = texts.iter().map(numbered).collect::<String>() + &tail;
            let rooms = [("a", 1), ("b", 2)].map(|(room, seq)| RoomSeq { room: room.into(), seq });
            assert_eq!(is_of_the_protocol(&text).rooms, rooms);
        }
    }
}
