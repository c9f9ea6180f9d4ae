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
mod state;
mod greeting;
mod credentials;
mod standing;
mod commands;
mod api;

use std::sync::Arc;

use rusty_socks_protocol::{self as protocol, ErrorCode, SUBPROTOCOL};

use crate::{
    Builder, Config, Context, Error, Handler, Identity, Message, Notice, Permissions,
    PreparedFrame, Refusal, Request, RoomName, Server, TokenError,
    config::{IdentityMode, RoomRule},
    identity,
};
use about::{About, kept_max};
pub use api::Api;
use command::Command;
use credentials::Places;
use fault::Fault;
pub use state::ChatState;
use state::{Ctx, Standing, fail};

/// The path of the chat protocol.
const CHAT_PATH: &str = "/ws";

/// The path of the echo route, if it is enabled.
const ECHO_PATH: &str = "/echo";

/// The time over which clients are asked to spread their reconnects after a drain, in milliseconds.
const RECONNECT_SPREAD_MS: u128 = 5000;

/// Binds the server that the binary runs, which [`builder`] makes.
///
/// # Errors
/// The errors of [`Chat::new`] and [`Builder::bind`].
pub fn server(config: Config) -> Result<Server, Error> {
    builder(config)?.bind()
}

/// Makes the server that the binary runs: the chat protocol on `/ws`, and `/echo` if `config.echo`
/// is set; and the server API on the admin listener, if `config.admin_port` is set.
///
/// # Errors
/// The errors of [`Chat::new`].
pub fn builder(config: Config) -> Result<Builder, Error> {
    let chat = Chat::new(&config)?;
    let api = Api::new(&config).with_about(Arc::clone(&chat.about));
    let mut builder = Server::builder().route(CHAT_PATH, chat).admin(api);
    if config.echo {
        builder = builder.route(ECHO_PATH, echo);
    }
    Ok(builder.config(config))
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
    history_max: usize,
    rooms_max: usize,
    errors_max: u32,
    may_broadcast: bool,
    about: Arc<About>,
    places: Places,
    /// The settings that decide about permissions; `None` if everyone may do everything.
    policy: Option<Config>,
    identity: IdentityMode,
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
        let has_rules = config.rooms.iter().any(RoomRule::limits_access);
        let is_open = config.identity != IdentityMode::Required && !has_rules;
        let policy =
            Config { rooms: config.rooms.clone(), identity: config.identity, ..Config::default() };
        Ok(Chat {
            about: Arc::new(About::new(config, default_room.clone())),
            default_room,
            places: Places::new(config),
            policy: (!is_open).then_some(policy),
            identity: config.identity,
            history_max: kept_max(config),
            rooms_max: config.max_rooms_per_conn,
            errors_max: config.max_errors,
            may_broadcast: config.broadcast,
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

    fn resumable(&self) -> bool {
        true
    }

    fn on_upgrade(&self, request: &Request<'_>) -> Result<ChatState, Refusal> {
        let state = |standing| ChatState { standing, ..ChatState::default() };
        if self.identity == IdentityMode::Off {
            return Ok(ChatState::default());
        }
        match self.places.find(request) {
            Some(token) => match request.authenticate(token) {
                Ok(identity) => Ok(state(Standing::Verified(Box::new(identity)))),
                Err(error) if error.is_temporary() => Err(Refusal::unavailable(error.to_string())),
                Err(error) => Err(Refusal::unauthorized(error.to_string())),
            },
            None if self.identity == IdentityMode::Required => Ok(state(Standing::Awaited)),
            None => Ok(ChatState::default()),
        }
    }

    fn permissions(&self, identity: Option<&Identity>, room: Option<&RoomName>) -> Permissions {
        match &self.policy {
            None => Permissions::all(),
            Some(policy) => identity::decide(policy, identity, room.map(RoomName::as_str)),
        }
    }

    fn on_open(&self, ctx: &mut Ctx<'_>) {
        standing::open(ctx, &self.about);
    }

    fn on_wake(&self, ctx: &mut Ctx<'_>) {
        standing::wake(ctx, &self.about);
    }

    fn on_message(&self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        if let Err(limited) = ctx.spend_rate(message.as_bytes().len()) {
            let fault = Fault::new(ErrorCode::RateLimited, limited.to_string());
            // Parsed anyway, for the `ref` that tells the client which command was refused.
            let reference = message.as_text().and_then(|text| command::parse(text).0);
            let fault = fault.retry_after_ms(limited.wait.as_millis() as u64);
            return fail(ctx, self.errors_max, &fault, reference.as_deref());
        }
        if matches!(ctx.state().standing, Standing::Awaited) {
            return self.on_first_frame(ctx, message);
        }
        let Message::Text(text) = message else {
            let fault = Fault::bad_request("a command must be JSON in a text message");
            return fail(ctx, self.errors_max, &fault, None);
        };
        match command::parse(text) {
            (reference, Ok(command)) => self.carry_out(ctx, command, reference),
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

impl Chat {
    /// Handles the first frame of a client that must say who it is.
    fn on_first_frame(&self, ctx: &mut Ctx<'_>, message: Message<'_>) {
        let parsed = message.as_text().map(command::parse);
        let (reference, command) =
            parsed.map_or((None, None), |(reference, command)| (reference, command.ok()));
        match command {
            Some(Command::Auth { token }) => {
                standing::authenticate(ctx, &token, &self.about, reference);
            }
            _ => standing::refuse_unknown(ctx, TokenError::Missing, &reference),
        }
    }
}
