//! Parses and checks commands.

use std::{borrow::Cow, collections::BTreeSet};

use chrono::DateTime;
use rusty_socks_protocol::{CommandFields, ErrorCode, Position as Since, RoomPosition};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{fault::Fault, ijson, json::is_object};
use crate::{Epoch, MembersPage, Position, Range, RoomName, RoomPattern, Watch};

/// The longest `sender`, in bytes of JSON.
pub(super) const SENDER_BYTES_MAX: usize = 256;

/// The longest `ref`, in bytes of JSON.
const REF_BYTES_MAX: usize = 128;

/// A `ref` as received, with its quotes, so that the answer repeats it byte for byte.
pub(super) type Reference = Option<Box<RawValue>>;

/// The most rooms that one message may go to.
const PUBLISH_ROOMS_MAX: usize = 32;

/// A command with all its fields checked.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Publish { to: Destination<'a>, content: Content<'a>, echo: bool },
    Direct { to: Uuid, content: Content<'a> },
    Broadcast(Content<'a>),
    Join { room: RoomName, since: Option<Position>, watch: bool, name: Option<String> },
    Leave { room: Cow<'a, str> },
    Subscribe { pattern: RoomPattern, name: Option<String> },
    Unsubscribe(RoomPattern),
    History { room: Cow<'a, str>, range: Range, limit: Option<usize> },
    Presence { room: Cow<'a, str>, watch: Watch, page: MembersPage },
    Resume(Resume<'a>),
    Auth { token: Cow<'a, str> },
    Ping,
}

/// The destination of a publish.
#[derive(Debug)]
pub(super) enum Destination<'a> {
    DefaultRoom,
    Room(Cow<'a, str>),
    Rooms(Vec<String>),
}

/// The content of a message and its metadata.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// JSON that is passed on byte for byte, like `sender` and `timestamp`.
    pub(super) content: &'a str,
    pub(super) id: Uuid,
    /// Whether the client gave the id, and so may repeat the message.
    pub(super) is_own_id: bool,
    pub(super) sender: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    /// The field `user` of the frame, with the comma before it; empty for a client without a user.
    pub(super) user: &'a str,
}

/// The fields of `resume`.
#[derive(Debug)]
pub(super) struct Resume<'a> {
    pub(super) session: Cow<'a, str>,
    pub(super) positions: Vec<(RoomName, Position)>,
    pub(super) direct_seq: Option<u64>,
}

/// Parses one command. Returns the `ref` even if the command is wrong, if it can be found.
pub(super) fn parse(text: &str) -> (Reference, Result<Command<'_>, Fault>) {
    match fields(text) {
        // By reference, because they are many, and moving them costs as much as some checks.
        Ok(ref fields) => match reference(fields) {
            Ok(reference) => (reference, command(fields)),
            Err(fault) => (None, Err(fault)),
        },
        Err(fault) => (None, Err(fault)),
    }
}

/// Parses the fields of a command, whatever they are.
pub(super) fn fields(text: &str) -> Result<CommandFields<'_>, Fault> {
    match serde_json::from_str(text) {
        Ok(_) if !is_object(text.as_bytes()) => Err(Fault::bad_request(NO_OBJECT)),
        Ok(fields) => Ok(fields),
        Err(error) => Err(not_a_command(text, &error)),
    }
}

/// The message for JSON that is not an object.
const NO_OBJECT: &str = "a command must be a JSON object";

/// Parses an object into a type that serde would also parse from a list.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok().filter(|_| is_object(json.as_bytes()))
}

fn not_a_command(text: &str, error: &serde_json::Error) -> Fault {
    if error.is_data() {
        match is_object(text.as_bytes()) {
            // Only a repeated key is an error here, because values are not parsed yet.
            true => Fault::bad_request(error.to_string()),
            false => Fault::bad_request(NO_OBJECT),
        }
    } else {
        Fault::new(ErrorCode::InvalidJson, error.to_string())
    }
}

fn reference(fields: &CommandFields<'_>) -> Result<Reference, Fault> {
    let Some(reference) = fields.reference else { return Ok(None) };
    let raw = reference.get();
    if !raw.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        return Err(Fault::bad_request("ref must be a string or a number"));
    }
    if raw.len() > REF_BYTES_MAX {
        return Err(Fault::new(
            ErrorCode::TooLarge,
            format!("ref must have at most {REF_BYTES_MAX} bytes"),
        ));
    }
    Ok(Some(reference.to_owned()))
}

fn command<'a>(fields: &CommandFields<'a>) -> Result<Command<'a>, Fault> {
    let Some(kind) = fields.kind else {
        if fields.content.is_none() {
            return Err(Fault::bad_request("a command must have a type, or content to publish"));
        }
        return publish(fields);
    };
    match string("type", kind)?.as_ref() {
        "publish" => publish(fields),
        "direct" => Ok(Command::Direct { to: client_id(fields)?, content: content(fields)? }),
        "broadcast" => content(fields).map(Command::Broadcast),
        "join" => join(fields),
        "leave" => match pattern(fields)? {
            Some(pattern) => Ok(Command::Unsubscribe(pattern)),
            None => Ok(Command::Leave { room: room(fields)? }),
        },
        "history" => Ok(Command::History {
            room: room(fields)?,
            range: range(fields)?,
            limit: fields.limit.map(|raw| number("limit", raw)).transpose()?.map(clamp),
        }),
        "presence" => {
            let watch = match fields.watch {
                None => Watch::AsBefore,
                raw if switch("watch", raw)? => Watch::Begin,
                _ => Watch::End,
            };
            Ok(Command::Presence { room: room(fields)?, watch, page: members_page(fields)? })
        }
        "resume" => resume(fields).map(Command::Resume),
        "auth" => {
            let token = fields.token.ok_or_else(|| Fault::bad_request("auth must have a token"))?;
            Ok(Command::Auth { token: string("token", token)? })
        }
        "ping" => Ok(Command::Ping),
        _ => {
            let message = "the types are publish, direct, broadcast, join, leave, history, presence, \
                           resume, auth and ping";
            Err(Fault::new(ErrorCode::UnknownType, message))
        }
    }
}

