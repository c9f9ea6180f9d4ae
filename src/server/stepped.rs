//! A server for tests that makes its turns on request, with in-memory clients: no port, no thread,
//! no sleep.
//!
//! Meant for tests of a [`Handler`](crate::Handler). The production code serves each connection,
//! from the request head to the last byte, in a deterministic order. Output for a client can be
//! read as soon as a turn is over.
//!
//! ```
//! use rusty_socks::{Context, Message, Server};
//!
//! let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
//!     ctx.send(message);
//! };
//! let mut server = Server::builder().route("/echo", echo).stepped()?;
//! let client = server.connect()?;
//! client.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
//! server.turn();
//! assert!(client.read().starts_with(b"HTTP/1.1 200 OK\r\n"));
//! # Ok::<(), rusty_socks::Error>(())
//! ```
//!
//! Clients read and write raw bytes, as on a socket. A test brings its own WebSocket client, such
//! as `tungstenite::protocol::WebSocketContext` over [`MemoryClient`].
//!
//! Time moves only with [`SteppedServer::advance`]: deadlines, pings and closes, the age of
//! histories, the resume window, the ends of tokens. Client ids are counted up, so that what is
//! sorted by them is the same in each run; message ids, epochs and session tokens are random. What
//! a handler measures by itself goes by the machine's clock, such as the rate limits of the chat
//! protocol.
//!
//! With the engine Redis nothing connects to a Redis: the test is the link to each. It gives
//! [`SteppedServer::turn_of_engine`] what happened there, and gets what Redis is asked.
//!
//! [`blocking`](crate::Handler::blocking) handlers need threads, which a stepped server does not
//! have; [`Builder::stepped`](crate::Builder::stepped) refuses them.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use super::{drain, handle::ServerHandle, restart};
use crate::{
    engine::stepped::Stepped,
    error::{Error, ErrorKind},
    hub::mailbox::Letter,
    pool::{
        memory::{MemorySocket, Wire},
        shared::Shared,
        worker::{Disposition, Worker, stepped::Steps},
    },
};

pub mod redis {
    //! What a server with the engine Redis has its links do, and hears of them.

    pub use crate::engine::order::{Code, Event, Order, Refused, Script, ServerFacts, Value};
}

/// The address from which in-memory clients seem to connect.
const REMOTE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

/// The most turns that [`SteppedServer::settle`] makes.
const SETTLE_TURNS_MAX: usize = 100_000;

/// Slots and generations of the connections whose clients acted since the last turn.
type Touched = Arc<Mutex<Vec<(usize, u32)>>>;

/// A server that acts only in the turns that a test makes. Made by
/// [`Builder::stepped`](crate::Builder::stepped); used by one thread.
pub struct SteppedServer {
    workers: Vec<SteppedWorker>,
    steps: Steps,
    shared: Arc<Shared>,
    handle: ServerHandle,
    /// What it shares its rooms and sessions by, if it is one node of several.
    engine: Option<Stepped>,
    next_worker: usize,
    /// Whether it accepts nobody any more.
    is_closed: bool,
}

/// A worker, and the connections with input for it.
struct SteppedWorker {
    worker: Worker,
    touched: Touched,
}

/// The client's end of a connection to a [`SteppedServer`]. Clones refer to the same end. The
/// server sees what the client did in its next turn.
#[derive(Clone)]
pub struct MemoryClient {
    wire: Arc<Mutex<Wire>>,
    touched: Touched,
}

impl SteppedServer {
    pub(crate) fn new(
        workers: Vec<Worker>,
        shared: Arc<Shared>,
        handle: ServerHandle,
        engine: Option<Stepped>,
    ) -> Self {
        let workers = workers
            .into_iter()
            .map(|worker| SteppedWorker { worker, touched: Touched::default() })
            .collect();
        SteppedServer {
            workers,
            steps: Steps::new(),
            shared,
            handle,
            engine,
            next_worker: 0,
            is_closed: false,
        }
    }

    /// Returns the handle that a running server would have. [`shutdown`](ServerHandle::shutdown)
    /// and [`join`](ServerHandle::join) do nothing on a stepped server.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Opens a connection, on the workers in turn. The server reads nothing of it before its next
    /// turn.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`]: `max_pending_heads` connections have not sent their request head.
    /// [`ErrorKind::System`]: the server drains, and accepts nobody.
    pub fn connect(&mut self) -> Result<MemoryClient, Error> {
        if self.is_closed {
            return Err(Error::new(ErrorKind::System, "the server accepts nobody"));
        }
        let Some(head) = self.shared.pending_heads.take() else {
            return Err(Error::new(ErrorKind::Overloaded, "too many request heads are pending"));
        };
        Ok(self.connect_as(Disposition::Serve(head)))
    }

