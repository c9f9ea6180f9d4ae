//! A storm: everyone is cut off at once and comes back, as clients are told to, while messages go
//! on.
//!
//! The real server is a process of its own, and all clients are driven by one loop. `STORM_CLIENTS`
//! says how many there are (300 unless it says otherwise; 10,000 want a release build of the server
//! and of this).

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    env,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use program::Program;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    frame,
    sessions::{Numbers, number, text},
    upgrade_head,
};
use tungstenite::Message;

/// Members of each of the smaller rooms; everyone is in one of those, and in the one for all.
const GROUP: usize = 100;

/// The largest wait between two attempts, and the one that it begins with.
const BACKOFF_MAX_MS: u64 = 30_000;
const BACKOFF_MS: u64 = 250;

/// How long an attempt may take before it is given up.
const ATTEMPT: Duration = Duration::from_secs(20);

/// Connections begun before what came is looked at.
const CONNECTS_PER_TURN_MAX: usize = 32;

/// How long the whole storm may take.
const STORM: Duration = Duration::from_secs(120);

fn start(clients: usize) -> Program {
    let max_conn = (clients + clients / 10 + 10).to_string();
    let arguments = ["--default-room", "", "--replay", "0", "--max-conn", &max_conn];
    let more = ["--max-rooms-per-conn", "1000", "--thread-pool-size", "2"];
    Program::start(&[&arguments[..], &more].concat(), &[])
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not connected; a timer will have it try.
    Waiting,
    Connecting,
    /// Its request is sent.
    Upgrading,
    /// It awaits its welcome, and then the answers to its joins.
    Beginning,
    /// It has said `resume`.
    Resuming,
    Live,
}

/// Where it is in a room.
#[derive(Clone, Default)]
struct Place {
    room: String,
    epoch: String,
    seq: u64,
}

struct Client {
    stage: Stage,
    stream: Option<TcpStream>,
    /// What was read and is not whole yet, and what is to be written.
    input: Vec<u8>,
    output: Vec<u8>,
    id: String,
    session: String,
    places: [Place; 2],
    attempt: u32,
    /// Which timer counts.
    timer: u64,
    /// When it tried for the first time after the cut, and when it had its session again.
    first_try: Option<Duration>,
    back: Option<Duration>,
    replayed: u64,
    live: u64,
}

struct Fleet {
    clients: Vec<Client>,
    poll: Poll,
    address: SocketAddr,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    random: Numbers,
    cut: Instant,
    attempts: u64,
    refused: u64,
    failed: u64,
}

impl Fleet {
    fn new(count: usize, address: SocketAddr) -> Fleet {
        let groups = count.div_ceil(GROUP);
        let client = |index: usize| {
            let place = |room: String| Place { room, ..Place::default() };
            Client {
                stage: Stage::Waiting,
                stream: None,
                input: Vec::new(),
                output: Vec::new(),
                id: String::new(),
                session: String::new(),
                places: [place("all".into()), place(format!("group {}", index % groups))],
                attempt: 0,
                timer: 0,
                first_try: None,
                back: None,
                replayed: 0,
                live: 0,
            }
        };
        Fleet {
            clients: (0..count).map(client).collect(),
            poll: Poll::new().unwrap(),
            address,
            timers: BinaryHeap::new(),
            random: Numbers::seeded("storm"),
            cut: Instant::now(),
            attempts: 0,
            refused: 0,
            failed: 0,
        }
    }

    fn count(&self, stage: Stage) -> usize {
        self.clients.iter().filter(|client| client.stage == stage).count()
    }

    /// Has the client try after that time.
    fn wait(&mut self, index: usize, after: Duration) {
        let client = &mut self.clients[index];
        client.stage = Stage::Waiting;
        client.timer += 1;
        self.timers.push(Reverse((Instant::now() + after, index, client.timer)));
    }

