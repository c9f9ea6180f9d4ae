//! What came of a run.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::client::Broken;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What the run was drawn from.
    pub seed: u64,
    /// Clients that kept the protocol.
    pub clients: usize,
    /// The last step that was made.
    pub step: u64,
    /// Time that passed for the server.
    pub simulated: Duration,
    /// Turns that its workers made.
    pub turns: u64,
    /// Text messages that clients heard.
    pub heard: u64,
    /// How often they heard what: frames, errors, closes and statuses.
    pub kinds: BTreeMap<String, u64>,
    /// A hash of all that was said: the same for the same seed, steps and clients.
    pub hash: u64,
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What was said last, to the client that found it and to all.
    pub last: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} clients, {} steps, {:.0} s of simulated time, {} turns, {} messages heard, \
             transcript {:016x}",
            self.seed,
            self.clients,
            self.step,
            self.simulated.as_secs_f64(),
            self.turns,
            self.heard,
            self.hash,
        )?;
        let Some(Broken { promise, client, seen }) = &self.broken else { return Ok(()) };
        let who = client.map_or(String::new(), |client| format!(" (client {client})"));
        write!(
            f,
            "\nBROKEN at step {}{who}: {promise}\n  seen: {seen}\nthe last of it:\n{}",
            self.step, self.last
        )
    }
}
