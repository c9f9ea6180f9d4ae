//! The server, its clients and the network between them, and one step of all of it.

use std::time::{Duration, SystemTime};

use rusty_socks::{
    Config, ErrorKind, Server, Snapshot, chat::Chat, config::MemoryMax, stepped::SteppedServer,
};
use tempfile::TempDir;

use super::{
    client::{Broken, Client, Scene, Seen, Verdict},
    command::Asked,
    hostile::Hostile,
    plan::{Plan, ROOMS, pace},
    report::Report,
    socket::{Heard, Socket},
    tokens::{BEGAN_S, RULED, Revoked, Token},
    transcript::Transcript,
};
use crate::random::Random;

/// Clients that do something in one step: one in so many, and one more.
const ACTORS_ONE_IN: usize = 40;

/// Clients that share a user.
const CLIENTS_PER_USER: usize = 3;

/// Everything there is in a run.
pub struct World {
    /// What the run is like.
    pub plan: Plan,
    /// The server.
    pub server: SteppedServer,
    /// Those who keep the protocol.
    pub clients: Vec<Client>,
    /// Those who do not.
    pub hostile: Vec<Hostile>,
    /// Milliseconds of simulated time.
    pub now_ms: u64,
    /// The step that is made.
    pub step: u64,
    /// For each worker, the step before which it makes no turn.
    pub stalled: Vec<u64>,
    /// What was said.
    pub transcript: Transcript,
    /// What clients saw since the invariants were last held.
    pub seen: Vec<(usize, Seen)>,
    /// Text messages that clients heard.
    pub heard: u64,
    /// Turns of workers.
    pub turns: u64,
    /// What the server closes connections with, if it drains.
    pub drain: Option<u16>,
    /// The server has ended, and the next one has not begun.
    pub is_gone: bool,
    /// Milliseconds in which absences did not count, from one server to the next.
    pub stood_still_ms: u64,
    /// Until when sessions may be there that no client knows of, in milliseconds in which absences
    /// count: a restart cut them off before their welcome was read.
    pub strangers_until_ms: u64,
    /// The moments up to which tokens of users are revoked.
    pub revoked: Revoked,
    /// The connections and those in line that there were at the last reload: bounds that are
    /// lowered close nobody.
    pub held_at_reload: (usize, usize),
    /// How far turns come, if they may take long.
    pace: Option<Random>,
    /// Where servers leave their snapshots.
    _directory: Option<TempDir>,
}

impl World {
    /// A server that nobody has connected to yet.
    ///
    /// # Panics
    /// The settings are not legal, or there is no place for a snapshot.
    pub fn new(mut plan: Plan) -> World {
        let directory = plan.leaves_snapshot.then(|| tempfile::tempdir().expect("a directory"));
        if let Some(directory) = &directory {
            plan.config.snapshot = directory.path().join("state").display().to_string();
        }
        let server = server(&plan, 0);
        // Where everyone may come without a token, one in two does.
        let has_user = |index: &usize| plan.requires_identity() || index.is_multiple_of(2);
        let user = |index: usize| {
            let of_user = Some(index).filter(|index| plan.has_identity() && has_user(index));
            of_user.map(|index| format!("u{}", index / CLIENTS_PER_USER))
        };
        let token = |index| plan.has_identity().then(|| Token::of_hostile(index));
        World {
            clients: (0..plan.clients).map(|index| Client::new(index, user(index))).collect(),
            hostile: (0..plan.hostile).map(|index| Hostile::new(index, token(index))).collect(),
            stalled: vec![0; server.workers()],
            pace: plan.is_slow.then(|| pace(plan.seed)),
            server,
            plan,
            now_ms: 0,
            step: 0,
            transcript: Transcript::default(),
            seen: Vec::new(),
            heard: 0,
            turns: 0,
            drain: None,
            is_gone: false,
            stood_still_ms: 0,
            strangers_until_ms: 0,
            revoked: Revoked::new(),
            held_at_reload: (0, 0),
            _directory: directory,
        }
    }

    /// Every gauge and counter of the server.
    pub fn stats(&self) -> Snapshot {
        self.server.handle().stats()
    }

    /// How many connections the server has ended, or has found ended.
    pub fn closes(&self) -> u64 {
        self.stats().closed.values().sum()
    }

    /// Notes that a step begins.
    pub fn begin_step(&mut self, step: u64) {
        self.step = step;
        self.transcript.step = step;
    }

