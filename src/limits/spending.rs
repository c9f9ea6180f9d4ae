//! What one client has spent of its own limits, and has borrowed from its user and its address.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use super::{
    bucket::Bucket,
    owner::{LimitOf, Owner},
    owners::{Lease, Owners},
    rates::Rates,
};

/// A client's buckets. Made when the client first spends something.
#[derive(Default)]
pub(crate) struct Spending {
    messages: Bucket,
    bytes: Bucket,
    rooms: Bucket,
    /// Where the client was when it last spent something. Whose address that is takes a while to
    /// find out.
    ip: Option<IpAddr>,
    /// The generation of the limits by which it has spent; 0 before it has spent anything.
    generation: u32,
    /// Those limits, of the client alone.
    rates: Rates,
    /// What it has borrowed there, if a limit holds.
    of_address: Option<Lease>,
    /// Whether it is known who the client is. That takes a lock to find out.
    knows_user: bool,
    /// What it has borrowed from its user, if there is one and a limit holds.
    of_user: Option<Lease>,
}

/// The answer to a client that sends more than its limits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimited {
    /// Whose limit is reached.
    pub of: LimitOf,
    /// How long the client should wait before it sends this again.
    pub wait: Duration,
}

impl RateLimited {
    fn new(of: LimitOf, wait_ms: u64) -> RateLimited {
        RateLimited { of, wait: Duration::from_millis(wait_ms) }
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.of {
            LimitOf::Client => "the client sends more messages or bytes than its rate allows",
            LimitOf::Address => {
                "this address sends more messages or bytes than the rate of an address allows"
            }
            LimitOf::User => {
                "this user sends more messages or bytes than the rate of a user allows"
            }
        })
    }
}

impl std::error::Error for RateLimited {}

impl Spending {
    /// Begins anew, by what `rates` returns, if the limits have changed since the client last spent
    /// something.
    #[inline]
    pub(crate) fn follow(&mut self, owners: &Owners, rates: impl FnOnce() -> Rates) {
        let generation = owners.generation();
        if self.generation != generation {
            *self = Spending { generation, rates: rates(), ..Spending::default() };
        }
    }

    /// Whether [`set_user`](Spending::set_user) has told who the client is.
    pub(crate) fn knows_user(&self) -> bool {
        self.knows_user
    }

    /// Borrows from this user from now on, or from none.
    pub(crate) fn set_user(&mut self, of_user: Option<Lease>) {
        (self.knows_user, self.of_user) = (true, of_user);
    }

    /// Notes that the client may have another user by now.
    pub(crate) fn forget_user(&mut self) {
        (self.knows_user, self.of_user) = (false, None);
    }

    /// Spends a message of `bytes` of all limits, or of none.
    pub(crate) fn spend(
        &mut self,
        bytes: usize,
        (owners, ip): (&Arc<Owners>, IpAddr),
        now_ms: u64,
    ) -> Result<(), RateLimited> {
        let (bytes, rates) = (bytes as f64, self.rates);
        let wait_ms = self.messages.wait_ms(1.0, &rates.messages, now_ms);
        let wait_ms = wait_ms.max(self.bytes.wait_ms(bytes, &rates.bytes, now_ms));
        if wait_ms > 0 {
            return Err(RateLimited::new(LimitOf::Client, wait_ms));
        }
        // A session that is resumed from elsewhere borrows there.
        if self.ip != Some(ip) {
            self.ip = Some(ip);
            self.of_address = owners.owner_of(ip).and_then(|owner| owners.lease(owner));
        }
        if let Some(lease) = &mut self.of_user {
            let reserved = lease.reserve(bytes, now_ms);
            reserved.map_err(|wait_ms| RateLimited::new(LimitOf::User, wait_ms))?;
        }
        if let Some(lease) = &mut self.of_address {
            let reserved = lease.reserve(bytes, now_ms);
            reserved.map_err(|wait_ms| RateLimited::new(LimitOf::Address, wait_ms))?;
            lease.take(bytes);
        }
        if let Some(lease) = &mut self.of_user {
            lease.take(bytes);
        }
        self.messages.take(1.0, &rates.messages);
        self.bytes.take(bytes, &rates.bytes);
        Ok(())
    }

    /// Spends a room that the client makes, or returns whose limit is reached and the milliseconds
    /// until it may make one.
    pub(crate) fn spend_room(
        &mut self,
        owners: &Owners,
        (user, ip): (Option<Arc<str>>, IpAddr),
        now_ms: u64,
    ) -> Result<(), (LimitOf, u64)> {
        let rates = self.rates;
        match self.rooms.wait_ms(1.0, &rates.rooms, now_ms) {
            0 => {}
            wait_ms => return Err((LimitOf::Client, wait_ms)),
        }
        let of: Vec<Owner> = user.map(Owner::User).into_iter().chain(owners.owner_of(ip)).collect();
        owners.take_room(&of, now_ms).map_err(|(owner, wait_ms)| (owner.limit(), wait_ms))?;
        self.rooms.take(1.0, &rates.rooms);
        Ok(())
    }
}
