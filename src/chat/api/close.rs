//! What closes sessions: one, those of a user, and those of revoked tokens.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::answer::{ok, refusal};
use crate::{
    AdminAnswer, AdminContext, AdminStep, CloseReason, ClosedSessions, Revocation,
    chat::{fault::Fault, json},
};

/// The largest body of a request to close or to revoke, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 2048;

/// The largest reason of a close, in bytes (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The largest number of seconds that a time may be from 1970: the year 9999.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// Closes a session with the code and reason in `body`, if it has any.
pub(super) fn session(ctx: &mut AdminContext<'_>, client: &Uuid, body: &[u8]) -> AdminStep {
    #[derive(Serialize)]
    struct Closed {
        client_id: String,
    }
    let closed = close_reason(body).and_then(|reason| Ok(ctx.close(client, reason)?));
    answer(closed.map(|()| ok(&Closed { client_id: client.to_string() })))
}

/// Closes the sessions of a user with the code and reason in `body`, if it has any.
pub(super) fn user(ctx: &mut AdminContext<'_>, user: String, body: &[u8]) -> AdminStep {
    match close_reason(body) {
        Ok(reason) => {
            let page =
                move |ctx: &mut AdminContext<'_>, after| ctx.close_user(&user, &reason, after);
            close_pages(ctx, page, None, 0)
        }
        Err(fault) => answer(Err(fault)),
    }
}

/// Revokes the tokens that `body` names, and closes the sessions of those who came with one.
pub(super) fn revoke(ctx: &mut AdminContext<'_>, body: &[u8]) -> AdminStep {
    match revocation(body) {
        Ok(revocation) => {
            ctx.revoke(&revocation);
            let page =
                move |ctx: &mut AdminContext<'_>, after| ctx.close_revoked(&revocation, after);
            close_pages(ctx, page, None, 0)
        }
        Err(fault) => answer(Err(fault)),
    }
}

/// Closes page after page, as many in a turn as it may cost, and answers with their number.
fn close_pages(
    ctx: &mut AdminContext<'_>,
    page: impl Fn(&mut AdminContext<'_>, Option<Uuid>) -> ClosedSessions + Send + 'static,
    mut after: Option<Uuid>,
    mut count: usize,
) -> AdminStep {
    #[derive(Serialize)]
    struct Closed {
        closed: usize,
    }
    loop {
        let ClosedSessions { closed, next, .. } = page(ctx, after);
        count += closed;
        after = next;
        if after.is_none() {
            return AdminStep::Answer(ok(&Closed { closed: count }));
        }
        if ctx.is_spent() {
            return AdminStep::Continue(
                Duration::ZERO,
                Box::new(move |ctx| close_pages(ctx, page, after, count)),
            );
        }
    }
}

fn answer(result: Result<AdminAnswer, Fault>) -> AdminStep {
    AdminStep::Answer(result.unwrap_or_else(|fault| refusal(&fault)))
}

/// Reads the code and the reason of a close, or takes those of a kick.
fn close_reason(body: &[u8]) -> Result<CloseReason, Fault> {
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Close {
        /// In JSON `4000.0` is the same integer.
        #[serde(default, deserialize_with = "not_null")]
        code: Option<f64>,
        #[serde(default, deserialize_with = "not_null")]
        reason: Option<String>,
    }
    let asked: Close = match body.iter().all(u8::is_ascii_whitespace) {
        true => Close::default(),
        false => object(body, "a close")?,
    };
    let code = asked.code.unwrap_or(CloseReason::KICKED.code().into());
    if code != 1000.0 && (!(3000.0..5000.0).contains(&code) || code.fract() != 0.0) {
        return Err(Fault::bad_request("code must be 1000, or 3000 to 4999"));
    }
    let default = || CloseReason::KICKED.reason().to_owned();
    let reason = asked.reason.unwrap_or_else(default);
    if reason.len() > REASON_BYTES_MAX {
        let message = format!("reason must have at most {REASON_BYTES_MAX} bytes");
        return Err(Fault::bad_request(message));
    }
    Ok(CloseReason::new(code as u16, reason))
}

/// Reads which tokens are to be revoked.
fn revocation(body: &[u8]) -> Result<Revocation, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Revoke {
        #[serde(default, deserialize_with = "not_null")]
        user: Option<String>,
        #[serde(default, deserialize_with = "not_null")]
        jti: Option<String>,
        /// Seconds since 1970.
        #[serde(default, deserialize_with = "not_null")]
        before: Option<f64>,
    }
    let asked: Revoke = object(body, "a revocation")?;
    let revocation = match (asked.user.as_deref(), asked.jti.as_deref()) {
        (Some(""), None) | (None, Some("")) => {
            return Err(Fault::bad_request("user and jti must not be empty"));
        }
        (Some(user), None) => Revocation::user(user),
        (None, Some(jti)) => Revocation::token(jti),
        _ => return Err(Fault::bad_request("the body must have user or jti, and not both")),
    };
    match asked.before {
        None => Ok(revocation),
        Some(before) if (0.0..=SECONDS_MAX).contains(&before) => {
            Ok(revocation.before(UNIX_EPOCH + Duration::from_secs_f64(before)))
        }
        Some(_) => Err(Fault::bad_request("before must be seconds since 1970")),
    }
}

/// Reads a field that may be left out, though not be `null`: who sends that has lost a value.
fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// Reads a JSON object.
fn object<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Fault> {
    if !json::is_object(body) {
        return Err(Fault::bad_request("the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Fault::bad_request(format!("the body is not {what}: {error}")))
}
