//! What a session counts of what it sends and is sent.

use parking_lot::Mutex;

use super::{in_flight::InFlight, inbound::Inbound};
use crate::limits::spending::Spending;

/// Made when a session first sends something or is sent a direct message, so that the many
/// sessions that only listen do not pay for the space.
#[derive(Default)]
pub(crate) struct Traffic {
    /// What the session has sent and the server has not passed on yet.
    pub(crate) in_flight: InFlight,
    /// The direct messages on their way to the session.
    pub(crate) inbound: Inbound,
    /// What the client has spent of its limits. Its lock is taken last.
    pub(super) spending: Mutex<Option<Box<Spending>>>,
}
