//! What a client is told: the JSON of answers and of messages.

use std::cell::RefCell;

use chrono::{SecondsFormat, Utc};
use uuid::Uuid;

use super::frames::Content;
use crate::{Joined, Position, PreparedFrame, Presence, Resumed, config::Overflow};

/// How the frame of a room's message begins.
pub(super) const MESSAGE_HEAD: &str = "{\"type\":\"message\"";

/// Begins an answer: `{"type":"…","ref":…`.
pub(super) fn answer(kind: &str, reference: Option<&str>) -> String {
    let mut out = String::with_capacity(96);
    out.push_str("{\"type\":\"");
    out.push_str(kind);
    out.push('"');
    push_reference(&mut out, reference);
    out
}

pub(super) fn push_reference(out: &mut String, reference: Option<&str>) {
    if let Some(reference) = reference {
        out.push_str(",\"ref\":");
        out.push_str(reference);
    }
}

/// Appends `,"room":…`.
pub(super) fn push_room(out: &mut String, room: &str) {
    out.push_str(",\"room\":");
    push_string(out, room);
}

/// Appends `,"epoch":"…","seq":…`.
pub(super) fn push_position(out: &mut String, position: &Position) {
    out.push_str(&format!(",\"epoch\":\"{}\",\"seq\":{}", position.epoch, position.seq));
}

/// Appends `,"messages":[…]`: the messages are JSON already.
pub(super) fn push_messages(out: &mut String, messages: &[PreparedFrame]) {
    out.push_str(",\"messages\":[");
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        // It was text when it was published; checking that again is quick, mending it would not be.
        match std::str::from_utf8(message.payload()) {
            Ok(text) => out.push_str(text),
            Err(_) => out.push_str(&String::from_utf8_lossy(message.payload())),
        }
    }
    out.push(']');
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    let plain = |c: char| c >= ' ' && c != '"' && c != '\\';
    if text.chars().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Appends `,"overflow":"…"`.
pub(super) fn push_overflow(out: &mut String, overflow: Overflow) {
    out.push_str(match overflow {
        Overflow::Close => ",\"overflow\":\"close\"",
        Overflow::Gap => ",\"overflow\":\"gap\"",
        Overflow::Latest => ",\"overflow\":\"latest\"",
    });
}

/// Appends where a new member stands, and what it missed.
pub(super) fn push_joined(out: &mut String, joined: &Joined) {
    push_position(out, &joined.position);
    out.push_str(&format!(",\"recovered\":{}", joined.recovered));
    push_overflow(out, joined.overflow);
    push_messages(out, &joined.replay);
}

/// Appends `,"members":[…],"count":…`.
pub(super) fn push_presence(out: &mut String, presence: &Presence) {
    out.push_str(",\"members\":[");
    for (index, present) in presence.members.iter().enumerate() {
        out.push_str(if index > 0 { ",{" } else { "{" });
        push_who(out, present.client_id, present.name.as_deref());
        out.push('}');
    }
    out.push_str(&format!("],\"count\":{}", presence.count));
}

/// Appends `"client_id":"…"` and, of those who gave a name, `,"sender":"…"`.
pub(super) fn push_who(out: &mut String, client_id: Uuid, name: Option<&str>) {
    out.push_str(&format!("\"client_id\":\"{client_id}\""));
    if let Some(name) = name {
        out.push_str(",\"sender\":");
        push_string(out, name);
    }
}

/// Appends everything that a client that came back is told in one answer.
pub(super) fn push_resumed(out: &mut String, resumed: &Resumed, session: &str) {
    out.push_str(&format!(
        ",\"client_id\":\"{}\",\"session\":\"{session}\",\"patterns\":[",
        resumed.client_id
    ));
    for (index, pattern) in resumed.patterns.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        push_string(out, pattern.as_str());
    }
    out.push_str("],\"rooms\":[");
    for (index, room) in resumed.rooms.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"room\":" } else { "{\"room\":" });
        push_string(out, room.room.as_str());
        match &room.joined {
            Ok(joined) => push_joined(out, joined),
            Err(error) => {
                let code = super::frames::Fault::from(*error).code;
                out.push_str(&format!(",\"error\":\"{code}\""));
            }
        }
        if let Some(presence) = &room.presence {
            push_presence(out, presence);
        }
        out.push('}');
    }
    let (seq, recovered) = (resumed.direct_seq, resumed.directs_recovered);
    out.push_str(&format!("],\"direct\":{{\"seq\":{seq},\"recovered\":{recovered}}}"));
}

/// The beginning of a message to one room, up to its number.
pub(super) fn message_head(room: &str) -> String {
    let mut out = String::with_capacity(48 + room.len());
    out.push_str(MESSAGE_HEAD);
    push_room(&mut out, room);
    out.push_str(",\"seq\":");
    out
}

/// The end of every message frame: who says what, and when.
pub(super) fn message_tail(client_id: Uuid, content: &Content<'_>) -> String {
    let mut out = String::with_capacity(192 + content.content.len());
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
    out.push_str("\"}");
    out
}

/// Calls `with` with the time as a JSON string, formatted at most once a millisecond on each
/// thread.
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
