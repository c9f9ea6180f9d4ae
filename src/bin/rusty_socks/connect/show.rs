//! How things look: colours, times, and nothing in a message that a terminal would obey.

use std::fmt::Write;

use chrono::{DateTime, Local};
use rusty_socks_client::{Event, PrivateMessage, RoomMessage};
use serde::Serialize;
use serde_json::value::RawValue;

/// Of colours that can be read on dark and on light.
const NAMES: [&str; 6] = ["31", "32", "33", "34", "35", "36"];
const DIM: &str = "2";
const BOLD: &str = "1";

/// As much of a client id as is shown for a name.
const ID_CHARS: usize = 8;

/// How to show things.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) is_coloured: bool,
    pub(super) has_times: bool,
    pub(super) is_json: bool,
    /// The room that need not be named.
    pub(super) room: Option<String>,
}

/// A message as a line for programs, in the words of the protocol.
#[derive(Serialize)]
struct Json<'a> {
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

impl Look {
    pub(super) fn message(&self, message: &RoomMessage) -> String {
        let RoomMessage { room, seq, id, sender, content, timestamp, client_id, .. } = message;
        if self.is_json {
            let (room, seq) = (Some(room.as_str()), Some(*seq));
            let sender = sender.as_deref();
            return json(&Json {
                kind: "message",
                room,
                seq,
                id,
                sender,
                content,
                timestamp,
                client_id,
            });
        }
        let place = match &self.room {
            Some(current) if current == room => String::new(),
            _ => format!("{} ", self.paint(DIM, &plain(room))),
        };
        self.line(timestamp, &place, sender.as_deref(), client_id, content)
    }

    pub(super) fn private(&self, kind: &'static str, message: &PrivateMessage) -> String {
        let PrivateMessage { id, sender, content, timestamp, client_id, .. } = message;
        if self.is_json {
            let sender = sender.as_deref();
            return json(&Json {
                kind,
                room: None,
                seq: None,
                id,
                sender,
                content,
                timestamp,
                client_id,
            });
        }
        let place =
            format!("{} ", self.paint(BOLD, if kind == "direct" { "to you" } else { "to all" }));
        self.line(timestamp, &place, sender.as_deref(), client_id, content)
    }

    fn line(
        &self,
        timestamp: &str,
        place: &str,
        sender: Option<&str>,
        client_id: &str,
        content: &RawValue,
    ) -> String {
        let id: String = client_id.chars().take(ID_CHARS).collect();
        let name = plain(sender.unwrap_or(&id));
        let colour = NAMES[name.bytes().fold(0, |sum, byte| sum + usize::from(byte)) % NAMES.len()];
        let name = self.paint(colour, &name);
        format!("{}{place}{name}: {}", self.time(timestamp), text_of(content))
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

/// A count and its noun, in the plural unless it is one.
pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

pub(super) fn name(sender: &Option<String>, client_id: &str) -> String {
    match sender {
        Some(sender) => format!("{} ({})", plain(sender), plain(client_id)),
        None => plain(client_id),
    }
}

fn json(line: &Json<'_>) -> String {
    // Strings, numbers and JSON that is JSON already.
    serde_json::to_string(line).unwrap_or_default()
}

/// A text as it is, anything else as JSON.
fn text_of(content: &RawValue) -> String {
    match serde_json::from_str::<String>(content.get()) {
        Ok(text) => plain(&text),
        Err(_) => plain(content.get()),
    }
}

/// Without what a terminal would obey; tabs and line breaks as spaces.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' => ' ',
            c if c.is_control() || is_bidi(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// What turns the order of the letters around it, names of others included.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes as `00 ff`.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (index, byte) in bytes.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(text, "{space}{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\r\nc\td"), "a\u{fffd}[2Jb\u{fffd} c d");
        let content = RawValue::from_string(r#""\u001b]0;x\u0007""#.into()).unwrap();
        assert_eq!(text_of(&content), "\u{fffd}]0;x\u{fffd}");
        let content = RawValue::from_string("{ \"a\":1}".into()).unwrap();
        assert_eq!(text_of(&content), "{ \"a\":1}");
        assert_eq!(hex(&[0, 255]), "00 ff");
    }
}
