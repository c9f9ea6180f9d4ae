//! The shipped handler: rooms, history, presence and sessions that survive, in JSON text frames
//! (`rusty-socks.v1`).
//!
//! Written against the library's public face alone, so that whatever it does an embedder can do too.

mod frames;
mod commands;
mod answers;
mod notices;
mod rate;

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    CloseReason, Config, Context, Error, Handler, Joined, Message, Notice, PreparedFrame, Replay,
    RoomName, SendStatus, Server,
};
use frames::Fault;
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

/// The most messages that any room keeps.
fn kept_max(config: &Config) -> usize {
    let of_rules = config.rooms.iter().filter_map(|rule| rule.history);
    of_rules.chain([config.history]).max().unwrap_or_default()
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
    rooms_max: usize,
    errors_max: u32,
    may_broadcast: bool,
    rate: Rate,
    /// The end of every `welcome`, which is the same for all.
    welcome_tail: Arc<str>,
}

/// What the protocol remembers about one connection.
#[derive(Debug, Default)]
pub struct ChatState {
    errors_in_a_row: u32,
    /// The client has a name in presence.
    has_name: bool,
    allowance: Option<Box<rate::Allowance>>,
}

type Ctx<'a> = Context<'a, ChatState>;

/// What one client may do, as its `welcome` tells it, so that it can pace itself instead of being
/// refused. A limit that is off is left out.
#[derive(Debug, Serialize)]
struct Limits {
    /// Messages a second, and as many at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_messages: Option<u32>,
    /// Bytes of messages a second, and as many at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_bytes: Option<u32>,
    /// Rooms, and as many patterns.
    max_rooms: usize,
}

impl Limits {
    fn of(config: &Config) -> Limits {
        let unless_off = |limit: u32| (limit > 0).then_some(limit);
        Limits {
            rate_messages: unless_off(config.rate_messages),
            rate_bytes: unless_off(config.rate_bytes),
            max_rooms: config.max_rooms_per_conn,
        }
    }
}

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
        let limits = serde_json::to_string(&Limits::of(config))
            .map_err(|error| Error::config(format!("the limits of a client: {error}")))?;
        let welcome_tail = format!(
            ",\"server\":\"rusty_socks/{}\",\"node\":\"{}\",\"ping_s\":{},\"max_message_bytes\":{},\"resume_window_s\":{},\"limits\":{limits}}}",
            env!("CARGO_PKG_VERSION"),
            Uuid::new_v4(),
            config.ping.as_secs_f64(),
            config.max_message_bytes,
            config.resume_window.as_secs_f64(),
        );
        Ok(Chat {
            default_room,
            replay: config.replay,
            history_max: kept_max(config),
            rooms_max: config.max_rooms_per_conn,
            errors_max: config.max_errors,
            may_broadcast: config.broadcast,
            rate: Rate::new(config.rate_messages, config.rate_bytes),
            welcome_tail: welcome_tail.into(),
        })
    }
}

impl Handler for Chat {
    type State = ChatState;

    fn subprotocols(&self) -> &[&str] {
        &[SUBPROTOCOL]
    }

    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        Some(notices::frame(notice))
    }

    fn keeps_sessions(&self) -> bool {
        true
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
            let fault = fault.retry_after_ms(wait_ms);
            return fail(ctx, self.errors_max, &fault, reference.as_deref());
        }
        let Message::Text(text) = message else {
            let fault = Fault::bad_request("the protocol is JSON in text messages");
            return fail(ctx, self.errors_max, &fault, None);
        };
        match frames::parse(text) {
            (reference, Ok(command)) => self.carry_out(ctx, command, reference),
            (reference, Err(fault)) => fail(ctx, self.errors_max, &fault, reference.as_deref()),
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
    let mut out = answers::answer("welcome", None);
    let (client_id, session) = (ctx.client_id(), ctx.session_token());
    out.push_str(&format!(",\"client_id\":\"{client_id}\",\"session\":\"{session}\""));
    if let Some((room, joined)) = joined {
        answers::push_room(&mut out, room.as_str());
        answers::push_position(&mut out, &joined.position);
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
    let mut out = answers::answer("ok", reference);
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
