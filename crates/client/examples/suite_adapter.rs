//! The Rust client for the conformance suite of clients: orders from stdin, what it yields to
//! stdout, as `docs/clients.md` has them.

use std::{
    io::{self, BufRead, Write},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusty_socks_client::{
    ClientBuilder, CloseReason, Error, ErrorKind, Event, JoinOptions, Pages, Position,
    PublishOptions, Receipt, Session, Ticket,
};
use serde::{Serialize, Serializer, ser};
use serde_json::{Value, json};

/// What does not hold for this client, and why.
const BY_DESIGN: &[(&str, &str)] = &[(
    "misuse/close-while-connecting",
    "connecting blocks the session's thread: close waits for that, ten seconds at most",
)];

fn main() {
    let mut session: Option<Session> = None;
    let mut telling: Option<JoinHandle<()>> = None;
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(order) = serde_json::from_str::<Value>(&line) else { break };
        match order["do"].as_str() {
            Some("about") => {
                let reasons = BY_DESIGN.iter();
                let by_design: Value =
                    reasons.map(|&(name, why)| (name.to_owned(), Value::from(why))).collect();
                say(
                    &json!({ "result": order["n"], "ok": { "name": "rust", "by_design": by_design } }),
                );
            }
            Some("connect") if session.is_none() => match connect(&order) {
                Ok(connected) => {
                    let told = connected.clone();
                    telling = Some(thread::spawn(move || tell(&told)));
                    session = Some(connected);
                    say(&json!({ "result": order["n"], "ok": null }));
                }
                Err(error) => answer(&order, Err(error.into())),
            },
            Some("reset") => {
                end(session.take(), telling.take());
                say(&json!({ "result": order["n"], "ok": null }));
            }
            _ => match session.clone() {
                // Publishes begin in the order of their lines.
                Some(session) if order["do"] == "publish" => match publish(&session, &order) {
                    Ok(ticket) => {
                        thread::spawn(move || answer(&order, published(&ticket)));
                    }
                    Err(failure) => answer(&order, Err(failure)),
                },
                Some(session) => {
                    // Calls wait for their answers, and others are made meanwhile.
                    thread::spawn(move || answer(&order, carry_out(&session, &order)));
                }
                None => answer(&order, Err(Failure::Skip("there is no client before it connects"))),
            },
        }
    }
    end(session, telling);
}

/// Closes a session, and waits until all that it yielded is told.
fn end(session: Option<Session>, telling: Option<JoinHandle<()>>) {
    if let Some(session) = session {
        // However it ends, it has ended.
        let _ = session.close();
    }
    if let Some(telling) = telling {
        let _ = telling.join();
    }
}

fn say(line: &Value) {
    let mut out = io::stdout().lock();
    // Whoever has closed the other end reads no more.
    let _ = writeln!(out, "{line}");
}

fn connect(order: &Value) -> Result<Session, Error> {
    let url = order["url"].as_str().unwrap_or_default();
    let mut builder = Session::builder().patient();
    if let Some(most) = order["options"]["outbox_max"].as_u64() {
        builder = builder.requests_max(most as usize);
    }
    if let Some(ms) = order["options"]["open_timeout_ms"].as_u64() {
        let client = ClientBuilder::default().connect_timeout(Duration::from_millis(ms));
        builder = builder.client(client);
    }
    builder.connect(url)
}

/// Tells what is yielded until the session is over.
fn tell(session: &Session) {
    loop {
        match session.recv() {
            Ok(Some(event)) => {
                if let Some(line) = yielded(event) {
                    say(&line);
                }
            }
            Ok(None) => return,
            Err(error) => {
                say(&json!({
                    "yield": "end",
                    "code": error.close_reason().map(CloseReason::code),
                    "status": error.refused().map(|refused| refused.status),
                }));
                return;
            }
        }
    }
}

