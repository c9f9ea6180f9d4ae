//! The table of owners: what each holds and has spent, across all its connections.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    bucket::{Bucket, Rate},
    owner::Owner,
    rates::Rates,
};
use crate::{
    config::{Config, LimitedAddresses},
    http::proxies::TrustedProxies,
    metrics::{Counter, Refused},
};

/// Owners that are remembered though they have no connection.
const OWNERS_MAX: usize = 65_536;

/// Owners looked at for one that is new: those that need not be remembered go, and of a full table
/// the one that has spent least.
const SAMPLE: usize = 16;

/// How many times a second's connections may come at once: an office comes back together.
const ACCEPT_BURST: f64 = 10.0;

/// A connection borrows from its owners so large a part of what they hold at once, so that the
/// table is not locked for each message.
const LEASE_PART: f64 = 256.0;

/// The table. One per server; usable from any thread, and locked for a moment each time.
pub(crate) struct Owners {
    limits: ArcSwap<OwnerLimits>,
    /// Whether these limit messages or bytes of addresses, and of users. Asked with each message.
    rates_address: AtomicBool,
    rates_user: AtomicBool,
    /// Counts the changes of the limits from 1 on, for those who have borrowed by earlier ones.
    generation: AtomicU32,
    table: Mutex<Table>,
    /// Owners forgotten for want of space though they had spent something.
    pub(crate) evicted: Arc<Counter>,
}

/// The limits of every owner, which a reload replaces.
#[derive(PartialEq)]
struct OwnerLimits {
    addresses: LimitedAddresses,
    /// Proxies have no limits: those of their clients hold for their clients.
    proxies: TrustedProxies,
    of_address: Limits,
    of_user: Limits,
}

/// What all connections of one owner may do together.
#[derive(Clone, Copy, PartialEq)]
struct Limits {
    connections_max: u32,
    accepts: Rate,
    rates: Rates,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<Owner, Entry>,
    /// Where the next sample begins.
    sampled_to: Option<Owner>,
}

#[derive(Default)]
struct Entry {
    connections: u32,
    accepts: Bucket,
    messages: Bucket,
    bytes: Bucket,
    rooms: Bucket,
}

/// Why an owner may not have another connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    Connections,
    Accepts,
}

impl TooMany {
    pub(crate) fn refused(self) -> Refused {
        match self {
            TooMany::Connections => Refused::PerIp,
            TooMany::Accepts => Refused::AcceptRate,
        }
    }
}

/// One connection of an owner, counted until this is dropped.
pub(crate) struct OwnerToken {
    owners: Arc<Owners>,
    owner: Owner,
}

/// Messages and bytes that a connection has borrowed from its owner. What is left is given back by
/// a drop.
pub(crate) struct Lease {
    owners: Arc<Owners>,
    owner: Owner,
    /// The generation of the limits by which it borrows.
    generation: u32,
    messages: f64,
    bytes: f64,
}

impl OwnerLimits {
    fn new(config: &Config) -> OwnerLimits {
        OwnerLimits {
            addresses: config.limited_addresses,
            proxies: TrustedProxies::new(&config.trusted_proxies),
            of_address: Limits {
                connections_max: u32::try_from(config.conn_per_ip_max()).unwrap_or(u32::MAX),
                accepts: Rate::new(config.rate_accepts_per_ip, 1.0).bursts(ACCEPT_BURST),
                rates: Rates::of_address(config),
            },
            of_user: Limits {
                connections_max: u32::try_from(config.conn_per_user_max()).unwrap_or(u32::MAX),
                // Who a client is shows only when it has been accepted.
                accepts: Rate::new(0, 1.0),
                rates: Rates::of_user(config),
            },
        }
    }
}

impl Owners {
    pub(crate) fn new(config: &Config) -> Arc<Owners> {
        let limits = OwnerLimits::new(config);
        Arc::new(Owners {
            rates_address: AtomicBool::new(!limits.of_address.rates.are_off()),
            rates_user: AtomicBool::new(!limits.of_user.rates.are_off()),
            limits: ArcSwap::from_pointee(limits),
            generation: AtomicU32::new(1),
            table: Mutex::default(),
            evicted: Arc::default(),
        })
    }

