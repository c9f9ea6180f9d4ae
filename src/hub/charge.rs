//! What the sender of a message is charged for one letter.

use std::sync::Arc;

use super::{conn_id::ConnId, in_flight, session::Session};

/// Deliveries to fewer members than this are not counted: they cost the server as much as they cost
/// the client.
const COUNTED_MIN: usize = 64;

/// One worker's part of a message. Goes with its letter.
pub(crate) struct Charge {
    session: Arc<Session>,
    price: u32,
    /// When the message was published, if it is for so many that its way is timed.
    published_ms: Option<u64>,
}

impl Charge {
    /// Charges for one worker's part, `here`, of a message of `bytes` to `members` in all. `None`
    /// where nobody pays, because the message is from outside of any session.
    pub(super) fn new(
        by: Option<&Arc<Session>>,
        bytes: usize,
        members: usize,
        here: u32,
    ) -> Option<Charge> {
        let session = Arc::clone(by?);
        let deliveries =
            if members < COUNTED_MIN { 0 } else { in_flight::members_price(here, members) };
        let price = in_flight::price(bytes, here, members).saturating_add(deliveries);
        session.in_flight.add(price);
        Some(Charge { session, price, published_ms: None })
    }

    /// Like [`new`](Charge::new), for a message that was published at `now_ms` of the hub's clock.
    pub(super) fn of_publish(
        by: Option<&Arc<Session>>,
        bytes: usize,
        members: usize,
        here: u32,
        now_ms: u64,
    ) -> Option<Charge> {
        let published_ms = (members >= COUNTED_MIN).then_some(now_ms);
        Charge::new(by, bytes, members, here).map(|charge| Charge { published_ms, ..charge })
    }

    /// Returns when the message was published, on the hub's clock, if its way is timed.
    pub(crate) fn published_ms(&self) -> Option<u64> {
        self.published_ms
    }

    /// Returns the session that pays.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Counts the letter as delivered. Returns the connection that waited for that, which is to be
    /// read again.
    pub(super) fn settle(self) -> Option<ConnId> {
        self.session.in_flight.subtract(self.price)
    }
}
