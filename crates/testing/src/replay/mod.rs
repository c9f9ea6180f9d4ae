//! The hot paths of the server, played over and over on fixed input: `benches/hot_paths.rs` takes their time,
//! `bin/replay.rs` is what `scripts/perf-gate.sh` counts the instructions of.
//!
//! What is played is what serves: no path is written again here, only its input. Nothing of it may depend on
//! the clock or on chance, or two counts of the same code differ.

mod road;

/// A hot path.
#[derive(Clone, Copy)]
pub struct Path {
    /// Its name in `instructions.toml`.
    pub name: &'static str,
    /// What it does once for each of its units.
    pub unit: &'static str,
    /// How many of those are in one round.
    pub units: u64,
    open: fn() -> Box<dyn Round>,
}

impl Path {
    /// Makes what is played on, in the state that it has after long use.
    pub fn open(&self) -> Box<dyn Round> {
        (self.open)()
    }
}

/// A path that is played a round at a time.
pub trait Round {
    /// Makes the input of the next round ready. Not part of the path.
    fn lay_out(&mut self) {}

    /// The path itself.
    fn play(&mut self);

    /// How many units the last round has done, and that it has done them right. Not part of the path.
    fn done(&mut self) -> u64;
}

/// All of them.
pub const PATHS: [Path; 16] = [
    road::TURN,
    road::ECHO,
    road::LARGE_TEXT,
    road::LARGE_BINARY,
    road::PIECES,
    road::PUBLISH,
    road::ONCE,
    road::ROOMS,
    road::ANSWER,
    road::HISTORY,
    road::LIFE,
    road::LINE,
    road::FANOUT,
    road::BURST,
    road::PARTIAL,
    road::COMPRESSED,
];

/// The publish command that the paths of the chat protocol say, of a length that people write. It brings its
/// own time: the server's would be formatted once a millisecond, and so cost more on a slower machine.
const COMMAND: &str = "{\"type\":\"publish\",\"room\":\"lobby\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\"}";

/// The text around the number of a message that its room is sent, as long as one that [`COMMAND`] makes.
const BEFORE_SEQ: &str = "{\"type\":\"message\",\"room\":\"lobby\",\"seq\":";
const AFTER_SEQ: &str = ",\"id\":\"67e55044-10b1-426f-9247-bb680e5fe0c8\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\",\"client_id\":\"9f8b6c1e-2a5d-4a7e-8f00-3b1c2d4e5f60\"}";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path as File};

    use super::PATHS;

    #[test]
    fn every_path_does_what_it_says_round_after_round() {
        for path in PATHS {
            let mut round = path.open();
            for number in 0..3 {
                round.lay_out();
                round.play();
                assert_eq!(round.done(), path.units, "{}, round {number}", path.name);
            }
        }
    }

    #[test]
    fn every_path_has_its_count() {
        let file = File::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml");
        let text = fs::read_to_string(file).expect("the file of the counts");
        let counted = text.lines().filter_map(|line| line.strip_prefix('"')?.split('"').next());
        let (counted, played): (BTreeSet<&str>, BTreeSet<&str>) =
            (counted.collect(), PATHS.iter().map(|path| path.name).collect());
        assert_eq!(counted, played, "scripts/perf-gate.sh --update writes them");
        assert_eq!(played.len(), PATHS.len(), "no name twice");
    }
}