fn yielded(event: Event) -> Option<Value> {
    Some(match event {
        Event::Connected { client_id, resumed } => {
            json!({ "yield": "open", "client_id": client_id, "resumed": resumed })
        }
        Event::Disconnected { reason, retry_in } => {
            json!({ "yield": "waiting", "delay_ms": retry_in.as_millis() as u64, "code": reason.code() })
        }
        Event::Message(message) => {
            let places = message.rooms.iter();
            let rooms: Vec<Value> =
                places.map(|(room, seq)| json!({ "room": room, "seq": seq })).collect();
            json!({
                "yield": "message",
                "room": message.room,
                "seq": message.seq,
                "rooms": rooms,
                "id": message.id,
                "content": message.content,
                "client_id": message.client_id,
            })
        }
        Event::Direct(message) => {
            json!({ "yield": "direct", "id": message.id, "content": message.content })
        }
        Event::Broadcast(message) => {
            json!({ "yield": "broadcast", "id": message.id, "content": message.content })
        }
        Event::Joined { room, member } => {
            json!({ "yield": "joined", "room": room, "client_id": member.client_id })
        }
        Event::Left { room, member } => {
            json!({ "yield": "left", "room": room, "client_id": member.client_id })
        }
        Event::Members { room, members } => {
            let ids: Vec<String> =
                members.members.into_iter().map(|member| member.client_id).collect();
            json!({ "yield": "members", "room": room, "clients": ids })
        }
        Event::Lost { room, range } => {
            let (from, to) = range.unzip();
            json!({ "yield": "lost", "room": room, "from": from, "to": to })
        }
        Event::DirectLost => json!({ "yield": "lost", "room": null, "from": null, "to": null }),
        Event::Matched { pattern, room } => {
            json!({ "yield": "matched", "pattern": pattern, "room": room })
        }
        Event::Unmatched { pattern, room } => {
            json!({ "yield": "unmatched", "pattern": pattern, "room": room })
        }
        Event::Excluded { room, code } => {
            json!({ "yield": "excluded", "room": room, "code": code })
        }
        _ => return None,
    })
}

/// Why an order was not carried out.
enum Failure {
    /// There is no such thing in this client.
    Skip(&'static str),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

fn answer(order: &Value, outcome: Result<Value, Failure>) {
    let n = &order["n"];
    say(&match outcome {
        Ok(ok) => json!({ "result": n, "ok": ok }),
        Err(Failure::Skip(why)) => json!({ "result": n, "skip": why }),
        Err(Failure::Error(error)) => {
            json!({ "result": n, "error": code_of(&error), "message": error.to_string() })
        }
    });
}

/// An error in the suite's words.
fn code_of(error: &Error) -> String {
    if let Some(code) = error.code() {
        return code.to_owned();
    }
    match error.kind() {
        ErrorKind::InvalidInput => "caller",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Closed => "closed",
        ErrorKind::Full => "full",
        ErrorKind::Misbehaved => "misbehaved",
        ErrorKind::Lost => "answer_lost",
        _ => "stopped",
    }
    .to_owned()
}

fn carry_out(session: &Session, order: &Value) -> Result<Value, Failure> {
    if is_bounded(order) {
        return Err(BOUNDED);
    }
    match order["do"].as_str().unwrap_or_default() {
        "connect" => Err(Failure::Skip("a session is connected once, when it is made")),
        "close" => Ok(session.close().map(|()| Value::Null)?),
        "join" => {
            let entered = session.join_with(text(order, "room")?, join_options(order)?)?;
            Ok(json!({ "room": entered.room }))
        }
        "leave" => Ok(session.leave(text(order, "room")?).map(|()| Value::Null)?),
        "direct" => {
            let options = publish_options(order)?;
            let to = text(order, "to")?;
            let sent = session.direct_with(to, &content(order)?, options)?;
            Ok(json!({ "id": sent.id }))
        }
        "broadcast" => Ok(json!({ "id": session.broadcast(&content(order)?)?.id })),
        "history" => {
            let pages = match (number(order, "before")?, number(order, "after")?) {
                (None, None) => Pages::Latest,
                (Some(before), None) => Pages::Before(before),
                (None, Some(after)) => Pages::After(after),
                _ => return Err(Failure::Skip("the types allow only one of before and after")),
            };
            let page = session.history(text(order, "room")?, pages, number(order, "limit")?)?;
            let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
            Ok(json!({ "seqs": seqs }))
        }
        "presence" => {
            let room = text(order, "room")?;
            let members = match order.get("watch") {
                None => session.presence(room)?,
                Some(watch) => session.watch_presence(room, watch.as_bool().ok_or(TYPES)?)?,
            };
            let ids: Vec<&str> =
                members.members.iter().map(|member| member.client_id.as_str()).collect();
            Ok(json!({ "clients": ids, "count": members.count }))
        }
        _ => Err(Failure::Skip("there is no such call")),
    }
}

fn is_bounded(order: &Value) -> bool {
    order.get("signal").is_some() || order.get("timeout_ms").is_some()
}

const BOUNDED: Failure = Failure::Skip("a call waits for the session's time, and has no signal");

const TYPES: Failure = Failure::Skip("the types do not allow it");

fn publish(session: &Session, order: &Value) -> Result<Ticket<Receipt>, Failure> {
    if is_bounded(order) {
        return Err(BOUNDED);
    }
    let names: Vec<&str> = match order.get("rooms") {
        None => vec![text(order, "room")?],
        Some(rooms) => {
            let rooms = rooms.as_array().ok_or(TYPES)?;
            rooms.iter().map(|room| room.as_str().ok_or(TYPES)).collect::<Result<_, _>>()?
        }
    };
    Ok(session.publish_later(&names, &content(order)?, publish_options(order)?)?)
}

fn published(ticket: &Ticket<Receipt>) -> Result<Value, Failure> {
    let receipt = ticket.wait(Duration::from_secs(60))?;
    Ok(json!({
        "room": receipt.room,
        "seq": receipt.seq,
        "id": receipt.id,
        "repeated": receipt.repeated,
    }))
}

fn text<'a>(order: &'a Value, name: &str) -> Result<&'a str, Failure> {
    order[name].as_str().ok_or(TYPES)
}

