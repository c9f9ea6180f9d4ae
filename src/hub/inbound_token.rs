//! One direct message on its way.

use std::sync::Arc;

use super::{inbound::InboundBounds, session::Session};

/// A direct message that is posted to a session; it is counted until this is dropped with its
/// letter.
pub(crate) struct InboundToken {
    session: Arc<Session>,
    bytes: usize,
}

impl InboundToken {
    /// Counts a message of `bytes` to `session`. `None` if it must be refused.
    pub(super) fn take(
        session: &Arc<Session>,
        bytes: usize,
        bounds: &InboundBounds,
    ) -> Option<InboundToken> {
        let is_taken = session.traffic().inbound.add(bytes, bounds);
        is_taken.then(|| InboundToken { session: Arc::clone(session), bytes })
    }
}

impl Drop for InboundToken {
    fn drop(&mut self) {
        self.session.traffic().inbound.subtract(self.bytes);
    }
}
