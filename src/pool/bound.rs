//! A count with a bound, held by tokens that give themselves back.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

/// How many of something there may be at once. Usable from any thread.
#[derive(Debug)]
pub(crate) struct Bound {
    used: AtomicUsize,
    max: usize,
}

/// One of a [`Bound`]; gives itself back when dropped.
#[derive(Debug)]
pub(crate) struct BoundToken(Arc<Bound>);

impl Bound {
    pub(crate) fn new(max: usize) -> Arc<Bound> {
        Arc::new(Bound { used: AtomicUsize::new(0), max })
    }

    pub(crate) fn take(self: &Arc<Bound>) -> Option<BoundToken> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(BoundToken(Arc::clone(self)))
    }

    /// Whether three quarters are taken.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() >= self.max - self.max / 4
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for BoundToken {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections each address has, where that is bounded.
#[derive(Debug)]
pub(crate) struct PerIp {
    counts: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

/// One connection of an address, counted until this token is dropped.
#[derive(Debug)]
pub(crate) struct IpToken {
    per_ip: Arc<PerIp>,
    ip: IpAddr,
}

impl PerIp {
    /// With `max` 0 there is no bound.
    pub(crate) fn new(max: usize) -> Arc<PerIp> {
        Arc::new(PerIp { counts: Mutex::default(), max })
    }

    /// `Err` when the address has as many as it may; `Ok(None)` when there is no bound.
    pub(crate) fn take(self: &Arc<PerIp>, ip: IpAddr) -> Result<Option<IpToken>, ()> {
        if self.max == 0 {
            return Ok(None);
        }
        let mut counts = self.counts.lock();
        let count = counts.entry(ip).or_default();
        if *count >= self.max {
            return Err(());
        }
        *count += 1;
        Ok(Some(IpToken { per_ip: Arc::clone(self), ip }))
    }
}

impl Drop for IpToken {
    fn drop(&mut self) {
        let mut counts = self.per_ip.counts.lock();
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let bound = Bound::new(1);
        let token = bound.take();
        assert!(token.is_some() && bound.take().is_none());
        drop(token);
        assert_eq!(bound.used(), 0);
        assert!(bound.take().is_some());
    }

    #[test]
    fn addresses_are_counted_apart_and_forgotten() {
        let per_ip = PerIp::new(1);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let token = per_ip.take(a).expect("the first");
        assert!(per_ip.take(a).is_err());
        assert!(per_ip.take(b).is_ok());
        drop(token);
        assert!(per_ip.counts.lock().is_empty());
        assert!(PerIp::new(0).take(a).expect("no bound").is_none());
    }
}
