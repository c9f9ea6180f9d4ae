//! Clients that do not keep the protocol, or do and are a burden.

use rusty_socks::stepped::{MemoryClient, SteppedServer};
use tungstenite::protocol::Role;

use crate::{
    frames::{TEXT, client_frame, upgrade},
    random::{Random, Streams, command},
};

/// What a hostile client writes to one connection at most, in bytes.
const WRITTEN_BYTES_MAX: usize = 64 << 10;

/// How one behaves on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Writes anything.
    Garbage,
    /// Writes its head byte by byte.
    SlowHead,
    /// Asks one page after the other without reading.
    Pipeline,
    /// Sends commands that are nearly right.
    Commands,
    /// Sends frames that are nearly right.
    Frames,
    /// Sends compressed messages.
    Compressed,
    /// Announces frames that never come whole.
    Giant,
    /// Asks for much and reads nothing.
    NeverReads,
    /// Says as much as it can.
    Flood,
}

const MANNERS: [Manner; 9] = [
    Manner::Garbage,
    Manner::SlowHead,
    Manner::Pipeline,
    Manner::Commands,
    Manner::Frames,
    Manner::Compressed,
    Manner::Giant,
    Manner::NeverReads,
    Manner::Flood,
];

/// A client that does not keep the protocol.
pub struct Hostile {
    wire: Option<MemoryClient>,
    manner: Manner,
    written: usize,
    /// What it says who it is with, now and then.
    token: Option<String>,
}

impl Hostile {
    /// One that has not connected yet.
    pub fn new(index: usize, token: Option<String>) -> Hostile {
        Hostile { wire: None, manner: MANNERS[index % MANNERS.len()], written: 0, token }
    }

    /// Connects, says something, or cuts its connection.
    pub fn act(&mut self, server: &mut SteppedServer, random: &mut Random) {
        let Some(wire) = &self.wire else { return self.connect(server, random) };
        if wire.is_ended() || random.one_in(40) || self.written > WRITTEN_BYTES_MAX {
            return self.reset();
        }
        if self.manner != Manner::NeverReads && self.manner != Manner::Pipeline {
            wire.read();
        }
        let bytes = match self.manner {
            Manner::Garbage => {
                let len = 1 + random.below(200);
                random.bytes(len)
            }
            Manner::SlowHead => b"GET /ws HTTP/1.1\r\n"[random.below(18)..][..1].to_vec(),
            Manner::Pipeline => b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(8),
            Manner::Commands => {
                let command = command(random);
                client_frame(TEXT, &command)
            }
            Manner::Frames | Manner::Compressed => {
                let compresses = self.manner == Manner::Compressed;
                Streams { role: Role::Server, compresses, message_bytes: 4096 }.stream(random)
            }
            Manner::Giant => {
                let mut frame = client_frame(TEXT, &vec![b' '; 2000]);
                frame.truncate(random.below(frame.len()));
                frame
            }
            Manner::NeverReads => {
                client_frame(TEXT, b"{\"type\":\"history\",\"room\":\"lobby\"}").repeat(4)
            }
            Manner::Flood => {
                client_frame(TEXT, b"{\"content\":\"flood\"}").repeat(1 + random.below(8))
            }
        };
        self.written += bytes.len();
        wire.write(&bytes);
    }

    fn connect(&mut self, server: &mut SteppedServer, random: &mut Random) {
        self.written = 0;
        if random.one_in(3) {
            self.manner = *random.one_of(&MANNERS);
        }
        let Ok(wire) = server.connect() else { return };
        let offer = match self.manner {
            Manner::Compressed => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            _ => "",
        };
        let token = self.token.as_ref().filter(|_| random.one_in(2));
        let token =
            token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let upgrade = upgrade("/ws", &format!("{offer}{token}"));
        match self.manner {
            Manner::Garbage | Manner::SlowHead | Manner::Pipeline => {}
            // What is compressed has a length that differs from run to run, so its window is whole.
            Manner::NeverReads => {
                wire.set_window(3000);
                wire.write(upgrade.as_bytes());
            }
            _ => wire.write(upgrade.as_bytes()),
        }
        self.wire = Some(wire);
    }

    /// Cuts its connection, if it has one.
    pub fn reset(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset();
        }
    }
}
