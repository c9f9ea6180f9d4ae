//! A client of a cluster: what it knows, and what it does of its own accord.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    plan::{Plan, ROOMS},
    truth::{Said, Truth},
};
use crate::{
    random::Random,
    simulator::{
        Broken,
        command::{Asked, Command},
        socket::Socket,
        transcript::Transcript,
    },
};

/// Commands that may wait for their answers at once.
const ASKED_MAX: usize = 6;

/// How long a publish is sent again that was not answered: ids are known for longer.
const RETRIED_MS: u64 = 60_000;

/// A room as a member sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// Its life.
    pub epoch: String,
    /// All up to this number is accounted for, but for what the client itself has said.
    pub last: u64,
    /// Where it was joined: what came before may be in a message to several rooms.
    pub joined_at: u64,
    /// What `welcome` repeats, up to this number.
    pub replays_to: u64,
    /// Numbers that a gap was told of. Where messages go to several rooms, they may come later.
    pub told: BTreeSet<u64>,
}

/// What a client is to the servers.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub token: String,
    /// Its rooms.
    pub rooms: BTreeMap<String, View>,
    /// The number of its last direct message.
    pub direct_last: u64,
    /// The next direct message may leave some out.
    pub direct_may_skip: bool,
    /// It may be in other rooms than it knows.
    pub is_unsure: bool,
    /// When the connection was lost.
    pub lost_ms: Option<u64>,
    /// When it began, came back, or changed last: what was not written down yet may be lost.
    pub since_ms: u64,
}

/// A client of a cluster.
pub struct Member {
    /// Its number in the run.
    pub index: usize,
    /// The node that it is connected to.
    pub node: usize,
    /// Its connection.
    pub socket: Option<Socket>,
    /// Its session.
    pub session: Option<Session>,
    /// The session that a connection began with which resumes another.
    pub fresh: Option<Session>,
    /// The connection is about to resume.
    pub is_resuming: bool,
    /// Commands without an answer.
    pub asked: VecDeque<(u64, Asked)>,
    /// Publishes that may not have arrived, and when they were first sent.
    pub retries: Vec<(u64, Asked)>,
    /// When each content with an id was first sent.
    pub first_ms: BTreeMap<u64, u64>,
    /// Positions in rooms that were left.
    pub remembered: BTreeMap<String, (String, u64)>,
    /// The number of its last command or content.
    pub next_number: u64,
    /// It connects again then.
    pub wait_until_ms: u64,
    /// It has asked for the end of its session.
    pub is_leaving: bool,
    /// It stays away.
    pub is_retired: bool,
    /// Resumes that were given up, where a server may come to them late.
    pub has_stray_resume: bool,
    /// The last content of each sender of direct messages.
    pub heard_of: BTreeMap<String, u64>,
    /// The members of rooms, as told by the last answers.
    pub census: BTreeMap<String, Vec<String>>,
}

/// What a client has at hand.
pub struct Scene<'a> {
    /// The run.
    pub plan: &'a Plan,
    /// Milliseconds of simulated time.
    pub now_ms: u64,
    /// Until when what went wrong may be felt.
    pub troubled_until_ms: u64,
    /// When Redis has lost something last.
    pub lost_ms: Option<u64>,
    /// Its node drains.
    pub is_draining: bool,
    /// What Redis has numbered.
    pub truth: &'a Truth,
    /// What is said is written here.
    pub transcript: &'a mut Transcript,
}

impl Scene<'_> {
    /// Whether something may be wrong.
    pub fn is_troubled(&self) -> bool {
        self.now_ms <= self.troubled_until_ms
    }
}

impl Member {
    /// A client that has not connected yet.
    pub fn new(index: usize) -> Member {
        Member {
            index,
            node: 0,
            socket: None,
            session: None,
            fresh: None,
            is_resuming: false,
            asked: VecDeque::new(),
            retries: Vec::new(),
            first_ms: BTreeMap::new(),
            remembered: BTreeMap::new(),
            next_number: 0,
            wait_until_ms: 0,
            is_leaving: false,
            is_retired: false,
            has_stray_resume: false,
            heard_of: BTreeMap::new(),
            census: BTreeMap::new(),
        }
    }

    /// A promise that this client saw broken.
    pub fn broken(&self, promise: &'static str, seen: impl Into<String>) -> Broken {
        Broken { promise, client: Some(self.index), seen: seen.into() }
    }

    /// Whether it is in a session on a connection that works.
    pub fn is_settled(&self) -> bool {
        let is_open = self.socket.as_ref().is_some_and(Socket::is_open);
        is_open && !self.is_leaving && !self.is_resuming && self.session.is_some()
    }

    /// The session that frames are about.
    pub fn current_mut(&mut self) -> Option<&mut Session> {
        if self.is_resuming { self.fresh.as_mut() } else { self.session.as_mut() }
    }

    /// Begins to connect.
    pub fn connect(&mut self, node: usize, mut socket: Socket, scene: &mut Scene<'_>) {
        socket.upgrade(None, None);
        socket.flush(usize::MAX);
        self.is_resuming = self.session.is_some();
        (self.fresh, self.is_leaving, self.node) = (None, false, node);
        let why = if self.is_resuming { " to resume" } else { "" };
        scene.transcript.add(Some(self.index), format!("connects to node {node}{why}"));
        self.socket = Some(socket);
    }

