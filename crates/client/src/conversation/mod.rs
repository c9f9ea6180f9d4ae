//! The session's rules without clock, socket or thread: frames and requests in, frames and events
//! out.
//!
//! `state.rs` has what a session knows and what calls change of it, this file what frames and
//! messages do, `outgoing.rs` what is sent, `answers.rs` what comes of it, `notices.rs` what the
//! server says by itself; `wanted.rs` has the rooms that calls want, `rooms.rs` those that the
//! server has the session in, `subscribers.rs` says to whom what comes of them is yielded.

mod answers;
mod in_flight;
mod membership;
mod notices;
mod outgoing;
mod rooms;
mod state;
mod subscribers;
mod wanted;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use rusty_socks_protocol::{Head, Message, answer::Welcome};
use serde_json::value::RawValue;

use crate::{
    event::{Event, RoomMessage},
    frames,
    order::{Item, Step},
};

use self::{in_flight::InternalCommand, state::Phase};

pub(crate) use self::state::{Conversation, DefaultRoom, Rules, Who};

impl Conversation {
    /// A frame of the server.
    pub(crate) fn frame(&mut self, text: &str, now: Instant) {
        let Some(head) = frames::read::<Head<'_>>(text) else { return };
        match (&mut self.phase, &*head.kind) {
            (Phase::Offline, _) => {}
            (Phase::Greeting, "welcome") => self.welcome(text),
            (Phase::Resuming { welcome }, "welcome") => {
                *welcome = frames::read::<Welcome<'_>>(text).map(|_| text.to_owned());
            }
            (Phase::Resuming { .. }, "ok" | "error") => self.answered(&head, text, now),
            (_, "closing") => self.notice(text),
            (Phase::Greeting | Phase::Resuming { .. }, _) => {}
            (Phase::Rejoining | Phase::Ready, kind) => match kind {
                "message" | "direct" | "broadcast" => self.message(text),
                "ok" | "error" => self.answered(&head, text, now),
                "joined" | "left" | "presence" | "gap" | "epoch" | "matched" | "unmatched"
                | "token_expires" => {
                    self.notice(text);
                }
                _ => {}
            },
        }
        self.bound_rooms(self.rooms.len());
        self.pump(now);
    }

    fn message(&mut self, text: &str) {
        let Some(frame) = frames::read::<Message<'_>>(text) else { return };
        match &*frame.kind {
            "message" => {
                if let Some(message) = frames::room_message(frame) {
                    self.reorderer.arrive(self.item_of(message, true));
                }
            }
            "direct" => {
                if let Some(seq) = frame.seq.filter(|seq| *seq > self.direct_seq) {
                    self.direct_seq = seq;
                    self.events.push_back(Event::Direct(frames::private_message(frame)));
                }
            }
            _ => self.events.push_back(Event::Broadcast(frames::private_message(frame))),
        }
    }

    /// What counts of a message: its places in rooms one is in or comes back to. One's own is
    /// yielded when it is live, for then it was asked for, or when it was published with echo.
    fn item_of(&self, message: RoomMessage, is_live: bool) -> Item<RoomMessage> {
        let mut places = message.positions();
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
    fn items_of(&mut self, frames: &[&RawValue]) -> Vec<Item<RoomMessage>> {
        let messages = frames::room_messages(frames).into_iter();
        let item = |message: RoomMessage| {
            if self.is_mine(&message.client_id) {
                self.confirm_publish(&message);
            }
            self.item_of(message, false)
        };
        messages.map(item).collect()
    }

    fn take_steps(&mut self) {
        let mut steps = Vec::new();
        self.reorderer.pump(&mut steps);
        for step in steps {
            match step {
                // What is counted and not heard is of a room that was left.
                Step::Yield(message) => self.yield_message(message),
                Step::Lost { room, range } => self.yield_lost(room, range),
                Step::Fetch { room, epoch, after } => {
                    self.add_internal(InternalCommand::Fetch { room, epoch, after });
                }
            }
        }
    }
}

#[cfg(test)]
mod model;
