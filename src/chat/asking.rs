//! What waits for the answers of the hooks, and goes on with them.

use std::sync::Arc;

use rusty_socks_protocol::ErrorCode;
use serde_json::value::RawValue;

use super::{
    Chat,
    command::{self, Command, Destination, Reference},
    fault::Fault,
    hooks::{Allowed, Decided, Hook, Hooks, Question, Verdict},
    json,
    standing::{self, Arrival},
    state::{Ctx, Standing, user},
};
use crate::{CloseReason, Identity, Permissions, RoomName, TaskAnswer, config::IdentityMode};

/// How long a client should wait before it asks again, when the backend gave no answer.
const RETRY_AFTER_MS: u64 = 1000;

/// What waits for a verdict.
enum Pending {
    /// The client.
    Connect(Arrival),
    /// A command, whose text was found good.
    Command(Box<str>),
}

impl Chat {
    /// Returns the hooks if they ask about this.
    pub(super) fn asks(&self, hook: Hook) -> Option<&Hooks> {
        self.hooks.as_ref().filter(|hooks| hooks.asks(hook))
    }

    /// Asks whether a client may come in. A client without a user is asked about a second time when
    /// its token comes.
    pub(super) fn ask_connect(&self, ctx: &mut Ctx<'_>, hooks: &Hooks, arrival: Arrival) {
        if arrival.is_new {
            ctx.await_identity();
        }
        let user = match &ctx.state().standing {
            Standing::Verified(identity) => Some(Arc::clone(&identity.user)),
            Standing::Anonymous | Standing::Awaited | Standing::User(_) => None,
        };
        let (user, remote) = (user.as_deref(), ctx.remote_addr());
        let about = Question::about(Hook::Connect, ctx.client_id(), user, remote);
        let hooked = ctx.state().hooked.take();
        let upgraded = hooked.as_ref().and_then(|hooked| hooked.upgraded.as_ref());
        let question = Question { upgraded, ..about };
        let asked = hooks.ask(ctx, &question, Pending::Connect(arrival.clone()), 0);
        ctx.state().hooked = hooked;
        if let Err(verdict) = asked {
            self.decide_connect(ctx, verdict, arrival);
        }
    }

    /// Takes the user of an `auth` from a client that is let in. A client that had none until now
    /// is asked about as one that connects with its token would be.
    pub(super) fn take_identity(
        &self,
        ctx: &mut Ctx<'_>,
        identity: Identity,
        reference: Reference,
    ) {
        match self.asks(Hook::Connect) {
            Some(hooks) if matches!(ctx.state().standing, Standing::Anonymous) => {
                ctx.state().standing = Standing::Verified(Box::new(identity));
                self.ask_connect(ctx, hooks, Arrival { reference, is_new: false });
            }
            _ => standing::accept(ctx, identity, &self.about(), reference, false),
        }
    }

    /// Carries out a command, after the backend was asked if it wants to be asked about it.
    pub(super) fn ask_or_carry_out(
        &self,
        ctx: &mut Ctx<'_>,
        text: &str,
        command: Command<'_>,
        reference: Reference,
    ) {
        let Some(asked) = self.ask(ctx, text, &command) else {
            return self.carry_out(ctx, command, reference, None);
        };
        if let Err(verdict) = asked {
            self.decide_command(ctx, command, reference, verdict);
        }
    }

    /// Asks about a command. `None` if there is nothing to ask: a command that fails in any case is
    /// not asked about.
    fn ask(
        &self,
        ctx: &mut Ctx<'_>,
        text: &str,
        command: &Command<'_>,
    ) -> Option<Result<(), Verdict>> {
        match command {
            Command::Publish { to, content, .. } => {
                let hooks = self.asks(Hook::Publish)?;
                let identity = ctx.identity();
                let rooms: Vec<&str> = match to {
                    Destination::DefaultRoom => vec![self.default_room.as_ref()?.as_str()],
                    Destination::Room(room) => vec![room],
                    Destination::Rooms(rooms) => rooms.iter().map(String::as_str).collect(),
                };
                let is_forbidden = rooms.iter().any(|room| !may_publish(ctx, room));
                if is_forbidden || ctx.apart(&rooms).is_some() {
                    return None;
                }
                let given = own_sender(ctx);
                let sender = given.as_deref().or(content.sender);
                let question = Question {
                    rooms: &rooms,
                    content: raw(content.content),
                    sender: sender.and_then(raw),
                    ..about(ctx, Hook::Publish, identity.as_deref())
                };
                Some(hooks.ask(ctx, &question, Pending::Command(text.into()), text.len()))
            }
            Command::Join { room, name, watch, .. } => {
                let hooks = self.asks(Hook::Join)?;
                let needed = match watch {
                    true => Permissions::JOIN | Permissions::PRESENCE,
                    false => Permissions::JOIN,
                };
                if ctx.is_member(room.as_str()) || !ctx.permissions(room).contains(needed) {
                    return None;
                }
                Some(ask_join(ctx, hooks, room.as_str(), name.as_deref(), text))
            }
            Command::Subscribe { pattern, name } => {
                let hooks = self.asks(Hook::Join)?;
                Some(ask_join(ctx, hooks, pattern.as_str(), name.as_deref(), text))
            }
            Command::Direct { .. }
            | Command::Broadcast(_)
            | Command::Leave { .. }
            | Command::Unsubscribe(_)
            | Command::History { .. }
            | Command::Presence { .. }
            | Command::Resume(_)
            | Command::Auth { .. }
            | Command::Ping => None,
        }
    }

