//! What one run is like: its settings, its clients and its faults, all drawn from the seed.

use std::time::Duration;

use rusty_socks::{
    Config,
    config::{Compression, IdentityMode, LimitedAddresses, MemoryMax, Overflow, RoomRule, Secret},
};
use rusty_socks_protocol as protocol;

use super::tokens::{self, Act, RULED, SECRET, Token};

use crate::random::Random;

/// Rooms that clients join by name. Those with a dot are also found by patterns.
pub(super) const ROOMS: [&str; 14] = [
    "lobby", "tea", "cake", "gap.a", "gap.b", "gap.c", "latest.a", "latest.b", "latest.c",
    "open.a", "open.b", "open.c", "open.c.d", "open.e",
];

/// Patterns that clients join.
pub(super) const PATTERNS: [&str; 4] = ["gap.*", "latest.*", "open.*", "open.c.*"];

/// What pages say that some clients are of; the settings allow one of these at a time.
pub(super) const ORIGINS: [&str; 2] = ["http://a.example", "http://b.example"];

/// One run, as the seed has it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Clients that keep the protocol.
    pub clients: usize,
    /// Clients that do not, at the same time.
    pub hostile: usize,
    /// Steps until everybody leaves.
    pub steps: u64,
    /// Steps between two moments at which everything comes to rest and is counted.
    pub rest_every: u64,
    /// One step in so many has a fault of each kind; 0 for a run without faults.
    pub fault_one_in: usize,
    /// One step in so many has each act of the operator; 0 for a run without.
    pub act_one_in: usize,
    /// Whether each server leaves a snapshot to the next one.
    pub leaves_snapshot: bool,
    /// Whether turns of the server may take long, so that they end before all is done.
    pub is_slow: bool,
    /// The server's settings.
    pub config: Config,
    /// Other settings that have held since everything last came to rest.
    pub earlier: Vec<Config>,
    /// Whether memory was ever short.
    pub was_tight: bool,
}

impl Plan {
    /// Draws a run of so many steps with so many clients, of which few are hostile.
    pub fn draw(seed: u64, steps: u64, clients: usize) -> Plan {
        let random = &mut Random::new(seed);
        // One run in four is calm: no fault and no hostile client, so that every count is exact.
        let calm = random.one_in(4);
        let config = config(random, clients);
        // One calm run in two has an operator who does nothing, too.
        let is_operated = !calm || random.one_in(2);
        Plan {
            seed,
            clients,
            hostile: if calm { 0 } else { clients.div_ceil(8) },
            steps,
            rest_every: 20 + random.below(100) as u64,
            fault_one_in: if calm { 0 } else { *random.one_of(&[3, 10, 40]) },
            act_one_in: if is_operated { *random.one_of(&[30, 100, 400]) } else { 0 },
            leaves_snapshot: random.below(3) > 0,
            // One run in four.
            is_slow: pace(seed).below(4) == 1,
            config,
            earlier: Vec::new(),
            was_tight: false,
        }
    }

    /// Every set of settings that a client may be served by: those of now, and those whose effects
    /// may be under way.
    pub fn configs(&self) -> impl Iterator<Item = &Config> {
        std::iter::once(&self.config).chain(&self.earlier)
    }

    /// Whether a holder of `token`, or of none, may do something in a room, by some settings.
    pub fn may_somehow(&self, token: Option<&Token>, room: &str, act: Act) -> bool {
        self.configs().any(|config| tokens::may(config, token, room, act))
    }

    /// Whether a holder of `token`, or of none, may do something in a room, by all settings.
    pub fn may_surely(&self, token: Option<&Token>, room: &str, act: Act) -> bool {
        self.configs().all(|config| tokens::may(config, token, room, act))
    }

    /// Whether a holder of `token`, or of none, may send direct messages.
    pub fn may_direct(&self, token: Option<&Token>) -> bool {
        tokens::may_direct(&self.config, token)
    }

    /// How long a client is served after the end of its token, in milliseconds.
    pub fn token_grace_ms(&self) -> u64 {
        self.config.token_grace.as_millis() as u64
    }

    /// Whether clients say who they are.
    pub fn has_identity(&self) -> bool {
        self.config.identity != IdentityMode::Off
    }

    /// Whether the server lets in only who says who they are.
    pub fn requires_identity(&self) -> bool {
        self.config.identity == IdentityMode::Required
    }

    /// Whether nothing goes wrong in this run but what the settings bring about.
    pub fn is_calm(&self) -> bool {
        self.hostile == 0 && self.fault_one_in == 0 && self.act_one_in == 0
    }

