//! The JSON of a message: the command that comes in, and the frame that goes out.

use std::{
    hint::black_box,
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

use super::{COMMAND, Path, Round};
use crate::chat::pieces::{Said, is_command};

pub(super) const READ: Path = Path {
    name: "json.read",
    unit: "publish command",
    units: MANY,
    open: || Box::new(Read { commands: 0 }),
};

pub(super) const WRITE: Path = Path {
    name: "json.write",
    unit: "message frame",
    units: MANY,
    open: || Box::new(Write::new(COMMAND, MANY)),
};

/// The same with the time of the server, as nearly all messages have it.
pub(super) const STAMP: Path = Path {
    name: "json.stamp",
    unit: "message frame with our time",
    units: FEW,
    open: || Box::new(Stamp(Write::new(WITHOUT_TIME, FEW))),
};

const WITHOUT_TIME: &str = "{\"type\":\"publish\",\"room\":\"lobby\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"}}";

const MANY: u64 = 64;

/// As many as are written well within a millisecond, even where each instruction is counted.
const FEW: u64 = 8;

struct Read {
    commands: u64,
}

impl Round for Read {
    fn play(&mut self) {
        for _ in 0..MANY {
            self.commands += u64::from(is_command(black_box(COMMAND)));
        }
    }

    fn done(&mut self) -> u64 {
        std::mem::take(&mut self.commands)
    }
}

struct Write {
    said: Said<'static>,
    client_id: Uuid,
    units: u64,
    frames: u64,
}

impl Write {
    fn new(command: &'static str, units: u64) -> Write {
        let said = Said::new(command).expect("a publish command");
        Write { said, client_id: Uuid::new_v4(), units, frames: 0 }
    }
}

impl Round for Write {
    fn play(&mut self) {
        for _ in 0..self.units {
            let parts = self.said.write(black_box("lobby"), self.client_id);
            self.frames += u64::from(parts.iter().all(|part| !part.is_empty()));
            black_box(parts);
        }
    }

    fn done(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }
}

struct Stamp(Write);

impl Round for Stamp {
    /// The server's time is formatted once a millisecond. That is done here, just after one has begun, so
    /// that it is not done by chance in some rounds and not in others.
    fn lay_out(&mut self) {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let before = clock();
        while clock() == before {}
        self.0.play();
        self.0.done();
    }

    fn play(&mut self) {
        self.0.play();
    }

    fn done(&mut self) -> u64 {
        self.0.done()
    }
}
