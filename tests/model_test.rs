//! Many clients on real sockets join, leave, publish, stall, vanish and resume, and a model of what
//! each of them must have got: in every room each number once and in order, from where it joined to
//! where it left, apart from what it was told that it missed.
//!
//! Every message is published with an id and repeated until it is answered, so that the answers and
//! what anybody got are together all that there is: in the end each room must be whole. `TEST_SEED`
//! plays a run again as far as threads allow, and `MODEL_SECONDS` makes it longer.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::ErrorKind,
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{
    Config,
    config::{Overflow, RoomRule},
};
use serde_json::{Value, json};
use support::{
    DEADLINE, TestServer, config,
    sessions::{Numbers, number, text},
};
use tungstenite::{Error, Message, WebSocket};
use uuid::Uuid;

/// Publishes and direct messages of one client that are not answered yet. Fewer than the server
/// remembers ids for, so that repeating them is safe.
const PENDING_MAX: usize = 60;

/// A life of a room.
type Room = (String, String);

/// What a run is like.
struct Run {
    name: &'static str,
    config: Config,
    clients: usize,
    /// Clients may come too late for their session.
    may_expire: bool,
    /// The largest padding of a message.
    padding: u64,
}

fn small(name: &'static str) -> Run {
    let rule =
        |pattern: &str, overflow| RoomRule { overflow: Some(overflow), ..RoomRule::new(pattern) };
    let config = Config {
        thread_pool_size: 3,
        resume_window: Duration::from_secs(120),
        max_errors: 0,
        replay: 0,
        default_room: String::new(),
        history: 2000,
        history_bytes: 4 << 20,
        rooms: vec![
            rule("g.*", Overflow::Gap),
            rule("l.*", Overflow::Latest),
            rule("p.g.*", Overflow::Gap),
        ],
        ..config()
    };
    Run { name, config, clients: 10, may_expire: false, padding: 2000 }
}

#[test]
fn with_room_for_everything() {
    run(small("with_room_for_everything"));
}

#[test]
fn with_small_outboxes() {
    let mut run_ = small("with_small_outboxes");
    run_.config.buffer = 24;
    run_.config.buffer_bytes = 130 << 10;
    run_.config.max_message_bytes = 64 << 10;
    run_.padding = 40_000;
    run(run_);
}

#[test]
fn with_little_history_and_small_mailboxes() {
    let mut run_ = small("with_little_history_and_small_mailboxes");
    run_.config.history = 20;
    run_.config.history_bytes = 40_000;
    run_.config.inbox = 5;
    run_.config.mailbox = 64;
    run(run_);
}

#[test]
fn with_sessions_that_run_out() {
    let mut run_ = small("with_sessions_that_run_out");
    run_.config.resume_window = Duration::from_millis(300);
    run_.config.max_away_sessions = 4;
    run_.may_expire = true;
    run(run_);
}

/// What all clients saw, put together.
#[derive(Default)]
struct Truth {
    /// Who said what stands at a number: the id of the message.
    rooms: BTreeMap<Room, BTreeMap<u64, (String, usize)>>,
    /// Messages that nobody knows whether they were published.
    unknown: usize,
    claims: Vec<Claim>,
    /// The bytes of each message that was published, as its sender said it.
    sent: BTreeMap<String, usize>,
    direct_sent: BTreeMap<String, String>,
    direct_got: BTreeMap<(String, u64), String>,
    /// Sessions that are there in the end, so that everything must have reached them.
    alive: BTreeSet<String>,
    totals: BTreeMap<&'static str, u64>,
}

/// What the server adds to a message at most: the numbers, the time and the sender.
const ADDED_BYTES: usize = 256;

/// That something was not recovered, which must be for want of space.
#[derive(Debug)]
struct Claim {
    room: Room,
    after: u64,
    until: u64,
    /// What the same answer held for other rooms, in bytes.
    beside: usize,
}

/// What one client thinks of one room.
#[derive(Debug, Clone)]
struct Place {
    epoch: String,
    /// Everything up to here was seen, was its own, or was told to be missing.
    seq: u64,
    /// Its own messages beyond that.
    own: BTreeSet<u64>,
    /// Where it joined: what is not beyond that may come with a message of several rooms.
    joined_at: u64,
    overflow: String,
}

impl Place {
    fn of(part: &Value) -> Place {
        let seq = number(&part["seq"]);
        Place {
            epoch: text(&part["epoch"]),
            seq,
            own: BTreeSet::new(),
            joined_at: seq,
            overflow: text(&part["overflow"]),
        }
    }

    /// Passes over its own messages; the next number that must come.
    fn next(&mut self) -> u64 {
        while self.own.remove(&(self.seq + 1)) {
            self.seq += 1;
        }
        self.seq + 1
    }

    fn reach(&mut self, seq: u64) {
        self.seq = seq;
        self.own.retain(|own| *own > seq);
        self.next();
    }
}

