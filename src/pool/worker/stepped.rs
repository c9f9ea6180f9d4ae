//! A worker's turns made by hand, on sockets of memory: what [`crate::stepped`] is made of.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use mio::Events;

use super::{Disposition, READ_BYTES_MAX, Worker};
use crate::pool::{conn_io::Readiness, memory::MemorySocket, socket::Socket, timers::Millis};

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
    pub(crate) fn connect(
        &mut self,
        socket: MemorySocket,
        remote: SocketAddr,
        disposition: Disposition,
    ) {
        self.cx.shared.sockets[self.cx.worker].fetch_add(1, Ordering::Relaxed);
        let slot = self.conns.vacant_key();
        socket.name(slot, self.next_generation);
        self.insert(Socket::Memory(socket), remote, None, disposition);
    }

    /// Does what a worker does when its poll has returned: the sockets in `touched`, each a slot
    /// and its generation, may be read and written again.
    pub(crate) fn step(&mut self, touched: &mut Vec<(usize, u32)>, steps: &mut Steps) {
        for (slot, generation) in touched.drain(..) {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            if conn.io.id.generation == generation {
                conn.on_readiness(Readiness::READABLE | Readiness::WRITABLE, &mut self.cx);
            }
        }
        self.turn(&steps.events, &mut steps.buffer);
        self.cx.metrics().turns.add(1);
    }

    /// Notes that the worker sleeps if it has nothing left to do, as its poll would see it.
    pub(crate) fn rest(&mut self) {
        if !self.is_busy() {
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
        let drain = self.draining.next_at();
        let next = self.cx.timers.next().into_iter().chain(sweep).chain(drain).min();
        self.mailbox.is_awake() || next.is_some_and(|at| at <= self.cx.now)
    }

    /// Bytes that wait for the connection for which most do.
    pub(crate) fn largest_outbox_bytes(&self) -> usize {
        self.conns.iter().map(|(_, conn)| conn.io.outbox.bytes()).max().unwrap_or_default()
    }

    /// Has each turn end its reading and its writing after so many sockets.
    pub(crate) fn limit_turns(&mut self, sockets_max: usize) {
        self.step_time.limit(sockets_max);
    }

    /// Lets time pass. Deadlines are looked at in the next turn.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.cx.now += by.as_millis() as Millis;
    }

    /// Whether the next turn has something to do without a new event.
    pub(crate) fn has_work(&self) -> bool {
        self.is_busy() || !self.mailbox.is_empty()
    }

    /// Connections that are not over.
    pub(crate) fn connections(&self) -> usize {
        self.conns.len()
    }
}
