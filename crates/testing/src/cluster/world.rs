//! The servers, their links, Redis and the clients, and one step of all of it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rusty_socks::{Server, chat::Chat, stepped::SteppedServer};

use super::{
    cloud::Cloud,
    link::{Link, Stray},
    member::{Member, Scene},
    plan::Plan,
};
use crate::{
    random::Random,
    simulator::{Broken, Report, Verdict, socket::Socket, transcript::Transcript},
};

/// The time since 1970 at which each run begins, in milliseconds.
const BEGAN_MS: u64 = 1_800_000_000_000;

/// How long it may take until all is well when nothing is wrong any more: a node that hears nothing
/// notices it, finds Redis and subscribes anew.
pub(super) const RECOVERY_MS: u64 = 15_000;

/// A server, and its links to the shards.
pub(super) struct Node {
    /// `None` while it is down.
    pub(super) server: Option<SteppedServer>,
    pub(super) links: Vec<Link>,
    pub(super) is_draining: bool,
    /// When the next one begins in its place.
    pub(super) begins_at_ms: u64,
    /// It makes no turn before.
    pub(super) stalled_until_ms: u64,
}

/// One run.
pub struct Cluster {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    pub(super) cloud: Cloud,
    pub(super) members: Vec<Member>,
    pub(super) now_ms: u64,
    pub(super) troubled_until_ms: u64,
    /// When Redis has lost something last that it had answered.
    pub(super) lost_ms: Option<u64>,
    /// What is left of connections, which Redis may come to late.
    pub(super) strays: Vec<(u64, Stray)>,
    pub(super) transcript: Transcript,
    step: u64,
    turns: u64,
    heard: u64,
    /// The moments at which servers began, each another one.
    last_began_ms: u64,
}

impl Cluster {
    /// Makes the servers and the clients of a run.
    pub fn new(plan: Plan) -> Cluster {
        let mut cluster = Cluster {
            random: Random::new(plan.seed ^ 0x7171_7171),
            nodes: Vec::new(),
            cloud: Cloud::new(plan.shards),
            members: (0..plan.clients).map(Member::new).collect(),
            now_ms: 0,
            troubled_until_ms: RECOVERY_MS,
            lost_ms: None,
            strays: Vec::new(),
            transcript: Transcript::default(),
            step: 0,
            turns: 0,
            heard: 0,
            last_began_ms: BEGAN_MS,
            plan,
        };
        for _ in 0..cluster.plan.nodes {
            let node = Node {
                server: Some(cluster.begin_server()),
                links: cluster.begin_links(),
                is_draining: false,
                begins_at_ms: 0,
                stalled_until_ms: 0,
            };
            cluster.nodes.push(node);
        }
        cluster.pass(0);
        cluster
    }

    /// Runs to the end, or to the first promise that is broken.
    pub fn run(mut self) -> Report {
        let broken = self.play().err();
        Report {
            seed: self.plan.seed,
            clients: self.plan.clients,
            step: self.step,
            simulated: Duration::from_millis(self.now_ms),
            turns: self.turns,
            heard: self.heard,
            kinds: self.transcript.heard().clone(),
            hash: self.transcript.hash(),
            last: broken.as_ref().map_or(String::new(), |broken| {
                let of_client = self.transcript.last(broken.client, 60);
                format!("{of_client} and everyone:\n{}", self.transcript.last(None, 40))
            }),
            broken,
        }
    }

    fn play(&mut self) -> Verdict {
        for step in 1..=self.plan.steps {
            (self.step, self.transcript.step) = (step, step);
            self.strike()?;
            self.step()?;
            if step % self.plan.rest_every == 0 {
                self.rest()?;
            }
        }
        self.rest()?;
        self.end()
    }

