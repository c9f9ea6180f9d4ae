//! How things look: colours, times, and messages as lines.

use chrono::{DateTime, Local};
use rusty_socks_client::{Event, PrivateMessage, RoomMessage};
use serde::Serialize;
use serde_json::value::RawValue;

use super::text::plain;

/// Of colours that can be read on dark and on light.
const NAMES: [&str; 6] = ["31", "32", "33", "34", "35", "36"];
const DIM: &str = "2";
const BOLD: &str = "1";

/// As much of a client id as is shown for a name.
const ID_CHARS: usize = 8;

/// How to show things.
#[derive(Debug, Clone)]
pub(super) struct Renderer {
    pub(super) is_coloured: bool,
    pub(super) has_times: bool,
    pub(super) is_json: bool,
    /// The room that need not be named.
    pub(super) room: Option<String>,
}

/// What is shown of a message; for programs in the words of the protocol.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<&'a str>,
    content: &'a RawValue,
    timestamp: &'a str,
    client_id: &'a str,
}

impl Renderer {
    pub(super) fn message(&self, message: &RoomMessage) -> String {
        let RoomMessage { room, seq, id, sender, content, timestamp, client_id, .. } = message;
        let (kind, sender) = ("message", sender.as_deref());
        let (room, seq) = (Some(room.as_str()), Some(*seq));
        let prefix = match room {
            room if room == self.room.as_deref() => String::new(),
            room => format!("{} ", self.paint(DIM, &plain(room.unwrap_or_default()))),
        };
        self.line(&prefix, &Fields { kind, room, seq, id, sender, content, timestamp, client_id })
    }

    pub(super) fn private(&self, kind: &'static str, message: &PrivateMessage) -> String {
        let PrivateMessage { id, sender, content, timestamp, client_id, .. } = message;
        let (room, seq, sender) = (None, None, sender.as_deref());
        let to = if kind == "direct" { "to you" } else { "to all" };
        let prefix = format!("{} ", self.paint(BOLD, to));
        self.line(&prefix, &Fields { kind, room, seq, id, sender, content, timestamp, client_id })
    }

    fn line(&self, prefix: &str, fields: &Fields<'_>) -> String {
        if self.is_json {
            // Strings, numbers and JSON that is JSON already.
            return serde_json::to_string(fields).unwrap_or_default();
        }
        let id: String = fields.client_id.chars().take(ID_CHARS).collect();
        let name = plain(fields.sender.unwrap_or(&id));
        let colour = NAMES[name.bytes().fold(0, |sum, byte| sum + usize::from(byte)) % NAMES.len()];
        let name = self.paint(colour, &name);
        format!("{}{prefix}{name}: {}", self.time(fields.timestamp), text_of(fields.content))
    }

    /// The time of day here; a time that cannot be read is not shown.
    fn time(&self, timestamp: &str) -> String {
        match DateTime::parse_from_rfc3339(timestamp) {
            Ok(time) if self.has_times => {
                let local = time.with_timezone(&Local).format("%H:%M:%S").to_string();
                format!("{} ", self.paint(DIM, &local))
            }
            _ => String::new(),
        }
    }

    pub(super) fn notice(&self, text: &str) -> String {
        self.paint(DIM, &format!("* {text}"))
    }

    pub(super) fn problem(&self, text: &str) -> String {
        self.paint("31", &format!("* {text}"))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.is_coloured {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// What is to be told of an event that is no message, if anything.
pub(super) fn notice(event: &Event) -> Option<String> {
    Some(match event {
        Event::Connected { client_id, resumed: false } => format!("connected as {client_id}"),
        Event::Connected { .. } => "connected again".into(),
        Event::Disconnected { reason, retry_in } => {
            format!(
                "disconnected ({}); trying again in {:.1} s",
                plain(&reason.to_string()),
                retry_in.as_secs_f64()
            )
        }
        Event::SessionLost { .. } => "the session is lost; going on with a new one".into(),
        Event::Closing { reason, .. } => format!("the server will close: {}", plain(reason)),
        Event::Joined { room, member } => {
            format!("{} came into {}", name(&member.sender, &member.client_id), plain(room))
        }
        Event::Left { room, member } => {
            format!("{} left {}", name(&member.sender, &member.client_id), plain(room))
        }
        Event::Members { .. } => return None,
        Event::Lost { room, range: Some((from, to)) } if from == to => {
            format!("message {from} of {} is lost", plain(room))
        }
        Event::Lost { room, range: Some((from, to)) } => {
            format!("messages {from} to {to} of {} are lost", plain(room))
        }
        Event::Lost { room, range: None } => {
            format!("{} began anew; messages may be lost", plain(room))
        }
        Event::DirectLost => "messages to you were lost".into(),
        Event::Matched { room, .. } => format!("joined {}", plain(room)),
        Event::Unmatched { room, .. } => format!("not joined {}: too many rooms", plain(room)),
        Event::Excluded { room, code } => format!("no longer in {}: {}", plain(room), plain(code)),
        Event::Message(_) | Event::Direct(_) | Event::Broadcast(_) => return None,
        // More will come.
        _ => return None,
    })
}

pub(super) fn name(sender: &Option<String>, client_id: &str) -> String {
    match sender {
        Some(sender) => format!("{} ({})", plain(sender), plain(client_id)),
        None => plain(client_id),
    }
}

/// A text as it is, anything else as JSON.
fn text_of(content: &RawValue) -> String {
    match serde_json::from_str::<String>(content.get()) {
        Ok(text) => plain(&text),
        Err(_) => plain(content.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_without_its_quotes_and_other_content_as_json() {
        let content = RawValue::from_string(r#""\u001b]0;x\u0007""#.into()).unwrap();
        assert_eq!(text_of(&content), "\u{fffd}]0;x\u{fffd}");
        let content = RawValue::from_string("{ \"a\":1}".into()).unwrap();
        assert_eq!(text_of(&content), "{ \"a\":1}");
    }
}
