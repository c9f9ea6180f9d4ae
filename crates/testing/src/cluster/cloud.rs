//! The Redises of a cluster: the primary of each shard, and those that were primaries before.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::truth::{Said, Truth};
use crate::redis::{Redis, Reply, Store};

/// A process of Redis.
pub(super) struct Server {
    pub(super) redis: Redis,
    /// It runs, and answers.
    pub(super) is_up: bool,
    /// The epochs of its rooms.
    epochs: BTreeMap<Bytes, Bytes>,
}

/// All of them; links name them by their places.
pub(super) struct Cloud {
    pub(super) servers: Vec<Server>,
    shards: Vec<Shard>,
    pub(super) truth: Truth,
    /// The first message that should not be.
    pub(super) wrong: Option<String>,
    now_micros: u64,
}

/// One of those among which rooms and sessions are spread.
#[derive(Default)]
struct Shard {
    primary: usize,
    /// What a replica of the primary has.
    replica: Store,
}

/// What a link has a server do.
#[derive(Debug, Clone)]
pub(super) enum Job {
    Script { tag: u64, text: &'static str, keys: Vec<Bytes>, args: Vec<Bytes> },
    Command { tag: u64, args: Vec<Bytes> },
}

impl Cloud {
    pub(super) fn new(shards: usize) -> Cloud {
        let mut cloud = Cloud {
            servers: Vec::new(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            truth: Truth::default(),
            wrong: None,
            now_micros: 0,
        };
        (0..shards).for_each(|shard| cloud.begin(shard, Store::default()));
        cloud
    }

    pub(super) fn set_time(&mut self, now_micros: u64) {
        self.now_micros = now_micros;
        self.servers.iter_mut().for_each(|server| server.redis.set_time(now_micros));
    }

    /// The place of a shard's primary.
    pub(super) fn primary_of(&self, shard: usize) -> usize {
        self.shards[shard].primary
    }

    pub(super) fn primary(&mut self, shard: usize) -> &mut Server {
        &mut self.servers[self.shards[shard].primary]
    }

    /// Looks at what each primary has.
    pub(super) fn look<R>(&self, mut at: impl FnMut(&mut Store) -> R) -> Vec<R> {
        self.shards.iter().map(|shard| self.servers[shard.primary].redis.look(&mut at)).collect()
    }

    /// The replica of a shard has all that its primary has.
    pub(super) fn replicate(&mut self, shard: usize) {
        self.shards[shard].replica = self.primary(shard).redis.snapshot();
    }

    /// The replica becomes the primary. The old one runs on, if that is said, for those who have
    /// not heard of it.
    pub(super) fn promote(&mut self, shard: usize, runs_on: bool) {
        self.primary(shard).is_up = runs_on;
        let store = self.shards[shard].replica.clone();
        self.begin(shard, store);
    }

    /// The primary of a shard is started again, with `store`.
    pub(super) fn restart(&mut self, shard: usize, store: Store) {
        self.primary(shard).is_up = false;
        self.begin(shard, store);
    }

    fn begin(&mut self, shard: usize, store: Store) {
        let mut redis = Redis::new(format!("run-{}", self.servers.len()), store);
        redis.set_time(self.now_micros);
        self.shards[shard].primary = self.servers.len();
        let epochs = BTreeMap::new();
        self.servers.push(Server { redis, is_up: true, epochs });
        self.replicate(shard);
    }

    /// Ends the processes that nobody needs, but for the primaries.
    pub(super) fn end_earlier(&mut self) {
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.is_up = self.shards.iter().any(|shard| shard.primary == index);
        }
    }

    /// Does a job, and returns its answer and what was published.
    pub(super) fn run(&mut self, server: usize, job: &Job) -> (Reply, Vec<(Bytes, Bytes)>) {
        let of = &mut self.servers[server];
        let reply = match job {
            Job::Script { text, keys, args, .. } => of.redis.run_script(text, keys, args),
            Job::Command { args, .. } => of.redis.command(args),
        };
        let published = of.redis.take_published();
        if let Job::Script { keys, .. } = job {
            self.note_epochs(server, keys);
        }
        for (channel, payload) in &published {
            if let Err(wrong) = self.note(channel, payload) {
                self.wrong.get_or_insert(wrong);
            }
        }
        (reply, published)
    }

    fn note_epochs(&mut self, server: usize, keys: &[Bytes]) {
        for key in keys.iter().filter(|key| key.ends_with(b"}:m")) {
            let Some((epoch, elder)) =
                self.servers[server].redis.look(|store| epoch_of(store, key))
            else {
                continue;
            };
            let epochs = &mut self.servers[server].epochs;
            if epochs.insert(key.clone(), epoch.clone()).as_ref() == Some(&epoch) {
                continue;
            }
            let before = elder.split(' ').next().and_then(|one| one.split_once(':'));
            let before = before.and_then(|(of, upto)| Some((of.to_owned(), upto.parse().ok()?)));
            self.truth.begin(room_of(key), &text(&epoch), before);
        }
    }

    fn note(&mut self, channel: &Bytes, payload: &Bytes) -> Result<(), String> {
        if payload.first() != Some(&b'M') || !channel.ends_with(b"}:c") {
            return Ok(());
        }
        let head = payload.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let body = &payload[head.len()..];
        let head = text(&head[1..]);
        let numbered = head.split_once(' ').and_then(|(at, numbers)| {
            let (epoch, seq) = numbers.split(',').nth(at.parse().ok()?)?.split_once(':')?;
            Some((epoch.to_owned(), seq.parse().ok()?))
        });
        let said = Said::find(body);
        let (Some((epoch, seq)), Some(said)) = (numbered, said) else {
            return Err(format!("no message: {}", text(payload)));
        };
        self.truth.add(room_of(channel), &epoch, seq, said)
    }
}

/// The epoch of a room, and those before.
pub(super) fn epoch_of(store: &mut Store, hash: &[u8]) -> Option<(Bytes, String)> {
    let fields = store.find::<BTreeMap<Bytes, Bytes>>(hash).ok()??;
    let elder = fields.get(b"o".as_slice()).map_or(String::new(), |elder| text(elder));
    Some((fields.get(b"e".as_slice())?.clone(), elder))
}

/// The room in the name of a key.
fn room_of(key: &[u8]) -> &str {
    let name = std::str::from_utf8(key).unwrap_or_default();
    name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(room, _)| room)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
