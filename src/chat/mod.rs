//! The shipped handler: rooms, history and recovery in JSON text frames (`rusty-socks.v1`).
//!
//! Written against the library's public face alone, so that whatever it does an embedder can do too.

mod frames;
mod rate;

use std::{cell::RefCell, sync::Arc};

use chrono::{SecondsFormat, Utc};
use uuid::Uuid;

use crate::{
    CloseReason, Config, Context, Error, Handler, HubError, Joined, Message, Position, Publication,
    Published, Range, Replay, RoomName, SendStatus, Server,
};
use frames::{Command, Fault, Publish, Reference};
use rate::Rate;

/// The name of the chat protocol in `Sec-WebSocket-Protocol`.
const SUBPROTOCOL: &str = "rusty-socks.v1";

/// The path the chat protocol is served under.
const CHAT_PATH: &str = "/ws";

/// The path of the echo route, where it is enabled.
const ECHO_PATH: &str = "/echo";

/// The span over which clients are asked to spread their return after a drain, in milliseconds.
const RECONNECT_SPREAD_MS: u128 = 5000;

/// The shipped server: the chat protocol on `/ws`, and `/echo` where `config.echo` says so.
///
/// # Errors
/// Those of [`Builder::bind`](crate::Builder::bind).
pub fn server(config: Config) -> Result<Server, Error> {
    let mut builder = Server::builder().route(CHAT_PATH, Chat::new(&config)?);
    if config.echo {
        builder = builder.route(ECHO_PATH, echo);
    }
    builder.config(config).bind()
}

/// Returns every message as it came.
fn echo(ctx: &mut Context<'_, ()>, message: Message<'_>) {
    // A client that does not read its echoes is paused, and one that never reads is closed.
    let _: SendStatus = ctx.send(message);
}

/// The chat protocol as a [`Handler`].
#[derive(Debug)]
pub struct Chat {
    default_room: Option<RoomName>,
    replay: usize,
    history_max: usize,
    errors_max: u32,
    rate: Rate,
    /// The end of every `welcome`, which is the same for all.
    welcome_tail: Arc<str>,
}

/// What the protocol remembers about one connection.
#[derive(Debug, Default)]
pub struct ChatState {
    errors_in_a_row: u32,
    allowance: Option<Box<rate::Allowance>>,
}

type Ctx<'a> = Context<'a, ChatState>;

impl Chat {
    /// A handler with the rooms and limits of `config`.
    ///
    /// # Errors
    /// The default room's name is not a legal one.
    pub fn new(config: &Config) -> Result<Chat, Error> {
        let default_room = match config.default_room.as_str() {
            "" => None,
            name => Some(RoomName::new(name)?),
        };
        let welcome_tail = format!(
            ",\"server\":\"rusty_socks/{}\",\"node\":\"{}\",\"ping_s\":{},\"max_message_bytes\":{}}}",
            env!("CARGO_PKG_VERSION"),
            Uuid::new_v4(),
            config.ping.as_secs_f64(),
            config.max_message_bytes,
        );
        Ok(Chat {
            default_room,
            replay: config.replay,
            history_max: config.history,
            errors_max: config.max_errors,
            rate: Rate::new(config.rate_messages, config.rate_bytes),
            welcome_tail: welcome_tail.into(),
        })
    }

    fn carry_out(&self, ctx: &mut Ctx<'_>, command: Command<'_>, reference: Reference) {
        match command {
            Command::Publish(publish) => self.publish(ctx, &publish, reference),
            Command::Join { room, since } => self.join(ctx, room, since, reference),
            Command::Leave { room } => match ctx.leave(&room) {
                Ok(()) => ok(ctx, reference.as_deref(), |out| frames::push_room(out, &room)),
                Err(error) => self.fail(ctx, &error.into(), reference.as_deref()),
            },
            Command::History { room, range, limit } => {
                self.history(ctx, &room, range, limit, reference);
            }
            Command::Ping => {
                ctx.state().errors_in_a_row = 0;
                let mut out = frames::answer("pong", reference.as_deref());
                out.push('}');
                reply(ctx, &out);
            }
        }
    }

