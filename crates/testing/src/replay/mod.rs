//! The hot paths of the server, run repeatedly on fixed input. `benches/hot_paths.rs` times them;
//! `scripts/perf-gate.sh` counts their instructions with `bin/replay.rs`.
//!
//! The paths run production code; only their input is made here. Nothing may depend on the clock or
//! on chance, or two counts of the same code differ.

mod path;
mod road;
mod server;

pub use path::{Path, Round};

/// All hot paths.
pub const PATHS: [Path; 19] = [
    road::TURN,
    road::ECHO,
    road::LARGE_TEXT,
    road::LARGE_BINARY,
    road::PIECES,
    road::PUBLISH,
    road::LIMITED,
    road::ONCE,
    road::ROOMS,
    road::ANSWER,
    road::HISTORY,
    road::LIFE,
    road::LINE,
    road::FANOUT,
    road::BURST,
    road::LARGE_ROOM,
    road::PARTIAL,
    road::COMPRESSED,
    road::COMPRESSED_BURST,
];

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