    /// Takes the limits of `config`, for those who are connected too. If they are others, or
    /// clients have other ones of their own, all may spend anew: what was spent by one rate says
    /// nothing by another.
    pub(crate) fn reload(&self, config: &Config, clients_have_others: bool) {
        let limits = OwnerLimits::new(config);
        let mut table = self.table.lock();
        if limits == **self.limits.load() && !clients_have_others {
            return;
        }
        self.rates_address.store(!limits.of_address.rates.are_off(), Ordering::Relaxed);
        self.rates_user.store(!limits.of_user.rates.are_off(), Ordering::Relaxed);
        self.limits.store(Arc::new(limits));
        for entry in table.entries.values_mut() {
            *entry = Entry { connections: entry.connections, ..Entry::default() };
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often the limits have changed.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the owner of what a client at `ip` does, or `None` if no limit holds for it.
    pub(crate) fn owner_of(&self, ip: IpAddr) -> Option<Owner> {
        let limits = self.limits.load();
        let is_limited = limits.addresses.holds_for(ip) && !limits.proxies.contains(ip);
        is_limited.then(|| Owner::of_address(ip))
    }

    /// Counts one more connection from `ip`. `Ok(None)` where no limit holds.
    pub(crate) fn admit(
        self: &Arc<Owners>,
        ip: IpAddr,
        now_ms: u64,
    ) -> Result<Option<OwnerToken>, TooMany> {
        self.owner_of(ip).map(|owner| self.count(owner, now_ms)).transpose()
    }

    /// Counts one more connection of `user`.
    pub(crate) fn admit_user(
        self: &Arc<Owners>,
        user: &Arc<str>,
        now_ms: u64,
    ) -> Result<OwnerToken, TooMany> {
        self.count(Owner::User(Arc::clone(user)), now_ms)
    }

    fn count(self: &Arc<Owners>, owner: Owner, now_ms: u64) -> Result<OwnerToken, TooMany> {
        let limits = self.limits(&owner);
        self.change(&owner, now_ms, |entry| {
            if entry.connections >= limits.connections_max {
                return Err(TooMany::Connections);
            }
            if entry.accepts.wait_ms(1.0, &limits.accepts, now_ms) > 0 {
                return Err(TooMany::Accepts);
            }
            entry.accepts.take(1.0, &limits.accepts);
            entry.connections += 1;
            Ok(())
        })?;
        Ok(OwnerToken { owners: Arc::clone(self), owner })
    }

    fn limits(&self, owner: &Owner) -> Limits {
        let limits = self.limits.load();
        match owner {
            Owner::Address(_) => limits.of_address,
            Owner::User(_) => limits.of_user,
        }
    }

    /// Takes a room that all of `owners` make, or returns which of them may not, and the
    /// milliseconds until it may.
    pub(super) fn take_room<'a>(
        &self,
        owners: &'a [Owner],
        now_ms: u64,
    ) -> Result<(), (&'a Owner, u64)> {
        for (at, owner) in owners.iter().enumerate() {
            let rate = self.limits(owner).rates.rooms;
            if rate.is_off() {
                continue;
            }
            let wait_ms = self.change(owner, now_ms, |entry| {
                let wait_ms = entry.rooms.wait_ms(1.0, &rate, now_ms);
                if wait_ms == 0 {
                    entry.rooms.take(1.0, &rate);
                }
                wait_ms
            });
            if wait_ms > 0 {
                for taken in &owners[..at] {
                    let rate = self.limits(taken).rates.rooms;
                    self.change(taken, now_ms, |entry| entry.rooms.take(-1.0, &rate));
                }
                return Err((owner, wait_ms));
            }
        }
        Ok(())
    }

    /// Whether neither messages nor bytes of addresses are limited.
    pub(crate) fn address_rates_are_off(&self) -> bool {
        !self.rates_address.load(Ordering::Relaxed)
    }

    /// Whether neither messages nor bytes of users are limited.
    pub(crate) fn user_rates_are_off(&self) -> bool {
        !self.rates_user.load(Ordering::Relaxed)
    }

    /// Begins a lease that has nothing yet. `None` if neither messages nor bytes are limited.
    pub(crate) fn lease(self: &Arc<Owners>, owner: Owner) -> Option<Lease> {
        let is_limited = !self.limits(&owner).rates.are_off();
        is_limited.then(|| Lease {
            owners: Arc::clone(self),
            owner,
            generation: self.generation(),
            messages: 0.0,
            bytes: 0.0,
        })
    }

    /// Returns how many owners are remembered.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    fn change<R>(&self, owner: &Owner, now_ms: u64, change: impl FnOnce(&mut Entry) -> R) -> R {
        let mut table = self.table.lock();
        if !table.entries.contains_key(owner) {
            self.make_space(&mut table, now_ms);
        }
        change(table.entries.entry(owner.clone()).or_default())
    }

