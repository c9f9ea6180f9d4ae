//! What the server tells clients of its own accord, in the words of the chat protocol.

use uuid::Uuid;

use super::answers::{answer, push_overflow, push_position, push_room, push_string, push_who};
use crate::{Message, Notice, PreparedFrame, RoomName};

/// The frame that says `notice`.
pub(super) fn frame(notice: &Notice<'_>) -> PreparedFrame {
    let text = match notice {
        Notice::Joined { room, client_id, name } => presence("joined", room, *client_id, *name),
        Notice::Left { room, client_id, name } => presence("left", room, *client_id, *name),
        Notice::Gap { room, from, to } => {
            let mut out = about("gap", room);
            out.push_str(&format!(",\"from\":{from},\"to\":{to}"));
            out
        }
        Notice::PresenceGap { room } => {
            let mut out = about("gap", room);
            out.push_str(",\"presence\":true");
            out
        }
        Notice::Matched { pattern, room, position, overflow } => {
            let mut out = answer("matched", None);
            out.push_str(",\"pattern\":");
            push_string(&mut out, pattern.as_str());
            push_room(&mut out, room.as_str());
            push_position(&mut out, position);
            push_overflow(&mut out, *overflow);
            out
        }
        Notice::Unmatched { pattern, room } => {
            let mut out = answer("unmatched", None);
            out.push_str(",\"pattern\":");
            push_string(&mut out, pattern.as_str());
            push_room(&mut out, room.as_str());
            out
        }
    };
    PreparedFrame::new(Message::Text(&(text + "}")))
}

fn presence(kind: &str, room: &RoomName, client_id: Uuid, name: Option<&str>) -> String {
    let mut out = about(kind, room);
    out.push(',');
    push_who(&mut out, client_id, name);
    out
}

fn about(kind: &str, room: &RoomName) -> String {
    let mut out = answer(kind, None);
    push_room(&mut out, room.as_str());
    out
}
