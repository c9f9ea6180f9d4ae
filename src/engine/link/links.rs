//! The links of a node, one to each shard, watched by one poll.

use std::{io, sync::Arc, time::Duration};

use mio::{Poll, Token, Waker};

use super::{
    Link,
    order::{Event, Order},
    settings::LinkSettings,
};

/// The most readiness events that one poll tells for each link, which has two sockets, and the
/// waker.
const READY_PER_LINK: usize = 8;

const WAKER: Token = Token(0);

/// Each link has two sockets.
const SOCKETS: usize = 2;

/// The ways to all shards and back. Of one thread; only the waker is for all.
#[derive(Debug)]
pub(crate) struct Links {
    poll: Poll,
    ready: mio::Events,
    waker: Arc<Waker>,
    links: Vec<Link>,
}

impl Links {
    /// Makes links, which connect at the first poll.
    ///
    /// # Errors
    /// The authorities of the settings cannot be read, or the system has no more descriptors or
    /// threads.
    pub(crate) fn new(settings: Vec<LinkSettings>) -> io::Result<Links> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let ready = mio::Events::with_capacity(READY_PER_LINK * settings.len().max(1));
        let mut links = Vec::new();
        for (index, settings) in settings.into_iter().enumerate() {
            let registry = poll.registry().try_clone()?;
            let first = WAKER.0 + 1 + SOCKETS * index;
            links.push(Link::new(settings, registry, first, Arc::clone(&waker))?);
        }
        Ok(Links { poll, ready, waker, links })
    }

    /// Returns what ends a poll, from any thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// How many bytes wait to be written on the link where most do. There is no bound here: who
    /// gives orders looks first.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.links.iter().map(Link::unsent_bytes).max().unwrap_or_default()
    }

    /// Queues an order for a shard; the next poll writes it, with all others. Forgotten if the link
    /// is not up.
    pub(crate) fn order(&mut self, shard: usize, order: Order) {
        if let Some(link) = self.links.get_mut(shard) {
            link.order(order);
        }
    }

    /// Ends both connections to a shard and makes them anew, because somebody knows better that
    /// they are of no use. Does nothing if the link is not up.
    pub(crate) fn reconnect(&mut self, shard: usize, why: &str) {
        if let Some(link) = self.links.get_mut(shard) {
            link.reconnect(why);
        }
    }

    /// Writes what is queued, waits until something happens, for `timeout` at most, and reads.
    /// Appends what has happened to `events`, each with its shard.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<(usize, Event)>) {
        self.links.iter_mut().for_each(Link::begin);
        let waits = self.links.iter().filter_map(Link::wait);
        let wait = timeout.into_iter().chain(waits).min();
        match self.poll.poll(&mut self.ready, wait) {
            Ok(()) => self.note_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // What is wrong with the poll is wrong with everything that it watches.
                let why = format!("the system cannot poll: {error}");
                self.links.iter_mut().for_each(|link| link.reconnect(&why));
            }
        }
        for (shard, link) in self.links.iter_mut().enumerate() {
            link.finish();
            events.extend(link.events.drain(..).map(|event| (shard, event)));
        }
    }

    fn note_ready(&mut self) {
        for event in &self.ready {
            let socket = event.token().0.checked_sub(WAKER.0 + 1);
            if let Some(link) = socket.and_then(|socket| self.links.get_mut(socket / SOCKETS)) {
                link.note_ready(event);
            }
        }
    }
}

#[cfg(test)]
impl Links {
    /// Whether orders for the first shard are taken.
    pub(super) fn is_up(&self) -> bool {
        self.links[0].is_up()
    }
}
