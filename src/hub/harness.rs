//! A hub without workers and clients without connections: what the hub's own tests act on.

use std::{sync::Arc, time::Duration};

use super::{
    Hub, Joined, Replay, RoomError,
    mailbox::{ConnId, Inbox, Letter, MailboxBounds, post_without_workers},
    notice::{Notice, Wording},
    presence::Watch,
    resume::Resumed,
    rooms::{Room, RoomName, RoomPattern},
    seats::{Door, Found},
    sessions::Session,
};
use crate::{
    config::Config,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// How long a test waits for what must come.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// How long it waits to see that a thread is held up.
pub(super) const STUCK: Duration = Duration::from_millis(50);

/// Says what a notice looks like to a programmer.
struct Words;

impl Wording for Words {
    fn notice(&self, notice: &Notice<'_>) -> Option<PreparedFrame> {
        Some(PreparedFrame::new(Message::Text(&format!("{notice:?}"))))
    }
}

/// A hub, and the mailboxes of its workers.
pub(super) struct Bench {
    pub(super) hub: Arc<Hub>,
    inboxes: Vec<Inbox>,
    slots: u32,
}

/// A session, and the way to its connection.
pub(super) struct Client {
    pub(super) session: Arc<Session>,
    pub(super) door: TestDoor,
}

/// A connection that only notes what it is told.
pub(super) struct TestDoor {
    hub: Arc<Hub>,
    conn: ConnId,
    /// The rooms and the channels that it is in.
    pub(super) rooms: Vec<Arc<Room>>,
    /// How often it was told that a mailbox is behind.
    pub(super) pressed: usize,
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
        let bounds = MailboxBounds { letters_max, bytes_max: 64 << 10 };
        let (post, inboxes) = post_without_workers(workers, bounds);
        Bench { hub: Arc::new(Hub::new(config, post)), inboxes, slots: 0 }
    }

    /// A new connection on `worker`, whose session outlives it if it is `resumable`.
    pub(super) fn client(&mut self, worker: usize, resumable: bool) -> Client {
        self.slots += 1;
        let conn = ConnId { worker: worker as u16, slot: self.slots, generation: 0 };
        let session = self.hub.sessions.begin(conn, 0, resumable, Arc::new(Words));
        let hub = Arc::clone(&self.hub);
        Client { session, door: TestDoor { hub, conn, rooms: Vec::new(), pressed: 0 } }
    }

    /// What was posted to `worker`, in order.
    pub(super) fn letters(&self, worker: usize) -> Vec<Letter> {
        std::iter::from_fn(|| self.inboxes[worker].take()).collect()
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
        while self.hub.post.waiting(worker) < letters {
            assert!(self.hub.post.send(conn, PreparedFrame::new(Message::Text("x"))));
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
        self.door.conn
    }

    pub(super) fn join(&mut self, room: &str) -> Result<Joined, RoomError> {
        let hub = Arc::clone(&self.door.hub);
        hub.join(&self.session, &mut self.door, &name(room), Replay::Nothing)
    }

    pub(super) fn leave(&mut self, room: &str) {
        let hub = Arc::clone(&self.door.hub);
        hub.leave(&self.session, &mut self.door, room).expect("it is a member");
    }

    /// Joins a room and watches it.
    pub(super) fn watch(&mut self, room: &str) {
        self.join(room).expect("a place");
        let hub = Arc::clone(&self.door.hub);
        let watched = hub.presence(&self.session, &mut self.door, room, Watch::Begin);
        watched.expect("it is a member");
    }

    /// Loses its connection, and its session waits.
    pub(super) fn lose(&mut self) {
        self.door.hub.depart(&self.session, self.door.conn, &CloseReason::LOST);
        self.door.leave_all();
    }

    /// Takes up the session of `earlier`.
    pub(super) fn resume(&mut self, earlier: &Session) -> Result<Resumed, RoomError> {
        let (hub, fresh) = (Arc::clone(&self.door.hub), Arc::clone(&self.session));
        let resumed = hub.resume(&fresh, &mut self.door, &earlier.token(), &[], None)?;
        self.session = hub.sessions.find(&resumed.client_id).expect("it is there");
        Ok(resumed)
    }

    pub(super) fn subscribe(&mut self, to: &str) -> Result<Vec<Found>, RoomError> {
        let hub = Arc::clone(&self.door.hub);
        hub.subscribe(&self.session, &mut self.door, &pattern(to))
    }
}

impl TestDoor {
    /// What a worker does for a connection that ends, or goes on with another session.
    fn leave_all(&mut self) {
        for room in std::mem::take(&mut self.rooms) {
            self.hub.uncount(&room, usize::from(self.conn.worker));
        }
    }
}

impl Door for TestDoor {
    fn conn(&self) -> ConnId {
        self.conn
    }

    fn enter(&mut self, room: &Arc<Room>, _: u64) {
        self.rooms.push(Arc::clone(room));
    }

    fn exit(&mut self, room: &Arc<Room>) {
        let at =
            self.rooms.iter().position(|other| other.key == room.key).expect("it was in there");
        self.rooms.remove(at);
        self.hub.uncount(room, usize::from(self.conn.worker));
    }

    fn attach(&mut self, _: &Arc<Session>) {
        self.leave_all();
    }

    fn feel_pressure(&mut self) {
        self.pressed += 1;
    }
}
