//! A hub without workers and clients without connections: what the hub's own tests act on.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    Hub,
    conn_handle::{ConnHandle, Continuation},
    conn_id::ConnId,
    error::RoomError,
    history::{Joined, Replay},
    mailbox::{Letter, MailboxBounds, MailboxReceiver, mailboxes_without_workers},
    memberships::MatchedRoom,
    names::{RoomName, RoomPattern},
    notice::{Notice, NoticeFormatter},
    presence::Watch,
    present::MembersPage,
    question::{Outcome, Question},
    restore::{RestorableRoute, Restored},
    resume::Resumed,
    room::{Entry, Room},
    save::Saved,
    send_status::SendStatus,
    session::Session,
};
use crate::{
    clock::Clock,
    config::Config,
    identity::{Authenticator, Identity, Permissions},
    snapshot::{SnapshotReader, SnapshotWriter, Unreadable},
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// How long a test waits for what must come.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// How long it waits to see that a thread is held up.
pub(super) const STUCK: Duration = Duration::from_millis(50);

/// Says what a notice looks like to a programmer, and permits what it says.
struct Words(Permissions);

impl NoticeFormatter for Words {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        Some(PreparedFrame::new(Message::Text(&format!("{notice:?}"))))
    }

    fn permissions(&self, _: Option<&Identity>, _: Option<&RoomName>) -> Permissions {
        self.0
    }
}

/// A hub, and the mailboxes of its workers.
pub(super) struct Bench {
    pub(super) hub: Arc<Hub>,
    receivers: Vec<MailboxReceiver>,
    slots: u32,
}

/// A session, and the way to its connection.
pub(super) struct Client {
    hub: Arc<Hub>,
    pub(super) session: Arc<Session>,
    pub(super) conn: TestConn,
}

/// A connection that only notes what it is told.
pub(super) struct TestConn {
    hub: Arc<Hub>,
    id: ConnId,
    ip: IpAddr,
    session: Arc<Session>,
    /// The rooms and the channels that it is in.
    pub(super) rooms: Vec<Arc<Room>>,
    /// How often it was told that a mailbox is behind.
    pub(super) pressed: usize,
    /// What the hub has charged it.
    pub(super) spent: usize,
}

pub(super) fn name(text: &str) -> RoomName {
    RoomName::new(text).expect("a legal name")
}

pub(super) fn pattern(text: &str) -> RoomPattern {
    RoomPattern::new(text).expect("a legal pattern")
}

impl Bench {
    /// A hub with `workers` mailboxes of `letters_max`.
    pub(super) fn new(config: &Config, workers: usize, letters_max: usize) -> Bench {
        Bench::with_clock(config, workers, letters_max, Clock::machine())
    }

    /// A hub on `clock`, with `workers` mailboxes of `letters_max`.
    pub(super) fn with_clock(
        config: &Config,
        workers: usize,
        letters_max: usize,
        clock: Clock,
    ) -> Bench {
        let bounds = MailboxBounds { letters_max, bytes_max: 64 << 10 };
        let (mailboxes, receivers) = mailboxes_without_workers(workers, bounds);
        Bench {
            hub: Arc::new(Hub::new(config, Authenticator::default(), mailboxes, Arc::new(clock))),
            receivers,
            slots: 0,
        }
    }

    /// A new connection on `worker`, whose session outlives it if it is `resumable`.
    pub(super) fn client(&mut self, worker: usize, resumable: bool) -> Client {
        self.client_who_may(Permissions::all(), worker, resumable)
    }

    /// A new connection whose client has these permissions in every room.
    pub(super) fn client_who_may(
        &mut self,
        permissions: Permissions,
        worker: usize,
        resumable: bool,
    ) -> Client {
        self.slots += 1;
        let id = ConnId { worker: worker as u16, slot: self.slots, generation: 0 };
        let session = self.hub.sessions.begin(id, 0, resumable, Arc::new(Words(permissions)));
        let (hub, own) = (Arc::clone(&self.hub), Arc::clone(&session));
        let (ip, rooms) = (IpAddr::from([127, 0, 0, 1]), Vec::new());
        let conn = TestConn { hub, id, ip, session: own, rooms, pressed: 0, spent: 0 };
        Client { hub: Arc::clone(&self.hub), session, conn }
    }

    /// What a snapshot of at most `bytes_max` has.
    pub(super) fn save(&self, bytes_max: u64) -> (Vec<u8>, Saved) {
        let mut writer = SnapshotWriter::new(Vec::new(), 0, bytes_max).expect("memory");
        let path_of = |route| ["/ws"][usize::from(route)];
        let saved = self.hub.save(&mut writer, &path_of).expect("memory");
        (writer.finish().expect("memory").0, saved)
    }

    /// Takes up a snapshot that was written `elapsed_ms` ago.
    pub(super) fn restore(&self, bytes: &[u8], elapsed_ms: u64) -> Result<Restored, Unreadable> {
        let formatter: Arc<dyn NoticeFormatter> = Arc::new(Words(Permissions::all()));
        let routes = [RestorableRoute { path: "/ws".into(), index: 0, formatter }];
        let mut reader = SnapshotReader::new(bytes, bytes.len() as u64)?;
        self.hub.restore(&mut reader, &routes, elapsed_ms)
    }

