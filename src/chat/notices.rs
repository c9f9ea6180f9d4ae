//! The server's notices as frames of the chat protocol.

use rusty_socks_protocol as protocol;
use uuid::Uuid;

use super::{
    answers::{epoch, members, overflow},
    json,
};
use crate::{Message, Notice, PreparedFrame};

/// Formats `notice` as a frame.
pub(super) fn frame(notice: &Notice<'_>) -> PreparedFrame {
    let id = |client_id: &Uuid| client_id.to_string().into();
    let notice = match notice {
        Notice::Joined { room, client_id, name, user } => protocol::Notice::Joined {
            room: room.as_str().into(),
            client_id: id(client_id),
            sender: name.map(Into::into),
            user: user.map(Into::into),
        },
        Notice::Left { room, client_id, name, user } => protocol::Notice::Left {
            room: room.as_str().into(),
            client_id: id(client_id),
            sender: name.map(Into::into),
            user: user.map(Into::into),
        },
        Notice::PresenceChanged { room, joined, left } => protocol::Notice::Presence {
            room: room.as_str().into(),
            joined: members(joined),
            left: members(left),
        },
        Notice::Gap { room, from, to } => protocol::Notice::Gap {
            room: room.as_str().into(),
            from: Some(*from),
            to: Some(*to),
            presence: false,
        },
        Notice::PresenceGap { room } => protocol::Notice::Gap {
            room: room.as_str().into(),
            from: None,
            to: None,
            presence: true,
        },
        Notice::Epoch { room, position } => protocol::Notice::Epoch {
            room: room.as_str().into(),
            epoch: epoch(position),
            seq: position.seq,
        },
        Notice::Matched { pattern, room, position, overflow: policy } => {
            protocol::Notice::Matched {
                pattern: pattern.as_str().into(),
                room: room.as_str().into(),
                epoch: epoch(position),
                seq: position.seq,
                overflow: overflow(*policy),
            }
        }
        Notice::Unmatched { pattern, room } => protocol::Notice::Unmatched {
            pattern: pattern.as_str().into(),
            room: room.as_str().into(),
        },
    };
    PreparedFrame::new(Message::Text(&json::text(&notice)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Position, RoomName};

    #[test]
    fn a_new_epoch_has_its_position() {
        let room = RoomName::new("tea").expect("a name");
        let epoch = "00000000c0ffee01".parse().expect("an epoch");
        let frame = frame(&Notice::Epoch { room: &room, position: Position { epoch, seq: 10 } });
        let text = br#"{"type":"epoch","room":"tea","epoch":"00000000c0ffee01","seq":10}"#;
        assert_eq!(frame.payload(), text);
    }
}
