//! The chat protocol on a connection that is all memory, with a hub of its own and no worker.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    chat::Chat,
    config::Config,
    handler::{IntoService, Link, Peer, SendStatus},
    http::head::{HeaderSpace, Request},
    hub::{
        Hub, HubError, Joined, Page, Publication, Published, Replay,
        mailbox::{MailboxBounds, Post},
        rooms::{Room, RoomName},
    },
    store::Range,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// Chat messages, one a line: every answer is JSON, and what is passed on is passed on byte for byte.
pub fn chat(data: &[u8]) {
    let config = Config { max_rooms: 4, max_errors: 0, ..Config::default() };
    let calls = Chat::new(&config).expect("the defaults are legal").into_service().calls;
    let mut space = HeaderSpace::default();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = Request::parse(head, &mut space).expect("legal").expect("whole").0;
    let mut state = calls.upgrade(&request, &Arc::default()).expect("everyone may chat");
    let mut link = ChatLink::new(&config);
    calls.open(&mut state, &mut link);
    link.take_answers();
    for line in data.split(|byte| *byte == b'\n') {
        let message = match std::str::from_utf8(line) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(line),
        };
        calls.message(&mut state, &mut link, message);
        check_answers(line, &link.take_answers());
        for published in std::mem::take(&mut link.published) {
            check_published(std::str::from_utf8(line).expect("text"), &published);
        }
    }
    calls.drain(&mut state, &mut link);
    check_json(&link.take_answers());
    calls.close(&mut state, &mut link, &CloseReason::NORMAL);
}

/// At most one answer to a command, and one to each that asked or failed, with its `ref`.
fn check_answers(line: &[u8], answers: &[String]) {
    assert!(answers.len() <= 1, "{answers:?}");
    check_json(answers);
    for answer in answers {
        let fields: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(answer).expect("an answer is an object");
        let kind = fields["type"].get();
        assert!(["\"ok\"", "\"pong\"", "\"error\""].contains(&kind), "{answer}");
        if let Some(reference) = fields.get("ref") {
            let command = std::str::from_utf8(line).expect("a ref came in text");
            assert!(command.contains(reference.get()), "the ref as it came");
        }
        if kind == "\"error\"" {
            let code: String = serde_json::from_str(fields["code"].get()).expect("a string");
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(fields["message"].get().starts_with('"'));
        }
    }
}

fn check_json(answers: &[String]) {
    for answer in answers {
        // As RFC 8259 has it: a `ref` and a content may hold half of a surrogate pair, as they came.
        serde_json::from_str::<&RawValue>(answer).expect("answers are JSON");
    }
}

/// What members of a room get. Each field once, or this cannot be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivered<'a> {
    #[serde(rename = "type")]
    kind: String,
    room: String,
    seq: u64,
    id: String,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
    timestamp: String,
    client_id: String,
}

fn check_published(line: &str, published: &str) {
    let message: Delivered<'_> = serde_json::from_str(published).expect("a message is JSON");
    let uuid = |text| Uuid::parse_str(text).expect("a UUID");
    assert_eq!((message.kind.as_str(), uuid(&message.client_id)), ("message", ChatLink::CLIENT_ID));
    assert!(message.seq > 0 && !uuid(&message.id).is_nil());
    RoomName::new(&message.room).expect("a member's room has a legal name");
    chrono::DateTime::parse_from_rfc3339(&message.timestamp).expect("a time");
    let command: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(line).expect("only an object publishes");
    assert_eq!(message.content.get(), command["content"].get());
    // JSON has `null` for a sender that is not given, and then none is passed on.
    let given = command.get("sender").filter(|sender| sender.get() != "null");
    assert_eq!(message.sender.map(RawValue::get), given.map(|sender| sender.get()));
}

/// A connection of the chat protocol, with a hub of its own and no worker.
struct ChatLink {
    hub: Hub,
    rooms: BTreeSet<String>,
    answers: Vec<String>,
    published: Vec<String>,
}

impl ChatLink {
    const CLIENT_ID: Uuid = Uuid::from_u128(7);

    fn new(config: &Config) -> ChatLink {
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (post, _) = Post::new(Vec::new(), bounds);
        ChatLink {
            hub: Hub::new(config, post),
            rooms: BTreeSet::new(),
            answers: Vec::new(),
            published: Vec::new(),
        }
    }

    fn take_answers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.answers)
    }

    fn room(&self, name: &str) -> Result<Arc<Room>, HubError> {
        self.hub.rooms.find(name).ok_or(HubError::NoSuchRoom)
    }
}

impl Link for ChatLink {
    fn client_id(&self) -> Uuid {
        ChatLink::CLIENT_ID
    }

    fn remote_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        self.answers.push(message.as_text().expect("the protocol is text").to_owned());
        SendStatus::Sent
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.send(frame.message())
    }

    fn join(&mut self, room: &RoomName, replay: Replay) -> Result<Joined, HubError> {
        if self.is_member(room.as_str()) {
            return Err(HubError::AlreadyMember);
        }
        let (entered, position) =
            self.hub.rooms.enter(room, |_, state| state.history.position())?;
        let range = match replay {
            Replay::Since(since) => Range::After(since.seq),
            Replay::Nothing | Replay::Latest(_) => Range::Latest,
        };
        let replay = self.hub.history(&entered, range, 8).messages;
        self.rooms.insert(room.as_str().to_owned());
        Ok(Joined { position, recovered: true, replay })
    }

    fn leave(&mut self, room: &str) -> Result<(), HubError> {
        self.rooms.remove(room).then_some(()).ok_or(HubError::NotMember)
    }

    fn is_member(&self, room: &str) -> bool {
        self.rooms.contains(room)
    }

    fn publish(
        &mut self,
        room: &str,
        publication: &Publication<'_>,
        _skip_self: bool,
    ) -> Result<Published, HubError> {
        let room = self.room(room)?;
        let published = self.hub.publish(&room, publication, None)?;
        // A message that is too large for the history is seen by nobody here.
        let newest = self.hub.history(&room, Range::Latest, 1).messages.pop();
        let newest = newest.as_ref().and_then(|frame| frame.message().as_text());
        self.published.extend(newest.map(str::to_owned));
        Ok(published)
    }

    fn history(&mut self, room: &str, range: Range, limit: usize) -> Result<Page, HubError> {
        Ok(self.hub.history(&*self.room(room)?, range, limit))
    }

    fn close(&mut self, reason: CloseReason) {
        panic!("no number of errors closes this connection: {reason}");
    }

    fn peer(&self) -> Peer {
        unreachable!("the chat protocol keeps no peer")
    }
}
