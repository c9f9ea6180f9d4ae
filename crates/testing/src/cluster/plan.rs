//! What one run is like, all drawn from the seed.

use std::time::Duration;

use rusty_socks::{
    Config,
    config::{Engine, MemoryMax, Overflow, Secret},
};

use crate::random::Random;

/// Rooms that clients join. The first is joined by the server.
pub(super) const ROOMS: [&str; 5] = ["lobby", "tea", "cake", "open.a", "open.b"];

/// The prefix of all keys.
pub(super) const PREFIX: &str = "rs";

/// One run, as the seed has it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Clients.
    pub clients: usize,
    /// Servers.
    pub nodes: usize,
    /// Redises among which rooms and sessions are spread.
    pub shards: usize,
    /// Steps until everybody leaves.
    pub steps: u64,
    /// Steps between two rests.
    pub rest_every: u64,
    /// One step in so many has a fault of each kind; 0 for none.
    pub fault_one_in: usize,
    /// Whether Redis may lose what it has answered, and begin new epochs.
    pub loses: bool,
    /// Whether Redis may come to what is left of a connection when the node has a new one already.
    pub comes_late: bool,
    /// Whether messages go to several rooms at once.
    pub to_many: bool,
    /// The settings of each node.
    pub config: Config,
}

impl Plan {
    /// Draws a run of so many steps.
    pub fn draw(seed: u64, steps: u64, clients: usize) -> Plan {
        let random = &mut Random::new(seed ^ 0xc1c1_c1c1);
        let loses = random.below(3) > 0;
        Plan {
            seed,
            clients,
            nodes: 2 + random.below(2),
            shards: 1,
            steps,
            rest_every: 100 + random.below(400) as u64,
            fault_one_in: *random.one_of(&[0, 20, 60, 150, 400]),
            loses,
            comes_late: random.one_in(4),
            // While a room is repaired and begins a new epoch, these may leave a hole untold
            // (docs/clustering.md).
            to_many: !loses && random.one_in(2),
            config: config(random),
        }
    }

    /// The same run, but for what is not mended yet or not promised: Redis loses nothing that it
    /// has answered, its connections end when their nodes give them up, and a message goes to one
    /// room.
    pub fn without_losses(self) -> Plan {
        Plan { loses: false, comes_late: false, to_many: false, ..self }
    }

    /// The same run with so many shards, one at least.
    pub fn with_shards(self, shards: usize) -> Plan {
        let urls: Vec<_> = (1..=shards).map(|port| format!("redis://127.0.0.1:{port}")).collect();
        let config = Config { redis_url: Secret::new(urls.join(",")), ..self.config };
        Plan { shards, config, ..self }
    }

    /// What it is like, in words.
    pub fn words(&self) -> String {
        format!(
            "{} nodes, {} shards, a fault in {} steps, loses {}, late {}, to many {}, history {}",
            self.nodes,
            self.shards,
            self.fault_one_in,
            self.loses,
            self.comes_late,
            self.to_many,
            self.config.history
        )
    }

    /// How long a session is kept without a connection, in milliseconds.
    pub(super) fn window_ms(&self) -> u64 {
        self.config.resume_window.as_millis() as u64
    }
}

fn config(random: &mut Random) -> Config {
    Config {
        engine: Engine::Redis,
        redis_url: Secret::new("redis://127.0.0.1:1".to_owned()),
        redis_prefix: PREFIX.to_owned(),
        thread_pool_size: 1 + random.below(3),
        history: *random.one_of(&[20, 100, 1000]),
        history_age: Duration::from_secs(86_400),
        resume_window: Duration::from_secs(*random.one_of(&[5, 20])),
        timeout: Duration::from_secs(10),
        ping: Duration::from_secs(4),
        buffer: 100_000,
        buffer_bytes: 16 << 20,
        overflow: Overflow::Gap,
        inbox: 1000,
        memory_max: MemoryMax::Off,
        rate_messages: 0,
        rate_bytes: 0,
        rate_rooms: 0,
        rate_messages_per_ip: 0,
        rate_bytes_per_ip: 0,
        rate_rooms_per_ip: 0,
        max_errors: 0,
        ..Config::default()
    }
}