/// A message that is on its way until it is answered.
#[derive(Clone)]
struct Pending {
    id: String,
    frame: String,
    /// The rooms and their epochs when it was first said; empty for a direct message.
    rooms: Vec<Room>,
    to: String,
    echo: bool,
    /// Not to be said again before this.
    due: Option<Instant>,
}

struct Client {
    server: Arc<TestServer>,
    random: Numbers,
    wire: Option<WebSocket<TcpStream>>,
    /// Half open connections, which nobody looks at.
    vanished: Vec<WebSocket<TcpStream>>,
    id: String,
    session: String,
    /// Rooms that it is in, and rooms of which it does not know whether it is.
    rooms: BTreeMap<String, Place>,
    unsure: BTreeSet<String>,
    patterns: BTreeSet<String>,
    unsure_patterns: BTreeSet<String>,
    pending: BTreeMap<u64, Pending>,
    /// What was read while something was written.
    unhandled: VecDeque<Value>,
    next_ref: u64,
    direct_seq: u64,
    padding: u64,
    truth: Truth,
    /// The last frames, for whoever looks at a failure.
    trace: VecDeque<String>,
    /// Own messages that came though they were not to be echoed.
    late_own: u64,
    everyone: Arc<Mutex<BTreeSet<String>>>,
}

/// A frame without its padding, and not too much of it.
fn shorten(frame: &str) -> String {
    let parts: Vec<&str> = frame.split("\"padding\":\"").collect();
    let cut = parts.iter().map(|part| part.trim_start_matches('x'));
    cut.collect::<Vec<_>>().join("~").chars().take(500).collect()
}

