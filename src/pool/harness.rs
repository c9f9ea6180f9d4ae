//! A connection without a socket, a poll or a clock: what the tests of its rules run on.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Instant,
};

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;

use super::{
    admission::Admission,
    bound::{Bound, PerIp},
    connection::{Connection, Phase},
    core::Core,
    desk::{Desk, Route, Shared},
    stream::Stream,
};
use crate::{
    config::Config,
    handler::IntoService,
    hub::{
        Hub,
        mailbox::{ConnId, Inbox, MailboxBounds, Post},
    },
    metrics::Metrics,
};

/// The two directions of a socket, as the test sees them.
#[derive(Default)]
pub(super) struct Wire {
    /// What the server will read, at most `read_step` bytes at a time.
    pub(super) to_server: Vec<u8>,
    pub(super) read_step: usize,
    /// The client has ended its direction.
    pub(super) client_ended: bool,
    /// The next read or write fails with this.
    pub(super) error: Option<io::ErrorKind>,
    /// What the server has written, at most `write_room` bytes more.
    pub(super) from_server: Vec<u8>,
    pub(super) write_room: usize,
    /// The server has ended its direction.
    pub(super) server_ended: bool,
}

/// The server's end of a [`Wire`].
#[derive(Clone)]
pub(super) struct FakeSocket(pub(super) Arc<Mutex<Wire>>);

impl FakeSocket {
    pub(super) fn end(&self) -> io::Result<()> {
        self.0.lock().server_ended = true;
        Ok(())
    }
}

impl Read for FakeSocket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.lock();
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        if wire.to_server.is_empty() {
            return if wire.client_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let n = into.len().min(wire.read_step).min(wire.to_server.len());
        into[..n].copy_from_slice(&wire.to_server[..n]);
        wire.to_server.drain(..n);
        Ok(n)
    }
}

impl Write for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.lock();
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        let n = bytes.len().min(wire.write_room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.from_server.extend_from_slice(&bytes[..n]);
        wire.write_room -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection on one worker's desk.
pub(super) struct Harness {
    pub(super) desk: Desk,
    pub(super) conn: Connection,
    pub(super) wire: Arc<Mutex<Wire>>,
    buffer: Vec<u8>,
    _inbox: Inbox,
    _poll: Poll,
}

impl Harness {
    /// A fresh connection to a server with `handler` on `/`.
    pub(super) fn new(config: Config, handler: impl IntoService) -> Harness {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (post, mut inboxes) = Post::new(vec![waker], bounds);
        let calls = handler.into_service().calls;
        let shared = Arc::new(Shared {
            routes: vec![Route { path: "/".to_owned(), calls, jobs: None }],
            hub: Arc::new(Hub::new(&config, post.clone())),
            admission: Admission::new(config.max_conn, config.max_queued_tasks, post),
            metrics: Metrics::new(1),
            pending_heads: Bound::new(config.max_pending_heads),
            lingering: Bound::new(config.max_lingering),
            per_ip: PerIp::new(0),
            sockets: Box::new([AtomicUsize::new(1)]),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            config,
        });
        let slot = shared.pending_heads.take().expect("a slot");
        let mut desk = Desk::new(shared, 0);
        let wire = Wire { read_step: usize::MAX, write_room: usize::MAX, ..Wire::default() };
        let wire = Arc::new(Mutex::new(wire));
        let id = ConnId { worker: 0, slot: 0, generation: 0 };
        let remote = ([127, 0, 0, 1], 1).into();
        let stream = Stream::Fake(FakeSocket(Arc::clone(&wire)));
        let mut core = Core::new(id, stream, remote, None, 0);
        let at = desk.after(desk.config().handshake_timeout);
        desk.timers.set(0, &mut core.deadline, at);
        let conn = Connection { core, phase: Phase::Head { _slot: slot, answered: false } };
        Harness { desk, conn, wire, buffer: vec![0; 4096], _inbox: inboxes.remove(0), _poll: poll }
    }

    /// The client sends `bytes`, and the worker makes the turns that follow.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.wire.lock().to_server.extend_from_slice(bytes);
        self.turns();
    }

    /// Time passes, and the worker makes the turns that follow.
    pub(super) fn pass(&mut self, ms: u64) {
        self.desk.now += ms;
        while self.desk.timers.expired(self.desk.now).is_some() {
            self.conn.on_deadline(&mut self.desk);
            self.turns();
        }
    }

    /// Turns until nothing is left to do before the wire or the clock moves.
    pub(super) fn turns(&mut self) {
        loop {
            let before = self.moved();
            // A short read looks like an emptied socket; what is left would raise an event of its own.
            self.conn.core.readable = true;
            self.conn.on_ready(&mut self.desk, &mut self.buffer);
            self.conn.settle(&mut self.desk);
            self.desk.ready.clear();
            self.desk.dirty.clear();
            self.conn.core.listed_ready = false;
            if before == self.moved() {
                return;
            }
        }
    }

    fn moved(&self) -> (usize, usize) {
        let wire = self.wire.lock();
        (wire.to_server.len(), wire.from_server.len())
    }

    /// What the server has written since this was last asked.
    pub(super) fn written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire.lock().from_server)
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.conn.phase, Phase::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Message};

    #[test]
    fn a_request_is_answered_however_it_comes() {
        for step in [1, 7, usize::MAX] {
            let config = Config { host: "127.0.0.1".into(), ..Config::default() };
            let mut harness = Harness::new(config, |_: &mut Context<'_, ()>, _: Message<'_>| {});
            harness.wire.lock().read_step = step;
            harness.feed(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(harness.written().starts_with(b"HTTP/1.1 404 "), "in steps of {step}");
            harness.pass(5001);
            harness.turns();
            assert!(harness.is_gone(), "an idle connection ends");
        }
    }
}
