//! What waits for the answers of the hooks, and goes on with them.

use rusty_socks_protocol::ErrorCode;
use serde_json::value::RawValue;

use super::{
    Chat,
    command::{self, Command, Destination, Reference},
    fault::Fault,
    hooks::{Allowed, Decided, Hook, Hooks, Question, Verdict},
    json,
    state::Ctx,
};
use crate::{CloseReason, TaskAnswer};

/// How long a client should wait before it asks again, when the backend gave no answer.
const RETRY_AFTER_MS: u64 = 1000;

/// What waits for a verdict.
enum Pending {
    /// The client, which is not let in yet.
    Connect,
    /// A command, whose text was found good.
    Command(Box<str>),
}

impl Chat {
    /// Returns the hooks if they ask about this.
    pub(super) fn asks(&self, hook: Hook) -> Option<&Hooks> {
        self.hooks.as_ref().filter(|hooks| hooks.asks(hook))
    }

    /// Asks whether a client may come in.
    pub(super) fn ask_connect(&self, ctx: &mut Ctx<'_>, hooks: &Hooks) {
        let upgraded = ctx.state().hooked.as_mut().and_then(|hooked| hooked.upgraded.take());
        let about = Question::about(Hook::Connect, ctx.client_id(), ctx.remote_addr());
        let question = Question { upgraded: upgraded.as_ref(), ..about };
        if let Err(verdict) = hooks.ask(ctx, &question, Pending::Connect) {
            self.decide_connect(ctx, verdict);
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
        let (client_id, remote) = (ctx.client_id(), ctx.remote_addr());
        match command {
            Command::Publish { to, content, .. } => {
                let hooks = self.asks(Hook::Publish)?;
                let rooms: Vec<&str> = match to {
                    Destination::DefaultRoom => vec![self.default_room.as_ref()?.as_str()],
                    Destination::Room(room) => vec![room],
                    Destination::Rooms(rooms) => rooms.iter().map(String::as_str).collect(),
                };
                if rooms.iter().any(|room| !ctx.is_member(room)) {
                    return None;
                }
                let given = given_sender(ctx);
                let sender = given.as_deref().or(content.sender);
                let question = Question {
                    rooms: &rooms,
                    content: raw(content.content),
                    sender: sender.and_then(raw),
                    ..Question::about(Hook::Publish, client_id, remote)
                };
                Some(hooks.ask(ctx, &question, Pending::Command(text.into())))
            }
            Command::Join { room, name, .. } => {
                let hooks = self.asks(Hook::Join)?;
                if ctx.is_member(room.as_str()) {
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
            | Command::Ping => None,
        }
    }

    /// Goes on with what waited for a verdict.
    pub(super) fn go_on(&self, ctx: &mut Ctx<'_>, answer: TaskAnswer) {
        let Ok(Decided { pending, verdict }) = answer.downcast::<Decided<Pending>>() else {
            return;
        };
        match pending {
            Pending::Connect => self.decide_connect(ctx, verdict),
            Pending::Command(text) => {
                if let (reference, Ok(command)) = command::parse(&text) {
                    self.decide_command(ctx, command, reference, verdict);
                }
            }
        }
    }

    fn decide_connect(&self, ctx: &mut Ctx<'_>, verdict: Verdict) {
        let (fault, close) = match verdict {
            Verdict::Allowed(Allowed { sender }) => {
                if let Some(sender) = sender {
                    ctx.set_name(Some(&sender));
                    ctx.state().has_name = true;
                    if let Some(hooked) = &mut ctx.state().hooked {
                        hooked.sender = Some(json::text(&sender).into());
                    }
                }
                return self.greet(ctx);
            }
            Verdict::Refused(reason) => {
                let close = CloseReason::FORBIDDEN.because(reason.clone());
                (Fault::new(ErrorCode::Forbidden, reason), close)
            }
            Verdict::Unanswered => (unanswered(), CloseReason::TRY_AGAIN),
        };
        ctx.send(&fault.frame(None));
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
            Verdict::Allowed(Allowed { sender }) => {
                self.carry_out(ctx, command, reference, sender.as_deref());
            }
            Verdict::Refused(reason) => {
                self.fail(ctx, &Fault::new(ErrorCode::Forbidden, reason), &reference);
            }
            // Not the client's mistake, so it does not count as one.
            Verdict::Unanswered => {
                ctx.send(&unanswered().frame(reference.as_deref()));
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
    let sender = given_sender(ctx).or_else(|| name.map(|name| json::text(&name).into()));
    let question = Question {
        room: Some(room),
        sender: sender.as_deref().and_then(raw),
        ..Question::about(Hook::Join, ctx.client_id(), ctx.remote_addr())
    };
    hooks.ask(ctx, &question, Pending::Command(text.into()))
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