    /// What was posted to `worker`, in order.
    pub(super) fn letters(&self, worker: usize) -> Vec<Letter> {
        let receiver = &self.receivers[worker];
        let release = |letter: &Letter| {
            if let Some(bytes) = letter.weight() {
                receiver.release(bytes, None);
            }
        };
        std::iter::from_fn(|| receiver.take()).inspect(release).collect()
    }

    /// The notices and messages among it.
    pub(super) fn texts(&self, worker: usize) -> Vec<String> {
        let text = |letter| match letter {
            Letter::Deliver { frame, .. } | Letter::Send { frame, .. } => {
                Some(frame.message().as_text().expect("text").to_owned())
            }
            _ => None,
        };
        self.letters(worker).into_iter().filter_map(text).collect()
    }

    /// Puts messages into the mailbox of `worker` until it holds `letters`.
    pub(super) fn fill(&self, worker: usize, letters: usize) {
        let conn = ConnId { worker: worker as u16, slot: 0, generation: 0 };
        while self.hub.mailboxes.waiting(worker) < letters {
            let sent = self.hub.mailboxes.send(conn, PreparedFrame::new(Message::Text("x")));
            assert_eq!(sent, SendStatus::Sent);
        }
    }

    /// How many are on a room's roster.
    pub(super) fn listed(&self, room: &str) -> usize {
        let room = self.hub.rooms.find(room);
        room.map_or(0, |room| room.state.lock().roster.len())
    }

    /// How many members the workers have in a room.
    pub(super) fn members(&self, room: &str) -> usize {
        let room = self.hub.rooms.find(room);
        room.map_or(0, |room| room.state.lock().members_total())
    }
}

impl Client {
    pub(super) fn conn(&self) -> ConnId {
        self.conn.id
    }

    /// Its connection, and from where that is.
    pub(super) fn at(&self) -> (ConnId, IpAddr) {
        (self.conn.id, self.conn.ip)
    }

    /// The client, as from another address.
    pub(super) fn from(mut self, ip: IpAddr) -> Client {
        self.conn.ip = ip;
        self
    }

    pub(super) fn join(&mut self, room: &str) -> Result<Joined, RoomError> {
        self.hub.join(&mut self.conn, &name(room), Replay::Nothing)
    }

    pub(super) fn leave(&mut self, room: &str) {
        self.hub.leave(&mut self.conn, room).expect("it is a member");
    }

    /// Joins a room and watches it.
    pub(super) fn watch(&mut self, room: &str) {
        self.join(room).expect("a place");
        let watched = self.hub.presence(&mut self.conn, room, Watch::Begin, MembersPage::FIRST);
        watched.expect("it is a member");
    }

    /// Loses its connection, and its session waits.
    pub(super) fn lose(&mut self) {
        self.hub.depart(&self.session, self.at(), &CloseReason::LOST);
        self.conn.leave_all();
    }

    /// Takes up the session of `earlier`.
    pub(super) fn resume(&mut self, earlier: &Session) -> Result<Resumed, RoomError> {
        let resumed = self.hub.resume(&mut self.conn, &earlier.token(), &[], None)?;
        self.session = Arc::clone(&self.conn.session);
        Ok(resumed)
    }

    pub(super) fn subscribe(&mut self, to: &str) -> Result<Vec<MatchedRoom>, RoomError> {
        self.hub.subscribe(&mut self.conn, &pattern(to))
    }
}

impl TestConn {
    /// What a worker does for a connection that ends, or goes on with another session.
    fn leave_all(&mut self) {
        for room in std::mem::take(&mut self.rooms) {
            self.hub.uncount(&room, self.id.worker());
        }
    }
}

impl ConnHandle for TestConn {
    fn id(&self) -> ConnId {
        self.id
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    fn remote_addr(&self) -> SocketAddr {
        SocketAddr::from((self.ip, 1))
    }

    fn room(&self, name: &str) -> Option<(Arc<Room>, Permissions)> {
        self.session.room(name)
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        unreachable!("the hub sends by letter: {message:?}")
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        self.send(frame.message())
    }

    fn close(&mut self, reason: CloseReason) {
        unreachable!("the hub closes by letter: {reason}")
    }

    fn permit(&mut self, _: &Arc<Room>, _: Permissions) {}

    fn ask_engine(
        &mut self,
        question: Question,
        next: Continuation,
    ) -> Option<(Continuation, Outcome)> {
        Some((next, self.hub.ask_engine(question)))
    }

    fn wake_after(&mut self, _: Duration) {}

    fn enter(&mut self, room: &Arc<Room>, _: Entry, _: Permissions) {
        self.rooms.push(Arc::clone(room));
    }

    fn exit(&mut self, room: &Arc<Room>) {
        let is_it = |other: &Arc<Room>| other.key == room.key;
        let at = self.rooms.iter().position(is_it).expect("it was in there");
        self.rooms.remove(at);
        self.hub.uncount(room, self.id.worker());
    }

    fn attach(&mut self, session: &Arc<Session>) {
        self.leave_all();
        self.session = Arc::clone(session);
    }

    fn spend(&mut self, cost: usize) {
        self.spent += cost;
    }

    fn await_deliveries(&mut self) {}

    fn on_backpressure(&mut self) {
        self.pressed += 1;
    }
}
