//! What sessions spend of their limits, and of those of their users and addresses.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::{MappedMutexGuard, MutexGuard};

use super::{Hub, error::RoomError, session::Session};
use crate::limits::{
    owner::{LimitOf, Owner},
    spending::{RateLimited, Spending},
};

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
        if self.limits.rates_are_off()
            && owners.user_rates_are_off()
            && (owners.address_rates_are_off() || owners.owner_of(ip).is_none())
        {
            return Ok(());
        }
        let mut spending = self.lock_spending(session);
        let spent = spending.spend(bytes, (owners, ip), now_ms);
        if let Err(limited) = &spent {
            let metrics = &self.sessions.metrics;
            match limited.of {
                LimitOf::Client => metrics.rate_limited.add_shared(),
                LimitOf::Address => metrics.rate_limited_per_ip.add_shared(),
                LimitOf::User => metrics.rate_limited_per_user.add_shared(),
            }
        }
        spent
    }

    /// Locks what a session has spent, and finds out first whose that is.
    fn lock_spending<'a>(&self, session: &'a Session) -> MappedMutexGuard<'a, Spending> {
        let mut spending = session.traffic().spending.lock();
        let knows_user = spending.as_mut().is_some_and(|spending| {
            spending.follow(&self.owners, || self.limits.rates());
            spending.knows_user()
        });
        if !knows_user {
            // The lock of the session is taken before this one.
            drop(spending);
            let user = session.identity().map(|identity| Arc::clone(&identity.user));
            let lease = user.and_then(|user| self.owners.lease(Owner::User(user)));
            spending = session.traffic().spending.lock();
            let begun = spending.get_or_insert_default();
            begun.follow(&self.owners, || self.limits.rates());
            begun.set_user(lease);
        }
        MutexGuard::map(spending, |spending| &mut **spending.get_or_insert_default())
    }

    /// Spends a room that a client of `user`, at `remote`, is about to make.
    pub(super) fn spend_room(
        &self,
        session: &Session,
        user: Option<Arc<str>>,
        remote: SocketAddr,
    ) -> Result<(), RoomError> {
        let mut spending = session.traffic().spending.lock();
        let spending = spending.get_or_insert_default();
        let (owners, of) = (&self.owners, (user, remote.ip()));
        spending.follow(owners, || self.limits.rates());
        let spent = spending.spend_room(owners, of, self.now_ms());
        spent.map_err(|(of, retry_after_ms)| {
            let metrics = &self.sessions.metrics;
            match of {
                LimitOf::Client => metrics.rooms_rate_limited.add_shared(),
                LimitOf::Address => metrics.rooms_rate_limited_per_ip.add_shared(),
                LimitOf::User => metrics.rooms_rate_limited_per_user.add_shared(),
            }
            RoomError::RoomsTooFast { of, retry_after_ms }
        })
    }
}