fn number(order: &Value, name: &str) -> Result<Option<u64>, Failure> {
    match order.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(TYPES),
    }
}

fn join_options(order: &Value) -> Result<JoinOptions, Failure> {
    let mut options = JoinOptions::default();
    if let Some(since) = order.get("since") {
        let seq = since["seq"].as_u64().ok_or(TYPES)?;
        options = options.since(Position { epoch: text(since, "epoch")?.to_owned(), seq });
    }
    if order.get("sender").is_some() {
        options = options.sender(text(order, "sender")?);
    }
    match order.get("presence") {
        None | Some(Value::Bool(false)) => Ok(options),
        Some(Value::Bool(true)) => Ok(options.presence()),
        Some(_) => Err(TYPES),
    }
}

fn publish_options(order: &Value) -> Result<PublishOptions, Failure> {
    let mut options = PublishOptions::default();
    if order.get("id").is_some() {
        options = options.id(text(order, "id")?);
    }
    if order.get("sender").is_some() {
        options = options.sender(text(order, "sender")?);
    }
    if order.get("echo") == Some(&Value::Bool(true)) {
        options = options.echo();
    }
    Ok(options)
}

/// What is published: JSON from the order, or one of the values that no line could bring.
enum Content {
    Json(Value),
    Float(f64),
    Deep,
    Throws,
    Key,
}

fn content(order: &Value) -> Result<Content, Failure> {
    let Some(value) = order.get("value") else {
        return Ok(Content::Json(order["content"].clone()));
    };
    match value.as_str().unwrap_or_default() {
        "nan" => Ok(Content::Float(f64::NAN)),
        "infinity" => Ok(Content::Float(f64::INFINITY)),
        "deep" => Ok(Content::Deep),
        "throws" => Ok(Content::Throws),
        "key" => Ok(Content::Key),
        _ => Err(Failure::Skip("the language has no such value")),
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Content::Json(value) => value.serialize(serializer),
            Content::Float(float) => float.serialize(serializer),
            // Deeper than a stack would be a fault of this program, and not of the client.
            Content::Deep => Nested(500).serialize(serializer),
            Content::Throws => Err(ser::Error::custom("no")),
            Content::Key => serializer.collect_map([([1, 2], 3)]),
        }
    }
}

/// So many lists within each other.
struct Nested(u32);

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => serializer.collect_seq([0u8; 0]),
            depth => serializer.collect_seq([Nested(depth - 1)]),
        }
    }
}
