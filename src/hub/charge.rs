//! What the sender of a message is charged for one letter.

use std::sync::Arc;

use super::{conn_id::ConnId, session::Session};

/// Messages to fewer members than this are not counted: they cost the server as much as they cost
/// the client.
const COUNTED_MIN: usize = 64;

/// One worker's part of the deliveries of a message. Goes with its letter.
pub(crate) struct Charge {
    session: Arc<Session>,
    deliveries: u32,
}

impl Charge {
    /// Counts one worker's part, `here`, of a message to `members` in all. `None` where nobody
    /// pays: the message is from outside of any session, or costs too little.
    pub(super) fn new(by: Option<&Arc<Session>>, members: usize, here: u32) -> Option<Charge> {
        let session = by.filter(|_| members >= COUNTED_MIN)?;
        session.in_flight.add(here);
        Some(Charge { session: Arc::clone(session), deliveries: here })
    }

    /// Counts the deliveries as made. Returns the connection that waited for them, which is to be
    /// read again.
    pub(super) fn settle(self) -> Option<ConnId> {
        self.session.in_flight.subtract(self.deliveries)
    }
}
