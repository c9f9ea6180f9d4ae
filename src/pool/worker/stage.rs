//! A worker with fake sockets, whose turns are made by hand: for `replay`, which plays them over and over.
//!
//! It has no poll and no clock, so that the same is done each time and in the same order.

use std::sync::{Arc, atomic::Ordering};

use mio::Events;
use parking_lot::Mutex;

use super::{Fate, READ_BYTES_MAX, Worker};
use crate::pool::{
    desk::Shared,
    stream::Stream,
    timers::Millis,
    wire::{FakeSocket, Wire},
};

/// A worker, and the clients' ends of its sockets.
pub(crate) struct Stage {
    worker: Worker,
    /// By slot.
    wires: Vec<Arc<Mutex<Wire>>>,
    /// A poll's answer in which nothing has happened.
    events: Events,
    buffer: Vec<u8>,
}

impl Stage {
    /// Takes a worker that does not run.
    pub(crate) fn new(worker: Worker) -> Stage {
        let (events, buffer) = (Events::with_capacity(1), vec![0; READ_BYTES_MAX]);
        Stage { worker, wires: Vec::new(), events, buffer }
    }

    /// The server, as its workers see it.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.worker.desk.shared
    }

    /// A client dials. Returns its slot, which is the next one that is free.
    pub(crate) fn arrive(&mut self) -> usize {
        let shared = self.shared();
        let head = shared.pending_heads.take().expect("a place for a request head");
        shared.sockets[self.worker.desk.worker].fetch_add(1, Ordering::Relaxed);
        let slot = self.worker.conns.vacant_key();
        let wire = Arc::new(Mutex::new(Wire::default()));
        let socket = FakeSocket(Arc::clone(&wire));
        match self.wires.get_mut(slot) {
            Some(place) => *place = wire,
            None => self.wires.push(wire),
        }
        let remote = ([127, 0, 0, 1], 1).into();
        self.worker.seat(Stream::Fake(socket), remote, None, Fate::Serve(head));
        slot
    }

    /// A client sends `bytes`. The worker reads them with its next turn.
    pub(crate) fn say(&mut self, slot: usize, bytes: &[u8]) {
        self.wires[slot].lock().to_server.extend_from_slice(bytes);
        let core = &mut self.worker.conns[slot].core;
        core.readable = true;
        core.list_ready(&mut self.worker.desk);
    }

    /// Time passes. No deadline is kept before the next turn.
    pub(crate) fn pass(&mut self, ms: Millis) {
        self.worker.desk.now += ms;
    }

    /// What a worker does when a poll has returned.
    pub(crate) fn turn(&mut self) {
        self.worker.turn(&self.events, &mut self.buffer);
    }

    /// Gives what was written to a client to `read`, and forgets it.
    pub(crate) fn written<R>(&self, slot: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut wire = self.wires[slot].lock();
        assert!(!wire.cut_short && wire.to_server.is_empty(), "a turn reads all there is");
        assert!(!wire.server_ended, "nobody is refused");
        let result = read(&wire.from_server);
        wire.from_server.clear();
        result
    }

    /// Connections that are not over.
    pub(crate) fn len(&self) -> usize {
        self.worker.conns.len()
    }
}
