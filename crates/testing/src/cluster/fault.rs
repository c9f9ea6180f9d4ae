//! What goes wrong between clients, nodes and Redis.

use std::time::Duration;

use super::{cloud::Cloud, world::Cluster};
use crate::{
    redis::{Refuses, Store},
    simulator::Verdict,
};

/// The longest drain of a node, in milliseconds.
const DRAIN_MS: u64 = 2000;

/// How long a node that ends waits for Redis, as the server has it.
const LEAVE_MS: u64 = 3000;

/// Something that goes wrong now and then.
type Fault = fn(&mut Cluster) -> Verdict;

const FAULTS: [Fault; 15] = [
    Cluster::cut_link,
    Cluster::hold_a_way,
    Cluster::mute,
    Cluster::cut_off,
    Cluster::flush_scripts,
    Cluster::fill,
    Cluster::make_read_only,
    Cluster::evict,
    Cluster::fail_over,
    Cluster::restart_redis,
    Cluster::kill_node,
    Cluster::stop_node,
    Cluster::stall_node,
    Cluster::cut_client,
    Cluster::lose_client,
];

impl Cluster {
    /// Something may go wrong in this step.
    pub(super) fn strike(&mut self) -> Verdict {
        let one_in = self.plan.fault_one_in;
        if self.random.one_in(10) {
            (0..self.plan.shards).for_each(|shard| self.cloud.replicate(shard));
        }
        if one_in > 0 && self.random.one_in(one_in.div_ceil(2)) {
            let fault = *self.random.one_of(&FAULTS);
            fault(self)?;
        }
        Ok(())
    }

    fn any_node(&mut self) -> usize {
        self.random.below(self.nodes.len())
    }

    /// Of several, or the one that there is.
    fn any_shard(&mut self) -> usize {
        if self.plan.shards == 1 { 0 } else { self.random.below(self.plan.shards) }
    }

    fn any_link(&mut self) -> (usize, usize) {
        (self.any_node(), self.any_shard())
    }

    fn any_ms(&mut self, choices: &[u64]) -> u64 {
        *self.random.one_of(choices)
    }

    /// The link of a node breaks. Some of what it asked was done, and is not answered.
    fn cut_link(&mut self) -> Verdict {
        let (at, shard) = self.any_link();
        self.say(format!("the link of node {at} to shard {shard} is cut"));
        self.trouble(1000);
        self.lose_link(at, shard);
        Ok(())
    }

    fn lose_link(&mut self, at: usize, shard: usize) {
        let link = &mut self.nodes[at].links[shard];
        if let Some(stray) = link.cut("it is cut", self.now_ms, &mut self.random) {
            self.leave_stray(stray);
        }
    }

    fn lose_links(&mut self, at: usize) {
        (0..self.plan.shards).for_each(|shard| self.lose_link(at, shard));
    }

    /// What a node asks or hears is late.
    fn hold_a_way(&mut self) -> Verdict {
        let (at, shard) = self.any_link();
        let way = self.random.below(4);
        let ms = self.any_ms(&[100, 500, 1500, 4000]);
        self.say(format!("way {way} of node {at} and shard {shard} is held for {ms} ms"));
        self.trouble(ms);
        self.nodes[at].links[shard].held_until_ms[way] = self.now_ms + ms;
        Ok(())
    }

    /// The subscriptions of a node are silently dead.
    fn mute(&mut self) -> Verdict {
        let (at, shard) = self.any_link();
        self.say(format!("node {at} hears nothing of shard {shard}"));
        self.trouble(10_000);
        self.nodes[at].links[shard].is_mute = true;
        Ok(())
    }

    /// A node cannot reach a Redis for a while.
    fn cut_off(&mut self) -> Verdict {
        let (at, shard) = self.any_link();
        let ms = self.any_ms(&[1000, 2500, 6000, 14_000]);
        self.say(format!("node {at} is cut off from shard {shard} for {ms} ms"));
        self.trouble(ms);
        self.nodes[at].links[shard].cut_until_ms = self.now_ms + ms;
        Ok(())
    }

    fn flush_scripts(&mut self) -> Verdict {
        let shard = self.any_shard();
        self.say(format!("shard {shard} forgets its scripts"));
        // Each node that asks for one makes its link anew.
        self.trouble(1000);
        self.cloud.primary(shard).redis.flush_scripts();
        Ok(())
    }

    /// Redis is full, or has space again.
    fn fill(&mut self) -> Verdict {
        self.refuse(Refuses::Growth)
    }

    /// Redis takes no writes, or takes them again.
    fn make_read_only(&mut self) -> Verdict {
        self.refuse(Refuses::Writes)
    }

    fn refuse(&mut self, what: Refuses) -> Verdict {
        let shard = self.any_shard();
        let redis = &mut self.cloud.primary(shard).redis;
        let is_over = redis.refuses == what;
        redis.refuses = if is_over { Refuses::Nothing } else { what };
        self.say(format!("shard {shard} refuses {what:?}: {}", !is_over));
        self.trouble(5000);
        Ok(())
    }

