//! What must be true when everything is mended and time has passed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    cloud::epoch_of,
    hear::UNTOLD,
    link::Link,
    plan::{PREFIX, ROOMS},
    world::{Cluster, RECOVERY_MS},
};
use crate::{
    random::Random,
    redis::Refuses,
    simulator::{Broken, Verdict, command::Asked},
};

/// The lease of a node, and how often sessions are ended that nobody has taken up, in milliseconds.
const LEASE_MS: u64 = 10_000 + 2500 + 1000;

/// Time that passes at once while all comes to rest.
const TICK_MS: u64 = 50;

/// Rounds in which everything that is under way must be over.
const ROUNDS_MAX: usize = 2000;

fn broken(promise: &'static str, seen: String) -> Verdict {
    Err(Broken { promise, client: None, seen })
}

impl Cluster {
    /// Mends everything, lets time pass until nobody is away any more, and looks.
    pub(super) fn rest(&mut self) -> Verdict {
        self.mend();
        let timeout_ms = self.plan.config.timeout.as_millis() as u64;
        self.calm(RECOVERY_MS + self.plan.window_ms() + timeout_ms + LEASE_MS)?;
        self.probe()?;
        self.check_members()?;
        self.check_presence()?;
        self.check_sessions()
    }

    /// Everybody goes, and nothing is left.
    pub(super) fn end(&mut self) -> Verdict {
        for index in 0..self.members.len() {
            self.members[index].is_retired = true;
            self.with(index, |member, scene| match index % 3 > 0 {
                true => member.leave(scene),
                false => {
                    if let Some(mut socket) = member.lose("it resets", scene) {
                        socket.reset();
                    }
                    member.forget_session();
                }
            });
        }
        self.calm(self.plan.window_ms() + LEASE_MS + 5000)?;
        self.check_presence()?;
        self.check_sessions()?;
        for node in &self.nodes {
            let Some(server) = &node.server else { continue };
            let stats = server.handle().stats();
            let left = [
                ("connections", server.connections()),
                ("active_connections", stats.active_connections),
                ("sessions", stats.sessions),
                ("sessions_away", stats.sessions_away),
                ("inbox_bytes", stats.inbox_bytes),
                ("outbox_bytes", stats.outbox_bytes),
                ("session_bytes", stats.session_bytes),
            ];
            let left: Vec<_> = left.iter().filter(|(_, count)| *count > 0).collect();
            if !left.is_empty() {
                return broken("nothing is left when everybody has gone", format!("{left:?}"));
            }
        }
        Ok(())
    }

    fn mend(&mut self) {
        self.say("all is mended".to_owned());
        for node in &mut self.nodes {
            node.begins_at_ms = self.now_ms;
            node.stalled_until_ms = 0;
            for link in &mut node.links {
                (link.held_until_ms, link.cut_until_ms) = ([0; 4], 0);
            }
        }
        for shard in 0..self.plan.shards {
            self.cloud.primary(shard).redis.refuses = Refuses::Nothing;
        }
        for (_, stray) in std::mem::take(&mut self.strays) {
            self.run_stray(stray);
        }
        self.cloud.end_earlier();
        self.trouble(0);
    }

