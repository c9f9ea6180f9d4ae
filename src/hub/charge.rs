//! What the sender of a message is charged for it, letter by letter.

use std::sync::Arc;

use super::{conn_id::ConnId, in_flight, room::RoomKey, session::Session};

/// Deliveries to fewer members than this are not counted: they cost the server as much as they cost
/// the client.
const COUNTED_MIN: usize = 64;

/// What messages that go together may have together, in bytes. One of which no two fit goes alone.
pub(crate) const TOGETHER_BYTES_MAX: usize = 32 << 10;

/// One message that is to be charged for. Each of its letters has a [`Charge`] for its part.
pub(super) struct Charged<'s> {
    payer: Option<&'s Arc<Session>>,
    bytes: usize,
    members: usize,
    /// Whether it goes to its members together with the payer's message before it.
    goes_along: bool,
    published_ms: Option<u64>,
}

/// One worker's part of a message. Goes with its letter.
pub(crate) struct Charge {
    session: Arc<Session>,
    price: u32,
    /// When the message was published, if it is for so many that its way is timed.
    published_ms: Option<u64>,
}

impl<'s> Charged<'s> {
    /// A message of `bytes` to `members` in all, which are those of `room` if it is to one room.
    /// Nobody pays for a message from outside of any session.
    pub(super) fn new(
        payer: Option<&'s Arc<Session>>,
        bytes: usize,
        members: usize,
        room: Option<RoomKey>,
    ) -> Charged<'s> {
        let is_behind = payer.is_some_and(|payer| payer.traffic().in_flight.goes_along(room));
        let goes_along = is_behind && bytes <= TOGETHER_BYTES_MAX / 2;
        Charged { payer, bytes, members, goes_along, published_ms: None }
    }

    /// Has the way of the message be timed, from `now_ms` of the hub's clock on.
    pub(super) fn published_at(self, now_ms: u64) -> Charged<'s> {
        Charged { published_ms: (self.members >= COUNTED_MIN).then_some(now_ms), ..self }
    }

    /// Charges for the letter of a worker that has `here` of the members.
    pub(super) fn part(&self, here: u32) -> Option<Charge> {
        let Charged { bytes, members, goes_along, published_ms, .. } = *self;
        let session = Arc::clone(self.payer?);
        let is_counted = members >= COUNTED_MIN;
        let deliveries =
            if is_counted { in_flight::members_price(here, members, goes_along) } else { 0 };
        let price = in_flight::price(bytes, here, members).saturating_add(deliveries);
        session.traffic().in_flight.add(price);
        Some(Charge { session, price, published_ms })
    }
}

impl Charge {
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
        self.session.traffic().in_flight.subtract(self.price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, hub::harness::Bench};

    #[test]
    fn what_is_too_large_to_go_along_is_charged_for_all_its_members() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let sender = bench.client(0, true).session;
        let members_price = |bytes| {
            let charged = Charged::new(Some(&sender), bytes, 1000, Some(7));
            charged.part(1000).map(|charge| charge.price - in_flight::price(bytes, 1000, 1000))
        };
        let half = TOGETHER_BYTES_MAX / 2;
        assert_eq!(members_price(10), Some(1000), "nothing is before it");
        assert!(members_price(half).is_some_and(|price| price < 1000), "it goes along");
        assert_eq!(members_price(half + 1), Some(1000), "no two of them go together");
        assert!(members_price(10).is_some_and(|price| price < 1000), "it goes along again");
    }
}
