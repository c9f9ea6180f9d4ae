//! What frames that nobody asked for change in a session.

use crate::client::{
    backoff::asked,
    error::{Error, ErrorKind},
    event::Event,
    frames::{self, Inbound},
};

use super::{Conversation, Errand};

impl Conversation {
    pub(super) fn direct(&mut self, frame: Inbound) {
        let Some(seq) = frame.seq else { return };
        if seq > self.direct_seq {
            self.direct_seq = seq;
            self.events.extend(frame.private_message().map(Event::Direct));
        }
    }

    pub(super) fn is_closing(&mut self, frame: Inbound) {
        self.closing = frame.reconnect_after_ms.map(asked);
        let reason = frame.reason.unwrap_or_default();
        self.events.push_back(Event::Closing { reason, reconnect_after: self.closing });
    }

    pub(super) fn notice(&mut self, frame: Inbound) {
        let Some(room) = frame.room.clone() else { return };
        match frame.kind.as_str() {
            "joined" => {
                self.events.extend(frame.member().map(|member| Event::Joined { room, member }));
            }
            "left" => {
                self.events.extend(frame.member().map(|member| Event::Left { room, member }));
            }
            "gap" if frame.presence => self.recount(&room),
            "gap" => {
                if let (Some(from), Some(to)) = (frame.from, frame.to_seq()) {
                    self.orders.gap(&room, from, to);
                }
            }
            "matched" => {
                let Some(pattern) = frame.pattern else { return };
                let (epoch, seq) = (frame.epoch.unwrap_or_default(), frame.seq.unwrap_or(0));
                let is_latest = frames::is_latest(frame.overflow.as_ref());
                self.come_in(&room, Some(&pattern), &epoch, seq, is_latest);
                self.events.push_back(Event::Matched { pattern, room });
            }
            _ => {
                let Some(pattern) = frame.pattern else { return };
                self.events.push_back(Event::Unmatched { pattern, room });
            }
        }
    }

    /// Asks who is in a room. A question that is under way is answered later than whatever made one ask again, so
    /// there is never a second.
    pub(super) fn recount(&mut self, room: &str) {
        if let Some(membership) = self.rooms.get_mut(room)
            && !membership.is_recounted
        {
            membership.is_recounted = true;
            self.errands.push_back((Errand::Recount { room: room.to_owned() }, 0));
        }
    }

    /// A server that lists rooms without end would fill our memory.
    pub(super) fn count_rooms(&mut self) {
        let max = self.rules.rooms_max;
        if self.rooms.len() > max {
            let text = format!("the server put this session in more than {max} rooms");
            self.fault.get_or_insert(Error::new(ErrorKind::Misbehaved, text));
        }
    }

    /// In a room with nothing missed, or where nobody said what.
    pub(super) fn come_in(
        &mut self,
        room: &str,
        pattern: Option<&str>,
        epoch: &str,
        seq: u64,
        latest: bool,
    ) {
        let membership = self.rooms.entry(room.to_owned()).or_default();
        membership.is_in = true;
        membership.pattern = pattern.map(str::to_owned);
        self.orders.replay(room, epoch, seq, latest, None);
    }
}