impl Client {
    fn new(
        server: &Arc<TestServer>,
        random: Numbers,
        padding: u64,
        everyone: &Arc<Mutex<BTreeSet<String>>>,
    ) -> Client {
        Client {
            server: Arc::clone(server),
            random,
            wire: None,
            vanished: Vec::new(),
            id: String::new(),
            session: String::new(),
            rooms: BTreeMap::new(),
            unsure: BTreeSet::new(),
            patterns: BTreeSet::new(),
            unsure_patterns: BTreeSet::new(),
            pending: BTreeMap::new(),
            unhandled: VecDeque::new(),
            next_ref: 0,
            direct_seq: 0,
            padding,
            truth: Truth::default(),
            trace: VecDeque::new(),
            late_own: 0,
            everyone: Arc::clone(everyone),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.truth.totals.entry(what).or_default() += 1;
    }

    fn note(&mut self, line: String) {
        if self.trace.len() == 60 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    // ---- the wire ----

    fn connect(&mut self) -> WebSocket<TcpStream> {
        let wire = self.server.connect("/ws").socket;
        let stream = wire.get_ref();
        stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        if self.random.chance(50) {
            // So that a stall is felt by the server soon. Less than two of the loopback's segments
            // would have the kernels wait for each other.
            socket2::SockRef::from(stream).set_recv_buffer_size(128 << 10).unwrap();
        }
        wire
    }

    fn say(&mut self, frame: &str) {
        self.note(format!("→ {}", shorten(frame)));
        let Some(wire) = &mut self.wire else { return };
        let mut result = wire.write(Message::text(frame));
        let end = Instant::now() + DEADLINE;
        loop {
            match result {
                Ok(()) => {}
                Err(Error::Io(ref error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    // The server reads nothing while it is not read.
                    if let Some(frame) = self.receive() {
                        self.unhandled.push_back(frame);
                    }
                }
                Err(_) => return self.lost("a write failed"),
            }
            assert!(Instant::now() < end, "the server reads nothing");
            let Some(wire) = &mut self.wire else { return };
            result = wire.flush();
            if result.is_ok() {
                return;
            }
        }
    }

    fn lost(&mut self, why: &str) {
        self.note(format!("-- lost: {why}"));
        self.wire = None;
        // What was read before is as good as lost, too.
        self.unhandled.clear();
        self.count("lost");
    }

    /// The next frame, if there is one within a moment.
    fn read(&mut self) -> Option<Value> {
        match self.unhandled.pop_front() {
            Some(frame) => Some(frame),
            None => self.receive(),
        }
    }

    fn receive(&mut self) -> Option<Value> {
        let result = self.wire.as_mut()?.read();
        match result {
            Ok(Message::Text(text)) => {
                self.note(format!("← {}", shorten(text.as_str())));
                Some(serde_json::from_str(text.as_str()).unwrap())
            }
            Ok(Message::Close(frame)) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                assert_eq!(code, 4102, "the one reason for which the server closes here");
                self.count("slow");
                self.lost("4102");
                None
            }
            Ok(_) => None,
            Err(Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                None
            }
            Err(error) => {
                // Where the server has closed it, what it said last may be lost to a reset.
                self.lost(&error.to_string());
                None
            }
        }
    }

    /// Handles what comes, until nothing has come for a moment.
    fn pump(&mut self) {
        while let Some(frame) = self.read() {
            self.handle(&frame);
        }
    }

    /// Asks, and waits for the answer, which `then` is given before anything that comes behind it
    /// is looked at. `None` when the connection is lost on the way.
    fn ask_then(
        &mut self,
        mut command: Value,
        then: impl FnOnce(&mut Client, &Value),
    ) -> Option<Value> {
        self.next_ref += 1;
        let reference = self.next_ref;
        command["ref"] = json!(reference);
        self.say(&command.to_string());
        let end = Instant::now() + DEADLINE;
        while self.wire.is_some() {
            if let Some(frame) = self.read() {
                if frame["ref"] == reference {
                    then(self, &frame);
                    return Some(frame);
                }
                self.handle(&frame);
            }
            assert!(Instant::now() < end, "no answer to {command}");
        }
        None
    }

    fn ask(&mut self, command: Value) -> Option<Value> {
        self.ask_then(command, |_, _| ())
    }

    // ---- what comes ----

    fn handle(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "message" => self.on_message(frame),
            "direct" => self.on_direct(frame),
            "gap" => self.on_gap(frame),
            "matched" => {
                let room = text(&frame["room"]);
                assert!(self.patterns.contains(frame["pattern"].as_str().unwrap()), "{frame}");
                let place = Place::of(frame);
                assert_eq!(place.seq, 0, "a new room");
                let before = self.rooms.insert(room, place);
                assert!(before.is_none(), "matched where it is: {frame}");
                self.count("matched");
            }
            "ok" | "error" => self.on_answer(frame),
            other => panic!("{other}"),
        }
    }

    fn record(&mut self, room: &str, epoch: &str, seq: u64, id: &str, bytes: usize) {
        let room = (room.to_owned(), epoch.to_owned());
        let numbers = self.truth.rooms.entry(room.clone()).or_default();
        let known = numbers.entry(seq).or_insert_with(|| (id.to_owned(), bytes));
        assert_eq!(known.0, id, "{room:?} {seq} is two messages");
        known.1 = known.1.max(bytes);
    }

    /// The rooms and numbers of a message.
    fn parts(message: &Value) -> Vec<(String, u64)> {
        let part = |part: &Value| (text(&part["room"]), number(&part["seq"]));
        match message["rooms"].as_array() {
            Some(rooms) => rooms.iter().map(part).collect(),
            None => vec![part(message)],
        }
    }

    fn on_message(&mut self, message: &Value) {
        self.count("messages");
        let parts = Client::parts(message);
        let (id, bytes) = (text(&message["id"]), message.to_string().len());
        let is_mine = message["client_id"] == self.id.as_str();
        let is_echo = message["content"]["echo"] == true;
        let is_late = is_mine && !is_echo;
        self.late_own += u64::from(is_late);
        let is_joint = parts.len() > 1;
        let mut is_mine_to_have = false;
        for (room, seq) in parts {
            let Some(place) = self.rooms.get_mut(&room) else { continue };
            is_mine_to_have = true;
            let epoch = place.epoch.clone();
            let before_it_joined = is_joint && seq <= place.joined_at;
            let next = place.next();
            if seq == next {
                place.reach(seq);
            } else {
                assert!(
                    before_it_joined || is_late && seq < next,
                    "{room}: {next} was to come, and {seq} came; {place:?}"
                );
            }
            self.record(&room, &epoch, seq, &id, bytes);
        }
        assert!(is_mine_to_have, "of rooms that it is not in: {}", shorten(&message.to_string()));
    }

    fn on_direct(&mut self, message: &Value) {
        self.count("directs");
        let seq = number(&message["seq"]);
        assert_eq!(seq, self.direct_seq + 1, "{message}");
        self.direct_seq = seq;
        let known = self.truth.direct_got.insert((self.id.clone(), seq), text(&message["id"]));
        assert_eq!(known, None);
    }

    fn on_gap(&mut self, gap: &Value) {
        self.count("gaps");
        let (from, to) = (number(&gap["from"]), number(&gap["to"]));
        let place = self.rooms.get_mut(gap["room"].as_str().unwrap()).unwrap();
        assert_ne!(place.overflow, "close", "{gap}");
        let next = place.next();
        assert!(from == next && to >= from, "{next} was to come: {gap}");
        place.reach(to);
    }

    fn on_answer(&mut self, answer: &Value) {
        let reference = number(&answer["ref"]);
        let Some(pending) = self.pending.get_mut(&reference) else {
            panic!("nobody asked: {answer}");
        };
        if answer["type"] == "error" {
            match answer["code"].as_str().unwrap() {
                "overloaded" => {
                    pending.due = Some(Instant::now() + Duration::from_millis(5));
                    self.count("overloaded");
                }
                "limit_exceeded" | "not_found" if pending.rooms.is_empty() => {
                    self.pending.remove(&reference);
                    self.count("directs refused");
                }
                _ => panic!("{answer}"),
            }
            return;
        }
        let pending = self.pending.remove(&reference).unwrap();
        assert_eq!(answer["id"], pending.id.as_str());
        if answer["repeated"] == true {
            self.count("repeated");
        }
        if pending.rooms.is_empty() {
            self.truth.direct_sent.insert(pending.id, pending.to);
            return;
        }
        self.count("published");
        let parts = Client::parts(answer);
        assert_eq!(parts.len(), pending.rooms.len());
        for ((name, seq), room) in parts.into_iter().zip(pending.rooms) {
            assert_eq!(name, room.0, "{answer}");
            self.truth.sent.insert(pending.id.clone(), pending.frame.len());
            self.record(&name, &room.1, seq, &pending.id, 0);
            if let Some(place) = self.rooms.get_mut(&name)
                && place.epoch == room.1
                && !pending.echo
                && seq > place.seq
            {
                place.own.insert(seq);
                place.next();
            }
        }
    }

    // ---- coming back ----

    fn begin_anew(&mut self) {
        // What was not answered may have been published or not.
        self.truth.unknown += self.pending.len();
        self.pending.clear();
        self.rooms.clear();
        self.patterns.clear();
        self.unsure.clear();
        self.unsure_patterns.clear();
        self.direct_seq = 0;
        if !self.id.is_empty() {
            self.everyone.lock().unwrap().remove(&self.id);
        }
        self.count("begun anew");
    }

    fn welcome(&mut self, welcome: &Value) {
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        self.id = text(&welcome["client_id"]);
        self.session = text(&welcome["session"]);
        self.everyone.lock().unwrap().insert(self.id.clone());
    }

    /// Waits for a frame, whatever it is.
    fn wait(&mut self) -> Option<Value> {
        let end = Instant::now() + DEADLINE;
        while self.wire.is_some() {
            if let Some(frame) = self.read() {
                return Some(frame);
            }
            assert!(Instant::now() < end, "nothing comes");
        }
        None
    }

    /// Connects, with its session if it has one, until it is there.
    fn come_back(&mut self, may_expire: bool) {
        while self.wire.is_none() {
            let wire = self.connect();
            self.wire = Some(wire);
            if self.session.is_empty() {
                if let Some(welcome) = self.wait() {
                    self.welcome(&welcome);
                }
                continue;
            }
            self.resume(may_expire);
        }
    }

    fn is_unsure(&self, room: &str) -> bool {
        let is_of = |pattern: &String| {
            let stem = pattern.strip_suffix('*').unwrap();
            room.len() > stem.len() && room.starts_with(stem)
        };
        self.unsure.contains(room) || self.unsure_patterns.iter().any(is_of)
    }

    fn resume(&mut self, may_expire: bool) {
        let names: Vec<String> = self.rooms.keys().cloned().collect();
        for name in names {
            self.rooms.get_mut(&name).unwrap().next();
        }
        let listed: Vec<(String, Place)> = self
            .rooms
            .iter()
            .filter(|(room, _)| !self.is_unsure(room))
            .map(|(room, place)| (room.clone(), place.clone()))
            .collect();
        let places: Vec<Value> = listed
            .iter()
            .map(|(room, place)| json!({"room": room, "epoch": place.epoch, "seq": place.seq}))
            .collect();
        let direct_before = self.direct_seq;
        let frame = json!({
            "type": "resume", "session": self.session, "rooms": places, "ref": 0,
            "direct": direct_before,
        });
        self.say(&frame.to_string());
        let mut welcome = Value::Null;
        let answer = loop {
            let Some(frame) = self.wait() else { return };
            match frame["ref"] == 0 {
                true => break frame,
                false if frame["type"] == "welcome" => welcome = frame,
                false => {}
            }
        };
        if answer["type"] == "error" {
            assert_eq!(answer["code"], "unrecoverable", "{answer}");
            assert!(may_expire, "its time cannot be over");
            self.begin_anew();
            self.welcome(&welcome);
            return;
        }
        self.count("resumed");
        assert_eq!(
            (&answer["client_id"], &answer["session"]),
            (&json!(self.id), &json!(self.session))
        );
        self.take_rooms(&answer, &listed);
        let direct = &answer["direct"];
        if direct["recovered"] == true {
            // They come next, one by one.
            assert!(number(&direct["seq"]) >= direct_before);
        } else {
            self.count("directs lost");
            let kept = self.server_keeps_directs();
            assert!(number(&direct["seq"]) - direct_before > kept, "{answer}");
            self.direct_seq = number(&direct["seq"]) - kept;
        }
        // Said again, in the order in which it was first said.
        let again: Vec<String> =
            self.pending.values().map(|pending| pending.frame.clone()).collect();
        again.iter().for_each(|frame| self.say(frame));
    }

    /// Direct messages that are kept for one session.
    fn server_keeps_directs(&self) -> u64 {
        self.truth.totals["inbox"]
    }

    fn take_rooms(&mut self, answer: &Value, listed: &[(String, Place)]) {
        let rooms = answer["rooms"].as_array().unwrap();
        let patterns: BTreeSet<String> =
            answer["patterns"].as_array().unwrap().iter().map(text).collect();
        for pattern in self.patterns.symmetric_difference(&patterns) {
            assert!(self.unsure_patterns.contains(pattern), "{pattern}");
        }
        self.patterns = patterns;
        let mut recovered_bytes = BTreeMap::new();
        for part in rooms {
            let bytes: usize = part["messages"]
                .as_array()
                .unwrap()
                .iter()
                // A frame is a few bytes longer than its text.
                .map(|message| message.to_string().len() + 10)
                .sum();
            recovered_bytes.insert(text(&part["room"]), bytes);
        }
        let total: usize = recovered_bytes.values().sum();
        let before = std::mem::take(&mut self.rooms);
        for part in rooms {
            let name = text(&part["room"]);
            let mut place = Place::of(part);
            let seq = place.seq;
            let known = listed.iter().find(|(room, _)| *room == name).map(|(_, place)| place);
            if let Some(known) = known {
                assert_eq!(known.epoch, place.epoch, "a room lives while somebody is in it");
            } else {
                let is_new = self.patterns.iter().any(|pattern| {
                    let stem = pattern.strip_suffix('*').unwrap();
                    name.len() > stem.len() && name.starts_with(stem)
                });
                assert!(is_new || self.is_unsure(&name), "{name} came out of nowhere");
            }
            let messages = part["messages"].as_array().unwrap();
            if part["recovered"] == true {
                let from = known.map_or(0, |known| known.seq);
                assert_eq!(
                    messages.len() as u64,
                    seq - from,
                    "{name}: all of it from {from} to {seq}"
                );
                for (message, expected) in messages.iter().zip(from + 1..) {
                    let parts = Client::parts(message);
                    assert!(
                        parts.contains(&(name.clone(), expected)),
                        "{name} {expected}: {parts:?}"
                    );
                    let id = text(&message["id"]);
                    let bytes = message.to_string().len();
                    self.record(&name, &place.epoch.clone(), expected, &id, bytes);
                }
                self.count("rooms recovered");
            } else {
                assert!(messages.is_empty(), "{part}");
                if let Some(known) = known {
                    assert!(known.seq < seq, "{name}: nothing was missed since {seq}");
                    let claim = Claim {
                        room: (name.clone(), place.epoch.clone()),
                        after: known.seq,
                        until: seq,
                        beside: total - recovered_bytes[&name],
                    };
                    self.truth.claims.push(claim);
                    self.count("rooms not recovered");
                } else if seq > 0 && !before.contains_key(&name) && !self.is_unsure(&name) {
                    self.count("new rooms not recovered");
                }
            }
            if let Some(known) = known {
                place.own.clone_from(&known.own);
                place.joined_at = known.joined_at;
            }
            // A message of several rooms may have been on its way when this was answered.
            place.joined_at = place.joined_at.max(seq);
            place.reach(seq);
            self.rooms.insert(name, place);
        }
        for name in before.keys() {
            let is_there = self.rooms.contains_key(name);
            assert!(is_there || self.is_unsure(name), "{name} is not there any more");
        }
        self.unsure.clear();
        self.unsure_patterns.clear();
    }

    // ---- what it does ----

    fn step(&mut self, may_expire: bool) {
        self.come_back(may_expire);
        self.pump();
        if self.wire.is_none() {
            return;
        }
        self.say_what_is_due();
        match self.random.below(100) {
            0..=54 => self.publish(),
            55..=61 => self.direct(),
            62..=71 => self.join(),
            72..=77 => self.leave(),
            78..=80 => self.join_pattern(),
            81..=82 => self.leave_pattern(),
            83..=86 => self.look_back(),
            87..=88 => {
                // A stall: whatever comes waits.
                let span = Duration::from_millis(self.random.below(400));
                thread::park_timeout(span);
                self.count("stalls");
            }
            89..=94 => self.vanish(may_expire),
            95 if may_expire && self.random.chance(30) => self.go(),
            _ => self.pump(),
        }
    }

    fn any_room(&mut self) -> String {
        const NAMES: [&str; 12] = [
            "a", "b", "g.a", "g.b", "l.a", "l.b", "p.0", "p.1", "p.g.0", "p.g.1", "p.q.0", "p.q.1",
        ];
        NAMES[self.random.below(NAMES.len() as u64) as usize].to_owned()
    }

    fn own_rooms(&mut self, max: u64) -> Vec<String> {
        let mut names: Vec<String> = self.rooms.keys().cloned().collect();
        let wanted = 1 + self.random.below(max) as usize;
        while names.len() > wanted {
            let at = self.random.below(names.len() as u64) as usize;
            names.swap_remove(at);
        }
        names
    }

    fn publish(&mut self) {
        for _ in 0..=self.random.below(6) {
            let rooms = match self.random.chance(25) {
                true => self.own_rooms(4),
                false => self.own_rooms(1),
            };
            if rooms.is_empty() || self.pending.len() >= PENDING_MAX || self.wire.is_none() {
                return;
            }
            let id = Uuid::new_v4().to_string();
            let echo = self.random.chance(15);
            let padding = "x".repeat(self.random.below(self.padding + 1) as usize);
            self.next_ref += 1;
            let mut frame = json!({
                "type": "publish", "id": id, "ref": self.next_ref, "echo": echo,
                "content": {"echo": echo, "padding": padding},
            });
            if rooms.len() == 1 {
                frame["room"] = json!(rooms[0]);
            } else {
                frame["rooms"] = json!(rooms);
            }
            let rooms =
                rooms.into_iter().map(|room| (room.clone(), self.rooms[&room].epoch.clone()));
            let pending = Pending {
                id,
                frame: frame.to_string(),
                rooms: rooms.collect(),
                to: String::new(),
                echo,
                due: None,
            };
            self.pending.insert(self.next_ref, pending);
            self.say(&frame.to_string());
        }
    }

    fn direct(&mut self) {
        let everyone: Vec<String> = self.everyone.lock().unwrap().iter().cloned().collect();
        if self.pending.len() >= PENDING_MAX {
            return;
        }
        let to = everyone[self.random.below(everyone.len() as u64) as usize].clone();
        let id = Uuid::new_v4().to_string();
        self.next_ref += 1;
        let frame =
            json!({"type": "direct", "to": to, "id": id, "content": 1, "ref": self.next_ref});
        let frame = frame.to_string();
        let pending =
            Pending { id, frame: frame.clone(), rooms: vec![], to, echo: false, due: None };
        self.pending.insert(self.next_ref, pending);
        self.say(&frame);
    }

    fn say_what_is_due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for pending in self.pending.values_mut() {
            if pending.due.is_some_and(|due| due <= now) {
                pending.due = None;
                due.push(pending.frame.clone());
            }
        }
        due.iter().for_each(|frame| self.say(frame));
    }

