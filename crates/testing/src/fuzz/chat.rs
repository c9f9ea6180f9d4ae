//! The chat protocol, on in-memory connections.

use std::{borrow::Cow, collections::HashMap};

use rusty_socks::{
    Config, RoomName, Server,
    chat::Chat,
    stepped::{MemoryClient, SteppedServer},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::frames::{BINARY, CLOSE, TEXT, behind_101, client_frame, server_frames, upgrade};

/// Fuzzes chat commands, one a line: every answer is JSON, and content is passed on byte for byte.
pub fn chat(data: &[u8]) {
    let mut server = server();
    let (speaker, listener) = (Speaker::enter(&mut server), Speaker::enter(&mut server));
    for line in data.split(|byte| *byte == b'\n') {
        let first = if std::str::from_utf8(line).is_ok() { TEXT } else { BINARY };
        speaker.client.write(&client_frame(first, line));
        server.settle();
        let (answers, told) =
            speaker.hear().into_iter().partition::<Vec<_>, _>(|text| is_answer(text));
        check_answers(line, &answers);
        check_json(&told);
        let heard = listener.hear();
        check_json(&heard);
        for message in heard.iter().filter(|text| text.starts_with("{\"type\":\"message\"")) {
            check_published(speaker.id, std::str::from_utf8(line).expect("text"), message);
        }
        if let Some(room) = joined(line, &answers) {
            let join = serde_json::json!({ "type": "join", "room": room }).to_string();
            listener.client.write(&client_frame(TEXT, join.as_bytes()));
            server.settle();
            listener.hear();
        }
    }
    speaker.client.write(&client_frame(CLOSE, &1000_u16.to_be_bytes()));
    server.settle();
    assert_eq!((server.connections(), server.handle().stats().sessions), (1, 1));
}

fn server() -> SteppedServer {
    let config = Config {
        max_rooms: 4,
        max_errors: 0,
        broadcast: true,
        // The clock stands still, so what is spent would never come back.
        rate_messages: 0,
        rate_bytes: 0,
        rate_rooms: 0,
        ..Config::default()
    };
    let config = Config { thread_pool_size: 1, ..config };
    let chat = Chat::new(&config).expect("the defaults are legal");
    Server::builder().route("/ws", chat).config(config).stepped().expect("a server")
}

/// Whether a frame is the answer to a command, not a notice or a message.
fn is_answer(text: &str) -> bool {
    ["ok", "pong", "error"].iter().any(|kind| text.starts_with(&format!("{{\"type\":\"{kind}\"")))
}

/// Returns the room that the client asked to join, unless the join was refused.
fn joined(line: &[u8], answers: &[String]) -> Option<String> {
    let is_refused = answers.iter().any(|answer| answer.starts_with("{\"type\":\"error\""));
    let command: HashMap<String, &RawValue> = serde_json::from_slice(line).ok()?;
    let text = |name| serde_json::from_str::<String>(command.get(name)?.get()).ok();
    text("type").filter(|kind| kind == "join" && !is_refused).and(text("room"))
}

/// A client and its id.
struct Speaker {
    client: MemoryClient,
    id: Uuid,
}

impl Speaker {
    fn enter(server: &mut SteppedServer) -> Speaker {
        let client = server.connect().expect("a place");
        client.write(upgrade("/ws", "").as_bytes());
        server.settle();
        let written = client.read();
        let (_, welcome) = server_frames(behind_101(&written)).next().expect("a welcome");
        let welcome: serde_json::Value = serde_json::from_slice(welcome).expect("it is JSON");
        let id = welcome["client_id"].as_str().and_then(|id| Uuid::parse_str(id).ok());
        Speaker { client, id: id.expect("a welcome has the id") }
    }

    fn hear(&self) -> Vec<String> {
        let frames = |(first, payload): (u8, &[u8])| {
            assert_eq!(first, TEXT, "no number of errors closes this connection");
            String::from_utf8(payload.to_vec()).expect("text is UTF-8")
        };
        server_frames(&self.client.read()).map(frames).collect()
    }
}

/// Checks that a command gets at most one answer, and one with its `ref` if it has a `ref` or
/// failed.
fn check_answers(line: &[u8], answers: &[String]) {
    assert!(answers.len() <= 1, "{answers:?}");
    if let Some(why) = std::str::from_utf8(line).ok().and_then(contradiction) {
        // A fault of the command itself, found before any room or client is looked up.
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

/// Returns why a command is invalid, found independently of the protocol's own parser.
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
        // No input contains a valid token, except by chance.
        "resume" => &[(true, "a session that was never begun")],
        _ => &[],
    };
    rules.iter().find(|(is_broken, _)| *is_broken).map(|(_, why)| *why)
}

fn check_json(answers: &[String]) {
    for answer in answers {
        // JSON as in RFC 8259: a `ref` may contain half of a surrogate pair, passed on unchanged.
        serde_json::from_str::<&RawValue>(answer).expect("answers are JSON");
    }
}

/// A message as members of a room get it. A repeated field fails to parse.
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
    serde_json::from_str::<serde_json::Value>(published).expect("every client reads a message");
    let uuid = |text| Uuid::parse_str(text).expect("a UUID");
    assert_eq!((message.kind.as_str(), uuid(&message.client_id)), ("message", client_id));
    assert!(message.seq > 0 && !uuid(&message.id).is_nil());
    RoomName::new(&message.room).expect("a member's room has a legal name");
    chrono::DateTime::parse_from_rfc3339(&message.timestamp).expect("a time");
    let command: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(line).expect("only an object publishes");
    assert_eq!(message.content.get(), command["content"].get());
    assert_eq!(message.rooms.is_some(), command.contains_key("rooms"));
    // A `null` sender counts as absent, and is not passed on.
    let given = command.get("sender").filter(|sender| sender.get() != "null");
    assert_eq!(message.sender.map(RawValue::get), given.map(|sender| sender.get()));
}