    /// Forgets some of those that need not be remembered. If the table is full nevertheless, one
    /// more goes, so that it has at most [`OWNERS_MAX`] without connections.
    fn make_space(&self, table: &mut Table, now_ms: u64) {
        let from = table.sampled_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        let sample: Vec<(Owner, f64)> = table
            .entries
            .range_mut((from, Bound::Unbounded))
            .take(SAMPLE)
            .map(|(owner, entry)| (owner.clone(), self.spent(owner, entry, now_ms)))
            .collect();
        // From the beginning again, though new owners may come behind the last one.
        let is_end = sample.len() < SAMPLE;
        table.sampled_to = sample.last().map(|(owner, _)| owner.clone()).filter(|_| !is_end);
        for (owner, _) in sample.iter().filter(|(_, spent)| *spent == 0.0) {
            table.entries.remove(owner);
        }
        let least = sample.iter().min_by(|(_, one), (_, other)| one.total_cmp(other));
        if table.entries.len() >= OWNERS_MAX
            && let Some((owner, spent)) = least.filter(|(_, spent)| spent.is_finite())
        {
            table.entries.remove(owner);
            self.evicted.add_many_shared(u64::from(*spent > 0.0));
        }
    }

    /// The largest part of a limit that an owner has spent; infinite while it has connections,
    /// which must be counted.
    fn spent(&self, owner: &Owner, entry: &mut Entry, now_ms: u64) -> f64 {
        if entry.connections > 0 {
            return f64::INFINITY;
        }
        let Limits { accepts, rates, .. } = self.limits(owner);
        [
            entry.accepts.missing(&accepts, now_ms),
            entry.messages.missing(&rates.messages, now_ms),
            entry.bytes.missing(&rates.bytes, now_ms),
            entry.rooms.missing(&rates.rooms, now_ms),
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }
}

impl Lease {
    /// Makes sure that it has a message of `bytes`, or returns the milliseconds until the owner has
    /// it.
    pub(super) fn reserve(&mut self, bytes: f64, now_ms: u64) -> Result<(), u64> {
        match self.messages < 1.0 || self.bytes < bytes {
            true => self.borrow(bytes, now_ms),
            false => Ok(()),
        }
    }

    /// Takes a message of `bytes` that was reserved.
    pub(super) fn take(&mut self, bytes: f64) {
        self.messages -= 1.0;
        self.bytes -= bytes;
    }

    fn borrow(&mut self, bytes: f64, now_ms: u64) -> Result<(), u64> {
        let (owner, rates) = (&self.owner, self.owners.limits(&self.owner).rates);
        let (messages_lack, bytes_lack) =
            ((1.0 - self.messages).max(0.0), (bytes - self.bytes).max(0.0));
        let (messages, bytes) = self.owners.change(owner, now_ms, |entry| {
            // The part if there is so much, or else what is needed. Where nothing is limited, one
            // loan is enough for ever.
            let lend = |bucket: &mut Bucket, lacks: f64, rate: &Rate| {
                if rate.is_off() {
                    return (f64::INFINITY, 0);
                }
                let part = lacks.max(rate.part(LEASE_PART).floor());
                let amount = if bucket.wait_ms(part, rate, now_ms) == 0 { part } else { lacks };
                (amount, bucket.wait_ms(amount, rate, now_ms))
            };
            let (messages, wait) = lend(&mut entry.messages, messages_lack, &rates.messages);
            let (bytes, wait_bytes) = lend(&mut entry.bytes, bytes_lack, &rates.bytes);
            match wait.max(wait_bytes) {
                0 => {
                    entry.messages.take(messages, &rates.messages);
                    entry.bytes.take(bytes, &rates.bytes);
                    Ok((messages, bytes))
                }
                wait_ms => Err(wait_ms),
            }
        })?;
        self.messages += messages;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(entry) = self.owners.table.lock().entries.get_mut(&self.owner) {
            // What was borrowed before the limits changed is not theirs to take back.
            if self.generation == self.owners.generation() {
                let rates = self.owners.limits(&self.owner).rates;
                entry.messages.take(-self.messages, &rates.messages);
                entry.bytes.take(-self.bytes, &rates.bytes);
            }
        }
    }
}

impl Drop for OwnerToken {
    fn drop(&mut self) {
        if let Some(entry) = self.owners.table.lock().entries.get_mut(&self.owner) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(number: u32) -> IpAddr {
        // 0.0.0.0 is the other side of a Unix socket, which has no limit.
        IpAddr::V4(Ipv4Addr::from(number + 1))
    }

    fn owners(config: Config) -> Arc<Owners> {
        Owners::new(&Config { limited_addresses: LimitedAddresses::All, ..config })
    }

    #[test]
    fn connections_are_counted_by_address_and_given_back() {
        let owners = owners(Config { max_conn_per_ip: 1, ..Config::default() });
        let token = owners.admit(ip(1), 0).expect("the first");
        assert_eq!(owners.admit(ip(1), 0).err(), Some(TooMany::Connections));
        assert!(owners.admit(ip(2), 0).is_ok_and(|token| token.is_some()));
        drop(token);
        assert!(owners.admit(ip(1), 0).is_ok());
    }

    #[test]
    fn by_default_an_address_has_half_of_the_places_and_local_ones_all() {
        let owners = Owners::new(&Config::default());
        let far = ip(0x0808_0808);
        let tokens: Vec<_> = (0..50).map(|_| owners.admit(far, 0).expect("a place")).collect();
        assert_eq!(owners.admit(far, 0).err(), Some(TooMany::Connections));
        drop(tokens);
        for near in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "::1", "fd00::1"] {
            let near = near.parse().expect("an address");
            assert!(owners.admit(near, 0).is_ok_and(|token| token.is_none()));
        }
    }