    /// Opens a connection as if to the admin listener.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`]: there are `max_admin_conn` of them.
    pub fn connect_admin(&mut self) -> Result<MemoryClient, Error> {
        let Some(token) = self.shared.admin_conns.take() else {
            return Err(Error::new(ErrorKind::Overloaded, "too many admin connections"));
        };
        Ok(self.connect_as(Disposition::Admin(token)))
    }

    fn connect_as(&mut self, disposition: Disposition) -> MemoryClient {
        let stepped = &mut self.workers[self.next_worker];
        self.next_worker = (self.next_worker + 1) % self.shared.sockets.len();
        let wire = Arc::new(Mutex::new(Wire::default()));
        stepped.worker.connect(
            MemorySocket(Arc::clone(&wire)),
            SocketAddr::from(REMOTE),
            disposition,
        );
        MemoryClient { wire, touched: Arc::clone(&stepped.touched) }
    }

    /// Makes one turn of every worker, in order: reads input, calls handlers, writes output.
    pub fn turn(&mut self) {
        for stepped in &mut self.workers {
            stepped.worker.step(&mut stepped.touched.lock(), &mut self.steps);
        }
    }

    /// One turn of the engine, if there is one: it hears what happened on its links, and what the
    /// workers ask. Returns what the links are to do, in order. A link is named by the place of its
    /// Redis in `redis_url`, from 0. After [`Event::Down`] it is up when the test says
    /// [`Event::Up`].
    ///
    /// [`Event::Down`]: redis::Event::Down
    /// [`Event::Up`]: redis::Event::Up
    pub fn turn_of_engine(
        &mut self,
        heard: impl IntoIterator<Item = (usize, redis::Event)>,
    ) -> Vec<(usize, redis::Order)> {
        self.engine.as_mut().map_or_else(Vec::new, |engine| engine.turn(heard))
    }

    /// A link that is to be made anew, and why: the engine has heard nothing on its subscriptions
    /// for too long, for one. To be asked after each turn of the engine until there is none.
    pub fn useless_link_of_engine(&mut self) -> Option<(usize, String)> {
        self.engine.as_mut().and_then(Stepped::useless_link)
    }

    /// Leaves the sessions of the server to other nodes, as a server does that has drained. What
    /// the links have to do for it comes out of the next turns of the engine, until
    /// [`has_engine_left`](SteppedServer::has_engine_left).
    pub fn leave_engine(&mut self) {
        self.engine.iter_mut().for_each(Stepped::leave);
    }

    /// Whether everything that the engine has asked is answered, or its links are down.
    pub fn has_engine_left(&self) -> bool {
        self.engine.as_ref().is_none_or(Stepped::is_done)
    }

    /// Worker threads that the server would have.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// One turn of one worker, unless it would sleep: no client has done anything, no letter has
    /// woken it, no deadline has passed. Returns whether a turn was made.
    ///
    /// # Panics
    /// There are not that many workers.
    pub fn turn_of(&mut self, worker: usize) -> bool {
        let stepped = &mut self.workers[worker];
        let mut touched = stepped.touched.lock();
        if touched.is_empty() && !stepped.worker.is_awake() {
            return false;
        }
        stepped.worker.wake();
        stepped.worker.step(&mut touched, &mut self.steps);
        stepped.worker.rest();
        true
    }

    /// Whether something waits for a worker that nothing would wake: a fault of the server.
    pub fn has_overslept(&self) -> bool {
        let is_late = |stepped: &SteppedWorker| {
            stepped.touched.lock().is_empty()
                && !stepped.worker.is_awake()
                && stepped.worker.has_work()
        };
        self.workers.iter().any(is_late)
    }

    /// Bytes that wait for the client for which most do.
    pub fn largest_outbox_bytes(&self) -> usize {
        let largest = |stepped: &SteppedWorker| stepped.worker.largest_outbox_bytes();
        self.workers.iter().map(largest).max().unwrap_or_default()
    }

    /// Makes turns until there is nothing left to do. Returns their number.
    ///
    /// # Panics
    /// If the server is still busy after 100,000 turns, which is a bug of a handler or of the
    /// server.
    pub fn settle(&mut self) -> usize {
        for turns in 1..=SETTLE_TURNS_MAX {
            self.turn();
            let has_work = |stepped: &SteppedWorker| {
                stepped.worker.has_work() || !stepped.touched.lock().is_empty()
            };
            if !self.workers.iter().any(has_work) {
                return turns;
            }
        }
        panic!("the server is still busy after {SETTLE_TURNS_MAX} turns");
    }

    /// Drains: closes every connection, and leaves the server's rooms and sessions in
    /// [`snapshot`](crate::Config::snapshot), if there is one. A stepped server that is made later
    /// with this setting takes them up.
    ///
    /// # Errors
    /// [`ErrorKind::System`]: the file cannot be written.
    ///
    /// # Panics
    /// As [`settle`](SteppedServer::settle).
    pub fn drain(&mut self) -> Result<(), Error> {
        self.announce_drain();
        self.begin_drain(Duration::ZERO);
        self.settle();
        self.end_drain()
    }

