//! How a client stands with its token: it is awaited, accepted, renewed, and it ends.

use std::{sync::Arc, time::Duration};

use rusty_socks_protocol::{self as protocol, Answer, ErrorCode, answer};

use super::{
    about::About,
    command::Reference,
    fault::Fault,
    greeting::enter,
    json,
    state::{Ctx, Standing, User, answer_ok, now, user},
};
use crate::{CloseReason, Identity, RoomError, TokenError};

/// The longest that a deadline is slept towards: clocks may be set meanwhile.
const NAP_MAX: Duration = Duration::from_secs(3600);

/// A client that says who it is.
#[derive(Clone)]
pub(super) struct Arrival {
    /// The `ref` of the command that said who it is.
    pub(super) reference: Reference,
    /// Whether it is not let in yet. Otherwise it was let in without a user.
    pub(super) is_new: bool,
}

/// Shows a user by its name in presence, in whatever session it is now.
pub(super) fn show(ctx: &mut Ctx<'_>) {
    if let Some(identity) = ctx.identity() {
        ctx.set_name(Some(identity.shown_name()));
        ctx.state().has_name = true;
    }
}

/// Begins to serve a client: at once, or when its token has come.
pub(super) fn open(ctx: &mut Ctx<'_>, about: &Arc<About>, arrival: Arrival) {
    match std::mem::take(&mut ctx.state().standing) {
        Standing::Awaited => {
            ctx.state().standing = Standing::Awaited;
            ctx.await_identity();
            ctx.wake_after(about.auth_timeout);
        }
        Standing::Verified(identity) => {
            accept(ctx, *identity, about, arrival.reference, arrival.is_new);
        }
        Standing::Anonymous | Standing::User(_) => enter(ctx, about),
    }
}

/// Verifies the token of an `auth`, the first one or one that renews. A client whose token is
/// refused is told so.
pub(super) fn verify(ctx: &mut Ctx<'_>, token: &str, reference: &Reference) -> Option<Identity> {
    // A client says who it is before it resumes.
    ctx.stay_fresh();
    match ctx.authenticate(token) {
        Ok(identity) => return Some(identity),
        Err(error @ TokenError::Off) => {
            ctx.send(&Fault::bad_request(error.to_string()).frame(reference.as_deref()));
        }
        Err(error) => refuse(ctx, error, reference),
    }
    None
}

/// Gives a client its user. It is greeted if it `is_new`.
pub(super) fn accept(
    ctx: &mut Ctx<'_>,
    mut identity: Identity,
    about: &Arc<About>,
    reference: Reference,
    is_new: bool,
) {
    if let Some(hooked) = &ctx.state().hooked {
        hooked.given.complete(&mut identity);
    }
    let user = Arc::new(User::new(&identity, now(ctx)));
    let (sub, about) = (Arc::clone(&identity.user), Arc::clone(about));
    ctx.set_identity(identity).then(move |ctx, outcome| match outcome {
        Ok(left) => {
            let token_expires_s = user.expires_s(now(ctx));
            show(ctx);
            ctx.state().is_warned = false;
            ctx.state().standing = Standing::User(user);
            await_end(ctx, about.token_grace);
            if is_new {
                enter(ctx, &about);
            }
            if reference.is_some() || !is_new {
                let left = left.iter().map(|room| room.as_str().into()).collect();
                let user = (&*sub).into();
                let body = answer::Authenticated { user, token_expires_s, left };
                answer_ok(ctx, &json::text(&Answer::ok(reference.as_deref(), body)));
            }
        }
        Err(RoomError::Revoked) => refuse(ctx, TokenError::Revoked, &reference),
        Err(error) => {
            // Nobody has been told of this session, so nobody could resume it.
            if is_new {
                ctx.await_identity();
            }
            let reason = match error {
                RoomError::OtherUser => CloseReason::FORBIDDEN,
                RoomError::TooManyConnections => CloseReason::TOO_MANY_CONNECTIONS,
                _ => CloseReason::TAKEN_OVER,
            };
            ctx.send(&Fault::from(error).frame(reference.as_deref()));
            ctx.close(reason.because(error.to_string()));
        }
    });
}

/// Tells a client why its token is refused, and closes the connection. One whose token may be good
/// a moment later is asked to come again.
fn refuse(ctx: &mut Ctx<'_>, error: TokenError, reference: &Reference) {
    let (fault, reason) = match error.is_temporary() {
        true => {
            let fault = Fault::new(ErrorCode::Overloaded, error.to_string());
            (fault.retry_after_ms(1000), CloseReason::TRY_AGAIN)
        }
        false => {
            let fault = Fault::new(ErrorCode::Unauthorized, error.to_string());
            (fault, CloseReason::UNAUTHORIZED)
        }
    };
    ctx.send(&fault.frame(reference.as_deref()));
    ctx.close(reason.because(error.to_string()));
}

/// Refuses a client that must say who it is and does something else.
pub(super) fn refuse_unknown(ctx: &mut Ctx<'_>, error: TokenError, reference: &Reference) {
    ctx.count_refusal(error);
    refuse(ctx, error, reference);
}

/// Asks to be called when something is due about the end of a user's token.
fn await_end(ctx: &mut Ctx<'_>, grace: Duration) {
    let Some(user) = user(ctx) else { return };
    let Some(expires_at) = user.expires_at else { return };
    let due = match ctx.state().is_warned {
        true => expires_at.saturating_add(grace),
        false => user.notice_at,
    };
    let left = due.saturating_sub(now(ctx));
    ctx.wake_after(left.min(NAP_MAX));
}

/// Does what is due: tells a user that its token is about to end, closes one whose token has ended,
/// and a client whose token did not come.
pub(super) fn wake(ctx: &mut Ctx<'_>, about: &About) {
    if matches!(ctx.state().standing, Standing::Awaited) {
        return refuse_unknown(ctx, TokenError::TimedOut, &None);
    }
    let Some(user) = user(ctx) else { return };
    let Some(expires_at) = user.expires_at else { return };
    let close_at = expires_at.saturating_add(about.token_grace);
    let (now, is_warned) = (now(ctx), ctx.state().is_warned);
    if is_warned && now >= close_at {
        return ctx.close(CloseReason::TOKEN_EXPIRED);
    }
    if !is_warned && now >= user.notice_at {
        ctx.state().is_warned = true;
        // The nearest second: the call may come a moment late.
        let seconds = |until: Duration| (until.as_millis() as u64 + 500) / 1000;
        let expires_s = seconds(expires_at.saturating_sub(now));
        let close_s = seconds(close_at.saturating_sub(now));
        ctx.send(&json::text(&protocol::Notice::TokenExpires { expires_s, close_s }));
    }
    await_end(ctx, about.token_grace);
}