    /// Nothing may be under way to a room that is left, because it would be refused then.
    fn finish_pending(&mut self) {
        let end = Instant::now() + DEADLINE;
        while !self.pending.is_empty() && self.wire.is_some() {
            self.pump();
            self.say_what_is_due();
            assert!(Instant::now() < end, "{} are not answered", self.pending.len());
        }
    }

    fn join(&mut self) {
        let room = self.any_room();
        if self.rooms.contains_key(&room) {
            return;
        }
        self.unsure.insert(room.clone());
        self.ask_then(json!({"type": "join", "room": room}), |client, answer| {
            client.unsure.remove(&room);
            if answer["type"] == "error" {
                // It was matched while it asked.
                assert_eq!(answer["code"], "already_member", "{answer}");
                return;
            }
            let before = client.rooms.insert(room, Place::of(answer));
            assert!(before.is_none(), "{answer}");
        });
    }

    fn leave(&mut self) {
        let Some(room) = self.own_rooms(1).pop() else { return };
        self.finish_pending();
        if self.wire.is_none() || !self.rooms.contains_key(&room) {
            return;
        }
        self.unsure.insert(room.clone());
        // What comes before the answer is still for it.
        self.ask_then(json!({"type": "leave", "room": room}), |client, answer| {
            assert_eq!(answer["type"], "ok", "{answer}");
            client.rooms.remove(&room);
            client.unsure.remove(&room);
        });
    }