    /// Full jitter: anything between nothing and a bound that doubles.
    fn wait_for_next_attempt(&mut self, index: usize, at_least: Duration) {
        let attempt = self.clients[index].attempt.min(20);
        self.clients[index].attempt += 1;
        let bound = (BACKOFF_MS << attempt).min(BACKOFF_MAX_MS);
        let jitter = Duration::from_micros(self.random.below(bound * 1000));
        self.wait(index, at_least + jitter);
    }

    fn connect(&mut self, index: usize) {
        self.attempts += 1;
        let since_cut = self.cut.elapsed();
        let client = &mut self.clients[index];
        if !client.session.is_empty() {
            client.first_try.get_or_insert(since_cut);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_nonblocking(true).unwrap();
        if cfg!(target_os = "linux") {
            // One address has too few ports for many who come back again and again.
            let source = Ipv4Addr::new(127, 0, 0, 2 + (index % 8) as u8);
            socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
        }
        let _ = socket.connect(&self.address.into());
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest).unwrap();
        let client = &mut self.clients[index];
        client.stream = Some(stream);
        client.stage = Stage::Connecting;
        client.input.clear();
        client.output.clear();
        client.timer += 1;
        self.timers.push(Reverse((Instant::now() + ATTEMPT, index, client.timer)));
    }

