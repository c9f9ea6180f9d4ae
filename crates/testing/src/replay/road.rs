//! Whole turns of a worker, from bytes that were read to bytes that are written.

use std::time::Duration;

use rusty_socks::{
    Config,
    config::{Compression, LimitedAddresses},
    stepped::{MemoryClient, SteppedServer},
};

use super::{
    path::{AFTER_SEQ, BEFORE_SEQ, COMMAND, Path, Round},
    server::{chat, chat_within, enter, heard, say, say_in, upgrade},
};
use crate::frames::{BINARY, CLOSE, TEXT, behind_101, client_frame, server_frames};

/// What a turn costs in which nearly nothing is done.
pub(super) const TURN: Path =
    Path { name: "road.turn", unit: "turn with one echo", units: 16, open: || Echo::open(1, 16) };

pub(super) const ECHO: Path = Path {
    name: "road.echo",
    unit: "echo, 64 in a turn",
    units: CROWD as u64,
    open: || Echo::open(CROWD, 1),
};

/// Mostly ASCII, as people write, and a letter now and then that is not.
pub(super) const LARGE_TEXT: Path = Path {
    name: "road.large_text",
    unit: "echo of 48 KiB",
    units: LARGE,
    open: || Large::open(TEXT, usize::MAX),
};

pub(super) const LARGE_BINARY: Path = Path {
    name: "road.large_binary",
    unit: "echo of 48 KiB",
    units: LARGE,
    open: || Large::open(BINARY, usize::MAX),
};

/// As a slow network brings it.
pub(super) const PIECES: Path = Path {
    name: "road.pieces",
    unit: "echo of 48 KiB in packets",
    units: LARGE,
    open: || Large::open(TEXT, PACKET_BYTES),
};

/// From a client's bytes to the room's store, where nobody else is.
pub(super) const PUBLISH: Path = Path {
    name: "road.publish",
    unit: "publish command",
    units: COMMANDS,
    open: || Ask::open(COMMAND.to_owned(), COMMANDS, false),
};

/// Of a client whose messages and bytes are counted, as are those of its address.
pub(super) const LIMITED: Path = Path {
    name: "road.limited",
    unit: "publish command that is counted",
    units: COMMANDS,
    open: || {
        let server = chat_within(Config {
            rate_messages: 1_000_000,
            rate_bytes: 1 << 30,
            rate_messages_per_ip: 10_000_000,
            rate_bytes_per_ip: 1 << 30,
            limited_addresses: LimitedAddresses::All,
            ..Config::default()
        });
        Box::new(Ask::at(server, COMMAND.to_owned(), COMMANDS, false))
    },
};

/// With an id of the client's own, which is remembered.
pub(super) const ONCE: Path = Path {
    name: "road.once",
    unit: "publish command with an id of its own",
    units: COMMANDS,
    open: || Box::new(Once { ask: Ask::new(COMMAND.to_owned(), COMMANDS, false), next_id: 0 }),
};

/// To several rooms, each with a member.
pub(super) const ROOMS: Path = Path {
    name: "road.rooms",
    unit: "publish command to 8 rooms",
    units: COMMANDS,
    open: Ask::open_rooms,
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
    open: || Box::new(Life { server: chat(Config::default()), clients: Vec::new() }),
};

/// An upgrade that waits in line for a place, and takes that of one who leaves.
pub(super) const LINE: Path =
    Path { name: "road.line", unit: "upgrade that waited", units: LIVES, open: || Line::open() };

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

/// A room of so many members that they are delivered to in slices.
pub(super) const LARGE_ROOM: Path = Path {
    name: "road.large_room",
    unit: "delivery, 8 a turn, in slices",
    units: 8 * LARGE_CROWD as u64,
    open: || {
        let config = Config { max_conn: LARGE_CROWD, ..Config::default() };
        Box::new(Fanout::of(config, LARGE_CROWD, 8))
    },
};

/// To clients that take less than is there.
pub(super) const PARTIAL: Path = Path {
    name: "road.partial",
    unit: "delivery in parts",
    units: 4 * CROWD as u64,
    open: || Box::new(Partial(Fanout::new(Config::default(), 4))),
};

pub(super) const COMPRESSED: Path = Path {
    name: "road.compressed",
    unit: "delivery, compressed for all",
    units: CROWD as u64,
    open: || Fanout::open(Config { compression: Compression::Shared, ..Config::default() }, 1),
};

pub(super) const COMPRESSED_BURST: Path = Path {
    name: "road.compressed_burst",
    unit: "delivery, compressed for all, 8 a turn",
    units: 8 * CROWD as u64,
    open: || Fanout::open(Config { compression: Compression::Shared, ..Config::default() }, 8),
};

/// Connections that are there at once.
const CROWD: usize = 64;
const LARGE_CROWD: usize = 1200;