    /// Announces a drain, as a server does for [`drain_delay`](crate::Config::drain_delay): it is
    /// not ready any more, and serves as before.
    pub fn announce_drain(&mut self) {
        self.shared.announce_drain();
    }

    /// Begins to drain, as a server does that has `grace` for it: nobody is let in any more, and
    /// the turns that follow close all connections, one after the other. To connect is no longer
    /// possible.
    pub fn begin_drain(&mut self, grace: Duration) {
        self.is_closed = true;
        self.shared.admission.close();
        drain::begin(&self.shared, grace);
    }

    /// Whether no connection is left that a drain waits for.
    pub fn is_drained(&self) -> bool {
        self.workers.iter().all(|stepped| stepped.worker.is_drained())
    }

    /// Ends a drain, and begins it if it has not begun: cuts off who is left, and leaves rooms and
    /// sessions to the next server, as [`drain`](SteppedServer::drain) does.
    ///
    /// # Errors
    /// As [`drain`](SteppedServer::drain).
    ///
    /// # Panics
    /// As [`settle`](SteppedServer::settle).
    pub fn end_drain(&mut self) -> Result<(), Error> {
        if !self.is_closed {
            self.begin_drain(Duration::ZERO);
        }
        for worker in 0..self.workers.len() {
            self.shared.hub.mailboxes.send_control(worker, Letter::Stop);
        }
        self.settle();
        restart::leave(&self.shared)
    }

    /// Has the turns of all workers end reading and writing after `sockets_max` sockets, as those
    /// of a slow machine do, or after fewer where 128 KiB were written, and after one at least.
    /// What is left is for the turns that follow. More than 16 is no limit.
    pub fn limit_turns(&mut self, sockets_max: usize) {
        self.workers.iter_mut().for_each(|stepped| stepped.worker.limit_turns(sockets_max));
    }

    /// Moves all clocks forward. Timers that are due run in the next turn.
    pub fn advance(&mut self, by: Duration) {
        self.workers.iter_mut().for_each(|stepped| stepped.worker.advance(by));
        self.shared.hub.clock.advance(by);
    }

    /// Returns the time of day. It moves only with [`advance`](SteppedServer::advance).
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.shared.hub.clock.since_1970()
    }

    /// Returns the number of connections that are not over.
    pub fn connections(&self) -> usize {
        self.workers.iter().map(|stepped| stepped.worker.connections()).sum()
    }
}

impl MemoryClient {
    /// Sends bytes to the server.
    pub fn write(&self, bytes: &[u8]) {
        self.wire.lock().to_server.extend_from_slice(bytes);
        self.touch();
    }

    /// Returns what the server has written since the last call.
    pub fn read(&self) -> Vec<u8> {
        std::mem::take(&mut self.wire.lock().from_server)
    }

    /// Passes to `look` what the server has written since the last call, without a copy.
    pub fn read_with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        let mut wire = self.wire.lock();
        let result = look(&wire.from_server);
        wire.from_server.clear();
        result
    }

    /// Returns the number of bytes that the client wrote and the server has not read.
    pub fn unread(&self) -> usize {
        self.wire.lock().to_server.len()
    }

    /// Limits how many bytes the server can write from now on before its writes would block.
    /// Default: no limit.
    pub fn set_window(&self, bytes: usize) {
        self.wire.lock().write_room = bytes;
        self.touch();
    }

    /// Ends the client's direction: the server reads what was written, and then end of file.
    pub fn end(&self) {
        self.wire.lock().client_ended = true;
        self.touch();
    }

    /// Cuts the connection: every read and write of the server fails.
    pub fn reset(&self) {
        self.wire.lock().error = Some(io::ErrorKind::ConnectionReset);
        self.touch();
    }

    /// Whether the server has ended its direction, or the whole connection.
    pub fn is_ended(&self) -> bool {
        self.wire.lock().server_ended
    }

    fn touch(&self) {
        if let Some(name) = self.wire.lock().name {
            self.touched.lock().push(name);
        }
    }
}

impl io::Read for MemoryClient {
    /// Takes what the server has written. Returns `WouldBlock` if there is nothing, 0 at the end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.wire.lock();
        let n = into.len().min(wire.from_server.len());
        if n == 0 && !into.is_empty() && !wire.server_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into[..n].copy_from_slice(&wire.from_server[..n]);
        wire.from_server.drain(..n);
        Ok(n)
    }
}

impl io::Write for MemoryClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        MemoryClient::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for SteppedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteppedServer")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MemoryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryClient").field("is_ended", &self.is_ended()).finish_non_exhaustive()
    }
}
