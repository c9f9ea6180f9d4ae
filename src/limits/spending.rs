//! What one client has spent of its own limits, and has borrowed from its address.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use super::{
    bucket::Bucket,
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
    /// That of the limits by which it has spent.
    generation: u32,
    /// What it has borrowed there, if a limit holds.
    lease: Option<Lease>,
}

/// Whose limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitOf {
    /// That of the client itself.
    Client,
    /// That of everyone at its address.
    Address,
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
        })
    }
}

impl std::error::Error for RateLimited {}

impl Spending {
    /// Begins anew if the limits have changed since the client last spent something.
    #[inline]
    fn follow(&mut self, owners: &Owners) {
        let generation = owners.generation();
        if self.generation != generation {
            *self = Spending { generation, ..Spending::default() };
        }
    }

    /// Spends a message of `bytes` of both limits, or of neither.
    pub(crate) fn spend(
        &mut self,
        bytes: usize,
        rates: &Rates,
        (owners, ip): (&Arc<Owners>, IpAddr),
        now_ms: u64,
    ) -> Result<(), RateLimited> {
        let bytes = bytes as f64;
        self.follow(owners);
        let wait_ms = self.messages.wait_ms(1.0, &rates.messages, now_ms);
        let wait_ms = wait_ms.max(self.bytes.wait_ms(bytes, &rates.bytes, now_ms));
        if wait_ms > 0 {
            return Err(RateLimited::new(LimitOf::Client, wait_ms));
        }
        // A session that is resumed from elsewhere borrows there.
        if self.ip != Some(ip) {
            self.ip = Some(ip);
            self.lease = owners.owner_of(ip).and_then(|owner| owners.lease(owner));
        }
        if let Some(lease) = &mut self.lease {
            let spent = lease.spend(bytes, now_ms);
            spent.map_err(|wait_ms| RateLimited::new(LimitOf::Address, wait_ms))?;
        }
        self.messages.take(1.0, &rates.messages);
        self.bytes.take(bytes, &rates.bytes);
        Ok(())
    }

    /// Spends a room that the client makes, or returns the milliseconds until it may make one.
    pub(crate) fn spend_room(
        &mut self,
        rates: &Rates,
        (owners, ip): (&Arc<Owners>, IpAddr),
        now_ms: u64,
    ) -> Result<(), u64> {
        self.follow(owners);
        match self.rooms.wait_ms(1.0, &rates.rooms, now_ms) {
            0 => {}
            wait_ms => return Err(wait_ms),
        }
        if let Some(owner) = owners.owner_of(ip) {
            owners.take_room(owner, now_ms)?;
        }
        self.rooms.take(1.0, &rates.rooms);
        Ok(())
    }
}