fn publish<'a>(fields: &CommandFields<'a>) -> Result<Command<'a>, Fault> {
    let to = match (fields.room, fields.rooms) {
        (None, None) => Destination::DefaultRoom,
        (Some(raw), None) => Destination::Room(string("room", raw)?),
        (None, Some(raw)) => Destination::Rooms(room_list(raw)?),
        (Some(_), Some(_)) => {
            return Err(Fault::bad_request("a publish must have room or rooms, not both"));
        }
    };
    let echo = switch("echo", fields.echo)?;
    Ok(Command::Publish { to, content: content(fields)?, echo })
}

pub(super) fn room_list(raw: &RawValue) -> Result<Vec<String>, Fault> {
    let rooms: Result<Vec<String>, _> = serde_json::from_str(raw.get());
    match rooms {
        Ok(rooms) if (1..=PUBLISH_ROOMS_MAX).contains(&rooms.len()) => Ok(rooms),
        _ => {
            let message = format!("rooms must be 1 to {PUBLISH_ROOMS_MAX} names");
            Err(Fault::bad_request(message))
        }
    }
}

pub(super) fn content<'a>(fields: &CommandFields<'a>) -> Result<Content<'a>, Fault> {
    let Some(content) = fields.content else {
        return Err(Fault::bad_request("a message must have content"));
    };
    ijson::check(content.get()).map_err(|why| why.fault("content"))?;
    let (id, is_own_id) = match given_id(fields.id) {
        Some(id) => (id, true),
        None => (Uuid::new_v4(), false),
    };
    Ok(Content {
        content: content.get(),
        id,
        is_own_id,
        sender: sender(fields)?,
        timestamp: fields.timestamp.map(RawValue::get).filter(|raw| is_timestamp(raw)),
        user: "",
    })
}

