//! What a hot path is, and what the paths of the chat protocol say.

/// A hot path.
#[derive(Clone, Copy)]
pub struct Path {
    /// Its name in `instructions.toml`.
    pub name: &'static str,
    /// What it does once for each of its units.
    pub unit: &'static str,
    /// How many of those are in one round.
    pub units: u64,
    pub(super) open: fn() -> Box<dyn Round>,
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

    /// How many units the last round has done, and that it has done them right. Not part of the
    /// path.
    fn done(&mut self) -> u64;
}

/// The publish command that the paths of the chat protocol say, of a length that people write. It
/// brings its own time: the server's would be formatted once a millisecond, and so cost more on a
/// slower machine.
pub(super) const COMMAND: &str = "{\"type\":\"publish\",\"room\":\"lobby\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\"}";

/// The text around the number of a message that its room is sent, as long as one that [`COMMAND`]
/// makes.
pub(super) const BEFORE_SEQ: &str = "{\"type\":\"message\",\"room\":\"lobby\",\"seq\":";
pub(super) const AFTER_SEQ: &str = ",\"id\":\"67e55044-10b1-426f-9247-bb680e5fe0c8\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\",\"client_id\":\"9f8b6c1e-2a5d-4a7e-8f00-3b1c2d4e5f60\"}";
