//! Whole turns of a worker, from bytes that were read to bytes that are written.

use std::sync::Arc;

use super::{AFTER_SEQ, BEFORE_SEQ, CLOSE, COMMAND, Path, Round, TEXT, client_frame, frames_in};
use crate::{
    chat::Chat,
    config::{Compression, Config},
    handler::Context,
    hub::{Hub, names::RoomName, publish::Publication, room::Room},
    pool::worker::stage::Stage,
    server::Server,
    ws::frame::Message,
};

/// What a turn costs in which nearly nothing is done.
pub(super) const TURN: Path =
    Path { name: "road.turn", unit: "turn with one echo", units: 16, open: || Echo::open(1, 16) };

pub(super) const ECHO: Path = Path {
    name: "road.echo",
    unit: "echo, 64 in a turn",
    units: CROWD as u64,
    open: || Echo::open(CROWD, 1),
};

/// From a client's bytes to the room's store, where nobody else is.
pub(super) const PUBLISH: Path = Path {
    name: "road.publish",
    unit: "publish command",
    units: COMMANDS,
    open: || Ask::open(COMMAND.to_owned(), COMMANDS, false),
};

pub(super) const ANSWER: Path = Path {
    name: "road.answer",
    unit: "publish command with its ok",
    units: COMMANDS,
    open: || Ask::open(COMMAND.replacen('{', "{\"ref\":17,", 1), COMMANDS, true),
};

pub(super) const HISTORY: Path = Path {
    name: "road.history",
    unit: "answer with 50 messages",
    units: 2,
    open: || {
        let command = "{\"type\":\"history\",\"room\":\"lobby\",\"limit\":50,\"ref\":17}";
        Ask::open(command.to_owned(), 2, true)
    },
};

/// Upgrade, permit, session, welcome, ten messages of replay, and the closing handshake.
pub(super) const LIFE: Path = Path {
    name: "road.life",
    unit: "life of a connection",
    units: LIVES,
    open: || Box::new(Life { stage: chat(Config::default()), slots: Vec::new() }),
};

pub(super) const FANOUT: Path = Path {
    name: "road.fanout",
    unit: "delivery, 1 a turn",
    units: CROWD as u64,
    open: || Fanout::open(Config::default(), 1),
};

/// A busy room: several messages for each write.
pub(super) const BURST: Path = Path {
    name: "road.burst",
    unit: "delivery, 8 a turn",
    units: 8 * CROWD as u64,
    open: || Fanout::open(Config::default(), 8),
};

pub(super) const COMPRESSED: Path = Path {
    name: "road.compressed",
    unit: "delivery, compressed for all",
    units: CROWD as u64,
    open: || Fanout::open(Config { compression: Compression::Shared, ..Config::default() }, 1),
};

/// Connections that are there at once.
const CROWD: usize = 64;

const COMMANDS: u64 = 16;
const LIVES: u64 = 4;

/// More messages than a history holds.
const HISTORY_FILLS: usize = 128;

fn chat(config: Config) -> Stage {
    let config = Config { host: "127.0.0.1".into(), port: 0, thread_pool_size: 1, ..config };
    let chat = Chat::new(&config).expect("the defaults are legal");
    let echo = |ctx: &mut Context<'_, ()>, message: Message<'_>| {
        ctx.send(message);
    };
    let builder = Server::builder().route("/ws", chat).route("/echo", echo).config(config);
    let stage = Stage::new(builder.bind().expect("a free port of the loopback").into_worker());
    let (hub, mut ring) = (Arc::clone(&stage.shared().hub), Default::default());
    let name = RoomName::new("lobby").expect("a legal name");
    let (room, ()) = hub.rooms.enter(&name, &mut ring, |_, _| ()).expect("room for it");
    (0..HISTORY_FILLS).for_each(|_| say(&hub, &room));
    stage
}

fn lobby(stage: &Stage) -> Arc<Room> {
    stage.shared().hub.rooms.find("lobby").expect("it was made")
}