    /// Goes on with what waited for a verdict.
    pub(super) fn go_on(&self, ctx: &mut Ctx<'_>, answer: TaskAnswer) {
        let Ok(Decided { pending, verdict }) = answer.downcast::<Decided<Pending>>() else {
            return;
        };
        match pending {
            Pending::Connect(arrival) => self.decide_connect(ctx, verdict, arrival),
            Pending::Command(text) => {
                if let (reference, Ok(command)) = command::parse(&text) {
                    self.decide_command(ctx, command, reference, verdict);
                }
            }
        }
    }

    fn decide_connect(&self, ctx: &mut Ctx<'_>, verdict: Verdict, arrival: Arrival) {
        let (fault, close) = match verdict {
            Verdict::Allowed(given) => {
                self.take_given(ctx, given);
                if arrival.is_new {
                    ctx.admit();
                }
                return standing::open(ctx, &self.about(), arrival);
            }
            Verdict::Refused(reason) => {
                let close = CloseReason::FORBIDDEN.because(reason.clone());
                (Fault::new(ErrorCode::Forbidden, reason), close)
            }
            Verdict::Unanswered => (unanswered(), CloseReason::TRY_AGAIN),
        };
        ctx.send(&fault.frame(arrival.reference.as_deref()));
        ctx.close(close);
    }

    fn decide_command(
        &self,
        ctx: &mut Ctx<'_>,
        command: Command<'_>,
        reference: Reference,
        verdict: Verdict,
    ) {
        match verdict {
            Verdict::Allowed(Allowed { sender, .. }) => {
                self.carry_out(ctx, command, reference, sender.as_deref());
            }
            Verdict::Refused(reason) => {
                self.fail(ctx, &Fault::new(ErrorCode::Forbidden, reason), &reference);
            }
            Verdict::Unanswered => self.fail(ctx, &unanswered(), &reference),
        }
    }

    /// Notes what the backend has said of a client that may connect. A client without a token has
    /// the user that the backend gives it.
    fn take_given(&self, ctx: &mut Ctx<'_>, given: Allowed) {
        if let Some(sender) = &given.sender {
            ctx.set_name(Some(sender));
            ctx.state().has_name = true;
        }
        let state = ctx.state();
        if let (Some(identity), Standing::Anonymous | Standing::Awaited) =
            (given.identity.clone(), &state.standing)
        {
            state.standing = Standing::Verified(identity);
        }
        let may_be_asked_again = match state.standing {
            Standing::Awaited => true,
            Standing::Anonymous => self.identity != IdentityMode::Off,
            Standing::Verified(_) | Standing::User(_) => false,
        };
        if let Some(hooked) = &mut state.hooked {
            hooked.sender = given.sender.as_ref().map(|sender| json::text(sender).into());
            hooked.given = given;
            if !may_be_asked_again {
                hooked.upgraded = None;
            }
        }
    }
}

fn ask_join(
    ctx: &mut Ctx<'_>,
    hooks: &Hooks,
    room: &str,
    name: Option<&str>,
    text: &str,
) -> Result<(), Verdict> {
    let sender = own_sender(ctx).or_else(|| name.map(|name| json::text(&name).into()));
    let identity = ctx.identity();
    let question = Question {
        room: Some(room),
        sender: sender.as_deref().and_then(raw),
        ..about(ctx, Hook::Join, identity.as_deref())
    };
    hooks.ask(ctx, &question, Pending::Command(text.into()), text.len())
}

/// Begins a question about a client that was let in.
fn about<'a>(ctx: &Ctx<'_>, hook: Hook, identity: Option<&'a Identity>) -> Question<'a> {
    let user = identity.map(|identity| &*identity.user);
    Question::about(hook, ctx.client_id(), user, ctx.remote_addr())
}

/// Whether a client may publish in a room, as far as the server itself decides.
fn may_publish(ctx: &Ctx<'_>, room: &str) -> bool {
    let may = |room: RoomName| ctx.permissions(&room).contains(Permissions::PUBLISH);
    ctx.is_member(room) && RoomName::new(room).is_ok_and(may)
}

/// Returns the name, as JSON, that the client has whatever it says.
fn own_sender(ctx: &mut Ctx<'_>) -> Option<Box<str>> {
    given_sender(ctx).or_else(|| user(ctx).map(|user| user.sender.clone()))
}

/// Returns the name, as JSON, that the backend gave the client when it connected.
pub(super) fn given_sender(ctx: &mut Ctx<'_>) -> Option<Box<str>> {
    ctx.state().hooked.as_ref()?.sender.clone()
}

fn unanswered() -> Fault {
    let fault = Fault::new(ErrorCode::Overloaded, "the server's backend did not answer");
    fault.retry_after_ms(RETRY_AFTER_MS)
}

/// Returns JSON that was checked before as what can be written into other JSON.
fn raw(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}
