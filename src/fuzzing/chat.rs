//! The chat protocol on a connection that is all memory, with a hub of its own and no worker.

use std::{borrow::Cow, collections::HashMap, net::SocketAddr, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    chat::Chat,
    config::Config,
    handler::{IntoService, erased::DynHandler},
    http::head::{HeaderSpace, Request},
    hub::{
        Hub,
        conn_handle::ConnHandle,
        conn_id::ConnId,
        mailbox::{Letter, MailboxBounds, MailboxReceiver, mailboxes_without_workers},
        names::RoomName,
        notice::NoticeFormatter,
        room::{Room, RoomKey},
        send_status::SendStatus,
        session::Session,
    },
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// Chat messages, one a line: every answer is JSON, and what is passed on is passed on byte for byte.
pub fn chat(data: &[u8]) {
    let config = Config { max_rooms: 4, max_errors: 0, broadcast: true, ..Config::default() };
    let handler = Chat::new(&config).expect("the defaults are legal").into_service().handler;
    let mut space = HeaderSpace::default();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = Request::parse(head, &mut space).expect("legal").expect("whole").0;
    let mut state = handler.upgrade(&request, &Arc::default()).expect("everyone may chat");
    let mut conn = ChatConn::new(&config, &handler);
    handler.open(&mut state, &mut conn);
    conn.take_answers();
    for line in data.split(|byte| *byte == b'\n') {
        let message = match std::str::from_utf8(line) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(line),
        };
        handler.message(&mut state, &mut conn, message);
        conn.session.set_begun();
        check_answers(line, &conn.take_answers());
        for posted in conn.take_posted() {
            if posted.starts_with("{\"type\":\"message\"") {
                check_published(
                    conn.session.client_id,
                    std::str::from_utf8(line).expect("text"),
                    &posted,
                );
            }
            check_json(&[posted]);
        }
    }
    handler.drain(&mut state, &mut conn);
    check_json(&conn.take_answers());
    handler.close(&mut state, &mut conn, &CloseReason::NORMAL);
    conn.hub.depart(&conn.session, ChatConn::ID, &CloseReason::NORMAL);
    assert_eq!(conn.hub.sessions.gauges(), (0, 0));
}

