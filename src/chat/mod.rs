//! The handler of the chat protocol `rusty-socks.v1`: rooms, history, presence and resumable
//! sessions, in JSON text messages.
//!
//! Uses only the library's public API, so an embedder can do everything that it does.

mod json;
mod about;
mod fault;
mod ijson;
mod command;
mod message;
mod answers;
mod notices;
mod rate;
mod upgraded;
mod state;
mod hooks;
mod asking;
mod commands;
mod api;

use std::{sync::Arc, time::Duration};

use rusty_socks_protocol::{self as protocol, Answer, ErrorCode, SUBPROTOCOL, answer::Welcome};

use crate::{
    Config, Context, Error, Handler, Joined, Message, Notice, PreparedFrame, Refusal, Replay,
    Request, RoomName, Server, ServerEvent, TaskAnswer, TaskThreads,
};
use about::{About, kept_max};
pub use api::Api;
use fault::Fault;
use hooks::{Hook, Hooks, events::Events};
use rate::Rate;
pub use state::ChatState;
use state::{Ctx, Hooked, fail};
use upgraded::Upgraded;

/// The server's name and version in `welcome`.
const SERVER: &str = concat!("rusty_socks/", env!("CARGO_PKG_VERSION"));

/// The path of the chat protocol.
const CHAT_PATH: &str = "/ws";

/// The path of the echo route, if it is enabled.
const ECHO_PATH: &str = "/echo";

/// The time over which clients are asked to spread their reconnects after a drain, in milliseconds.
const RECONNECT_SPREAD_MS: u128 = 5000;

/// Binds the server that the binary runs: the chat protocol on `/ws`, and `/echo` if `config.echo`
/// is set; and the server API on the admin listener, if `config.admin_port` is set.
///
/// # Errors
/// The errors of [`Chat::new`] and [`Builder::bind`](crate::Builder::bind).
pub fn server(config: Config) -> Result<Server, Error> {
    let mut builder =
        Server::builder().route(CHAT_PATH, Chat::new(&config)?).admin(Api::new(&config));
    if config.echo {
        builder = builder.route(ECHO_PATH, echo);
    }
    builder.config(config).bind()
}

/// Returns every message unchanged.
fn echo(ctx: &mut Context<'_, ()>, message: Message<'_>) {
    // The status may be ignored: the server pauses a client that does not read its echoes.
    ctx.send(message);
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
    hooks: Option<Hooks>,
    events: Option<Events>,
    about: Arc<About>,
}

impl Chat {
    /// Makes a handler with the rooms and limits of `config`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the name of the default room is
    /// not legal.
    pub fn new(config: &Config) -> Result<Chat, Error> {
        let default_room = match config.default_room.as_str() {
            "" => None,
            name => Some(RoomName::new(name)?),
        };
        Ok(Chat {
            default_room,
            replay: config.replay,
            history_max: kept_max(config),
            rooms_max: config.max_rooms_per_conn,
            errors_max: config.max_errors,
            may_broadcast: config.broadcast,
            hooks: Hooks::new(config)?,
            events: Events::new(config)?,
            rate: Rate::new(config.rate_messages, config.rate_bytes),
            about: Arc::new(About::new(config)),
        })
    }
}

impl Chat {
    /// Lets a client in: it joins the default room and is greeted.
    fn greet(&self, ctx: &mut Ctx<'_>) {
        let Some(room) = &self.default_room else {
            return welcome(ctx, None, &self.about);
        };
        let (name, about) = (room.clone(), Arc::clone(&self.about));
        ctx.join(room, Replay::Latest(self.replay)).then(move |ctx, joined| match joined {
            Ok(joined) => {
                welcome(ctx, Some((&name, &joined)), &about);
                for message in &joined.replay {
                    ctx.send_prepared(message);
                }
            }
            Err(error) => {
                welcome(ctx, None, &about);
                ctx.send(&Fault::from(error).frame(None));
            }
        });
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

    fn resumable(&self) -> bool {
        true
    }

    fn task_threads(&self) -> Option<TaskThreads> {
        self.hooks.as_ref().map(Hooks::threads)
    }

    fn on_upgrade(&self, request: &Request<'_>) -> Result<ChatState, Refusal> {
        let hooked = self
            .asks(Hook::Connect)
            .map(|_| Box::new(Hooked { upgraded: Some(Upgraded::of(request)), sender: None }));
        Ok(ChatState { hooked, ..ChatState::default() })
    }

    fn on_open(&self, ctx: &mut Ctx<'_>) {
        match self.asks(Hook::Connect) {
            Some(hooks) => self.ask_connect(ctx, hooks),
            None => self.greet(ctx),
        }
    }

    fn on_answer(&self, ctx: &mut Ctx<'_>, answer: TaskAnswer) {
        self.go_on(ctx, answer);
    }

    fn observe(&self, event: &ServerEvent<'_>) {
        if let Some(events) = &self.events {
            events.note(event);
        }
    }

    fn on_stop(&self, left: Duration) {
        if let Some(events) = &self.events {
            events.flush(left);
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let hooks = self.hooks.iter().flat_map(Hooks::figures);
        hooks.chain(self.events.iter().flat_map(Events::figures)).collect()
    }

    fn on_message(&self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        if let Err(wait_ms) = self.rate.spend(&mut ctx.state().allowance, message.as_bytes().len())
        {
            let fault = Fault::new(
                ErrorCode::RateLimited,
                "the client sends more messages or bytes than its rate allows",
            );
            // Parsed anyway, for the `ref` that tells the client which command was refused.
            let reference = message.as_text().and_then(|text| command::parse(text).0);
            let fault = fault.retry_after_ms(wait_ms);
            return fail(ctx, self.errors_max, &fault, reference.as_deref());
        }
        let Message::Text(text) = message else {
            let fault = Fault::bad_request("a command must be JSON in a text message");
            return fail(ctx, self.errors_max, &fault, None);
        };
        match command::parse(text) {
            (reference, Ok(command)) => self.ask_or_carry_out(ctx, text, command, reference),
            (reference, Err(fault)) => fail(ctx, self.errors_max, &fault, reference.as_deref()),
        }
    }

    fn on_drain(&self, ctx: &mut Ctx<'_>) {
        // Each client gets a different delay, so that they do not all reconnect at once.
        let delay = ctx.client_id().as_u128() % RECONNECT_SPREAD_MS;
        let (reason, reconnect_after_ms) = ("drain".into(), Some(delay as u64));
        ctx.send(&json::text(&protocol::Notice::Closing { reason, reconnect_after_ms }));
    }
}

fn welcome(ctx: &mut Ctx<'_>, joined: Option<(&RoomName, &Joined)>, about: &About) {
    let (client_id, session) = (ctx.client_id().to_string(), ctx.session_token().to_string());
    let position = joined.map(|(_, joined)| &joined.position);
    let frame = json::text(&Answer::welcome(Welcome {
        client_id: client_id.into(),
        session: session.into(),
        room: joined.map(|(room, _)| room.as_str().into()),
        epoch: position.map(answers::epoch),
        seq: position.map(|position| position.seq),
        server: SERVER.into(),
        node: about.node.as_str().into(),
        ping_s: about.ping,
        max_message_bytes: about.max_message_bytes,
        resume_window_s: about.resume_window,
        limits: about.limits,
    }));
    ctx.send(&frame);
}
