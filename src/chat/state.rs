//! The state of one connection: its errors in a row, who its client is, and what the hooks said.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rusty_socks_protocol::ErrorCode;
use serde_json::value::RawValue;

use super::{fault::Fault, hooks::Allowed, json, upgraded::Upgraded};
use crate::{CloseReason, Context, Identity, Request};

/// How long before the end of its token a client is told, at most; else a tenth of the time that
/// the token has left.
const NOTICE_MAX: Duration = Duration::from_secs(60);

/// Data of one connection.
#[derive(Debug, Default)]
pub struct ChatState {
    pub(super) errors_in_a_row: u32,
    /// Whether the client has a name in presence.
    pub(super) has_name: bool,
    /// Whether the client was told that its token is about to end.
    pub(super) is_warned: bool,
    pub(super) standing: Standing,
    /// Boxed, because only servers with a hook for connects pay for the space.
    pub(super) hooked: Option<Box<Hooked>>,
}

pub(super) type Ctx<'a> = Context<'a, ChatState>;

/// What concerns one connection of a server that asks about connects.
#[derive(Debug)]
pub(super) struct Hooked {
    /// What the backend is told of the upgrade, until the client is let in.
    pub(super) upgraded: Option<Upgraded>,
    /// What the backend has said of the client.
    pub(super) given: Allowed,
    /// The name that it has given the client, as JSON.
    pub(super) sender: Option<Box<str>>,
}

/// The standing of one client.
#[derive(Debug, Default)]
pub(super) enum Standing {
    #[default]
    Anonymous,
    /// Its token must come in the first frame.
    Awaited,
    /// Its token came with the upgrade, and was found good.
    Verified(Box<Identity>),
    User(Arc<User>),
}

/// A user, with what each of its messages needs.
#[derive(Debug)]
pub(super) struct User {
    /// The field `user` of a frame, with the comma before it.
    pub(super) field: Box<str>,
    /// The name as JSON, which is the `sender` of its messages.
    pub(super) sender: Box<str>,
    pub(super) expires_at: Option<Duration>,
    /// When it is told that its token is about to end.
    pub(super) notice_at: Duration,
}

impl Hooked {
    /// Notes what the backend is told of an upgrade.
    pub(super) fn of(request: &Request<'_>) -> Hooked {
        let upgraded = Some(Upgraded::of(request));
        Hooked { upgraded, given: Allowed::default(), sender: None }
    }
}

/// Returns the time since 1970.
pub(super) fn now(ctx: &Ctx<'_>) -> Duration {
    ctx.time().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl User {
    /// Notes what each message of a user needs, `now` after 1970.
    pub(super) fn new(identity: &Identity, now: Duration) -> User {
        let expires_at = identity.expires_at.map(Duration::from_secs);
        let left = expires_at.unwrap_or_default().saturating_sub(now);
        User {
            field: format!(",\"user\":{}", json::text(&&*identity.user)).into(),
            sender: json::text(&&**identity.shown_name()).into(),
            expires_at,
            notice_at: expires_at.unwrap_or_default().saturating_sub((left / 10).min(NOTICE_MAX)),
        }
    }

    /// Returns the seconds from `now` until the token ends, if it does.
    pub(super) fn expires_s(&self, now: Duration) -> Option<u64> {
        self.expires_at.map(|at| at.saturating_sub(now).as_secs())
    }
}

/// Returns the user of a client, if it has one.
pub(super) fn user(ctx: &mut Ctx<'_>) -> Option<Arc<User>> {
    match &ctx.state().standing {
        Standing::User(user) => Some(Arc::clone(user)),
        Standing::Anonymous | Standing::Awaited | Standing::Verified(_) => None,
    }
}

/// Answers a command that succeeded.
pub(super) fn answer_ok(ctx: &mut Ctx<'_>, frame: &str) {
    ctx.state().errors_in_a_row = 0;
    ctx.send(frame);
}

/// Answers a command that failed. Closes the connection after `errors_max` errors in a row.
pub(super) fn fail(
    ctx: &mut Ctx<'_>,
    errors_max: u32,
    fault: &Fault,
    reference: Option<&RawValue>,
) {
    ctx.send(&fault.frame(reference));
    if fault.code == ErrorCode::Overloaded {
        // No mistake of the client's.
        return;
    }
    let errors = ctx.state().errors_in_a_row.saturating_add(1);
    ctx.state().errors_in_a_row = errors;
    if errors_max > 0 && errors >= errors_max {
        ctx.close(match fault.code {
            ErrorCode::RateLimited => CloseReason::RATE_LIMITED,
            _ => CloseReason::TOO_MANY_ERRORS,
        });
    }
}