    fn join_pattern(&mut self) {
        let pattern = ["p.*", "p.g.*", "p.q.*", "g.*"][self.random.below(4) as usize].to_owned();
        if self.patterns.contains(&pattern) {
            return;
        }
        self.unsure_patterns.insert(pattern.clone());
        self.ask_then(json!({"type": "join", "room": pattern}), |client, answer| {
            assert_eq!(answer["type"], "ok", "{answer}");
            for part in answer["rooms"].as_array().unwrap() {
                let before = client.rooms.insert(text(&part["room"]), Place::of(part));
                assert!(before.is_none(), "{answer}");
            }
            client.unsure_patterns.remove(&pattern);
            client.patterns.insert(pattern);
            client.count("patterns");
        });
    }

    fn leave_pattern(&mut self) {
        let Some(pattern) = self.patterns.first().cloned() else { return };
        self.finish_pending();
        if self.wire.is_none() || !self.patterns.contains(&pattern) {
            return;
        }
        // Which of its rooms came by it is what the server knows, so it leaves all that match
        // before.
        let stem = pattern.strip_suffix('*').unwrap().to_owned();
        self.unsure_patterns.insert(pattern.clone());
        for room in
            self.rooms.keys().filter(|room| room.starts_with(&stem)).cloned().collect::<Vec<_>>()
        {
            self.ask_then(json!({"type": "leave", "room": room}), |client, answer| {
                assert_eq!(answer["type"], "ok", "{answer}");
                client.rooms.remove(&room);
            });
            if self.wire.is_none() {
                return;
            }
        }
        self.ask_then(json!({"type": "leave", "room": pattern}), |client, answer| {
            assert_eq!(answer["type"], "ok", "{answer}");
            client.patterns.remove(&pattern);
            client.unsure_patterns.remove(&pattern);
            // Those that were matched meanwhile went with it, unless another pattern has them as
            // well.
            let others: Vec<String> = client.patterns.iter().cloned().collect();
            client.rooms.retain(|room, _| {
                let is_below =
                    |pattern: &String| room.starts_with(pattern.strip_suffix('*').unwrap());
                !room.starts_with(&stem) || others.iter().any(is_below)
            });
        });
    }