    /// One round of the loop.
    fn turn(&mut self, events: &mut Events) {
        let now = Instant::now();
        let mut tried = 0;
        while let Some(Reverse((due, index, timer))) = self.timers.peek().copied() {
            // A few at a time, so that those who have come in are heard meanwhile.
            if due > now || tried == CONNECTS_PER_TURN_MAX {
                break;
            }
            self.timers.pop();
            if self.clients[index].timer != timer {
                continue;
            }
            match self.clients[index].stage {
                Stage::Waiting => {
                    tried += 1;
                    self.connect(index);
                }
                Stage::Live => {}
                _ => self.fail(index, Duration::ZERO),
            }
        }
        let next = self.timers.peek().map(|Reverse((due, ..))| *due);
        let timeout = next.map_or(Duration::from_millis(50), |due| {
            due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50))
        });
        self.poll.poll(events, Some(timeout)).unwrap();
        for event in events.iter() {
            let index = event.token().0;
            if event.is_writable() {
                self.on_writable(index);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.on_readable(index);
            }
        }
    }

    /// An attempt has come to nothing.
    fn fail(&mut self, index: usize, at_least: Duration) {
        let client = &mut self.clients[index];
        assert_ne!(client.stage, Stage::Live, "{index} was closed while it was served");
        client.stream = None;
        self.failed += 1;
        self.wait_for_next_attempt(index, at_least);
    }

    fn on_writable(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        if client.stage == Stage::Connecting {
            match stream.take_error() {
                Ok(None) => {}
                _ => return self.fail(index, Duration::ZERO),
            }
            if stream.peer_addr().is_err() {
                return;
            }
            let _ = stream.set_nodelay(true);
            client.stage = Stage::Upgrading;
            client.output.extend_from_slice(upgrade_head("/ws").as_bytes());
        }
        self.flush(index);
    }

    fn flush(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        while !client.output.is_empty() {
            match stream.write(&client.output) {
                Ok(n) => drop(client.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(_) => return self.fail(index, Duration::ZERO),
            }
        }
    }

    fn say(&mut self, index: usize, command: &Value) {
        let bytes = frame(0x81, command.to_string().as_bytes());
        self.clients[index].output.extend_from_slice(&bytes);
        self.flush(index);
    }

    fn on_readable(&mut self, index: usize) {
        let mut buffer = [0; 16 << 10];
        loop {
            let client = &mut self.clients[index];
            let Some(stream) = &mut client.stream else { return };
            match stream.read(&mut buffer) {
                Ok(0) => return self.fail(index, Duration::ZERO),
                Ok(n) => {
                    client.input.extend_from_slice(&buffer[..n]);
                    self.take(index);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(_) => return self.fail(index, Duration::ZERO),
            }
        }
    }

    /// Handles what is whole of what was read.
    fn take(&mut self, index: usize) {
        let mut input = std::mem::take(&mut self.clients[index].input);
        let mut at = 0;
        if self.clients[index].stage == Stage::Upgrading {
            let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.clients[index].input = input;
                return;
            };
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            at = end + 4;
            if !head.starts_with("HTTP/1.1 101") {
                assert!(head.starts_with("HTTP/1.1 503"), "{head}");
                self.refused += 1;
                let after = head.lines().find_map(|line| line.strip_prefix("Retry-After: "));
                let after = after.and_then(|after| after.parse().ok()).unwrap_or(0);
                return self.fail(index, Duration::from_secs(after));
            }
            self.begin(index);
        }
        while let Some((opcode, payload, end)) = next_frame(&input, at) {
            match opcode {
                0x81 => {
                    let text = std::str::from_utf8(&input[payload..end]).unwrap();
                    self.on_text(index, text);
                }
                0x89 => {
                    let pong = frame(0x8a, &input[payload..end]);
                    self.clients[index].output.extend_from_slice(&pong);
                    self.flush(index);
                }
                0x88 => panic!("{index} was closed: {:?}", &input[payload..end]),
                other => panic!("{other:x}"),
            }
            at = end;
        }
        input.drain(..at);
        if self.clients[index].stream.is_some() {
            self.clients[index].input = input;
        }
    }

    /// The connection stands: says who it is.
    fn begin(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.session.is_empty() {
            client.stage = Stage::Beginning;
            return;
        }
        client.stage = Stage::Resuming;
        let places = client.places.clone();
        let places =
            places.map(|place| json!({"room": place.room, "epoch": place.epoch, "seq": place.seq}));
        let resume =
            json!({"type": "resume", "session": client.session, "rooms": places, "ref": 0});
        self.say(index, &resume);
    }

    fn on_text(&mut self, index: usize, text: &str) {
        let client = &mut self.clients[index];
        match client.stage {
            Stage::Live => client.on_message(text),
            Stage::Beginning => {
                if text.starts_with(r#"{"type":"message""#) {
                    return client.on_message(text);
                }
                let value: Value = serde_json::from_str(text).unwrap();
                if value["type"] == "welcome" {
                    client.id = value["client_id"].as_str().unwrap().to_owned();
                    client.session = value["session"].as_str().unwrap().to_owned();
                    for at in 0..2 {
                        let room = self.clients[index].places[at].room.clone();
                        self.say(index, &json!({"type": "join", "room": room, "ref": at}));
                    }
                    return;
                }
                assert_eq!(value["type"], "ok", "{value}");
                let place = &mut client.places[number(&value["ref"]) as usize];
                place.epoch = value["epoch"].as_str().unwrap().to_owned();
                place.seq = number(&value["seq"]);
                if client.places.iter().all(|place| !place.epoch.is_empty()) {
                    client.stage = Stage::Live;
                    client.timer += 1;
                }
            }
            Stage::Resuming => {
                if text.starts_with(r#"{"type":"ok""#) {
                    client.on_resumed(&serde_json::from_str(text).unwrap());
                    client.back = Some(self.cut.elapsed());
                    client.stage = Stage::Live;
                    client.timer += 1;
                } else {
                    assert!(text.starts_with(r#"{"type":"welcome""#), "{text}");
                }
            }
            stage => panic!("{stage:?}: {text}"),
        }
    }

    /// Ends all connections with a reset, and has all clients come back.
    fn cut_all(&mut self) {
        self.cut = Instant::now();
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            let stream = client.stream.take().unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            (client.attempt, client.first_try, client.back) = (0, None, None);
            self.wait_for_next_attempt(index, Duration::ZERO);
        }
    }

    fn run_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut is_done: impl FnMut(&Fleet) -> bool,
    ) {
        let mut events = Events::with_capacity(4096);
        let end = Instant::now() + deadline;
        while !is_done(self) {
            if Instant::now() > end {
                for stage in [
                    Stage::Waiting,
                    Stage::Connecting,
                    Stage::Upgrading,
                    Stage::Beginning,
                    Stage::Resuming,
                    Stage::Live,
                ] {
                    println!("{stage:?}: {}", self.count(stage));
                }
                panic!("not in time: {what}");
            }
            self.turn(&mut events);
        }
    }
}