    /// Sends a command with a fresh `ref`.
    pub fn ask(&mut self, asked: Asked, scene: &mut Scene<'_>) {
        let Some(socket) = &mut self.socket else { return };
        self.next_number += 1;
        let reference = self.next_number;
        socket.send(&Command(&asked).text(reference));
        socket.flush(usize::MAX);
        let words = match &asked {
            Asked::Publish { rooms, content, .. } => format!("publish {content} to {rooms:?}"),
            asked => asked.words(),
        };
        scene.transcript.add(Some(self.index), format!("asks {reference}: {words}"));
        self.asked.push_back((reference, asked));
    }

    /// Ends its session.
    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        if let Some(socket) = &mut self.socket {
            socket.close(1000);
            socket.flush(usize::MAX);
            self.is_leaving = true;
            scene.transcript.add(Some(self.index), "leaves".to_owned());
        }
    }

    /// Forgets its session.
    pub fn forget_session(&mut self) {
        (self.session, self.fresh, self.is_resuming) = (None, None, false);
        self.has_stray_resume = false;
        self.retries.clear();
        self.remembered.clear();
        self.heard_of.clear();
    }

    /// Gives its connection up, which the server may not know. Returns what is left of it.
    pub fn lose(&mut self, why: &str, scene: &mut Scene<'_>) -> Option<Socket> {
        let socket = self.socket.take()?;
        scene.transcript.add(Some(self.index), format!("has lost its connection: {why}"));
        self.fresh = None;
        self.has_stray_resume |= self.is_resuming;
        if self.is_leaving {
            self.forget_session();
        }
        let asked = std::mem::take(&mut self.asked);
        if let Some(session) = &mut self.session {
            session.lost_ms.get_or_insert(scene.now_ms);
            session.is_unsure |= asked.iter().any(|(_, asked)| asked.changes_rooms());
            for (_, asked) in asked {
                self.note_retry(asked, scene.now_ms);
            }
        }
        (self.is_resuming, self.is_leaving) = (false, false);
        self.wait_until_ms = scene.now_ms + 50;
        Some(socket)
    }

    /// Remembers to send a publish again that may not have arrived, if it has an id.
    pub fn note_retry(&mut self, asked: Asked, now_ms: u64) {
        let Asked::Publish { content, id: Some(_), .. } = &asked else { return };
        let nth = Said::find(content.as_bytes()).map_or(0, |said| said.nth);
        let first_ms = *self.first_ms.entry(nth).or_insert(now_ms);
        if first_ms + RETRIED_MS > now_ms {
            self.retries.push((first_ms, asked));
        }
    }

    /// Does what comes to mind. `peers` are ids of clients.
    pub fn act(&mut self, random: &mut Random, peers: &[String], scene: &mut Scene<'_>) {
        if self.asked.len() >= ASKED_MAX || !self.is_settled() {
            return;
        }
        if let Some((first_ms, asked)) = self.retries.pop() {
            if first_ms + RETRIED_MS > scene.now_ms {
                self.ask(asked, scene);
            }
            return;
        }
        let Some(session) = &self.session else { return };
        let joined: Vec<String> = session.rooms.keys().cloned().collect();
        let asked = match random.below(20) {
            0..=2 => {
                let room = (*random.one_of(&ROOMS)).to_owned();
                let since = self.remembered.get(&room).filter(|_| random.one_in(2)).cloned();
                Asked::Join { room, since, watch: false }
            }
            3 if !joined.is_empty() => Asked::Leave { room: random.one_of(&joined).clone() },
            4..=13 if !joined.is_empty() => {
                let mut rooms = vec![random.one_of(&joined).clone()];
                if scene.plan.to_many && random.one_in(3) {
                    rooms.push(random.one_of(&joined).clone());
                    rooms.sort();
                    rooms.dedup();
                }
                self.publish(rooms, random.one_in(2), random.one_in(2), random, scene.now_ms)
            }
            14 | 15 if !peers.is_empty() => {
                let said = self.say(true, false);
                Asked::Direct { to: random.one_of(peers).clone(), content: said.content() }
            }
            16 if !joined.is_empty() => {
                Asked::Presence { room: random.one_of(&joined).clone(), watch: None }
            }
            _ => Asked::Ping { padding: 0 },
        };
        self.ask(asked, scene);
    }

    /// A message that nobody else says.
    pub fn publish(
        &mut self,
        rooms: Vec<String>,
        echo: bool,
        has_id: bool,
        random: &mut Random,
        now_ms: u64,
    ) -> Asked {
        let said = self.say(echo, has_id);
        self.first_ms.insert(said.nth, now_ms);
        let bytes = u128::from(random.number()) << 64 | u128::from(random.number());
        let id = uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string();
        Asked::Publish { rooms, echo, id: has_id.then_some(id), content: said.content() }
    }

    fn say(&mut self, echo: bool, has_id: bool) -> Said {
        self.next_number += 1;
        Said { by: self.index, nth: self.next_number, echo, has_id }
    }
}