    /// Looks at a page of what a room keeps, which must be what everybody knows.
    fn look_back(&mut self) {
        let Some(name) = self.own_rooms(1).pop() else { return };
        let limit = 1 + self.random.below(30);
        let place = self.rooms[&name].clone();
        let mut command = json!({"type": "history", "room": name, "limit": limit});
        if self.random.chance(60) {
            command["after"] = json!(place.seq.saturating_sub(self.random.below(60)));
        }
        let Some(page) = self.ask(command) else { return };
        if page["type"] == "error" {
            panic!("{page}");
        }
        assert_eq!(page["epoch"], place.epoch.as_str());
        let messages = page["messages"].as_array().unwrap();
        assert!(messages.len() as u64 <= limit);
        let mut last = None;
        for message in messages {
            let parts = Client::parts(message);
            let (_, seq) = *parts.iter().find(|(room, _)| *room == name).as_ref().unwrap();
            assert!(last.is_none_or(|last| *seq == last + 1), "{page}");
            last = Some(*seq);
            let (id, bytes) = (text(&message["id"]), message.to_string().len());
            self.record(&name, &place.epoch, *seq, &id, bytes);
        }
    }

    /// Is cut off in one way or another, and comes back sooner or later.
    fn vanish(&mut self, may_expire: bool) {
        let Some(wire) = self.wire.take() else { return };
        self.unhandled.clear();
        match self.random.below(4) {
            0 => {
                self.note("-- reset".into());
                let socket = socket2::SockRef::from(wire.get_ref());
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
            1 => {
                self.note("-- end".into());
                let _ = wire.get_ref().shutdown(std::net::Shutdown::Both);
            }
            2 => {
                self.note("-- end of one direction".into());
                let _ = wire.get_ref().shutdown(std::net::Shutdown::Write);
                self.vanished.push(wire);
            }
            _ => {
                self.note("-- vanished".into());
                self.vanished.push(wire);
            }
        }
        if self.vanished.len() > 3 {
            self.vanished.remove(0);
        }
        self.count("vanished");
        let away = match self.random.below(10) {
            0..=3 => 0,
            4..=8 => self.random.below(150),
            _ if may_expire => 1000 + self.random.below(1000),
            _ => self.random.below(600),
        };
        thread::park_timeout(Duration::from_millis(away));
    }

    /// Ends its session, and begins another one.
    fn go(&mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        self.unhandled.clear();
        let _ = wire.close(None);
        let _ = wire.flush();
        self.begin_anew();
        self.id.clear();
        self.session.clear();
        drop(wire);
    }

    // ---- the end ----

    /// Has everything of its own answered.
    fn finish(&mut self, may_expire: bool) {
        loop {
            self.come_back(may_expire);
            self.finish_pending();
            if self.wire.is_some() && self.pending.is_empty() {
                return;
            }
        }
    }

    /// Nobody publishes any more: gets what is left, and is then where each of its rooms is.
    fn settle(&mut self, may_expire: bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            self.come_back(may_expire);
            let names: Vec<String> = self.rooms.keys().cloned().collect();
            let mut behind = Vec::new();
            for name in names {
                let Some(page) = self.ask(json!({"type": "history", "room": name, "limit": 0}))
                else {
                    break;
                };
                self.pump();
                let Some(place) = self.rooms.get_mut(&name) else { break };
                place.next();
                if page["seq"] != place.seq {
                    behind.push(format!("{name}: {place:?}, the room is at {}", page["seq"]));
                }
            }
            if behind.is_empty() && self.wire.is_some() {
                break;
            }
            assert!(Instant::now() < end, "the tail is lost: {behind:?}");
        }
        for place in self.rooms.values() {
            assert!(place.own.is_empty(), "{place:?}");
        }
        self.truth.alive.insert(self.id.clone());
    }
}

