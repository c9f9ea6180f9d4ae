//! What frames that nobody asked for change in a session.

use rusty_socks_protocol::{
    ErrorCode, Notice,
    answer::{self, MatchedRoom},
};

use crate::{
    ask::Ask,
    backoff::asked,
    error::{Error, ErrorKind},
    event::{Event, Member, RoomEvent},
    frames,
};

use super::{
    in_flight::{InFlight, InternalCommand},
    state::Conversation,
};

impl Conversation {
    pub(crate) fn notice(&mut self, text: &str) {
        match frames::read(text) {
            // The rules of the server have changed.
            Some(Notice::Left { room, client_id, .. })
                if self.is_me(&client_id) && self.is_in(&room) =>
            {
                self.exclude(&room, &ErrorCode::Forbidden);
            }
            // One may have left it a moment ago.
            Some(Notice::Joined { room, .. } | Notice::Left { room, .. }) if !self.hears(&room) => {
            }
            Some(Notice::Joined { room, client_id, sender, user }) => {
                let member = frames::member(answer::Member { client_id, sender, user });
                self.yield_presence(&room, RoomEvent::Joined(member));
            }
            Some(Notice::Left { room, client_id, sender, user }) => {
                let member = frames::member(answer::Member { client_id, sender, user });
                self.yield_presence(&room, RoomEvent::Left(member));
            }
            Some(Notice::Presence { room, joined, left }) if self.hears(&room) => {
                for member in self.others(joined) {
                    self.yield_presence(&room, RoomEvent::Joined(member));
                }
                for member in self.others(left) {
                    self.yield_presence(&room, RoomEvent::Left(member));
                }
            }
            Some(Notice::Gap { room, presence: true, .. }) => self.recount(&room),
            Some(Notice::Gap { room, from: Some(from), to: Some(to), .. }) => {
                self.reorderer.gap(&room, from, to);
            }
            Some(Notice::Epoch { room, epoch, seq }) => {
                for in_flight in self.in_flight.values_mut() {
                    if let InFlight::Request(request) = in_flight
                        && matches!(&request.ask, Ask::Publish { rooms, .. } if rooms.iter().any(|of| **of == *room))
                    {
                        request.is_doubtful = true;
                    }
                }
                self.reorderer.begin_epoch(&room, &epoch, seq);
            }
            Some(Notice::Matched { pattern, room, epoch, seq, overflow }) => {
                let room = MatchedRoom { room, epoch, seq, overflow };
                self.matched(&pattern, &room);
            }
            Some(Notice::Unmatched { pattern, room })
                if self.wanted.hears_pattern(&pattern) && self.wanted.hears(&room) =>
            {
                let (pattern, room) = (pattern.into_owned(), room.into_owned());
                self.events.push_back(Event::Unmatched { pattern, room });
            }
            Some(Notice::TokenExpires { .. }) => self.needs_token = true,
            Some(Notice::Closing { reason, reconnect_after_ms }) => {
                self.closing = reconnect_after_ms.map(asked);
                let (reason, reconnect_after) = (reason.into_owned(), self.closing);
                self.events.push_back(Event::Closing { reason, reconnect_after });
            }
            // More will come.
            _ => {}
        }
    }

    /// Lists the members in a notice, without this session: a notice of several changes goes to
    /// everyone who watches, and may name its receiver.
    fn others(&self, members: Vec<answer::Member<'_>>) -> Vec<Member> {
        let members = members.into_iter().map(frames::member);
        members.filter(|member| !self.is_me(&member.client_id)).collect()
    }

    fn is_me(&self, client_id: &str) -> bool {
        self.me.as_ref().is_some_and(|me| *me.client_id == *client_id)
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
