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
mod upgraded;
mod hooks;
mod state;
mod greeting;
mod credentials;
mod standing;
mod asking;
mod commands;
mod api;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rusty_socks_protocol::{self as protocol, ErrorCode, SUBPROTOCOL};

use crate::{
    Builder, Config, Context, Error, Handler, Identity, Message, Notice, Permissions,
    PreparedFrame, Refusal, Request, RoomName, Server, ServerEvent, TaskAnswer, TaskThreads,
    TokenError,
    config::{IdentityMode, RoomRule},
    identity,
};
use about::{About, kept_max};
pub use api::Api;
use command::{Command, Reference};
use credentials::Places;
use fault::Fault;
use hooks::{Hook, Hooks, events::Events};
use standing::Arrival;
pub use state::ChatState;
use state::{Ctx, Hooked, Standing, fail};

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
    let api = Api::new(&config);
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
    hooks: Option<Hooks>,
    events: Option<Events>,
    identity: IdentityMode,
    event_streams: bool,
    /// By itself, because every command reads it.
    errors_max: AtomicU32,
    settings: ArcSwap<ChatSettings>,
}

/// The settings that a reload replaces.
#[derive(Debug)]
struct ChatSettings {
    history_max: usize,
    rooms_max: usize,
    may_broadcast: bool,
    about: Arc<About>,
    places: Places,
    /// The settings that decide about permissions; `None` if everyone may do everything.
    policy: Option<Config>,
}

impl ChatSettings {
    fn new(config: &Config, default_room: Option<RoomName>) -> ChatSettings {
        let has_rules = config.rooms.iter().any(RoomRule::limits_access);
        let is_open = config.identity != IdentityMode::Required && !has_rules;
        let policy =
            Config { rooms: config.rooms.clone(), identity: config.identity, ..Config::default() };
        ChatSettings {
            history_max: kept_max(config),
            rooms_max: config.max_rooms_per_conn,
            may_broadcast: config.broadcast,
            about: Arc::new(About::new(config, default_room)),
            places: Places::new(config),
            policy: (!is_open).then_some(policy),
        }
    }
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
        let settings = ChatSettings::new(config, default_room.clone());
        Ok(Chat {
            default_room,
            hooks: Hooks::new(config)?,
            events: Events::new(config)?,
            identity: config.identity,
            event_streams: config.event_streams,
            errors_max: AtomicU32::new(config.max_errors),
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Errors in a row after which a connection is closed.
    fn errors_max(&self) -> u32 {
        self.errors_max.load(Ordering::Relaxed)
    }

    fn about(&self) -> Arc<About> {
        Arc::clone(&self.settings.load().about)
    }
}

impl Handler for Chat {
    type State = ChatState;

    fn subprotocols(&self) -> &[&str] {
        &[SUBPROTOCOL]
    }

    fn is_open_to_all_origins(&self) -> bool {
        self.identity == IdentityMode::Required
            && !self.settings.load().places.has_cookie()
            // A backend may know a user by a cookie, too.
            && !self.hooks.as_ref().is_some_and(|hooks| hooks.asks(Hook::Connect))
    }

    fn takes_event_streams(&self) -> bool {
        self.event_streams
    }

    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        Some(notices::frame(notice))
    }

    fn resumable(&self) -> bool {
        true
    }

    fn on_upgrade(&self, request: &Request<'_>) -> Result<ChatState, Refusal> {
        let hooked = self.asks(Hook::Connect).map(|_| Box::new(Hooked::of(request)));
        let state = |standing| Ok(ChatState { standing, hooked, ..ChatState::default() });
        if self.identity == IdentityMode::Off {
            return state(Standing::Anonymous);
        }
        match self.settings.load().places.find(request) {
            Some(token) => match request.authenticate(token) {
                Ok(identity) => state(Standing::Verified(Box::new(identity))),
                Err(error) if error.is_temporary() => Err(Refusal::unavailable(error.to_string())),
                Err(error) => Err(Refusal::unauthorized(error.to_string())),
            },
            None if self.identity == IdentityMode::Required => state(Standing::Awaited),
            None => state(Standing::Anonymous),
        }
    }

    fn permissions(&self, identity: Option<&Identity>, room: Option<&RoomName>) -> Permissions {
        match &self.settings.load().policy {
            None => Permissions::all(),
            Some(policy) => identity::decide(policy, identity, room.map(RoomName::as_str)),
        }
    }

    fn task_threads(&self) -> Option<TaskThreads> {
        self.hooks.as_ref().map(Hooks::threads)
    }

    fn on_open(&self, ctx: &mut Ctx<'_>) {
        self.begin(ctx, None);
    }

    fn on_answer(&self, ctx: &mut Ctx<'_>, answer: TaskAnswer) {
        self.go_on(ctx, answer);
    }

    fn on_wake(&self, ctx: &mut Ctx<'_>) {
        standing::wake(ctx, &self.about());
    }

    fn observe(&self, event: &ServerEvent<'_>) {
        if let Some(events) = &self.events {
            events.note(event);
        }
    }

    fn on_reload(&self, config: &Config) -> bool {
        let new = ChatSettings::new(config, self.default_room.clone());
        self.errors_max.store(config.max_errors, Ordering::Relaxed);
        let before = self.settings.swap(Arc::new(new));
        before.policy != self.settings.load().policy
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
        if let Err(limited) = ctx.spend_rate(message.as_bytes().len()) {
            let fault = Fault::new(ErrorCode::RateLimited, limited.to_string());
            // Parsed anyway, for the `ref` that tells the client which command was refused.
            let reference = message.as_text().and_then(|text| command::parse(text).0);
            let fault = fault.retry_after_ms(limited.wait.as_millis() as u64);
            return fail(ctx, self.errors_max(), &fault, reference.as_deref());
        }
        if matches!(ctx.state().standing, Standing::Awaited) {
            return self.on_first_frame(ctx, message);
        }
        let Message::Text(text) = message else {
            let fault = Fault::bad_request("a command must be JSON in a text message");
            return fail(ctx, self.errors_max(), &fault, None);
        };
        match command::parse(text) {
            (reference, Ok(command)) => self.ask_or_carry_out(ctx, text, command, reference),
            (reference, Err(fault)) => fail(ctx, self.errors_max(), &fault, reference.as_deref()),
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
                if let Some(identity) = standing::verify(ctx, &token, &reference) {
                    ctx.state().standing = Standing::Verified(Box::new(identity));
                    self.begin(ctx, reference);
                }
            }
            _ => standing::refuse_unknown(ctx, TokenError::Missing, &reference),
        }
    }

    /// Begins to serve a client, after the backend was asked if it wants to be asked. `reference`
    /// is that of the command which said who the client is.
    fn begin(&self, ctx: &mut Ctx<'_>, reference: Reference) {
        let arrival = Arrival { reference, is_new: true };
        match self.asks(Hook::Connect) {
            Some(hooks) => self.ask_connect(ctx, hooks, arrival),
            None => standing::open(ctx, &self.about(), arrival),
        }
    }
}