    /// What a room does with slow members.
    pub fn overflow_of(&self, room: &str) -> protocol::Overflow {
        match self.config.overflow {
            _ if room.starts_with("gap.") => protocol::Overflow::Gap,
            _ if room.starts_with("latest.") => protocol::Overflow::Latest,
            Overflow::Close => protocol::Overflow::Close,
            Overflow::Gap => protocol::Overflow::Gap,
            Overflow::Latest => protocol::Overflow::Latest,
        }
    }

    /// Messages that a room keeps at most.
    pub fn history_of(&self, room: &str) -> usize {
        if room.starts_with("latest.") { 1 } else { self.config.history }
    }

    /// Whether a room keeps as many messages as [`Plan::history_of`] says: neither their bytes nor
    /// their age make it keep fewer.
    pub fn keeps_by_count(&self) -> bool {
        let age = self.config.history_age >= Duration::from_secs(86_400);
        age && self.config.history_bytes >= 256 << 10 && !self.was_tight
    }
}

/// What is drawn for how far each turn comes. Of its own, so that all else is as it is in a run in
/// which every turn ends in time.
pub(super) fn pace(seed: u64) -> Random {
    Random::new(!seed)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Settings of which some are small: what is small is reached.
fn config(random: &mut Random, clients: usize) -> Config {
    let small = |random: &mut Random, small: usize, large: usize| {
        if random.one_in(3) { small } else { large }
    };
    let max_message_bytes = *random.one_of(&[2048, 4096]);
    let (timeout, ping) = *random.one_of(&[(60, 30), (6, 2), (10, 0)]);
    let history = *random.one_of(&[1, 5, 20, 100]);
    let rule = |pattern: &str, overflow, history| RoomRule {
        overflow: Some(overflow),
        history,
        ..RoomRule::new(pattern)
    };
    Config {
        thread_pool_size: 1 + random.below(4),
        max_conn: small(random, clients.div_ceil(2), 4 * clients + 16),
        max_queued_tasks: small(random, 2, 1000),
        buffer: *random.one_of(&[8, 8, 64, 1024]),
        buffer_bytes: *random.one_of(&[16 << 10, 128 << 10, 1 << 20]),
        mailbox: *random.one_of(&[4, 32, 16_384]),
        mailbox_bytes: *random.one_of(&[32 << 10, 64 << 20]),
        max_message_bytes,
        timeout: seconds(timeout),
        ping: seconds(ping),
        history,
        history_bytes: small(random, 8 << 10, 256 << 10),
        history_age: seconds(*random.one_of(&[30, 86_400, 86_400])),
        replay: random.below(history.min(10) + 1),
        max_rooms: small(random, 6, 10_000),
        max_rooms_per_conn: small(random, 4, 100),
        rooms: vec![
            rule("gap.*", Overflow::Gap, None),
            rule("latest.*", Overflow::Latest, Some(1)),
            RoomRule::new(RULED),
        ],
        identity: *random.one_of(&[
            IdentityMode::Off,
            IdentityMode::Off,
            IdentityMode::Optional,
            IdentityMode::Required,
        ]),
        token_hmac_secret: Secret::new(SECRET.to_owned()),
        token_grace: seconds(*random.one_of(&[0, 2, 25])),
        max_conn_per_user: small(random, 2, 10_000),
        rate_messages_per_user: small(random, 20, 0) as u32,
        rate_bytes_per_user: 0,
        rate_rooms_per_user: 0,
        allowed_origins: vec![ORIGINS[0].to_owned()],
        memory_max: MemoryMax::Off,
        overflow: *random.one_of(&[Overflow::Close, Overflow::Gap, Overflow::Latest]),
        resume_window: seconds(*random.one_of(&[0, 5, 60, 60])),
        max_away_sessions: small(random, 3, 10_000),
        inbox: small(random, 2, 100),
        compression: *random.one_of(&[
            Compression::Off,
            Compression::Off,
            Compression::Shared,
            Compression::Dedicated,
        ]),
        broadcast: random.one_in(2),
        // Many refusals in a row are the simulator's doing, not a client's fault.
        max_errors: 0,
        max_pending_heads: small(random, clients.div_ceil(2), 4096),
        rate_messages: small(random, 20, 0) as u32,
        rate_bytes: 0,
        rate_rooms: 0,
        limited_addresses: LimitedAddresses::All,
        rate_messages_per_ip: 0,
        rate_bytes_per_ip: 0,
        rate_rooms_per_ip: 0,
        ..Config::default()
    }
}