fn sender<'a>(fields: &CommandFields<'a>) -> Result<Option<&'a str>, Fault> {
    let sender = fields.sender.map(RawValue::get);
    if sender.is_some_and(|raw| !raw.starts_with('"')) {
        return Err(Fault::bad_request("sender must be a string"));
    }
    if sender.is_some_and(|raw| raw.len() > SENDER_BYTES_MAX) {
        let message = format!("sender must have at most {SENDER_BYTES_MAX} bytes");
        return Err(Fault::new(ErrorCode::TooLarge, message));
    }
    if let Some(raw) = sender {
        ijson::check(raw).map_err(|why| why.fault("sender"))?;
    }
    Ok(sender)
}

/// Returns a `sender` as text.
pub(super) fn name(sender: &str) -> Option<String> {
    serde_json::from_str(sender).ok()
}

pub(super) fn client_id(fields: &CommandFields<'_>) -> Result<Uuid, Fault> {
    let wrong = || Fault::bad_request("to must be a client_id, which is a UUID");
    let raw = fields.to.ok_or_else(wrong)?;
    unescaped(raw.get()).and_then(|id| Uuid::parse_str(id).ok()).ok_or_else(wrong)
}

fn join<'a>(fields: &CommandFields<'a>) -> Result<Command<'a>, Fault> {
    let name = sender(fields)?.and_then(name);
    let watch = switch("presence", fields.presence)?;
    if let Some(pattern) = pattern(fields)? {
        if fields.since.is_some() || watch {
            return Err(Fault::bad_request(
                "a join of a pattern must have neither since nor presence",
            ));
        }
        return Ok(Command::Subscribe { pattern, name });
    }
    Ok(Command::Join { room: room_name(fields)?, since: since(fields)?, watch, name })
}

/// Returns the pattern, if `room` is one.
fn pattern(fields: &CommandFields<'_>) -> Result<Option<RoomPattern>, Fault> {
    let room = room(fields)?;
    if !room.contains('*') {
        return Ok(None);
    }
    let legal = RoomPattern::new(&room).map(Some);
    legal.map_err(|error| Fault::bad_request(error.to_string()))
}

fn resume<'a>(fields: &CommandFields<'a>) -> Result<Resume<'a>, Fault> {
    let session = fields.session.ok_or_else(|| Fault::bad_request("resume must have a session"))?;
    let list = fields.rooms.map_or("[]", RawValue::get);
    let list: Option<Vec<&RawValue>> = serde_json::from_str(list).ok();
    let given = list.and_then(|list| list.iter().map(|raw| object(raw.get())).collect());
    let given: Vec<RoomPosition<'_>> = given.ok_or_else(|| {
        let shape = "rooms must be a list of {\"room\":string,\"epoch\":string,\"seq\":number}";
        Fault::bad_request(shape)
    })?;
    let mut positions: Vec<(RoomName, Position)> = Vec::with_capacity(given.len());
    let mut named = BTreeSet::new();
    for RoomPosition { room, epoch, seq } in given {
        let room = RoomName::new(&room).map_err(|error| Fault::bad_request(error.to_string()))?;
        if !named.insert(room.clone()) {
            return Err(Fault::bad_request("rooms must not name a room twice"));
        }
        positions.push((room, Position { epoch: epoch_of(&epoch), seq }));
    }
    Ok(Resume {
        session: string("session", session)?,
        positions,
        direct_seq: fields.direct.map(|raw| number("direct", raw)).transpose()?,
    })
}

/// Returns the id that the client gave, if it is a UUID and not nil.
fn given_id(raw: Option<&RawValue>) -> Option<Uuid> {
    let given = raw.and_then(|raw| unescaped(raw.get())).and_then(|id| Uuid::parse_str(id).ok());
    given.filter(|id| !id.is_nil())
}

