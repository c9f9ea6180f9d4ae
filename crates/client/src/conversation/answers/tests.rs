//! Tests of what answers change. Here is what they all play on.

mod resume;
mod publishes;
mod pace;
mod rooms;
mod nonsense;

use std::sync::Arc;

use rusty_socks_protocol::SEQ_MAX;
use serde_json::{Value, json, value::RawValue};

use crate::{
    ask::{Draft, PublishOptions, RequestSlot, Ticket},
    backoff::ASKED_MAX,
};

use super::{
    super::state::{DefaultRoom, Rules},
    *,
};

/// A conversation, and what its frames say.
struct Talk {
    inner: Conversation,
    now: Instant,
}

impl Talk {
    fn new() -> Talk {
        let default_room = DefaultRoom::Stay;
        let rules = Rules { default_room, in_flight_max: 4, rooms_max: 4, is_never_twice: false };
        Talk { inner: Conversation::new(rules, Arc::default()), now: Instant::now() }
    }

    fn open(&mut self) {
        self.inner.opened(self.now);
    }

    fn hear(&mut self, frame: Value) {
        self.inner.frame(&frame.to_string(), self.now);
    }

    fn said(&mut self) -> Vec<Value> {
        self.inner.pump(self.now);
        self.inner.frames.drain(..).map(|text| serde_json::from_str(&text).unwrap()).collect()
    }

    /// The answer to the one command that was said.
    fn answer(&mut self, mut frame: Value) -> Value {
        let said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        frame["ref"] = said[0]["ref"].clone();
        self.hear(frame);
        said[0].clone()
    }

    fn ask<T>(&mut self, ask: Ask, read: fn(Answer) -> Option<T>) -> Ticket<T> {
        let place = RequestSlot::take(&Arc::default(), 1).unwrap();
        let (request, ticket) = Request::new(ask, place, read);
        self.inner.submit(request);
        ticket
    }

    fn join(&mut self, room: &str) -> Ticket<Entered> {
        let options = JoinOptions::default();
        self.ask(Ask::Join { room: room.into(), options, subscriber: None }, Answer::entered)
    }

    fn leave(&mut self, room: &str) -> Ticket<()> {
        self.ask(Ask::Leave { room: room.into() }, Answer::left)
    }

    fn publish(&mut self, room: &str, id: &str) -> Ticket<Receipt> {
        let message = draft(id, PublishOptions::default());
        self.ask(Ask::Publish { rooms: vec![room.into()], message }, Answer::receipt)
    }

    fn events(&mut self) -> Vec<String> {
        let name = |event: Event| match event {
            Event::Message(message) => message.content.get().to_owned(),
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().into(),
        };
        self.inner.events.drain(..).map(name).collect()
    }
}

fn draft(id: &str, options: PublishOptions) -> Draft {
    let content = RawValue::from_string("1".into()).unwrap();
    Draft { content: content.into(), id: id.into(), options }
}

fn welcome(client: &str) -> Value {
    json!({"type": "welcome", "client_id": client, "session": format!("{client}-token"),
        "room": "lobby", "epoch": "e", "seq": 2, "ping_s": 5, "max_message_bytes": 1000})
}

fn message(seq: u64, client: &str, content: u64) -> Value {
    json!({"type": "message", "room": "lobby", "seq": seq, "id": format!("id{seq}"),
        "content": content, "timestamp": "t", "client_id": client})
}

fn ready() -> Talk {
    let mut talk = Talk::new();
    talk.open();
    assert!(talk.said().is_empty(), "nothing is said before the welcome");
    talk.hear(welcome("me"));
    assert_eq!(talk.inner.ping.take(), Some(Duration::from_secs(5)));
    assert_eq!(talk.events(), ["Connected"]);
    talk
}

fn within(time: u64) -> Duration {
    Duration::from_millis(time)
}