/// Where all clients meet, unless one has failed.
#[derive(Default)]
struct Meeting {
    arrived: AtomicUsize,
    failed: AtomicBool,
}

impl Meeting {
    /// `false` when somebody has failed.
    fn join(&self, client: &mut Client, clients: usize, may_expire: bool) -> bool {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let end = Instant::now() + 3 * DEADLINE;
        while self.arrived.load(Ordering::SeqCst) < clients {
            if self.failed.load(Ordering::SeqCst) {
                return false;
            }
            assert!(Instant::now() < end, "the others do not come");
            client.come_back(may_expire);
            client.finish_pending();
            client.pump();
        }
        true
    }
}

fn run(run: Run) {
    let seconds: f64 =
        std::env::var("MODEL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let mut random = Numbers::seeded(run.name);
    // As much as fits an outbox behind everything else that a resume brings.
    let inbox = run.config.inbox.min(run.config.buffer / 4) as u64;
    let (may_expire, clients) = (run.may_expire, run.clients);
    let (history, history_bytes) = (run.config.history, run.config.history_bytes);
    let page_bytes = run.config.buffer_bytes / 2;
    let server = Arc::new(TestServer::start(run.config));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let meetings = Arc::new([Meeting::default(), Meeting::default()]);
    let everyone = Arc::new(Mutex::new(BTreeSet::new()));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = Client::new(&server, random.split(), run.padding, &everyone);
            let meetings = Arc::clone(&meetings);
            client.truth.totals.insert("inbox", inbox);
            thread::spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    while Instant::now() < end && !meetings[0].failed.load(Ordering::SeqCst) {
                        client.step(may_expire);
                    }
                    client.finish(may_expire);
                    if meetings[0].join(&mut client, clients, may_expire) {
                        client.settle(may_expire);
                        meetings[1].join(&mut client, clients, may_expire);
                        client.pump();
                    }
                }));
                if outcome.is_err() {
                    meetings
                        .iter()
                        .for_each(|meeting| meeting.failed.store(true, Ordering::SeqCst));
                    let trace: Vec<String> = client.trace.drain(..).collect();
                    println!("---- client {} ----\n{}", client.id, trace.join("\n"));
                }
                (outcome, client.truth, client.late_own)
            })
        })
        .collect();
    let mut whole = Truth::default();
    let mut late_own = 0;
    let mut failed = false;
    for thread in threads {
        let (outcome, truth, late) = thread.join().unwrap();
        failed |= outcome.is_err();
        late_own += late;
        merge(&mut whole, truth);
    }
    let stats = server.stats();
    println!(
        "{}: {:?}; taken over {}, expired {}, evicted {}, missed for gaps {:?}",
        run.name,
        whole.totals,
        stats.sessions_taken_over,
        stats.sessions_expired,
        stats.sessions_evicted,
        stats.closed,
    );
    assert!(!failed, "a client was told wrong; see above");
    check(&whole, history, history_bytes, page_bytes);
    assert_eq!(late_own, 0, "own messages came back from connections that were taken over");
}

