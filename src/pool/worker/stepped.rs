//! A worker's turns made by hand, on sockets of memory: what [`crate::stepped`] is made of.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use mio::Events;

use super::{Fate, READ_BYTES_MAX, Worker};
use crate::pool::{bound::Slot, memory::MemorySocket, stream::Stream, timers::Millis};

/// What a poll and its thread would give a worker.
pub(crate) struct Steps {
    /// A poll's answer in which nothing has happened.
    events: Events,
    buffer: Vec<u8>,
}

impl Steps {
    pub(crate) fn new() -> Steps {
        Steps { events: Events::with_capacity(1), buffer: vec![0; READ_BYTES_MAX] }
    }
}

impl Worker {
    /// Takes a new socket into the next free slot.
    pub(crate) fn connect(&mut self, socket: MemorySocket, remote: SocketAddr, head: Slot) {
        self.desk.shared.sockets[self.desk.worker].fetch_add(1, Ordering::Relaxed);
        let slot = self.conns.vacant_key();
        socket.name(slot, self.next_generation);
        self.seat(Stream::Memory(socket), remote, None, Fate::Serve(head));
    }

    /// Does what a worker does when its poll has returned: the sockets in `touched`, each a slot
    /// and its generation, may be read and written again.
    pub(crate) fn step(&mut self, touched: &mut Vec<(usize, u32)>, steps: &mut Steps) {
        for (slot, generation) in touched.drain(..) {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            if conn.core.id.generation == generation {
                conn.on_touched(&mut self.desk);
            }
        }
        self.turn(&steps.events, &mut steps.buffer);
        self.desk.metrics().turns.add(1);
    }

    /// Notes that the worker sleeps if it has nothing left to do, as its poll would see it.
    pub(crate) fn rest(&mut self) {
        if self.desk.ready.is_empty() && self.desk.dirty.is_empty() {
            self.mailbox.may_sleep();
        }
    }

    /// Notes that the worker is up, so that letters need not wake it.
    pub(crate) fn wake(&mut self) {
        self.mailbox.woke();
    }

    /// Whether a poll would return without an event of a socket: the worker has not slept since its
    /// last turn, a letter has woken it, or a deadline has passed.
    pub(crate) fn is_awake(&self) -> bool {
        let sweep = self.sweeps().then_some(self.next_sweep);
        let next = self.desk.timers.next().into_iter().chain(sweep).min();
        self.mailbox.is_awake() || next.is_some_and(|at| at <= self.desk.now)
    }

    /// Bytes that wait for the connection for which most do.
    pub(crate) fn largest_outbox_bytes(&self) -> usize {
        self.conns.iter().map(|(_, conn)| conn.core.outbox.bytes()).max().unwrap_or_default()
    }

    /// Lets time pass. Deadlines are looked at in the next turn.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.desk.now += by.as_millis() as Millis;
    }

    /// Whether the next turn has something to do without a new event.
    pub(crate) fn has_work(&self) -> bool {
        !self.desk.ready.is_empty() || !self.desk.dirty.is_empty() || !self.mailbox.is_empty()
    }

    /// Connections that are not over.
    pub(crate) fn connections(&self) -> usize {
        self.conns.len()
    }
}