    /// A few clients do something, a few workers make a turn, a few clients hear of it.
    pub fn step(&mut self, random: &mut Random) -> Verdict {
        self.pass(random.below(4) as u64);
        for _ in 0..=self.clients.len() / ACTORS_ONE_IN {
            let index = random.below(self.clients.len());
            self.act(index, random);
        }
        for index in 0..self.hostile.len() {
            if random.one_in(ACTORS_ONE_IN) {
                self.hostile[index].act(&mut self.server, random);
            }
        }
        if let Some(pace) = &mut self.pace {
            self.server.limit_turns(1 << pace.below(6));
        }
        for worker in shuffled(self.server.workers(), random) {
            if !random.one_in(4) && self.stalled[worker] <= self.step {
                self.turns += u64::from(self.server.turn_of(worker));
            }
        }
        for index in 0..self.clients.len() {
            let Some(socket) = &mut self.clients[index].socket else { continue };
            if socket.holds_back() && random.one_in(2) {
                socket.flush(1 + random.below(64));
            }
            if random.one_in(if socket.is_slow() { 30 } else { 2 }) {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, index: usize, random: &mut Random) {
        if self.clients[index].socket.is_none() {
            let flushed = if random.one_in(4) { 20 } else { usize::MAX };
            return self.connect(index, flushed, random);
        }
        let peers: Vec<String> = (0..4)
            .filter_map(|_| {
                let peer = &self.clients[random.below(self.clients.len())];
                peer.session.as_ref().map(|session| session.client_id.clone())
            })
            .collect();
        let leaves = random.one_in(60);
        self.with(index, |client, scene| {
            if !client.is_settled() {
                return;
            }
            match leaves {
                true => client.leave(scene),
                false => client.act(random, &peers, scene),
            }
            let Some(socket) = &mut client.socket else { return };
            if !random.one_in(4) || scene.plan.is_calm() {
                socket.flush(usize::MAX);
            }
        });
    }

    /// Has a client connect, and send so many bytes at once.
    pub(super) fn connect(&mut self, index: usize, flushed: usize, random: &mut Random) {
        let client = &self.clients[index];
        if client.is_retired || client.wait_until_ms > self.now_ms {
            return;
        }
        match self.server.connect() {
            Ok(wire) => {
                let socket = Socket::new(wire);
                self.with(index, |client, scene| client.connect(socket, random, scene));
                if let Some(socket) = &mut self.clients[index].socket {
                    socket.flush(flushed);
                }
            }
            Err(error) => {
                debug_assert!(self.drain.is_some() || error.kind() == ErrorKind::Overloaded);
                self.transcript.add(Some(index), "finds no place to connect".to_owned());
                self.clients[index].wait_until_ms = self.now_ms + 100;
            }
        }
    }

    /// Lets a client hear what has come. Returns whether anything had.
    pub(super) fn read(&mut self, index: usize) -> Result<bool, Broken> {
        let Some(socket) = &mut self.clients[index].socket else { return Ok(false) };
        let all = socket.read();
        let is_any = !all.is_empty();
        for heard in all {
            self.heard += u64::from(matches!(heard, Heard::Text(_)));
            self.with(index, |client, scene| match client.socket {
                Some(_) => client.hear(heard, scene),
                None => Ok(()),
            })?;
        }
        Ok(is_any)
    }

    /// Runs `change` on one client with what it needs.
    pub fn with<R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Client, &mut Scene<'_>) -> R,
    ) -> R {
        let mut seen = Vec::new();
        let mut scene = Scene {
            plan: &self.plan,
            now_ms: self.now_ms,
            drain: self.drain,
            is_gone: self.is_gone,
            revoked: &self.revoked,
            transcript: &mut self.transcript,
            seen: &mut seen,
        };
        let result = change(&mut self.clients[index], &mut scene);
        self.seen.extend(seen.into_iter().map(|seen| (index, seen)));
        result
    }

    /// Lets a little time pass.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.server.advance(Duration::from_millis(ms));
    }