fn is_timestamp(raw: &str) -> bool {
    unescaped(raw).is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok())
}

fn room<'a>(fields: &CommandFields<'a>) -> Result<Cow<'a, str>, Fault> {
    let raw = fields.room.ok_or_else(|| Fault::bad_request("this command must have a room"))?;
    string("room", raw)
}

fn room_name(fields: &CommandFields<'_>) -> Result<RoomName, Fault> {
    RoomName::new(&room(fields)?).map_err(|error| Fault::bad_request(error.to_string()))
}

fn since(fields: &CommandFields<'_>) -> Result<Option<Position>, Fault> {
    let Some(raw) = fields.since else { return Ok(None) };
    let since: Since<'_> = object(raw.get())
        .ok_or_else(|| Fault::bad_request("since must be {\"epoch\":string,\"seq\":number}"))?;
    Ok(Some(Position { epoch: epoch_of(&since.epoch), seq: since.seq }))
}

fn members_page(fields: &CommandFields<'_>) -> Result<MembersPage, Fault> {
    let wrong = || Fault::bad_request("after must be the client_id of a member");
    let id = |raw: &RawValue| unescaped(raw.get()).and_then(|id| Uuid::parse_str(id).ok());
    let after = fields.after.map(|raw| id(raw).ok_or_else(wrong)).transpose()?;
    let limit = fields.limit.map(|raw| number("limit", raw)).transpose()?;
    Ok(MembersPage { after, limit: limit.map_or(MembersPage::FIRST.limit, clamp) })
}

/// Parses an epoch. A malformed one becomes [`Epoch::UNKNOWN`], in which nothing can be recovered.
fn epoch_of(text: &str) -> Epoch {
    text.parse().unwrap_or(Epoch::UNKNOWN)
}

fn switch(field: &'static str, raw: Option<&RawValue>) -> Result<bool, Fault> {
    match raw.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::bad_request(format!("{field} must be true or false"))),
    }
}

fn range(fields: &CommandFields<'_>) -> Result<Range, Fault> {
    match (fields.before, fields.after) {
        (None, None) => Ok(Range::Latest),
        (Some(raw), None) => number("before", raw).map(Range::Before),
        (None, Some(raw)) => number("after", raw).map(Range::After),
        (Some(_), Some(_)) => {
            Err(Fault::bad_request("history must have before or after, not both"))
        }
    }
}

