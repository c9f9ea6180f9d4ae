//! Whom what comes of a room is yielded to: the session, if it was asked to be there, and the
//! subscriptions to the room.

use std::sync::Arc;

use rusty_socks_protocol::ErrorCode;

use crate::{
    error::Error,
    event::{Event, RoomEvent, RoomMessage},
    room_queue::{RoomQueue, Subscriber},
    room_state::RoomState,
};

use super::{
    state::Conversation,
    wanted::{fits, overlap},
};

impl Conversation {
    /// A room is joined for one more subscription.
    pub(super) fn add_subscriber(&mut self, room: &str, queue: &Arc<RoomQueue>) {
        let subscriber = Subscriber::new(queue);
        self.subscribers.entry(room.to_owned()).or_default().push(subscriber);
        // It may be gone before it has begun, when nobody waited for the answer.
        if queue.is_dropped() {
            self.forget_dropped_subscribers();
        }
    }

    /// Leaves the rooms whose last subscription is gone, unless the session was asked to be there.
    pub(crate) fn forget_dropped_subscribers(&mut self) {
        let mut vacant = Vec::new();
        self.subscribers.retain(|room, subscribers| {
            subscribers.retain(|subscriber| !subscriber.is_dropped());
            if subscribers.is_empty() {
                vacant.push(room.clone());
            }
            !subscribers.is_empty()
        });
        for room in vacant {
            self.wanted.unsubscribe(&room);
            self.reconcile(&room);
            self.note_state(&room);
        }
    }

    /// Ends the subscriptions to rooms that a call of `leave` is about.
    pub(super) fn end_left_subscribers(&mut self, leave: u64) {
        let wanted = &self.wanted;
        self.subscribers.retain(|room, subscribers| {
            let is_over = wanted.is_ended_by(leave, room);
            if is_over {
                subscribers.iter().for_each(|subscriber| subscriber.cut());
            }
            !is_over
        });
    }

    /// Ends the subscriptions to rooms that cannot be had any more.
    pub(super) fn end_excluded_subscribers(&mut self, name: &str, code: &ErrorCode) {
        let wanted = &self.wanted;
        self.subscribers.retain(|room, subscribers| {
            let is_over = overlap(name, room) && !wanted.has(room);
            if is_over {
                let text = format!("this client may not be in {room} any more");
                let error = Error::rejected(code.as_str(), &text);
                subscribers.iter().for_each(|subscriber| subscriber.end(Err(error.clone())));
            }
            !is_over
        });
    }

    /// Ends all subscriptions with the session.
    pub(crate) fn end_subscribers(&mut self, end: &Result<(), Error>) {
        for subscriber in self.subscribers.values().flatten() {
            subscriber.end(end.clone());
        }
        self.subscribers.clear();
        self.states.clear();
    }

    /// Shows the handles whether the session is in a room, or in those of a pattern.
    pub(super) fn note_states(&self, name: &str) {
        self.note_state(name);
        if name.ends_with(".*") {
            let rooms = self.rooms.keys().filter(|room| fits(name, room));
            rooms.for_each(|room| self.note_state(room));
        }
    }

    /// Shows the handles whether the session is in a room.
    pub(super) fn note_state(&self, room: &str) {
        let is_matched = self.patterns.contains(room) && self.wanted.hears_pattern(room);
        let state = if self.rooms.contains_key(room) && self.wanted.hears(room) || is_matched {
            RoomState::Joined
        } else if self.wanted.is_joining(room) {
            RoomState::Joining
        } else {
            RoomState::Out
        };
        self.states.set(room, state);
    }

    /// Yields a message: in the session once, and in each room with its number there.
    pub(super) fn yield_message(&mut self, message: RoomMessage) {
        if !self.subscribers.is_empty() {
            for (room, seq) in message.positions() {
                let event = || {
                    let (room, message) = (room.clone(), message.clone());
                    RoomEvent::Message(RoomMessage { room, seq, ..message })
                };
                self.yield_to_subscribers(&room, |_| true, event);
            }
        }
        let is_heard = match message.rooms.is_empty() {
            true => self.wanted.session_hears(&message.room),
            false => message.rooms.iter().any(|(room, _)| self.wanted.session_hears(room)),
        };
        self.events.extend(is_heard.then_some(Event::Message(message)));
    }

    pub(super) fn yield_lost(&mut self, room: String, range: Option<(u64, u64)>) {
        self.yield_to_subscribers(&room, |_| true, || RoomEvent::Lost { range });
        let is_heard = self.wanted.session_hears(&room);
        self.events.extend(is_heard.then_some(Event::Lost { room, range }));
    }

    /// Yields who is in a room, or who came or left.
    pub(super) fn yield_presence(&mut self, room: &str, event: RoomEvent) {
        let wants = |subscriber: &RoomQueue| subscriber.wants_presence;
        self.yield_to_subscribers(room, wants, || event.clone());
        let is_private = self.rooms.get(room).is_some_and(|of| of.is_watch_private);
        if is_private || !self.wanted.session_hears(room) {
            return;
        }
        let room = room.to_owned();
        self.events.extend(match event {
            RoomEvent::Joined(member) => Some(Event::Joined { room, member }),
            RoomEvent::Left(member) => Some(Event::Left { room, member }),
            RoomEvent::Members(members) => Some(Event::Members { room, members }),
            RoomEvent::Message(_) | RoomEvent::Lost { .. } | RoomEvent::Missed { .. } => None,
        });
    }

    fn yield_to_subscribers(
        &self,
        room: &str,
        wants: impl Fn(&RoomQueue) -> bool,
        event: impl Fn() -> RoomEvent,
    ) {
        let Some(subscribers) = self.subscribers.get(room) else { return };
        if !self.wanted.hears(room) {
            return;
        }
        for subscriber in subscribers.iter().filter(|subscriber| wants(subscriber)) {
            subscriber.push(event());
        }
    }
}