    /// Lets so much time pass, in which everybody connects and everything arrives.
    fn calm(&mut self, ms: u64) -> Verdict {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.pass(TICK_MS);
            self.begin_servers();
            for index in 0..self.members.len() {
                if self.members[index].socket.is_none() {
                    self.connect(index);
                }
            }
            self.round()?;
        }
        for _ in 0..ROUNDS_MAX {
            let is_busy = self.round()?;
            let is_quiet = self.links().all(Link::is_quiet);
            let is_asking = self.members.iter().any(|member| !member.asked.is_empty());
            if !is_busy && is_quiet && !is_asking {
                return Ok(());
            }
            self.pass(1);
        }
        let asked: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| Some((member.index, member.asked.front()?.1.words())))
            .collect();
        let up: Vec<_> = self.links().map(Link::server).collect();
        broken("a cluster that is asked nothing comes to rest", format!("{asked:?}, {up:?}"))
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.nodes.iter().flat_map(|node| &node.links)
    }

    fn round(&mut self) -> Result<bool, Broken> {
        let mut is_busy = false;
        for _ in 0..20 {
            let mut is_any = self.turn_all(0);
            self.exchange()?;
            // What a link has brought is for the workers.
            is_any |= self.turn_all(0);
            for index in 0..self.members.len() {
                is_any |= self.read(index)?;
            }
            is_busy |= is_any;
            if !is_any {
                break;
            }
        }
        Ok(is_busy)
    }

    /// Everybody says something in each room, and asks who is there.
    fn probe(&mut self) -> Verdict {
        for index in 0..self.members.len() {
            let mut random = Random::new(self.random.number());
            let seen = self.with(index, |member, scene| {
                let Some(session) = member.session.as_ref().filter(|_| member.is_settled()) else {
                    return Some("it is not".to_owned());
                };
                let rooms: Vec<String> = session.rooms.keys().cloned().collect();
                // Its own retries are not to be answered as repeats of these.
                member.census.clear();
                for room in rooms {
                    let asked =
                        member.publish(vec![room.clone()], true, true, &mut random, scene.now_ms);
                    member.ask(asked, scene);
                    member.ask(Asked::Presence { room, watch: None }, scene);
                }
                None
            });
            if let Some(seen) = seen {
                let promise = "everybody is connected when nothing is wrong";
                return Err(Broken { promise, client: Some(index), seen });
            }
        }
        self.calm(500)
    }

    /// Each member is at the head of its rooms.
    fn check_members(&mut self) -> Verdict {
        for member in &self.members {
            let Some(session) = &member.session else { continue };
            for (room, view) in &session.rooms {
                let key = format!("{PREFIX}:{{{room}}}:m");
                let at = self.cloud.look(|store| {
                    let epoch = epoch_of(store, key.as_bytes())?.0;
                    let hash = store.find::<BTreeMap<Bytes, Bytes>>(key.as_bytes()).ok()??;
                    let seq = std::str::from_utf8(hash.get(b"s".as_slice())?).ok()?.parse().ok()?;
                    Some((String::from_utf8_lossy(&epoch).into_owned(), seq))
                });
                let wrong =
                    |promise, seen| Err(Broken { promise, client: Some(member.index), seen });
                let at: Vec<(String, u64)> = at.into_iter().flatten().collect();
                let [(epoch, head)] = &at[..] else {
                    return wrong("a room with members exists once", format!("{room}: {at:?}"));
                };
                let head = *head;
                if *epoch != view.epoch {
                    let seen = format!("{room}: {epoch} is not {}", view.epoch);
                    return wrong("a room has one epoch at a time", seen);
                }
                let truth = &self.cloud.truth;
                if view.hole(room, head + 1, member.index, truth).is_some() || view.last > head {
                    return wrong(
                        UNTOLD,
                        format!("{room} is at {head}, a member at {}", view.last),
                    );
                }
            }
        }
        Ok(())
    }

    /// Presence is exact, in Redis and for each member.
    fn check_presence(&mut self) -> Verdict {
        for room in ROOMS {
            let there: BTreeSet<String> = self
                .members
                .iter()
                .filter_map(|member| member.session.as_ref())
                .filter(|session| session.rooms.contains_key(room))
                .map(|session| session.client_id.clone())
                .collect();
            let key = format!("{PREFIX}:{{{room}}}:p");
            let kept = self.cloud.look(|store| {
                let hash = store.find::<BTreeMap<Bytes, Bytes>>(key.as_bytes());
                let hash = hash.ok().flatten();
                let ids = hash.into_iter().flatten();
                let text = |client| String::from_utf8_lossy(client).into_owned();
                ids.map(|(client, _)| text(client)).collect::<BTreeSet<_>>()
            });
            let kept: BTreeSet<String> = kept.into_iter().flatten().collect();
            let mut told = vec![(None, kept)];
            for member in self.members.iter().filter(|member| member.is_settled()) {
                if let Some(census) = member.census.get(room) {
                    told.push((Some(member.index), census.iter().cloned().collect()));
                }
            }
            for (client, known) in told {
                if known != there {
                    let name = |id: &String| {
                        let has_it = |member: &&super::Member| {
                            member.session.as_ref().is_some_and(|of| of.client_id == *id)
                        };
                        let member = self.members.iter().find(has_it);
                        member.map_or("nobody".to_owned(), |member| member.index.to_string())
                    };
                    let gone: Vec<_> = known.difference(&there).map(name).collect();
                    let missing: Vec<_> = there.difference(&known).map(name).collect();
                    return Err(Broken {
                        promise: "presence is exact",
                        client,
                        seen: format!("{room}: listed {gone:?}, not listed {missing:?}"),
                    });
                }
            }
        }
        Ok(())
    }

    /// Redis has the sessions of those who are there, each on its node, and each node has its own.
    fn check_sessions(&mut self) -> Verdict {
        let known: BTreeSet<String> = self
            .members
            .iter()
            .filter_map(|member| Some(member.session.as_ref()?.client_id.clone()))
            .collect();
        let prefix = format!("{PREFIX}:s:");
        let kept = self.cloud.look(|store| {
            let mut kept = BTreeMap::new();
            for key in store.keys() {
                let name = String::from_utf8_lossy(&key).into_owned();
                let id = name.strip_prefix(&prefix).filter(|id| !id.contains(':'));
                let hash = store.find::<BTreeMap<Bytes, Bytes>>(&key);
                let (Some(id), Ok(Some(hash))) = (id, hash) else { continue };
                // Its fence alone is there for a while where it has moved and ended, and in a shard
                // that had nothing of it when it moved.
                if hash.keys().any(|field| !matches!(&field[..], b"f" | b"t")) {
                    let is_whole = hash.get(&b"p"[..]).is_some_and(|path| !path.is_empty());
                    kept.insert(id.to_owned(), (is_whole, format!("{hash:?}")));
                }
            }
            kept
        });
        let is_missing = |id: &&String| {
            let whole = |kept: &&BTreeMap<_, _>| matches!(kept.get(*id), Some((true, _)));
            kept.iter().filter(whole).count() != 1
        };
        let missing: Vec<_> = known.iter().filter(is_missing).collect();
        let left = kept.iter().enumerate().flat_map(|(shard, kept)| {
            let left = kept.iter().filter(|(id, _)| !known.contains(*id));
            left.map(move |(id, (_, hash))| format!("{id} in shard {shard}: {hash}"))
        });
        let left: Vec<_> = left.collect();
        if !missing.is_empty() || !left.is_empty() {
            let seen = format!("missing {missing:?}, left {left:#?}");
            return broken("Redis has the sessions that there are", seen);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(server) = &node.server else { continue };
            let stats = server.handle().stats();
            let of_node =
                self.members.iter().filter(|member| member.socket.is_some() && member.node == at);
            let count = of_node.count();
            if (stats.sessions, stats.sessions_away) != (count, 0) {
                let seen = format!(
                    "node {at} has {} sessions, {} away, for {count} clients",
                    stats.sessions, stats.sessions_away
                );
                return broken("a session is in one place", seen);
            }
        }
        Ok(())
    }
}