fn number(field: &'static str, raw: &RawValue) -> Result<u64, Fault> {
    let wrong = |_| Fault::bad_request(format!("{field} must be a whole number, 0 or more"));
    raw.get().parse().map_err(wrong)
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

pub(super) fn string<'a>(field: &'static str, raw: &'a RawValue) -> Result<Cow<'a, str>, Fault> {
    if let Some(text) = unescaped(raw.get()) {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = |_| Fault::bad_request(format!("{field} must be a string"));
    serde_json::from_str(raw.get()).map(Cow::Owned).map_err(wrong)
}

/// Returns the text between the quotes of a JSON string that needs no unescaping.
fn unescaped(raw: &str) -> Option<&str> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

#[cfg(test)]
mod tests {
    use rusty_socks_protocol as protocol;

    use super::*;

    fn fault(text: &str) -> (Option<String>, String) {
        let (reference, result) = parse(text);
        let reference = reference.map(|reference| reference.get().to_owned());
        (reference, result.expect_err(text).code.to_string())
    }

    fn published(text: &str) -> Content<'_> {
        match parse(text).1.expect(text) {
            Command::Publish { content, .. } => content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_seed_message_is_a_publish() {
        let publish = published(
            r#"{"id":"00000000-0000-0000-0000-000000000000","sender":"test_user","content":"Hello from wscat!","timestamp":"2025-03-15T12:00:00Z"}"#,
        );
        assert_eq!(publish.content, "\"Hello from wscat!\"");
        assert_eq!(publish.sender, Some("\"test_user\""));
        assert_eq!(publish.timestamp, Some("\"2025-03-15T12:00:00Z\""));
        assert!(!publish.id.is_nil(), "a nil id is replaced");
        assert!(!publish.is_own_id);
    }

    #[test]
    fn content_is_kept_byte_for_byte() {
        for content in [r#"{"a": [1,  2.50, "\u00e9"]}"#, "null", "\"\"", "1e300", "[]"] {
            let text = format!("{{\"content\":{content}}}");
            assert_eq!(published(&text).content, content);
        }
        let nested = |depth: usize| {
            format!("{{\"content\":{}{},\"ref\":1}}", "[".repeat(depth), "]".repeat(depth))
        };
        let deepest = ijson::DEPTH_MAX;
        assert_eq!(published(&nested(deepest)).content.len(), 2 * deepest);
        assert_eq!(fault(&nested(deepest + 1)), (Some("1".into()), "bad_request".into()));
    }

    #[test]
    fn what_is_no_id_or_time_is_replaced() {
        let text = r#"{"content":1,"id":7,"timestamp":"yesterday"}"#;
        assert!(published(text).timestamp.is_none());
        let text = r#"{"content":1,"id":"67E55044-10B1-426F-9247-BB680E5FE0C8"}"#;
        assert_eq!(published(text).id.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
    }

    #[test]
    fn faults_have_their_code_and_their_ref() {
        for (text, code) in [
            ("", "invalid_json"),
            ("{\"content\":", "invalid_json"),
            ("{\"content\":1}x", "invalid_json"),
            ("[1]", "bad_request"),
            (r#"["publish",1,"lobby","hi"]"#, "bad_request"),
            (r#"{"type":"join","room":"a","since":["00ff",3]}"#, "bad_request"),
            (r#"{"type":"resume","session":"a","rooms":[["a","00ff",3]]}"#, "bad_request"),
            ("\"hi\"", "bad_request"),
            ("{}", "bad_request"),
            (r#"{"content":1,"content":2}"#, "bad_request"),
            (r#"{"content":1,"ref":[]}"#, "bad_request"),
            (r#"{"content":1,"sender":5}"#, "bad_request"),
            (r#"{"content":1,"echo":"yes"}"#, "bad_request"),
            (r#"{"content":1,"room":5}"#, "bad_request"),
            (r#"{"type":5}"#, "bad_request"),
            (r#"{"type":"join"}"#, "bad_request"),
            (r#"{"type":"join","room":"a\u0000"}"#, "bad_request"),
            (r#"{"type":"join","room":"a","since":5}"#, "bad_request"),
            (r#"{"type":"history","room":"a","before":1,"after":2}"#, "bad_request"),
            (r#"{"type":"history","room":"a","limit":-1}"#, "bad_request"),
            (r#"{"type":"publish"}"#, "bad_request"),
            (r#"{"type":"dance"}"#, "unknown_type"),
        ] {
            assert_eq!(fault(text), (None, code.to_owned()), "{text}");
        }
        assert_eq!(
            fault(r#"{"type":"dance","ref":-7}"#),
            (Some("-7".into()), "unknown_type".into())
        );
        assert_eq!(fault(r#"{"ref":"a\"b"}"#), (Some(r#""a\"b""#.into()), "bad_request".into()));
        let long = format!(r#"{{"content":1,"sender":"{}"}}"#, "x".repeat(300));
        assert_eq!(fault(&long).1, "too_large");
        let long = format!(r#"{{"content":1,"ref":"{}"}}"#, "x".repeat(300));
        assert_eq!(fault(&long).1, "too_large");
    }

    #[test]
    fn positions_are_read() {
        let (_, command) =
            parse(r#"{"type":"join","room":"a","since":{"epoch":"00000000000000ff","seq":3}}"#);
        let Ok(Command::Join { since: Some(since), .. }) = command else { panic!("a join") };
        assert_eq!((since.epoch.to_string().as_str(), since.seq), ("00000000000000ff", 3));
        let (_, command) = parse(r#"{"type":"join","room":"a","since":{"epoch":"?","seq":3}}"#);
        assert!(matches!(command, Ok(Command::Join { since: Some(_), .. })));
    }

    #[test]
    fn each_command_that_a_client_writes_is_read() {
        use protocol::Command as Written;
        let raw: &RawValue = serde_json::from_str("{\"a\":1}").expect("JSON");
        let content = || protocol::Content {
            content: raw,
            id: Some("67e55044-10b1-426f-9247-bb680e5fe0c8".into()),
            sender: Some("anna".into()),
            timestamp: Some("2025-03-15T12:00:00Z".into()),
        };
        let position = || protocol::Position { epoch: "ff".into(), seq: 3 };
        let (room, rooms) = (Some("tea".into()), vec!["a".into(), "b".into()]);
        let known = RoomPosition { room: "tea".into(), epoch: "ff".into(), seq: 3 };
        let join = |room: &'static str, since, presence| Written::Join {
            room: room.into(),
            since,
            presence,
            sender: Some("anna".into()),
        };
        let (before, limit) = (Some(5), Some(10));
        let commands = [
            Written::Publish { room, rooms: None, content: content(), echo: true },
            Written::Publish { room: None, rooms: Some(rooms), content: content(), echo: false },
            Written::Direct { to: Uuid::nil().to_string().into(), content: content() },
            Written::Broadcast { content: content() },
            join("tea", Some(position()), true),
            join("a.*", None, false),
            Written::Leave { room: "tea".into() },
            Written::Leave { room: "a.*".into() },
            Written::History { room: "tea".into(), before, after: None, limit },
            Written::Presence { room: "tea".into(), watch: Some(true) },
            Written::Resume { session: "s".into(), rooms: vec![known], direct: Some(4) },
            Written::Ping,
        ];
        let read = commands.map(|command| {
            let request = protocol::Request { command, reference: Some("r") };
            let text = serde_json::to_string(&request).expect("JSON");
            let (reference, command) = parse(&text);
            assert_eq!(reference.as_deref().map(RawValue::get), Some("\"r\""));
            format!("{:?}", command.expect(&text))
        });
        let content = "Content { content: \"{\\\"a\\\":1}\", id: \
            67e55044-10b1-426f-9247-bb680e5fe0c8, is_own_id: true, sender: Some(\"\\\"anna\\\"\"), \
            timestamp: Some(\"\\\"2025-03-15T12:00:00Z\\\"\"), user: \"\" }";
        let position = "Position { epoch: Epoch(255), seq: 3 }";
        let nobody = Uuid::nil();
        let expected = [
            format!("Publish {{ to: Room(\"tea\"), content: {content}, echo: true }}"),
            format!("Publish {{ to: Rooms([\"a\", \"b\"]), content: {content}, echo: false }}"),
            format!("Direct {{ to: {nobody}, content: {content} }}"),
            format!("Broadcast({content})"),
            format!(
                "Join {{ room: \"tea\", since: Some({position}), watch: true, name: Some(\"anna\") }}"
            ),
            "Subscribe { pattern: \"a.*\", name: Some(\"anna\") }".to_owned(),
            "Leave { room: \"tea\" }".to_owned(),
            "Unsubscribe(\"a.*\")".to_owned(),
            "History { room: \"tea\", range: Before(5), limit: Some(10) }".to_owned(),
            "Presence { room: \"tea\", watch: Begin, page: MembersPage { after: None, limit: 1000 } }"
                .to_owned(),
            format!(
                "Resume(Resume {{ session: \"s\", positions: [(\"tea\", {position})], direct_seq: Some(4) }})"
            ),
            "Ping".to_owned(),
        ];
        assert_eq!(read, expected);
    }
}