const COMMANDS: u64 = 16;
const LIVES: u64 = 4;
const ROOMS_AT_ONCE: usize = 8;

const LARGE: u64 = 2;
const LARGE_BYTES: usize = 48 << 10;

/// What one packet of Ethernet carries of a TCP stream.
const PACKET_BYTES: usize = 1448;

struct Echo {
    server: SteppedServer,
    clients: Vec<MemoryClient>,
    frame: Vec<u8>,
    turns: usize,
}

impl Echo {
    fn open(connections: usize, turns: usize) -> Box<dyn Round> {
        let mut server = chat(Config::default());
        let clients = (0..connections).map(|_| enter(&mut server, "/echo")).collect();
        Box::new(Echo { server, clients, frame: client_frame(TEXT, COMMAND.as_bytes()), turns })
    }

    fn hear(&self) {
        self.clients.iter().for_each(|client| client.write(&self.frame));
    }
}

impl Round for Echo {
    fn lay_out(&mut self) {
        self.hear();
    }

    fn play(&mut self) {
        self.server.turn();
        for _ in 1..self.turns {
            self.hear();
            self.server.turn();
        }
    }

    fn done(&mut self) -> u64 {
        self.clients.iter().map(heard).sum()
    }
}

/// One client that is echoed large messages, of which `step` bytes come a turn.
struct Large {
    step: usize,
    server: SteppedServer,
    client: MemoryClient,
    frames: Vec<u8>,
}

impl Large {
    fn open(first: u8, step: usize) -> Box<dyn Round> {
        let mut server = chat(Config::default());
        let client = enter(&mut server, "/echo");
        let text = "It was a dark and stormy night; the rain fell in torrents in Gr\u{fc}nau. ";
        let mut payload = text.repeat(LARGE_BYTES / text.len()).into_bytes();
        payload.resize(LARGE_BYTES, b'.');
        Box::new(Large {
            step,
            server,
            client,
            frames: client_frame(first, &payload).repeat(LARGE as usize),
        })
    }
}

impl Round for Large {
    fn play(&mut self) {
        for piece in self.frames.chunks(self.step) {
            self.client.write(piece);
            self.server.turn();
        }
    }

    fn done(&mut self) -> u64 {
        heard(&self.client)
    }
}

/// One client, alone in its room, with so many commands in one read.
struct Ask {
    server: SteppedServer,
    client: MemoryClient,
    frames: Vec<u8>,
    is_answered: bool,
    /// A room that each publish goes to, and its number before the round.
    room: &'static str,
    seq: u64,
}

impl Ask {
    fn open(command: String, times: u64, is_answered: bool) -> Box<dyn Round> {
        Box::new(Ask::new(command, times, is_answered))
    }

    fn new(command: String, times: u64, is_answered: bool) -> Ask {
        Ask::at(chat(Config::default()), command, times, is_answered)
    }

    fn at(mut server: SteppedServer, command: String, times: u64, is_answered: bool) -> Ask {
        let client = enter(&mut server, "/ws");
        let frames = client_frame(TEXT, command.as_bytes()).repeat(times as usize);
        Ask { server, client, frames, is_answered, room: "lobby", seq: 0 }
    }

    fn open_rooms() -> Box<dyn Round> {
        let names: Vec<String> = (0..ROOMS_AT_ONCE).map(|n| format!("\"room {n}\"")).collect();
        let several = format!("\"rooms\":[{}]", names.join(","));
        let mut ask =
            Ask::new(COMMAND.replacen("\"room\":\"lobby\"", &several, 1), COMMANDS, false);
        for name in names {
            let join = format!("{{\"type\":\"join\",\"room\":{name}}}");
            ask.client.write(&client_frame(TEXT, join.as_bytes()));
        }
        ask.server.settle();
        ask.room = "room 0";
        Box::new(ask)
    }
}

impl Ask {
    /// Tells how far the room is, by one message more that the client is sent and that does not
    /// count.
    fn seq(&mut self) -> u64 {
        let seq = say_in(&self.server, self.room);
        self.server.turn();
        assert_eq!(heard(&self.client), 1, "it is a member");
        seq
    }
}

impl Round for Ask {
    fn lay_out(&mut self) {
        // What was spent of a rate comes back.
        self.server.advance(Duration::from_millis(1));
        self.seq = self.seq();
        self.client.write(&self.frames);
    }

    fn play(&mut self) {
        self.server.turn();
    }

    fn done(&mut self) -> u64 {
        let is_ok = |(_, text): &(u8, &[u8])| text.starts_with(b"{\"type\":\"ok\"");
        let oks = self.client.read_with(|written| {
            server_frames(written).inspect(|frame| assert!(is_ok(frame), "refused")).count() as u64
        });
        let published = self.seq() - self.seq - 1;
        assert!(oks == 0 || published == 0 || oks == published, "an answer for each");
        if self.is_answered { oks } else { published }
    }
}