/// Adds what one client saw. Two who differ about a number fail here.
fn merge(whole: &mut Truth, truth: Truth) {
    for (room, numbers) in truth.rooms {
        let known = whole.rooms.entry(room.clone()).or_default();
        for (seq, (id, bytes)) in numbers {
            let entry = known.entry(seq).or_insert_with(|| (id.clone(), bytes));
            assert_eq!(entry.0, id, "{room:?} {seq} is two messages");
            entry.1 = entry.1.max(bytes);
        }
    }
    whole.unknown += truth.unknown;
    whole.claims.extend(truth.claims);
    whole.sent.extend(truth.sent);
    whole.direct_sent.extend(truth.direct_sent);
    whole.alive.extend(truth.alive);
    for (place, id) in truth.direct_got {
        assert_eq!(whole.direct_got.insert(place, id), None);
    }
    for (what, count) in truth.totals {
        *whole.totals.entry(what).or_default() += count;
    }
}

fn check(whole: &Truth, history: usize, history_bytes: usize, page_bytes: usize) {
    for (room, numbers) in &whole.rooms {
        let last = *numbers.keys().next_back().unwrap();
        let holes = last - numbers.len() as u64;
        if whole.unknown == 0 {
            assert_eq!(holes, 0, "{room:?} has numbers that nobody knows");
        }
        let ids: BTreeSet<&String> = numbers.values().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), numbers.len(), "{room:?} has a message twice");
    }
    for claim in &whole.claims {
        let numbers = &whole.rooms.get(&claim.room);
        let missed = claim.until - claim.after;
        let known: usize = numbers.map_or(0, |numbers| {
            // What nobody got, only its sender knows.
            let sent = |id: &String| whole.sent.get(id).map_or(0, |bytes| bytes + ADDED_BYTES);
            numbers
                .range(claim.after + 1..=claim.until)
                .map(|(_, (id, bytes))| if *bytes == 0 { sent(id) } else { *bytes })
                .sum()
        });
        // A frame is a few bytes longer than its text.
        let bytes = known + 10 * missed as usize;
        let is_for_want_of_space = missed > history as u64
            || bytes > history_bytes
            || bytes + claim.beside > page_bytes
            || whole.unknown > 0;
        assert!(is_for_want_of_space, "it was all there: {claim:?}, {bytes} bytes");
    }
    let mut got: BTreeMap<&String, usize> = BTreeMap::new();
    for id in whole.direct_got.values() {
        *got.entry(id).or_default() += 1;
    }
    assert!(got.values().all(|count| *count == 1), "a direct message came twice");
    if !whole.totals.contains_key("directs lost") {
        for (id, to) in &whole.direct_sent {
            assert!(got.contains_key(id) || !whole.alive.contains(to), "{id} was lost");
        }
    }
}