    #[test]
    fn accepts_a_second_outlive_the_connections() {
        let owners = owners(Config { rate_accepts_per_ip: 2, ..Config::default() });
        (0..20).for_each(|_| drop(owners.admit(ip(1), 0).expect("a burst")));
        assert_eq!(owners.admit(ip(1), 0).err(), Some(TooMany::Accepts));
        assert!(owners.admit(ip(1), 500).is_ok() && owners.admit(ip(1), 500).is_err());
    }

    #[test]
    fn what_an_address_spends_is_remembered_across_its_leases_and_what_is_left_is_given_back() {
        let limits =
            Config { rate_messages_per_ip: 1024, rate_bytes_per_ip: 0, ..Config::default() };
        let owners = owners(limits);
        let owner = Owner::of_address(ip(1));
        let mut spent = 0;
        // A lease borrows four at once, and each spends one.
        while let Some(mut lease) = owners.lease(owner.clone()) {
            match lease.reserve(1e6, 0) {
                Ok(()) => {
                    lease.take(1e6);
                    spent += 1;
                }
                Err(wait_ms) => {
                    assert!((1..=4).contains(&wait_ms), "{wait_ms}");
                    break;
                }
            }
        }
        assert_eq!(spent, 1024);
    }

    #[test]
    fn a_lease_borrows_once_what_is_not_limited() {
        for (rate_messages_per_ip, rate_bytes_per_ip) in [(1 << 20, 0), (0, 1 << 30)] {
            let limits = Config { rate_messages_per_ip, rate_bytes_per_ip, ..Config::default() };
            let owners = owners(limits);
            let mut lease = owners.lease(Owner::of_address(ip(1))).expect("one is limited");
            lease.reserve(1000.0, 0).expect("there is enough");
            lease.take(1000.0);
            assert!(lease.messages >= 1.0 && lease.bytes >= 1000.0, "the next one is free as well");
        }
    }

    #[test]
    fn a_user_and_an_address_have_limits_of_their_own() {
        let limits = Config { max_conn_per_ip: 2, max_conn_per_user: 1, ..Config::default() };
        let owners = owners(Config { rate_rooms_per_ip: 1, rate_rooms_per_user: 2, ..limits });
        let (anna, ben): (Arc<str>, Arc<str>) = ("anna".into(), "ben".into());
        let token = owners.admit_user(&anna, 0).expect("the first");
        assert_eq!(owners.admit_user(&anna, 0).err(), Some(TooMany::Connections));
        assert!(owners.admit_user(&ben, 0).is_ok() && owners.admit(ip(1), 0).is_ok());
        drop(token);
        assert!(owners.admit_user(&anna, 0).is_ok());

        let both = |at: u32| [Owner::User(Arc::clone(&anna)), Owner::of_address(ip(at))];
        assert_eq!(owners.take_room(&both(1), 0), Ok(()));
        let refused = both(1);
        assert_eq!(owners.take_room(&refused, 0), Err((&refused[1], 60_000)), "the address");
        assert_eq!(owners.take_room(&both(2), 0), Ok(()), "that has cost the user nothing");
        let refused = both(3);
        assert_eq!(owners.take_room(&refused, 0), Err((&refused[0], 30_000)), "the user");
        assert_eq!(owners.take_room(&refused[1..], 0), Ok(()), "nor did that cost the address");
    }

    #[test]
    fn who_has_spent_nothing_is_forgotten_and_the_table_is_bounded() {
        let owners = owners(Config::default());
        for number in 0..1000 {
            drop(owners.admit(ip(number), 0).expect("a place"));
        }
        assert_eq!(owners.len(), 1000);
        for number in 1000..1200 {
            drop(owners.admit(ip(number), 10_000).expect("a place"));
        }
        assert!(owners.len() < 300, "{}", owners.len());
        assert_eq!(owners.evicted.value(), 0);
        for number in 0..OWNERS_MAX as u32 + 1000 {
            drop(owners.admit(ip(number), 10_000).expect("a place"));
        }
        assert!(owners.len() <= OWNERS_MAX && owners.evicted.value() > 0);
    }
}