    /// Gives the server other settings.
    ///
    /// # Errors
    /// It does not take them.
    pub fn reload(&mut self, config: Config, what: &str) -> Verdict {
        self.transcript.add(None, format!("takes other settings: {what}"));
        let stats = self.stats();
        self.held_at_reload = (stats.active_connections, stats.queued);
        let outcome = self.server.handle().reload(&config);
        let promise = "a server that runs takes settings that are legal";
        let broken = |seen: String| Err(Broken { promise, client: None, seen });
        match outcome {
            Err(error) => return broken(error.to_string()),
            Ok(reloaded) if !reloaded.needs_restart.is_empty() => {
                return broken(format!("{:?} need a restart", reloaded.needs_restart));
            }
            Ok(_) => {}
        }
        self.plan.was_tight |= config.memory_max != MemoryMax::Off;
        let before = std::mem::replace(&mut self.plan.config, config);
        for client in &mut self.clients {
            client.was_allowed |= client.is_allowed_by(&before);
        }
        self.plan.earlier.push(before);
        // Patterns do not join the rooms that their clients may be in, or have a place for, only
        // now.
        for client in &mut self.clients {
            let is_settled = client.is_settled();
            let Some(session) = &mut client.session else { continue };
            // Whoever reads nothing does not learn that it was taken out of rooms.
            session.is_unsure |= what == RULED && !is_settled;
            session.was_full |= what == RULED || what == "max_rooms_per_conn";
        }
        Ok(())
    }

    /// Lets so much time pass at once that connections may be lost over it.
    pub fn jump(&mut self, ms: u64) {
        self.transcript.add(None, format!("time jumps by {ms} ms"));
        self.pass(ms);
        self.clients.iter_mut().for_each(|client| client.was_delayed = true);
    }

    /// Gives every client that keeps the protocol a good network.
    pub fn open_windows(&mut self) {
        for socket in self.clients.iter_mut().filter_map(|client| client.socket.as_mut()) {
            if socket.is_slow() {
                socket.set_window(None);
            }
        }
    }

    /// One turn of each worker that would make one, and all clients hear of it. Returns whether
    /// anything happened.
    pub fn round(&mut self, random: &mut Random) -> Result<bool, Broken> {
        let mut is_busy = false;
        for client in &mut self.clients {
            if let Some(socket) = client.socket.as_mut().filter(|socket| socket.holds_back()) {
                socket.flush(usize::MAX);
                is_busy = true;
            }
        }
        for worker in shuffled(self.server.workers(), random) {
            if self.server.turn_of(worker) {
                self.turns += 1;
                is_busy = true;
            }
        }
        for index in 0..self.clients.len() {
            is_busy |= self.read(index)?;
        }
        Ok(is_busy)
    }

    /// Whether a client on a connection that works waits for an answer.
    pub fn has_unanswered(&self) -> bool {
        self.clients.iter().any(|client| client.is_settled() && !client.asked.is_empty())
    }

    /// Has members ask who is in their rooms.
    pub fn ask_who_is_there(&mut self, rooms: usize, random: &mut Random) {
        for _ in 0..rooms {
            let room = *random.one_of(&ROOMS);
            let start = random.below(self.clients.len());
            let all = self.clients.len();
            let is_member = |index: &usize| {
                let client = &self.clients[*index];
                let session = client.session.as_ref().filter(|_| client.is_settled());
                session.is_some_and(|session| session.rooms.contains_key(room))
            };
            let Some(index) = (0..all).map(|at| (start + at) % all).find(is_member) else {
                continue;
            };
            let asked = Asked::Presence { room: room.to_owned(), watch: None };
            self.with(index, |client, scene| client.ask(asked, scene));
        }
    }

    /// Everyone goes, each in its way, and nobody comes back.
    pub fn leave(&mut self) {
        self.begin_step(self.step + 1);
        for index in 0..self.clients.len() {
            self.clients[index].is_retired = true;
            self.with(index, |client, scene| match client.is_settled() && index % 3 > 0 {
                true => client.leave(scene),
                false => {
                    if let Some(mut socket) = client.lose("it resets", scene) {
                        socket.reset();
                    }
                }
            });
        }
        self.hostile.iter_mut().for_each(Hostile::reset);
    }

    /// What came of the run.
    pub fn report(self, broken: Option<Broken>) -> Report {
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
                let of_client = self.transcript.last(broken.client, 40);
                format!("{of_client} and everyone:\n{}", self.transcript.last(None, 30))
            }),
            broken,
        }
    }
}

/// Makes a server of a plan, at a moment of simulated time.
pub(super) fn server(plan: &Plan, now_ms: u64) -> SteppedServer {
    let chat = Chat::new(&plan.config).expect("a legal default room");
    let builder = Server::builder().route("/ws", chat).config(plan.config.clone());
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGAN_S);
    builder.stepped_at(began + Duration::from_millis(now_ms)).expect("a legal plan")
}

fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, random.below(at + 1));
    }
    order
}
