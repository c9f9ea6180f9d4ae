//! What reads the settings anew.

use std::time::Duration;

use super::answer::{RETRY_S, error, ok};
use crate::{AdminAnswer, AdminContext, AdminStep, ErrorKind, PendingReload, Status};

/// How often the outcome is looked for. A reload takes a few milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Begins to read the settings, and answers when that is done.
pub(super) fn begin(ctx: &mut AdminContext<'_>) -> AdminStep {
    match ctx.reload() {
        Some(pending) => go_on(pending),
        None => {
            let message = "the settings are being read already";
            let answer =
                AdminAnswer::error(Status::Unavailable, "overloaded", message, Some(RETRY_S));
            AdminStep::Answer(answer)
        }
    }
}

fn go_on(pending: PendingReload) -> AdminStep {
    AdminStep::Answer(match pending.outcome() {
        Err(pending) => {
            return AdminStep::Continue(LOOK_INTERVAL, Box::new(move |_| go_on(pending)));
        }
        Ok(Ok(reloaded)) => ok(&reloaded),
        Ok(Err(failure)) => match failure.kind() {
            ErrorKind::Config => error(Status::BadRequest, "bad_config", &failure.to_string()),
            _ => error(Status::InternalError, "internal", &failure.to_string()),
        },
    })
}