    fn begin_server(&mut self) -> SteppedServer {
        let config = self.plan.config.clone();
        let chat = Chat::new(&config).expect("a legal default room");
        // Each at another time, so that they count their clients differently.
        self.last_began_ms = (self.last_began_ms + 1).max(BEGAN_MS + self.now_ms);
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.last_began_ms);
        let builder = Server::builder().route("/ws", chat).config(config);
        builder.stepped_at(time).expect("a legal plan")
    }

    fn begin_links(&self) -> Vec<Link> {
        (0..self.plan.shards).map(Link::new).collect()
    }

    /// Notes that something is wrong for so long.
    pub(super) fn trouble(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms + RECOVERY_MS;
        self.troubled_until_ms = self.troubled_until_ms.max(until_ms);
    }

    /// Writes down what befalls all.
    pub(super) fn say(&mut self, line: String) {
        self.transcript.add(None, line);
    }

    /// Lets a little time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.cloud.set_time((BEGAN_MS + self.now_ms) * 1000);
        for node in &mut self.nodes {
            if let Some(server) = &mut node.server {
                server.advance(Duration::from_millis(ms));
            }
        }
    }

    /// A few clients do something, the nodes make turns, Redis works, a few clients hear of it.
    pub(super) fn step(&mut self) -> Verdict {
        let ms = self.random.below(20) as u64;
        self.pass(ms);
        self.begin_servers();
        for _ in 0..=self.members.len() / 6 {
            let index = self.random.below(self.members.len());
            self.act(index);
        }
        self.turn_all(4);
        self.exchange()?;
        for index in 0..self.members.len() {
            if self.random.one_in(2) {
                self.read(index)?;
            }
        }
        Ok(())
    }

    /// Servers begin whose time has come.
    pub(super) fn begin_servers(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].server.is_none() && self.nodes[index].begins_at_ms <= self.now_ms {
                let server = self.begin_server();
                self.nodes[index].server = Some(server);
                self.nodes[index].links = self.begin_links();
                self.say(format!("node {index} begins"));
            }
        }
    }

    fn act(&mut self, index: usize) {
        if self.members[index].socket.is_none() {
            return self.connect(index);
        }
        let peers: Vec<String> = (0..3)
            .filter_map(|_| {
                let peer = &self.members[self.random.below(self.members.len())];
                peer.session.as_ref().map(|session| session.client_id.clone())
            })
            .collect();
        let leaves = self.random.one_in(200);
        let mut random = Random::new(self.random.number());
        self.with(index, |member, scene| match leaves && member.is_settled() {
            true => member.leave(scene),
            false => member.act(&mut random, &peers, scene),
        });
    }

    /// Has a client connect to any node that lets it in.
    pub(super) fn connect(&mut self, index: usize) {
        let member = &self.members[index];
        if member.is_retired || member.wait_until_ms > self.now_ms {
            return;
        }
        let at = self.random.below(self.nodes.len());
        let node = &mut self.nodes[at];
        let Some(server) = node.server.as_mut().filter(|_| !node.is_draining) else { return };
        if let Ok(wire) = server.connect() {
            self.with(index, |member, scene| member.connect(at, Socket::new(wire), scene));
        }
    }

    /// One turn of the workers of all nodes, but for one in so many. Returns whether one was made.
    pub(super) fn turn_all(&mut self, but_one_in: usize) -> bool {
        let mut is_busy = false;
        for node in &mut self.nodes {
            let Some(server) = &mut node.server else { continue };
            if node.stalled_until_ms > self.now_ms {
                continue;
            }
            for worker in 0..server.workers() {
                if (but_one_in == 0 || !self.random.one_in(but_one_in)) && server.turn_of(worker) {
                    self.turns += 1;
                    is_busy = true;
                }
            }
        }
        is_busy
    }

    /// Links carry what is due, and engines make a turn.
    pub(super) fn exchange(&mut self) -> Verdict {
        let now_ms = self.now_ms;
        let mut published = Vec::new();
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let Some(server) = &mut node.server else { continue };
            if node.stalled_until_ms > now_ms {
                continue;
            }
            let (mut given_up, mut heard) = (Vec::new(), Vec::new());
            for (shard, link) in node.links.iter_mut().enumerate() {
                let random = &mut self.random;
                given_up.extend(link.step(now_ms, &mut self.cloud, random, &mut published));
                self.strays.retain(|(_, stray)| !link.has_ended(stray));
                heard.extend(link.events().into_iter().map(|event| (shard, event)));
            }
            for (shard, order) in server.turn_of_engine(heard) {
                node.links[shard].order(order, now_ms, &mut self.random);
            }
            while let Some((shard, why)) = server.useless_link_of_engine() {
                given_up.extend(node.links[shard].cut(&why, now_ms, &mut self.random));
            }
            for stray in given_up {
                self.say(format!("node {at} gives up a link"));
                self.leave_stray(stray);
            }
            self.spread(std::mem::take(&mut published));
        }
        let due: Vec<_> = self.strays.extract_if(.., |(due_ms, _)| *due_ms <= now_ms).collect();
        for (_, stray) in due {
            self.say(format!("Redis comes to {} jobs of a lost connection", stray.jobs.len()));
            self.run_stray(stray);
        }
        match self.cloud.wrong.take() {
            None => Ok(()),
            Some(seen) => {
                Err(Broken { promise: "Redis numbers each message once", client: None, seen })
            }
        }
    }

    /// Redis does what is left of a connection, and nobody hears the answers.
    pub(super) fn run_stray(&mut self, stray: Stray) {
        if !self.cloud.servers[stray.server].is_up {
            return;
        }
        let mut published = Vec::new();
        for job in &stray.jobs {
            let (_, said) = self.cloud.run(stray.server, job);
            published.extend(said.into_iter().map(|(of, what)| (stray.server, of, what)));
        }
        self.spread(published);
    }

    /// What is left of a connection is done at once, or a part of it, or later, or never.
    pub(super) fn leave_stray(&mut self, mut stray: Stray) {
        let done = self.random.below(stray.jobs.len() + 1);
        let rest = stray.split(done);
        self.run_stray(stray);
        if self.plan.comes_late && self.random.one_in(4) && !rest.jobs.is_empty() {
            let due_ms = self.now_ms + self.random.below(1500) as u64;
            self.strays.push((due_ms, rest));
        }
    }

    fn spread(&mut self, published: Vec<(usize, Bytes, Bytes)>) {
        for (server, channel, payload) in published {
            for node in self.nodes.iter_mut().filter(|node| node.server.is_some()) {
                for link in &mut node.links {
                    link.publish(server, &channel, &payload, self.now_ms, &mut self.random);
                }
            }
        }
    }

    /// Lets a client hear what has come. Returns whether anything had.
    pub(super) fn read(&mut self, index: usize) -> Result<bool, Broken> {
        let Some(socket) = &mut self.members[index].socket else { return Ok(false) };
        let all = socket.read();
        let is_any = !all.is_empty();
        for heard in all {
            self.heard += 1;
            self.with(index, |member, scene| match member.socket {
                Some(_) => member.hear(heard, scene),
                None => Ok(()),
            })?;
        }
        Ok(is_any)
    }

    /// Runs `change` on one client with what it needs.
    pub(super) fn with<R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Member, &mut Scene<'_>) -> R,
    ) -> R {
        let member = &mut self.members[index];
        let mut scene = Scene {
            plan: &self.plan,
            now_ms: self.now_ms,
            troubled_until_ms: self.troubled_until_ms,
            lost_ms: self.lost_ms,
            is_draining: self.nodes[member.node].is_draining,
            truth: &self.cloud.truth,
            transcript: &mut self.transcript,
        };
        change(member, &mut scene)
    }
}
