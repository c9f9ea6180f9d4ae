//! The session's rules without clock, socket or thread: frames and requests in, frames and events
//! out.
//!
//! `state.rs` has what a session knows and what calls change of it, this file what frames and
//! messages do, `outgoing.rs` what is sent, `answers.rs` what comes of it, `notices.rs` what the
//! server says by itself; `wanted.rs` has the rooms that calls want, `rooms.rs` those that the
//! server has the session in.

mod answers;
mod in_flight;
mod membership;
mod notices;
mod outgoing;
mod rooms;
mod state;
mod wanted;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use crate::{
    event::{Event, RoomMessage},
    frames::{Inbound, MessageFrame},
    order::{Item, Step},
};

use self::{in_flight::InternalCommand, state::Phase};

pub(crate) use self::state::{Conversation, DefaultRoom, Rules, Who};

impl Conversation {
    /// A frame of the server.
    pub(crate) fn frame(&mut self, text: &str, now: Instant) {
        let frame: Inbound = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                log::debug!("a frame that is none of the protocol: {error}");
                return;
            }
        };
        match (&mut self.phase, frame.kind.as_str()) {
            (Phase::Offline, _) => {}
            (Phase::Greeting, "welcome") => self.begin_anew(frame),
            (Phase::Resuming { welcome }, "welcome") => *welcome = Some(Box::new(frame)),
            (Phase::Resuming { .. }, "ok" | "error") => self.answered(frame, now),
            (_, "closing") => self.is_closing(frame),
            (Phase::Greeting | Phase::Resuming { .. }, _) => {}
            (Phase::Rejoining | Phase::Ready, kind) => match kind {
                "message" => self.message(frame),
                "ok" | "error" => self.answered(frame, now),
                "direct" => self.direct(frame),
                "broadcast" => self.events.extend(frame.private_message().map(Event::Broadcast)),
                "joined" | "left" | "gap" | "matched" | "unmatched" => self.notice(frame),
                _ => {}
            },
        }
        self.bound_rooms(self.rooms.len());
        self.pump(now);
    }

    fn message(&mut self, frame: Inbound) {
        let Some(message) = frame.room_message() else { return };
        self.reorderer.arrive(self.item_of(message, true));
    }

    /// What counts of a message: its places in rooms one is in or comes back to. One's own is
    /// yielded when it is live, for then it was asked for, or when it was published with echo.
    fn item_of(&self, message: RoomMessage, is_live: bool) -> Item<RoomMessage> {
        let mut places = match message.rooms.is_empty() {
            true => vec![(message.room.clone(), message.seq)],
            false => message.rooms.clone(),
        };
        places.retain(|(room, _)| self.rooms.contains_key(room));
        let hidden =
            !is_live && self.is_mine(&message.client_id) && !self.echoes.contains(&message.id);
        let mut hasher = DefaultHasher::new();
        message.id.hash(&mut hasher);
        Item { places, id: hasher.finish(), payload: (!hidden).then_some(message) }
    }

    fn is_mine(&self, client_id: &str) -> bool {
        self.me.as_ref().is_some_and(|me| me.client_id == client_id)
            || self.former.iter().any(|former| former == client_id)
    }

    /// Replayed messages; a publish of one's own whose answer was lost finds it here.
    fn items_of(&mut self, messages: Vec<MessageFrame>) -> Vec<Item<RoomMessage>> {
        let mut items = Vec::with_capacity(messages.len());
        for message in messages {
            let message = RoomMessage::from(message);
            if self.is_mine(&message.client_id) {
                self.confirm_publish(&message);
            }
            items.push(self.item_of(message, false));
        }
        items
    }

    fn take_steps(&mut self) {
        let mut steps = Vec::new();
        self.reorderer.pump(&mut steps);
        for step in steps {
            match step {
                // What is counted and not heard is of a room that was left.
                Step::Yield(message) => {
                    let is_heard = match message.rooms.is_empty() {
                        true => self.wanted.hears(&message.room),
                        false => message.rooms.iter().any(|(room, _)| self.wanted.hears(room)),
                    };
                    self.events.extend(is_heard.then_some(Event::Message(message)));
                }
                Step::Lost { room, range } => {
                    let is_heard = self.wanted.hears(&room);
                    self.events.extend(is_heard.then_some(Event::Lost { room, range }));
                }
                Step::Fetch { room, after } => {
                    self.add_internal(InternalCommand::Fetch { room, after });
                }
            }
        }
    }
}

#[cfg(test)]
mod model;
