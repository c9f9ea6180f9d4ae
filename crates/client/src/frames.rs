//! The frames of the protocol as a session reads and writes them: as owned data, and tolerant of
//! what it does not know.

use std::borrow::Cow;

use rusty_socks_protocol::{Command, Message, Request, RoomPosition, answer};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{Member, Members, Position, PrivateMessage, RoomMessage};

/// A command as text, with the number by which the answer will be known.
pub(crate) fn write(command: Command<'_>, reference: u64) -> String {
    // Strings, numbers and JSON that is JSON already: there is nothing that could fail.
    serde_json::to_string(&Request { command, reference: Some(reference) }).unwrap_or_default()
}

/// Reads a frame, or a message in one. `None` for what is none of the protocol, which is passed
/// over: more will come with later versions.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let outcome = serde_json::from_str(text);
    outcome.inspect_err(|error| log::debug!("a frame that is not understood: {error}")).ok()
}

/// A message of a room.
pub(crate) fn room_message(frame: Message<'_>) -> Option<RoomMessage> {
    Some(RoomMessage {
        room: frame.room?.into_owned(),
        seq: frame.seq?,
        rooms: frame.rooms.into_iter().map(|at| (at.room.into_owned(), at.seq)).collect(),
        id: frame.id.into_owned(),
        sender: frame.sender.and_then(text),
        content: frame.content.to_owned(),
        timestamp: frame.timestamp.into_owned(),
        client_id: frame.client_id.into_owned(),
        user: frame.user.map(Cow::into_owned),
    })
}

/// Messages in an answer.
pub(crate) fn room_messages(frames: &[&RawValue]) -> Vec<RoomMessage> {
    frames.iter().filter_map(|frame| room_message(read(frame.get())?)).collect()
}

/// A message that is in no room.
pub(crate) fn private_message(frame: Message<'_>) -> PrivateMessage {
    PrivateMessage {
        id: frame.id.into_owned(),
        sender: frame.sender.and_then(text),
        content: frame.content.to_owned(),
        timestamp: frame.timestamp.into_owned(),
        client_id: frame.client_id.into_owned(),
        user: frame.user.map(Cow::into_owned),
    }
}

pub(crate) fn member(member: answer::Member<'_>) -> Member {
    let answer::Member { client_id, sender, user } = member;
    Member {
        client_id: client_id.into_owned(),
        sender: sender.map(Cow::into_owned),
        user: user.map(Cow::into_owned),
    }
}

/// Those who are listed, if they are; a server may count more.
pub(crate) fn members(
    listed: Option<Vec<answer::Member<'_>>>,
    count: Option<usize>,
) -> Option<Members> {
    let listed = listed?.into_iter();
    let members: Vec<Member> = listed.map(member).collect();
    Some(Members { count: count.unwrap_or(members.len()) as u64, members })
}

/// A position for the server to read.
pub(crate) fn since(position: &Position) -> rusty_socks_protocol::Position<'_> {
    rusty_socks_protocol::Position { epoch: (&position.epoch).into(), seq: position.seq }
}

/// A room, and the position in it, for the server to read.
pub(crate) fn room_position<'a>(room: &'a str, epoch: &'a str, seq: u64) -> RoomPosition<'a> {
    RoomPosition { room: room.into(), epoch: epoch.into(), seq }
}

/// The text of a JSON string. JSON may hold half of a surrogate pair, which is no Rust text: U+FFFD
/// stands for it. `None` for what is no string.
fn text(json: &RawValue) -> Option<String> {
    let json = json.get();
    serde_json::from_str(json).or_else(|_| serde_json::from_str(&without_halves(json))).ok()
}

/// JSON with U+FFFD for each half of a surrogate pair.
fn without_halves(json: &str) -> String {
    /// The number of the `\u` escape that `json` begins with.
    fn unit(json: &str) -> Option<u16> {
        u16::from_str_radix(json.strip_prefix("\\u")?.get(..4)?, 16).ok()
    }
    let mut whole = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let second = || escape.get(6..).and_then(unit);
        let (len, is_half) = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(second(), Some(0xdc00..=0xdfff)) => (12, false),
            Some(0xd800..=0xdfff) => (6, true),
            Some(_) => (6, false),
            // The backslash and what it escapes, which is one character.
            None => (1 + escape.chars().nth(1).map_or(0, char::len_utf8), false),
        };
        let (escape, behind) = escape.split_at(len);
        whole.push_str(if is_half { "\\ufffd" } else { escape });
        rest = behind;
    }
    whole + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_surrogate_pair_is_replaced_and_nothing_else() {
        for (json, read) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udc00\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\\ud800\ud800""#, "\\ud800\u{fffd}"),
            (r#""\ud800\\é\"""#, "\u{fffd}\\é\""),
            (r#""plain""#, "plain"),
        ] {
            let json = RawValue::from_string(json.into()).unwrap();
            assert_eq!(text(&json).as_deref(), Some(read), "{json}");
        }
        assert_eq!(text(&RawValue::from_string("7".into()).unwrap()), None);
        for odd in ["\\", "\\u", "\\ud800", "\\ud8", "\\ü", "\\ud800\\u", ""] {
            without_halves(odd);
        }
    }
}
