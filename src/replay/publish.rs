//! A message is numbered, stored and posted, and its letters are taken by the workers they are for.

use std::{hint::black_box, sync::Arc};

use uuid::Uuid;

use super::{AFTER_SEQ, BEFORE_SEQ, Path, Round};
use crate::{
    config::Config,
    hub::{
        Hub,
        conn_id::ConnId,
        mailbox::{Deferred, MailboxBounds, MailboxReceiver, mailboxes_without_workers},
        names::RoomName,
        notice::{Notice, NoticeFormatter},
        publish::Publication,
        room::{Room, RoomState},
        session::{Sender, Session},
    },
    ws::frame::PreparedFrame,
};

pub(super) const ROOM: Path = Path {
    name: "publish.room",
    unit: "message",
    units: MESSAGES,
    open: || Publish::open(Way::Room),
};

pub(super) const ROOMS: Path = Path {
    name: "publish.rooms",
    unit: "message to 8 rooms",
    units: MESSAGES,
    open: || Publish::open(Way::Rooms),
};

/// With an id of the client's own, which is remembered.
pub(super) const ONCE: Path = Path {
    name: "publish.once",
    unit: "message with an id of its own",
    units: MESSAGES,
    open: || Publish::open(Way::Once),
};

const CONN: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };

const MESSAGES: u64 = 64;
const WORKERS: usize = 4;
const ROOMS_AT_ONCE: usize = 8;

/// More messages than a history holds, or than a session remembers ids of.
const HISTORY_FILLS: u64 = 256;

#[derive(Clone, Copy)]
enum Way {
    Room,
    Rooms,
    Once,
}

struct Publish {
    way: Way,
    hub: Hub,
    rooms: Vec<Arc<Room>>,
    session: Arc<Session>,
    receivers: Vec<MailboxReceiver>,
    next_id: u128,
    letters: u64,
}

struct NoWords;

impl NoticeFormatter for NoWords {
    fn notice(&self, _: &Notice<'_>) -> Option<PreparedFrame> {
        None
    }
}

impl Publish {
    fn open(way: Way) -> Box<dyn Round> {
        let config = Config::default();
        let bounds = MailboxBounds { letters_max: config.mailbox, bytes_max: config.mailbox_bytes };
        let (mailboxes, receivers) = mailboxes_without_workers(WORKERS, bounds);
        let hub = Hub::new(&config, mailboxes);
        let session = hub.sessions.begin(CONN, 0, true, Arc::new(NoWords));
        let room = |number: usize| {
            let name = RoomName::new(&format!("room {number}")).expect("a legal name");
            let members = |_: &Arc<Room>, state: &mut RoomState| {
                state.members.fill(1);
            };
            hub.rooms.enter(&name, &mut Deferred::default(), members).expect("room for it").0
        };
        let rooms = (0..ROOMS_AT_ONCE).map(room).collect();
        let mut publish = Publish { way, hub, rooms, session, receivers, next_id: 0, letters: 0 };
        while publish.next_id < u128::from(HISTORY_FILLS) {
            publish.play();
        }
        publish.done();
        Box::new(publish)
    }

    fn publish(&mut self) -> bool {
        self.next_id += 1;
        let by = Sender { session: &self.session, conn: CONN };
        match self.way {
            Way::Room => {
                let message = Publication::around_seq(BEFORE_SEQ, AFTER_SEQ);
                self.hub.publish(Some(by), &self.rooms[0], &message).is_ok()
            }
            Way::Once => {
                let id = Uuid::from_u128(self.next_id);
                let message = Publication::around_seq(BEFORE_SEQ, AFTER_SEQ).dedup_id(id);
                self.hub.publish(Some(by), &self.rooms[0], &message).is_ok()
            }
            Way::Rooms => {
                let mut pieces = [("},{\"room\":\"lobby\",\"seq\":", 0); ROOMS_AT_ONCE];
                pieces.iter_mut().enumerate().for_each(|(index, piece)| piece.1 = index);
                let message = Publication::around_seqs(&pieces, AFTER_SEQ);
                let rooms: Vec<&Room> = self.rooms.iter().map(|room| &**room).collect();
                self.hub.publish_to_rooms(by, &rooms, &message).is_ok()
            }
        }
    }
}

impl Round for Publish {
    fn play(&mut self) {
        for _ in 0..MESSAGES {
            if !self.publish() {
                return;
            }
        }
        for receiver in &self.receivers {
            while let Some(letter) = receiver.take() {
                black_box(letter);
                self.letters += 1;
            }
        }
    }

    fn done(&mut self) -> u64 {
        std::mem::take(&mut self.letters) / WORKERS as u64
    }
}
