//! What sessions spend of their limits, and of those of their addresses.

use std::net::SocketAddr;

use super::{Hub, error::RoomError, session::Session};
use crate::limits::spending::{LimitOf, RateLimited};

impl Hub {
    /// Spends a message of `bytes` from a client at `remote`, as of a moment of the hub's clock.
    pub(crate) fn spend(
        &self,
        session: &Session,
        remote: SocketAddr,
        bytes: usize,
        now_ms: u64,
    ) -> Result<(), RateLimited> {
        let (owners, ip) = (&self.owners, remote.ip());
        let rates = self.limits.rates();
        if rates.are_off() && (owners.rates_are_off() || owners.owner_of(ip).is_none()) {
            return Ok(());
        }
        let mut spending = session.spending.lock();
        let spending = spending.get_or_insert_default();
        let spent = spending.spend(bytes, &rates, (owners, ip), now_ms);
        if let Err(limited) = &spent {
            let metrics = &self.sessions.metrics;
            match limited.of {
                LimitOf::Client => metrics.rate_limited.add_shared(),
                LimitOf::Address => metrics.rate_limited_per_ip.add_shared(),
            }
        }
        spent
    }

    /// Spends a room that a client at `remote` is about to make.
    pub(super) fn spend_room(
        &self,
        session: &Session,
        remote: SocketAddr,
    ) -> Result<(), RoomError> {
        let mut spending = session.spending.lock();
        let spending = spending.get_or_insert_default();
        let spent =
            spending.spend_room(&self.limits.rates(), (&self.owners, remote.ip()), self.now_ms());
        spent.map_err(|retry_after_ms| {
            self.sessions.metrics.rooms_rate_limited.add_shared();
            RoomError::RoomsTooFast { retry_after_ms }
        })
    }
}