/// The next frame in `input` behind `at`: its first byte, and where its payload begins and ends.
fn next_frame(input: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let rest = input.get(at..)?;
    let (payload, len) = match *rest.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]))),
        127 => {
            let length: [u8; 8] = rest.get(2..10)?.try_into().ok()?;
            (10, u64::from_be_bytes(length) as usize)
        }
        len => (2, usize::from(len)),
    };
    (rest.len() >= payload + len).then_some((rest[0], at + payload, at + payload + len))
}

impl Client {
    /// Takes a message, which must be the next one of its room.
    fn on_message(&mut self, text: &str) {
        let rest =
            text.strip_prefix(r#"{"type":"message","room":""#).unwrap_or_else(|| panic!("{text}"));
        let (room, rest) = rest.split_once(r#"","seq":"#).unwrap();
        let seq: u64 = rest.split_once(',').unwrap().0.parse().unwrap();
        let place = self.places.iter_mut().find(|place| place.room == room).unwrap();
        assert_eq!(seq, place.seq + 1, "{} in {room}", self.id);
        place.seq = seq;
        self.live += 1;
    }

    fn on_resumed(&mut self, answer: &Value) {
        assert_eq!(answer["client_id"], self.id.as_str());
        assert_eq!(answer["session"], self.session.as_str());
        let rooms = answer["rooms"].as_array().unwrap();
        assert_eq!(rooms.len(), 2);
        for part in rooms {
            let place = self.places.iter_mut().find(|place| place.room == part["room"]).unwrap();
            assert_eq!(
                (&part["recovered"], text(&part["epoch"])),
                (&json!(true), place.epoch.clone())
            );
            for message in part["messages"].as_array().unwrap() {
                assert_eq!(number(&message["seq"]), place.seq + 1, "{part}");
                place.seq += 1;
                self.replayed += 1;
            }
            assert_eq!(number(&part["seq"]), place.seq);
        }
    }
}

/// Publishes until it is told to stop; returns the last number of each room.
fn publish(address: SocketAddr, groups: usize, stop: &AtomicBool) -> BTreeMap<String, u64> {
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut wire, _) = tungstenite::client(format!("ws://{address}/ws"), stream).unwrap();
    let mut ask = |command: Value| loop {
        wire.send(Message::text(command.to_string())).unwrap();
        let answer = loop {
            match wire.read().unwrap() {
                Message::Text(text) => {
                    let answer: Value = serde_json::from_str(text.as_str()).unwrap();
                    if answer["ref"] == command["ref"] {
                        break answer;
                    }
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        };
        if answer["code"] == "overloaded" {
            continue;
        }
        assert_eq!(answer["type"], "ok", "{answer}");
        break answer;
    };
    let mut last = BTreeMap::new();
    let rooms: Vec<String> = std::iter::once("all".to_owned())
        .chain((0..groups).map(|n| format!("group {n}")))
        .collect();
    for room in &rooms {
        let joined = ask(json!({"type": "join", "room": room, "ref": room}));
        last.insert(room.clone(), number(&joined["seq"]));
    }
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // One in twenty for everyone, and the rest for the groups in turn.
        let room = if n % 20 == 0 { &rooms[0] } else { &rooms[1 + n % groups] };
        let answer = ask(json!({"room": room, "content": n, "ref": n}));
        let seq = number(&answer["seq"]);
        assert_eq!(last.insert(room.clone(), seq), Some(seq - 1));
        thread::park_timeout(Duration::from_millis(10));
    }
    last
}

/// Shows how many fall into each span.
fn show(what: &str, times: &[Duration], span: Duration) {
    let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
    for time in times {
        *counts.entry(time.as_millis() / span.as_millis()).or_default() += 1;
    }
    println!("{what}:");
    let most = counts.values().copied().max().unwrap_or(1);
    for (at, count) in counts {
        let bar = "#".repeat((count * 50).div_ceil(most));
        println!("  {:>6} ms {count:>6} {bar}", at * span.as_millis());
    }
}

fn quantile(times: &[Duration], part: f64) -> Duration {
    times[((times.len() - 1) as f64 * part) as usize]
}

#[test]
fn everyone_is_cut_off_at_once_and_comes_back() {
    let count: usize =
        env::var("STORM_CLIENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let storms = if count > 1000 { 3 } else { 2 };
    let server = start(count);
    let mut fleet = Fleet::new(count, server.addr);
    // They come in at a pace that nobody minds.
    for index in 0..count {
        fleet.wait(index, Duration::from_micros(500 * index as u64));
    }
    let all = |fleet: &Fleet| fleet.clients.iter().all(|client| client.stage == Stage::Live);
    fleet.run_until("everyone is in", STORM, all);
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (stop, address) = (Arc::clone(&stop), server.addr);
        thread::spawn(move || publish(address, count.div_ceil(GROUP), &stop))
    };
    let quiet = |fleet: &mut Fleet, span: Duration| {
        let end = Instant::now() + span;
        fleet.run_until("a while has passed", STORM, |_| Instant::now() > end);
    };
    quiet(&mut fleet, Duration::from_millis(500));
    for storm in 1..=storms {
        (fleet.attempts, fleet.refused, fleet.failed) = (0, 0, 0);
        fleet.cut_all();
        fleet.run_until("everyone is back", STORM, all);
        let took = fleet.cut.elapsed();
        let mut tries: Vec<Duration> =
            fleet.clients.iter().map(|client| client.first_try.unwrap()).collect();
        let mut backs: Vec<Duration> =
            fleet.clients.iter().map(|client| client.back.unwrap()).collect();
        tries.sort();
        backs.sort();
        println!(
            "storm {storm}: {count} clients back in {took:?}: half in {:?}, 99 of 100 in {:?}; {} attempts, {} \
             of them refused with 503, {} failed",
            quantile(&backs, 0.5),
            quantile(&backs, 0.99),
            fleet.attempts,
            fleet.refused,
            fleet.failed,
        );
        show("first attempts", &tries, Duration::from_millis(25));
        show(
            "sessions had again",
            &backs,
            Duration::from_millis(if count > 1000 { 250 } else { 25 }),
        );
        // Full jitter spreads the first attempts over a quarter of a second, whoever is late with
        // them.
        let spread = quantile(&tries, 0.9) - quantile(&tries, 0.1);
        assert!(spread > Duration::from_millis(150), "{spread:?}");
        quiet(&mut fleet, Duration::from_secs(1));
    }
    stop.store(true, Ordering::SeqCst);
    let last = publisher.join().unwrap();
    let is_current = |fleet: &Fleet| {
        let mut places = fleet.clients.iter().flat_map(|client| &client.places);
        places.all(|place| place.seq == last[&place.room])
    };
    fleet.run_until("everyone has the last message", STORM, is_current);
    let stats = server.stats();
    let (replayed, live): (u64, u64) = fleet
        .clients
        .iter()
        .fold((0, 0), |sum, client| (sum.0 + client.replayed, sum.1 + client.live));
    println!("{replayed} messages recovered, {live} live; none lost, none twice");
    println!(
        "server: resumed {}, taken over {}, expired {}, closed {}, turn {} us",
        stats["sessions_resumed"],
        stats["sessions_taken_over"],
        stats["sessions_expired"],
        stats["closed"],
        stats["turn_us"],
    );
    assert_eq!(number(&stats["sessions_resumed"]), (storms * count) as u64);
    assert_eq!(stats["sessions_expired"], 0);
}