    fn publish(&self, ctx: &mut Ctx<'_>, publish: &Publish<'_>, reference: Reference) {
        let default_room = || self.default_room.as_ref().map(RoomName::as_str);
        let Some(room) = publish.room.as_deref().or_else(default_room) else {
            let fault = Fault::bad_request("there is no default room: name one");
            return self.fail(ctx, &fault, reference.as_deref());
        };
        if !ctx.is_member(room) {
            return self.fail(ctx, &HubError::NotMember.into(), reference.as_deref());
        }
        let (before, after) = message(ctx.client_id(), room, publish);
        let publication = Publication::around_seq(&before, &after);
        let (errors_max, id) = (self.errors_max, publish.id);
        // Only what the answer needs is carried over, and most publishes want none.
        let answered_room = reference.is_some().then(|| room.to_owned());
        let then = move |ctx: &mut Ctx<'_>, result: Result<Published, HubError>| match result {
            Ok(published) => ok(ctx, reference.as_deref(), |out| {
                frames::push_room(out, answered_room.as_deref().unwrap_or_default());
                out.push_str(&format!(",\"seq\":{},\"id\":\"{id}\"", published.seq));
            }),
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        };
        match publish.echo {
            true => ctx.publish(room, publication, then),
            false => ctx.broadcast(room, publication, then),
        }
    }

    fn join(
        &self,
        ctx: &mut Ctx<'_>,
        room: RoomName,
        since: Option<Position>,
        reference: Reference,
    ) {
        let errors_max = self.errors_max;
        let replay = since.map_or(Replay::Nothing, Replay::Since);
        let name = room.clone();
        ctx.join(&room, replay, move |ctx, result| match result {
            // Who asks what was missed wants the answer, with or without a ref.
            Ok(joined) if reference.is_some() || since.is_some() => {
                answer_ok(ctx, reference.as_deref(), |out| {
                    frames::push_room(out, name.as_str());
                    frames::push_position(out, &joined.position);
                    out.push_str(&format!(",\"recovered\":{}", joined.recovered));
                    frames::push_messages(out, &joined.replay);
                });
            }
            Ok(_) => ctx.state().errors_in_a_row = 0,
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    fn history(
        &self,
        ctx: &mut Ctx<'_>,
        room: &str,
        range: Range,
        limit: Option<usize>,
        reference: Reference,
    ) {
        if !ctx.is_member(room) {
            return self.fail(ctx, &HubError::NotMember.into(), reference.as_deref());
        }
        let limit = limit.map_or(self.history_max, |limit| limit.min(self.history_max));
        let (errors_max, name) = (self.errors_max, room.to_owned());
        ctx.history(room, range, limit, move |ctx, result| match result {
            // It is a question, so it is answered with or without a ref.
            Ok(page) => answer_ok(ctx, reference.as_deref(), |out| {
                frames::push_room(out, &name);
                frames::push_position(out, &page.position);
                frames::push_messages(out, &page.messages);
            }),
            Err(error) => fail(ctx, errors_max, &error.into(), reference.as_deref()),
        });
    }

    fn fail(&self, ctx: &mut Ctx<'_>, fault: &Fault, reference: Option<&str>) {
        fail(ctx, self.errors_max, fault, reference);
    }
}

impl Handler for Chat {
    type State = ChatState;

    fn subprotocols(&self) -> &[&str] {
        &[SUBPROTOCOL]
    }

    fn on_open(&self, ctx: &mut Ctx<'_>) {
        let Some(room) = &self.default_room else {
            return welcome(ctx, None, &self.welcome_tail);
        };
        let (name, tail) = (room.clone(), Arc::clone(&self.welcome_tail));
        ctx.join(room, Replay::Latest(self.replay), move |ctx, result| match result {
            Ok(joined) => {
                welcome(ctx, Some((&name, &joined)), &tail);
                for message in &joined.replay {
                    let _: SendStatus = ctx.send_prepared(message);
                }
            }
            Err(error) => {
                welcome(ctx, None, &tail);
                reply(ctx, &Fault::from(error).frame(None));
            }
        });
    }

    fn on_message(&self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        if let Err(wait_ms) = self.rate.spend(&mut ctx.state().allowance, message.as_bytes().len())
        {
            let fault = Fault::new("rate_limited", "more messages or bytes than the rate allows");
            // It is read all the same: the client must learn which of its commands was refused.
            let reference = message.as_text().and_then(|text| frames::parse(text).0);
            return self.fail(ctx, &fault.retry_after_ms(wait_ms), reference.as_deref());
        }
        let Message::Text(text) = message else {
            let fault = Fault::bad_request("the protocol is JSON in text messages");
            return self.fail(ctx, &fault, None);
        };
        match frames::parse(text) {
            (reference, Ok(command)) => self.carry_out(ctx, command, reference),
            (reference, Err(fault)) => self.fail(ctx, &fault, reference.as_deref()),
        }
    }

    fn on_drain(&self, ctx: &mut Ctx<'_>) {
        // Everyone gets another delay, so that not everyone comes back at once.
        let delay = ctx.client_id().as_u128() % RECONNECT_SPREAD_MS;
        let frame =
            format!("{{\"type\":\"closing\",\"reason\":\"drain\",\"reconnect_after_ms\":{delay}}}");
        reply(ctx, &frame);
    }
}

fn welcome(ctx: &mut Ctx<'_>, joined: Option<(&RoomName, &Joined)>, tail: &str) {
    let mut out = frames::answer("welcome", None);
    out.push_str(&format!(",\"client_id\":\"{}\"", ctx.client_id()));
    if let Some((room, joined)) = joined {
        frames::push_room(&mut out, room.as_str());
        frames::push_position(&mut out, &joined.position);
    }
    out.push_str(tail);
    reply(ctx, &out);
}

/// A command succeeded: answers if it had a `ref`.
fn ok(ctx: &mut Ctx<'_>, reference: Option<&str>, fields: impl FnOnce(&mut String)) {
    match reference {
        Some(_) => answer_ok(ctx, reference, fields),
        None => ctx.state().errors_in_a_row = 0,
    }
}

fn answer_ok(ctx: &mut Ctx<'_>, reference: Option<&str>, fields: impl FnOnce(&mut String)) {
    ctx.state().errors_in_a_row = 0;
    let mut out = frames::answer("ok", reference);
    fields(&mut out);
    out.push('}');
    reply(ctx, &out);
}

/// A command failed: answers in any case, and closes a connection that does nothing but fail.
fn fail(ctx: &mut Ctx<'_>, errors_max: u32, fault: &Fault, reference: Option<&str>) {
    reply(ctx, &fault.frame(reference));
    let errors = ctx.state().errors_in_a_row.saturating_add(1);
    ctx.state().errors_in_a_row = errors;
    if errors_max > 0 && errors >= errors_max {
        ctx.close(match fault.code {
            "rate_limited" => CloseReason::RATE_LIMITED,
            _ => CloseReason::TOO_MANY_ERRORS,
        });
    }
}

fn reply(ctx: &mut Ctx<'_>, frame: &str) {
    // A reply that finds its client too far behind closes it; there is nothing to add to that here.
    let _: SendStatus = ctx.send(frame);
}

/// The two parts of a `message` frame, before and behind its sequence number.
fn message(client_id: Uuid, room: &str, publish: &Publish<'_>) -> (String, String) {
    let mut before = String::with_capacity(48 + room.len());
    before.push_str("{\"type\":\"message\"");
    frames::push_room(&mut before, room);
    before.push_str(",\"seq\":");
    let mut after = String::with_capacity(192 + publish.content.len());
    let mut space = Uuid::encode_buffer();
    after.push_str(",\"id\":\"");
    after.push_str(publish.id.hyphenated().encode_lower(&mut space));
    if let Some(sender) = publish.sender {
        after.push_str("\",\"sender\":");
        after.push_str(sender);
    } else {
        after.push('"');
    }
    after.push_str(",\"content\":");
    after.push_str(publish.content);
    after.push_str(",\"timestamp\":");
    match publish.timestamp {
        Some(timestamp) => after.push_str(timestamp),
        None => with_timestamp(|now| after.push_str(now)),
    }
    after.push_str(",\"client_id\":\"");
    after.push_str(client_id.hyphenated().encode_lower(&mut space));
    after.push_str("\"}");
    (before, after)
}

/// Calls `with` with the time as a JSON string, formatted at most once a millisecond on each thread.
fn with_timestamp(with: impl FnOnce(&str)) {
    thread_local! {
        static STAMP: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    STAMP.with_borrow_mut(|(at, text)| {
        let now = Utc::now();
        if now.timestamp_millis() != *at {
            *at = now.timestamp_millis();
            *text = format!("\"{}\"", now.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
        with(text);
    });
}
