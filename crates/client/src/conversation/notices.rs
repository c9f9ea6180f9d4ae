//! What frames that nobody asked for change in a session.

use crate::{
    backoff::asked,
    error::{Error, ErrorKind},
    event::Event,
    frames::Inbound,
};

use super::{in_flight::InternalCommand, state::Conversation};

impl Conversation {
    pub(crate) fn direct(&mut self, frame: Inbound) {
        let Some(seq) = frame.seq else { return };
        if seq > self.direct_seq {
            self.direct_seq = seq;
            self.events.extend(frame.private_message().map(Event::Direct));
        }
    }

    pub(crate) fn is_closing(&mut self, frame: Inbound) {
        self.closing = frame.reconnect_after_ms.map(asked);
        let reason = frame.reason.unwrap_or_default();
        self.events.push_back(Event::Closing { reason, reconnect_after: self.closing });
    }

    pub(crate) fn notice(&mut self, frame: Inbound) {
        let Some(room) = frame.room.clone() else { return };
        match frame.kind.as_str() {
            // One may have left it a moment ago.
            "joined" | "left" if !self.hears(&room) => {}
            "joined" => {
                self.events.extend(frame.member().map(|member| Event::Joined { room, member }));
            }
            "left" => {
                self.events.extend(frame.member().map(|member| Event::Left { room, member }));
            }
            "gap" if frame.presence => self.recount(&room),
            "gap" => {
                if let (Some(from), Some(to)) = (frame.from, frame.to_seq()) {
                    self.reorderer.gap(&room, from, to);
                }
            }
            "matched" => self.matched(room, frame),
            _ => {
                let pattern = frame.pattern.filter(|pattern| self.wanted.hears_pattern(pattern));
                let pattern = pattern.filter(|_| self.wanted.hears(&room));
                self.events.extend(pattern.map(|pattern| Event::Unmatched { pattern, room }));
            }
        }
    }

    /// Asks who is in a room. A question that is under way is answered later than whatever made one
    /// ask again, so there is never a second.
    pub(crate) fn recount(&mut self, room: &str) {
        if let Some(membership) = self.rooms.get_mut(room)
            && !membership.is_recounted
        {
            membership.is_recounted = true;
            self.add_internal(InternalCommand::Recount { room: room.to_owned() });
        }
    }

    /// Has had enough of a server that names more rooms than allowed: they would fill our memory.
    pub(crate) fn bound_rooms(&mut self, rooms: usize) -> bool {
        let max = self.rules.rooms_max;
        if rooms > max {
            let text = format!("the server put this session in more than {max} rooms");
            self.fault.get_or_insert(Error::new(ErrorKind::Misbehaved, text));
        }
        rooms <= max
    }
}