    /// Redis drops a history.
    fn evict(&mut self) -> Verdict {
        let shard = self.any_shard();
        let streams = self.cloud.primary(shard).redis.look(|store| {
            store.keys().into_iter().filter(|key| key.ends_with(b"}:h")).collect::<Vec<_>>()
        });
        if streams.is_empty() {
            return Ok(());
        }
        let key = self.random.one_of(&streams).clone();
        let name = String::from_utf8_lossy(&key).into_owned();
        let room = name.split(['{', '}']).nth(1).unwrap_or_default();
        self.say(format!("the history of {room} is evicted"));
        self.cloud.primary(shard).redis.look(|store| store.remove(&key));
        Ok(())
    }

    /// A replica becomes the primary, which may lack the last writes.
    fn fail_over(&mut self) -> Verdict {
        if self.plan.to_many {
            return Ok(());
        }
        let is_orderly = !self.plan.loses || self.random.one_in(3);
        let runs_on = !is_orderly && self.random.one_in(2);
        let shard = self.any_shard();
        self.say(format!(
            "a failover of shard {shard}, orderly {is_orderly}, the old one runs on {runs_on}"
        ));
        if is_orderly {
            self.cloud.replicate(shard);
        }
        self.change_server(shard, !is_orderly, |cloud| cloud.promote(shard, runs_on))
    }

    /// Redis is started again.
    fn restart_redis(&mut self) -> Verdict {
        if self.plan.to_many {
            return Ok(());
        }
        let shard = self.any_shard();
        let all = self.cloud.primary(shard).redis.snapshot();
        let what = if self.plan.loses { self.random.below(3) } else { 0 };
        let with = ["whole", "empty", "older"][what];
        self.say(format!("shard {shard} is started again, {with}"));
        self.change_server(shard, what > 0, |cloud: &mut Cloud| match what {
            0 => cloud.restart(shard, all),
            1 => cloud.restart(shard, Store::default()),
            _ => cloud.promote(shard, false),
        })
    }

    fn change_server(
        &mut self,
        shard: usize,
        loses: bool,
        change: impl FnOnce(&mut Cloud),
    ) -> Verdict {
        change(&mut self.cloud);
        self.trouble(8000);
        if loses {
            self.lost_ms = Some(self.now_ms);
        }
        for at in 0..self.nodes.len() {
            let server = self.nodes[at].links[shard].server();
            let is_old = server != Some(self.cloud.primary_of(shard));
            let was_up = server.is_some();
            // The others find it out by themselves, or when they ask where the primary is.
            if is_old && was_up && self.random.one_in(2) {
                self.lose_link(at, shard);
            }
        }
        Ok(())
    }

    /// A node is gone, as with a power cut, and the next one comes later.
    fn kill_node(&mut self) -> Verdict {
        let at = self.any_node();
        if self.nodes[at].server.is_none() {
            return Ok(());
        }
        self.say(format!("node {at} is killed"));
        self.trouble(1000);
        self.lose_links(at);
        self.remove_server(at);
        Ok(())
    }

    fn remove_server(&mut self, at: usize) {
        let ms = self.any_ms(&[0, 500, 3000, 15_000]);
        let node = &mut self.nodes[at];
        node.server = None;
        (node.is_draining, node.begins_at_ms) = (false, self.now_ms + ms);
        for index in 0..self.members.len() {
            if self.members[index].node == at {
                self.with(index, |member, scene| drop(member.lose("its node is gone", scene)));
            }
        }
    }

    /// A node drains and ends, and the next one comes later.
    fn stop_node(&mut self) -> Verdict {
        let at = self.any_node();
        let Some(server) = &mut self.nodes[at].server else { return Ok(()) };
        server.announce_drain();
        server.begin_drain(Duration::from_millis(DRAIN_MS));
        self.nodes[at].is_draining = true;
        self.say(format!("node {at} drains"));
        self.trouble(DRAIN_MS + LEAVE_MS);
        let until_ms = self.now_ms + DRAIN_MS;
        while self.now_ms < until_ms
            && self.nodes[at].server.as_ref().is_some_and(|server| !server.is_drained())
        {
            self.step()?;
        }
        for index in 0..self.members.len() {
            self.read(index)?;
        }
        if let Some(server) = &mut self.nodes[at].server {
            let _ = server.end_drain();
            server.leave_engine();
        }
        let until_ms = self.now_ms + LEAVE_MS;
        self.exchange()?;
        while self.now_ms < until_ms
            && self.nodes[at].server.as_ref().is_some_and(|server| !server.has_engine_left())
        {
            self.step()?;
        }
        for index in 0..self.members.len() {
            self.read(index)?;
        }
        self.say(format!("node {at} has ended"));
        self.lose_links(at);
        self.remove_server(at);
        Ok(())
    }

    /// A node makes no turn for a while.
    fn stall_node(&mut self) -> Verdict {
        let at = self.any_node();
        let ms = self.any_ms(&[200, 1000, 4000]);
        self.say(format!("node {at} is stalled for {ms} ms"));
        self.trouble(ms);
        self.nodes[at].stalled_until_ms = self.now_ms + ms;
        Ok(())
    }

    /// The connection of a client is reset.
    fn cut_client(&mut self) -> Verdict {
        let index = self.random.below(self.members.len());
        self.with(index, |member, scene| {
            if let Some(mut socket) = member.lose("it is cut", scene) {
                socket.reset();
            }
        });
        Ok(())
    }

    /// A client has lost its connection, and the server does not know.
    fn lose_client(&mut self) -> Verdict {
        let index = self.random.below(self.members.len());
        self.with(index, |member, scene| drop(member.lose("only the client knows", scene)));
        Ok(())
    }
}
