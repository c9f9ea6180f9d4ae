//! The type of a hot path, and the messages of the chat protocol's paths.

/// A hot path.
#[derive(Clone, Copy)]
pub struct Path {
    /// The name in `instructions.toml`.
    pub name: &'static str,
    /// The unit of work that is counted.
    pub unit: &'static str,
    /// The number of units in one round.
    pub units: u64,
    pub(super) open: fn() -> Box<dyn Round>,
}

impl Path {
    /// Makes the input's server and clients, in the state after long use.
    pub fn open(&self) -> Box<dyn Round> {
        (self.open)()
    }
}

/// A path that runs one round at a time.
pub trait Round {
    /// Prepares the input of the next round. Not counted.
    fn lay_out(&mut self) {}

    /// Runs the path. Counted.
    fn play(&mut self);

    /// Checks the results of the last round, and returns its number of units. Not counted.
    fn done(&mut self) -> u64;
}

/// The publish command of the chat protocol's paths, of a realistic length. It has a timestamp of
/// its own, because the server formats its time once a millisecond, which would cost more on a
/// slower machine.
pub(super) const COMMAND: &str = "{\"type\":\"publish\",\"room\":\"lobby\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\"}";

/// The text before the number of a room's message, as long as that of [`COMMAND`].
pub(super) const BEFORE_SEQ: &str = "{\"type\":\"message\",\"room\":\"lobby\",\"seq\":";
pub(super) const AFTER_SEQ: &str = ",\"id\":\"67e55044-10b1-426f-9247-bb680e5fe0c8\",\"sender\":\"ann\",\
    \"content\":{\"text\":\"Would you look at that? It works, and nobody knows why.\"},\
    \"timestamp\":\"2026-03-14T15:09:26.535Z\",\"client_id\":\"9f8b6c1e-2a5d-4a7e-8f00-3b1c2d4e5f60\"}";
