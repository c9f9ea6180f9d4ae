//! A connection without a socket, a poll or a clock: what the tests of its rules run on.
//!
//! It tells its connection only what a poll would tell it, so a connection that forgets to ask to
//! be looked at again stands still here as well.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use mio::{Poll, Token, Waker};
use parking_lot::Mutex;

use super::{
    admission::{Answer as Admitted, Permit},
    conn_io::{ConnIo, Readiness},
    connection::{Connection, Phase},
    delivery::Delivery,
    head::Head,
    memory::{MemorySocket, Wire},
    outbox::OutboxBounds,
    shared::{AdminSite, Route, Shared},
    socket::Socket,
    stream::Stream,
    worker_cx::WorkerCtx,
};
use crate::{
    clock::Clock,
    config::Config,
    handler::{Context, Handler, IntoService},
    http::page::StaticPage,
    hub::{
        Hub,
        conn_id::ConnId,
        history::Replay,
        mailbox::{Letter, MailboxBounds, MailboxReceiver, Mailboxes},
        names::RoomName,
        posted::PostOutcome,
        send_status::SendStatus,
    },
    identity::Authenticator,
    tls::Tls,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

mod client;
mod requests;
mod upgrades;
mod closes;
mod losses;
mod slices;
mod costs;
mod lags;
mod holes;
mod events;
#[cfg(feature = "tls")]
mod tls;

use client::{Answer, close, frame, upgrade};

/// The slot of the one connection.
const SLOT: usize = 0;

/// The route whose clients may come without a WebSocket.
const EVENTS: &str = "/events";

/// What one read takes at most. Smaller than a worker's, so that one read is not everything.
const READ_BYTES_MAX: usize = 4096;

/// The length of the static page on `/page`.
const PAGE_BYTES: usize = 8 << 10;
const PAGE: &[u8] = &[b'p'; PAGE_BYTES];

/// Turns without a change of the wire or the clock, beyond which a connection is said to spin.
const TURNS_MAX: usize = 100_000;

/// A handler that joins a room, echoes, and closes when it is told to; it remembers its calls.
#[derive(Clone, Default)]
pub(super) struct Probe(Arc<Log>);

#[derive(Default)]
pub(super) struct Log {
    pub(super) opened: AtomicUsize,
    pub(super) heard: AtomicUsize,
    /// The codes of the closes it heard of.
    pub(super) closed: Mutex<Vec<u16>>,
}

impl Handler for Probe {
    type State = ();

    fn subprotocols(&self) -> &[&str] {
        &["chat.v2", "chat.v1"]
    }

    fn on_open(&self, ctx: &mut Context<'_, ()>) {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let room = RoomName::new("room").expect("a legal name");
        ctx.join(&room, Replay::Nothing).then(|_, joined| drop(joined.expect("a vacancy")));
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Message<'_>) {
        self.0.heard.fetch_add(1, Ordering::Relaxed);
        let close = message.as_text().and_then(|text| text.strip_prefix("close "));
        match close.and_then(|close| close.split_once(' ')) {
            Some((code, reason)) => {
                let code = code.parse().expect("a code");
                ctx.close(CloseReason::new(code, reason.to_owned()));
            }
            None if message.as_text() == Some("quiet") => {}
            None => {
                ctx.send(message);
            }
        }
    }

    fn on_close(&self, _: &mut Context<'_, ()>, reason: &CloseReason) {
        self.0.closed.lock().push(reason.code());
    }
}

/// One connection and its worker's context.
pub(super) struct Harness {
    pub(super) cx: WorkerCtx,
    pub(super) conn: Connection,
    pub(super) wire: Arc<Mutex<Wire>>,
    pub(super) log: Arc<Log>,
    buffer: Vec<u8>,
    mailbox: MailboxReceiver,
    /// What was answered to posts to the connection.
    pub(super) post_outcomes: Vec<PostOutcome>,
    /// Permits that other connections hold.
    occupied: Vec<Permit>,
    _poll: Poll,
}

impl Harness {
    /// A fresh connection to a server with a [`Probe`] on `/` and on `/ws`.
    pub(super) fn new(config: Config) -> Harness {
        let probe = Probe::default();
        let log = Arc::clone(&probe.0);
        Harness { log, ..Harness::with(config, probe) }
    }

    /// A fresh connection to a server with any handler.
    pub(super) fn with(config: Config, handler: impl IntoService) -> Harness {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (mailboxes, mut receivers) = Mailboxes::new(vec![waker], bounds);
        let handler = handler.into_service().handler;
        let route = |path: &str| Route {
            path: path.to_owned(),
            handler: Arc::clone(&handler),
            takes_event_streams: path == EVENTS,
            jobs: None,
            tasks: None,
        };
        let routes = vec![route("/"), route("/ws"), route(EVENTS)];
        let pages = vec![StaticPage::new("/page", "text/plain", Bytes::from_static(PAGE))];
        let config = Config { thread_pool_size: 1, ..config };
        let tls = Tls::load(&config).expect("good files").map(Arc::new);
        let clock = Arc::new(Clock::machine());
        let hub = Hub::new(&config, Authenticator::default(), mailboxes.clone(), clock);
        let shared =
            Arc::new(Shared::new(config, routes, pages, AdminSite::default(), hub, mailboxes, tls));
        shared.sockets[0].fetch_add(1, Ordering::Relaxed);
        let token = shared.pending_heads.take().expect("one is left");
        let mut cx = WorkerCtx::new(shared, 0);
        let wire = Arc::new(Mutex::new(Wire::default()));
        let id = ConnId { worker: 0, slot: SLOT as u32, generation: 0 };
        let remote = ([127, 0, 0, 1], 1).into();
        let socket = Socket::Memory(MemorySocket(Arc::clone(&wire)));
        let stream = Stream::new(socket, cx.shared.tls.as_ref(), cx.config().proxy_protocol)
            .expect("a TLS session");
        let mut io = ConnIo::new(id, stream, remote, None, 0);
        let phase = Phase::Head(Head::new(token, &mut io, &mut cx));
        let conn = Connection { io, phase };
        Harness {
            cx,
            conn,
            wire,
            log: Arc::default(),
            buffer: vec![0; READ_BYTES_MAX],
            mailbox: receivers.remove(0),
            post_outcomes: Vec::new(),
            occupied: Vec::new(),
            _poll: poll,
        }
    }

    /// A connection that has been upgraded, its 101 taken away.
    pub(super) fn open(config: Config) -> Harness {
        let mut harness = Harness::new(config);
        harness.feed(upgrade("").as_bytes());
        assert_eq!(harness.answer().status, 101);
        harness
    }

    /// The client sends `bytes`, and the worker makes the turns that follow.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.turns();
    }

    /// The client sends `bytes`, and the worker has not looked yet.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.wire.lock().to_server.extend_from_slice(bytes);
        self.notify(Readiness::READABLE);
    }

    /// Another thread sends `text` to the connection. Its worker has not looked yet.
    pub(super) fn post(&self, text: &str) {
        let frame = PreparedFrame::new(Message::Text(text));
        let status = self.cx.shared.hub.mailboxes.send(self.conn.io.id, frame);
        assert_eq!(status, SendStatus::Sent, "the mailbox is full");
    }

    /// The client ends its direction.
    pub(super) fn end(&mut self) {
        self.wire.lock().client_ended = true;
        self.notify(Readiness::READ_CLOSED);
        self.turns();
    }

    /// The connection is lost.
    pub(super) fn lose(&mut self, error: io::ErrorKind) {
        self.wire.lock().error = Some(error);
        // A poll calls a broken socket writable as well.
        self.notify(Readiness::READ_CLOSED | Readiness::WRITABLE);
        self.turns();
    }

    /// The client reads `bytes` more.
    pub(super) fn make_room(&mut self, bytes: usize) {
        let room = self.wire.lock().write_room;
        self.wire.lock().write_room = room.saturating_add(bytes);
        self.notify(Readiness::WRITABLE);
        self.turns();
    }

    /// Time passes, and the worker makes its turns at each deadline on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.cx.now + ms;
        while let Some(at) = self.cx.timers.next().filter(|at| *at <= end) {
            self.cx.now = self.cx.now.max(at);
            self.conn.on_deadline(&mut self.cx);
            self.turns();
        }
        self.cx.now = end;
    }

    /// A poll reports the socket.
    fn notify(&mut self, readiness: Readiness) {
        self.conn.on_readiness(readiness, &mut self.cx);
    }

    /// Turns until the worker would sleep.
    pub(super) fn turns(&mut self) {
        for _ in 0..TURNS_MAX {
            if std::mem::take(&mut self.wire.lock().cut_short) {
                // A real socket would have given more, so this short read must not count as its
                // last.
                self.notify(Readiness::READABLE);
            }
            self.cx.begin_turn();
            if !self.turn() {
                return;
            }
        }
        panic!("the connection spins");
    }

    /// One turn of the worker. `false` when it would sleep instead.
    pub(super) fn turn(&mut self) -> bool {
        let mut letters = Vec::new();
        while let Some(letter) = self.mailbox.take() {
            letters.push(letter);
        }
        let has_ready = self.cx.work.has_ready();
        if !has_ready && self.cx.work.dirty.is_empty() && letters.is_empty() {
            return false;
        }
        if has_ready {
            self.cx.work.ready.clear();
            self.cx.work.heavy.clear();
            self.conn.on_ready(&mut self.cx, &mut self.buffer);
        }
        for letter in letters {
            self.take(letter);
        }
        while !std::mem::take(&mut self.cx.work.dirty).is_empty() {
            self.conn.flush(&mut self.cx);
        }
        if !std::mem::take(&mut self.cx.work.gone).is_empty() {
            self.cx.timers.clear(SLOT, &mut self.conn.io.deadline);
            self.cx.leave_all(SLOT);
            self.cx.work.ready.clear();
            self.cx.work.heavy.clear();
        }
        true
    }

    fn take(&mut self, letter: Letter) {
        match letter {
            Letter::Admitted { conn } if conn == self.conn.io.id => {
                self.conn.on_upgrade(&mut self.cx);
            }
            Letter::Send { frame, .. } => {
                if let Some((_, io)) = self.conn.open_mut() {
                    io.send_prepared(&frame, &mut self.cx);
                }
            }
            Letter::Deliver { room, seq, frame, except, .. } => {
                let members = std::mem::take(&mut self.cx.members);
                let is_meant = except != Some(self.conn.io.id);
                if let Some((room, members)) = members.of(room, seq).filter(|_| is_meant) {
                    for member in members {
                        self.deliver(&frame, &Delivery { room, member, seq });
                    }
                }
                self.cx.members = members;
            }
            Letter::Posted(posted) => self.conn.on_posted(*posted, &mut self.cx),
            Letter::PostAnswered { outcome, .. } => self.post_outcomes.push(outcome),
            Letter::Close { reason, .. } => self.ask_close(reason),
            // Nothing else is posted to the one worker of a harness.
            _ => {}
        }
    }

    pub(super) fn deliver(&mut self, frame: &PreparedFrame, delivery: &Delivery<'_>) {
        if let Some((open, io)) = self.conn.open_mut() {
            open.deliver(frame, delivery, io, &mut self.cx);
        }
    }

    /// Asks for a close, if there is a WebSocket to close.
    pub(super) fn ask_close(&mut self, reason: CloseReason) {
        if let Some((_, io)) = self.conn.open_mut() {
            io.ask_close(reason, &mut self.cx.work);
        }
    }

    /// Whether the client lags in one of its rooms.
    pub(super) fn has_lags(&mut self) -> bool {
        self.conn.open_mut().is_some_and(|(open, _)| open.lags.is_some())
    }

    /// Takes a permit away from the connection.
    pub(super) fn occupy(&mut self) {
        let other = ConnId { worker: 0, slot: 1, generation: 0 };
        match self.cx.shared.admission.ask(other) {
            Admitted::Served(permit) => self.occupied.push(permit),
            _ => panic!("there is no permit left"),
        }
    }

    /// Gives back the permits that were taken away.
    pub(super) fn vacate(&mut self) {
        self.occupied.clear();
    }

    /// What the server has written since this was last asked.
    pub(super) fn written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire.lock().from_server)
    }

    /// The one HTTP answer that the server has written. What is behind a 101 stays.
    pub(super) fn answer(&mut self) -> Answer {
        let written = self.written();
        let (answer, rest) = Answer::parse(&written, false);
        if answer.status != 101 {
            assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(rest));
        }
        self.wire.lock().from_server = rest.to_vec();
        answer
    }

    /// The frames that the server has written, all of them whole.
    pub(super) fn frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        let written = self.written();
        let mut rest = &written[..];
        let mut frames = Vec::new();
        while let [first, len, behind @ ..] = rest {
            let (len, behind) = match (len, behind) {
                (126, [a, b, behind @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), behind),
                (127, _) => panic!("nobody asked for a message of this size"),
                (len, behind) => (usize::from(*len), behind),
            };
            frames.push((*first, behind[..len].to_vec()));
            rest = &behind[len..];
        }
        assert!(rest.is_empty(), "{rest:?}");
        frames
    }

    /// Whether at most `bytes` wait to be written.
    pub(super) fn owes_at_most(&self, bytes: usize) -> bool {
        let bounds = OutboxBounds { messages_max: usize::MAX, bytes_max: bytes };
        self.conn.io.outbox.fits(0, &bounds)
    }

    /// How many messages its handler was given.
    pub(super) fn heard(&self) -> usize {
        self.log.heard.load(Ordering::Relaxed)
    }

    /// The codes of the closes that its handler heard of.
    pub(super) fn closed(&self) -> Vec<u16> {
        self.log.closed.lock().clone()
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.conn.phase, Phase::Gone)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.conn.phase, Phase::Open(_))
    }

    /// Fails unless the connection is gone and has left nothing behind.
    pub(super) fn expect_nothing_left(&self, when: &str) {
        let shared = &self.cx.shared;
        assert!(self.is_gone(), "{when}: it is there");
        assert_eq!(shared.admission.gauges(), (0, 0), "{when}: permits and positions in line");
        assert_eq!(shared.hub.sessions.gauges(), (0, 0), "{when}: sessions");
        assert!(self.cx.members.find(SLOT, "room").is_none(), "{when}: memberships");
        let members = shared.hub.rooms.find("room").map(|room| room.state.lock().members_total());
        assert_eq!(members.unwrap_or_default(), 0, "{when}: members of the room");
        let heads = (shared.pending_heads.used(), shared.lingering.used());
        assert_eq!(heads, (0, 0), "{when}: heads that are due, and refusals that linger");
        assert_eq!(self.cx.timers.next(), None, "{when}: deadlines");
        let opened = self.log.opened.load(Ordering::Relaxed);
        assert_eq!(self.closed().len(), opened, "{when}: on_open and on_close come in pairs");
    }
}