/// At most one answer to a command, and one to each that asked or failed, with its `ref`.
fn check_answers(line: &[u8], answers: &[String]) {
    assert!(answers.len() <= 1, "{answers:?}");
    if let Some(why) = std::str::from_utf8(line).ok().and_then(contradiction) {
        // As a fault of the command's own, before any room or client is looked for.
        let codes = ["bad_request", "too_large", "unrecoverable", "limit_exceeded"];
        let refusal =
            |code| answers.iter().any(|one| one.contains(&format!("\"code\":\"{code}\"")));
        assert!(codes.into_iter().any(refusal), "{why}: {answers:?}");
    }
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

/// What no command may say, told by other means than the protocol's own.
fn contradiction(line: &str) -> Option<&'static str> {
    let command: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(line).ok()?;
    let said = |name: &str| command.get(name).map(|raw| raw.get()).filter(|raw| *raw != "null");
    let is_no_switch = |name| said(name).is_some_and(|raw| raw != "true" && raw != "false");
    let text = |name| said(name).and_then(|raw| serde_json::from_str::<String>(raw).ok());
    let is_pattern = || text("room").is_some_and(|room| room.contains('*'));
    let kind = if command.contains_key("type") { text("type")? } else { "publish".to_owned() };
    let rules: &[(bool, &'static str)] = match kind.as_str() {
        "publish" => &[
            (said("room").is_some() && said("rooms").is_some(), "one room and several"),
            (said("rooms") == Some("[]"), "several rooms that are none"),
            (is_no_switch("echo"), "an echo that is neither on nor off"),
        ],
        "direct" => &[
            (text("to").is_none_or(|id| Uuid::parse_str(&id).is_err()), "a message to nobody"),
            (!command.contains_key("content"), "a message without content"),
        ],
        "broadcast" => &[(!command.contains_key("content"), "a broadcast without content")],
        "join" => &[
            (is_pattern() && said("since").is_some(), "a pattern since when"),
            (is_pattern() && said("presence") == Some("true"), "the members of a pattern"),
            (is_no_switch("presence"), "a presence that is neither on nor off"),
        ],
        "presence" => &[(is_no_switch("watch"), "a watch that is neither on nor off")],
        // Nobody knows a token of this server but by chance.
        "resume" => &[(true, "a session that was never begun")],
        _ => &[],
    };
    rules.iter().find(|(is_broken, _)| *is_broken).map(|(_, why)| *why)
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
    #[serde(borrow)]
    rooms: Option<&'a RawValue>,
    id: String,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
    timestamp: String,
    client_id: String,
}

fn check_published(client_id: Uuid, line: &str, published: &str) {
    let message: Delivered<'_> = serde_json::from_str(published).expect("a message is JSON");
    let uuid = |text| Uuid::parse_str(text).expect("a UUID");
    assert_eq!((message.kind.as_str(), uuid(&message.client_id)), ("message", client_id));
    assert!(message.seq > 0 && !uuid(&message.id).is_nil());
    RoomName::new(&message.room).expect("a member's room has a legal name");
    chrono::DateTime::parse_from_rfc3339(&message.timestamp).expect("a time");
    let command: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(line).expect("only an object publishes");
    assert_eq!(message.content.get(), command["content"].get());
    assert_eq!(message.rooms.is_some(), command.contains_key("rooms"));
    // JSON has `null` for a sender that is not given, and then none is passed on.
    let given = command.get("sender").filter(|sender| sender.get() != "null");
    assert_eq!(message.sender.map(RawValue::get), given.map(|sender| sender.get()));
}

/// A connection of the chat protocol, with a hub of its own and no worker.
struct ChatConn {
    hub: Arc<Hub>,
    session: Arc<Session>,
    rooms: HashMap<RoomKey, Arc<Room>>,
    answers: Vec<String>,
    mailbox: MailboxReceiver,
}

impl ChatConn {
    const ID: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };

    fn new(config: &Config, handler: &Arc<dyn DynHandler>) -> ChatConn {
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (mailboxes, mut receivers) = mailboxes_without_workers(1, bounds);
        let hub = Hub::new(config, mailboxes);
        let formatter: Arc<dyn NoticeFormatter> = Arc::clone(handler) as _;
        ChatConn {
            session: hub.sessions.begin(ChatConn::ID, 0, true, formatter),
            hub: Arc::new(hub),
            rooms: HashMap::new(),
            answers: Vec::new(),
            mailbox: receivers.remove(0),
        }
    }

    fn take_answers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.answers)
    }

    /// What was posted to this connection's worker, the connection's own messages included.
    fn take_posted(&mut self) -> Vec<String> {
        let mut posted = Vec::new();
        while let Some(letter) = self.mailbox.take() {
            match letter {
                Letter::Deliver { frame, .. }
                | Letter::DeliverMany { frame, .. }
                | Letter::Broadcast { frame, .. }
                | Letter::Send { frame, .. } => {
                    posted.push(frame.message().as_text().expect("text").to_owned());
                }
                Letter::Matched { room, waiting } => {
                    let hub = Arc::clone(&self.hub);
                    for (_, pattern) in waiting {
                        hub.matched(self, &room, &pattern);
                    }
                }
                _ => {}
            }
        }
        posted
    }
}

impl ConnHandle for ChatConn {
    fn id(&self) -> ConnId {
        ChatConn::ID
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    fn session(&self) -> &Arc<Session> {
        &self.session
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

    fn room(&self, name: &str) -> Option<Arc<Room>> {
        self.session.room(name)
    }

    fn close(&mut self, reason: CloseReason) {
        panic!("no number of errors closes this connection: {reason}");
    }

    fn enter(&mut self, room: &Arc<Room>, _: u64) {
        self.rooms.insert(room.key, Arc::clone(room));
    }

    fn exit(&mut self, room: &Arc<Room>) {
        if self.rooms.remove(&room.key).is_some() {
            self.hub.uncount(room, 0);
        }
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.rooms.clear();
        self.session = Arc::clone(session);
    }

    fn on_backpressure(&mut self) {}
}
