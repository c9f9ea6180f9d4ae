//! The state of one connection: its errors in a row, its rate, and what the hooks said.

use rusty_socks_protocol::ErrorCode;
use serde_json::value::RawValue;

use super::{fault::Fault, rate, upgraded::Upgraded};
use crate::{CloseReason, Context};

/// Data of one connection.
#[derive(Debug, Default)]
pub struct ChatState {
    pub(super) errors_in_a_row: u32,
    /// Whether the client has a name in presence.
    pub(super) has_name: bool,
    pub(super) allowance: Option<Box<rate::Allowance>>,
    /// Boxed, because only servers with a hook for connects pay for the space.
    pub(super) hooked: Option<Box<Hooked>>,
}

pub(super) type Ctx<'a> = Context<'a, ChatState>;

/// What concerns one connection of a server that asks about connects.
#[derive(Debug)]
pub(super) struct Hooked {
    /// What the backend is told of the upgrade, until it is asked.
    pub(super) upgraded: Option<Upgraded>,
    /// The name, as JSON, that the backend has given the client.
    pub(super) sender: Option<Box<str>>,
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
    let errors = ctx.state().errors_in_a_row.saturating_add(1);
    ctx.state().errors_in_a_row = errors;
    if errors_max > 0 && errors >= errors_max {
        ctx.close(match fault.code {
            ErrorCode::RateLimited => CloseReason::RATE_LIMITED,
            _ => CloseReason::TOO_MANY_ERRORS,
        });
    }
}