/// Publishes from outside, as a handle of the server does.
fn say(hub: &Hub, room: &Room) {
    let message = Publication::around_seq(BEFORE_SEQ, AFTER_SEQ);
    hub.publish(None, room, &message).expect("there is a place");
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:3030\r\nUser-Agent: replay\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

/// The frames behind the 101 of an upgrade.
fn behind_101(written: &[u8]) -> u64 {
    assert!(written.starts_with(b"HTTP/1.1 101 "), "it was refused");
    let end = written.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    frames_in(&written[end..])
}

fn enter(stage: &mut Stage, path: &str) -> usize {
    let slot = stage.arrive();
    stage.say(slot, upgrade(path).as_bytes());
    stage.turn();
    stage.written(slot, behind_101);
    slot
}

struct Echo {
    stage: Stage,
    slots: Vec<usize>,
    frame: Vec<u8>,
    turns: usize,
}

impl Echo {
    fn open(connections: usize, turns: usize) -> Box<dyn Round> {
        let mut stage = chat(Config::default());
        let slots = (0..connections).map(|_| enter(&mut stage, "/echo")).collect();
        Box::new(Echo { stage, slots, frame: client_frame(TEXT, COMMAND.as_bytes()), turns })
    }

    fn hear(&mut self) {
        self.slots.iter().for_each(|slot| self.stage.say(*slot, &self.frame));
    }
}

impl Round for Echo {
    fn lay_out(&mut self) {
        self.hear();
    }

    fn play(&mut self) {
        self.stage.turn();
        for _ in 1..self.turns {
            self.hear();
            self.stage.turn();
        }
    }

    fn done(&mut self) -> u64 {
        let written = |slot: &usize| self.stage.written(*slot, frames_in);
        self.slots.iter().map(written).sum()
    }
}

/// One client, alone in its room, with so many commands in one read.
struct Ask {
    stage: Stage,
    slot: usize,
    frames: Vec<u8>,
    is_answered: bool,
    /// The room's number before the round.
    seq: u64,
}

impl Ask {
    fn open(command: String, times: u64, is_answered: bool) -> Box<dyn Round> {
        let mut stage = chat(Config::default());
        let slot = enter(&mut stage, "/ws");
        let frames = client_frame(TEXT, command.as_bytes()).repeat(times as usize);
        Box::new(Ask { stage, slot, frames, is_answered, seq: 0 })
    }

    fn seq(&self) -> u64 {
        lobby(&self.stage).state.lock().history.position().seq
    }
}

impl Round for Ask {
    fn lay_out(&mut self) {
        self.seq = self.seq();
        self.stage.say(self.slot, &self.frames);
    }

    fn play(&mut self) {
        self.stage.turn();
    }

    fn done(&mut self) -> u64 {
        let published = self.seq() - self.seq;
        self.stage.written(self.slot, |written| {
            if !self.is_answered {
                assert!(written.is_empty(), "nobody asked for an answer");
                return published;
            }
            let oks = written.windows(11).filter(|text| text == b"\"type\":\"ok\"").count() as u64;
            // A history is longer than the frames that are counted elsewhere.
            assert!(published == 0 || oks == published, "an answer for each");
            oks
        })
    }
}

struct Life {
    stage: Stage,
    slots: Vec<usize>,
}

impl Round for Life {
    fn lay_out(&mut self) {
        // Who has come is looked at again a while later, and that list must not grow for ever.
        self.stage.pass(1000);
        self.slots = (0..LIVES).map(|_| self.stage.arrive()).collect();
        let upgrade = upgrade("/ws");
        self.slots.iter().for_each(|slot| self.stage.say(*slot, upgrade.as_bytes()));
    }

    fn play(&mut self) {
        self.stage.turn();
        let close = client_frame(CLOSE, &1000_u16.to_be_bytes());
        self.slots.iter().for_each(|slot| self.stage.say(*slot, &close));
        while self.stage.len() > 0 {
            self.stage.turn();
        }
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.stage.shared().hub.sessions.gauges(), (0, 0), "somebody is left");
        assert_eq!(self.stage.shared().admission.gauges(), (0, 0), "permits are left");
        // The welcome, what was said before, and the Close.
        let is_whole = |written: &[u8]| behind_101(written) == 12;
        let whole = |slot: &&usize| self.stage.written(**slot, is_whole);
        self.slots.iter().filter(whole).count() as u64
    }
}

struct Fanout {
    stage: Stage,
    room: Arc<Room>,
    slots: Vec<usize>,
    messages: usize,
}

impl Fanout {
    fn open(config: Config, messages: usize) -> Box<dyn Round> {
        let mut stage = chat(config);
        let slots = (0..CROWD).map(|_| enter(&mut stage, "/ws")).collect();
        Box::new(Fanout { room: lobby(&stage), stage, slots, messages })
    }
}

impl Round for Fanout {
    fn lay_out(&mut self) {
        (0..self.messages).for_each(|_| say(&self.stage.shared().hub, &self.room));
    }

    fn play(&mut self) {
        self.stage.turn();
    }

    fn done(&mut self) -> u64 {
        let written = |slot: &usize| self.stage.written(*slot, frames_in);
        self.slots.iter().map(written).sum()
    }
}