/// Publishes with another id each time.
struct Once {
    ask: Ask,
    next_id: u128,
}

impl Round for Once {
    fn lay_out(&mut self) {
        self.ask.frames.clear();
        for _ in 0..COMMANDS {
            self.next_id += 1;
            let id = format!("{{\"id\":\"00000000-0000-4000-8000-{:012x}\",", self.next_id);
            let command = COMMAND.replacen('{', &id, 1);
            self.ask.frames.extend(client_frame(TEXT, command.as_bytes()));
        }
        self.ask.lay_out();
    }

    fn play(&mut self) {
        self.ask.play();
    }

    fn done(&mut self) -> u64 {
        self.ask.done()
    }
}

struct Life {
    server: SteppedServer,
    clients: Vec<MemoryClient>,
}

impl Round for Life {
    fn lay_out(&mut self) {
        // Who has come is looked at again a while later, and that list must not grow for ever.
        self.server.advance(Duration::from_secs(1));
        self.clients = (0..LIVES).map(|_| self.server.connect().expect("a place")).collect();
        let upgrade = upgrade("/ws");
        self.clients.iter().for_each(|client| client.write(upgrade.as_bytes()));
    }

    fn play(&mut self) {
        self.server.turn();
        let close = client_frame(CLOSE, &1000_u16.to_be_bytes());
        self.clients.iter().for_each(|client| client.write(&close));
        while self.server.connections() > 0 {
            self.server.turn();
        }
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.server.connections(), 0, "somebody is left");
        // The welcome, what was said before, and the Close.
        let is_whole = |written: &[u8]| server_frames(behind_101(written)).count() == 12;
        self.clients.iter().filter(|client| client.read_with(is_whole)).count() as u64
    }
}

/// One is inside and the others wait; as each of them leaves, the next in line comes in.
struct Line {
    server: SteppedServer,
    clients: Vec<MemoryClient>,
}

impl Line {
    fn open() -> Box<dyn Round> {
        let server = chat(Config { max_conn: 1, max_queued_tasks: 64, ..Config::default() });
        Box::new(Line { server, clients: Vec::new() })
    }
}

impl Round for Line {
    fn lay_out(&mut self) {
        self.server.advance(Duration::from_secs(1));
        self.clients = (0..LIVES).map(|_| self.server.connect().expect("a place")).collect();
        let upgrade = upgrade("/ws");
        self.clients.iter().for_each(|client| client.write(upgrade.as_bytes()));
        self.server.turn();
    }

    fn play(&mut self) {
        let close = client_frame(CLOSE, &1000_u16.to_be_bytes());
        for client in &self.clients {
            client.write(&close);
            self.server.settle();
        }
    }

    fn done(&mut self) -> u64 {
        assert_eq!(self.server.connections(), 0, "somebody is left");
        let is_whole = |written: &[u8]| server_frames(behind_101(written)).count() == 12;
        self.clients.iter().filter(|client| client.read_with(is_whole)).count() as u64
    }
}

struct Fanout {
    server: SteppedServer,
    clients: Vec<MemoryClient>,
    messages: usize,
}

impl Fanout {
    fn open(config: Config, messages: usize) -> Box<dyn Round> {
        Box::new(Fanout::new(config, messages))
    }

    fn new(config: Config, messages: usize) -> Fanout {
        Fanout::of(config, CROWD, messages)
    }

    fn of(config: Config, crowd: usize, messages: usize) -> Fanout {
        let mut server = chat(config);
        let clients = (0..crowd).map(|_| enter(&mut server, "/ws")).collect();
        Fanout { server, clients, messages }
    }
}

impl Round for Fanout {
    fn lay_out(&mut self) {
        (0..self.messages).for_each(|_| say(&self.server));
    }

    fn play(&mut self) {
        match self.clients.len() {
            CROWD => self.server.turn(),
            _ => drop(self.server.settle()),
        }
    }

    fn done(&mut self) -> u64 {
        self.clients.iter().map(heard).sum()
    }
}

/// Clients that take a third of a message at a time.
struct Partial(Fanout);

impl Round for Partial {
    fn lay_out(&mut self) {
        self.0.clients.iter().for_each(|client| client.set_window(0));
        self.0.lay_out();
        self.0.server.turn();
    }

    fn play(&mut self) {
        let bytes = self.0.messages * (BEFORE_SEQ.len() + AFTER_SEQ.len() + 16);
        for _ in 0..bytes.div_ceil(PART_BYTES) {
            self.0.clients.iter().for_each(|client| client.set_window(PART_BYTES));
            self.0.server.turn();
        }
    }

    fn done(&mut self) -> u64 {
        self.0.done()
    }
}

/// What a slow client takes at a time.
const PART_BYTES: usize = 128;
