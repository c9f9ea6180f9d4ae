//! Many rooms that talk at once, as JSON. In each room a member publishes and all others get it, and what a
//! member is sent is known by its room and number.
//!
//! Two kinds of load: with `--window` each room has so many publishes on their way at all times, and with
//! `--rate` publishes come when the clock says so, whether or not the earlier ones have arrived. The latter
//! counts latency from the moment a publish was due.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{TEXT, client_frame};
use crate::link::{Repeated, Wire};
use crate::meter::{Latency, Meter, Stopwatch};
use crate::target::Target;
use crate::{Figure, a_while, rounded};

/// Without any delivery for so long, with publishes on their way, the server counts as stuck.
const STALL: Duration = Duration::from_secs(5);
/// For all joins to be answered.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Quiet enough after the welcome.
const QUIET: Duration = Duration::from_millis(200);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Publishes on their way in one room: a server that falls behind a `--rate` by more is too slow for it.
const ROOM_IN_FLIGHT_MAX: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the room protocol is spoken, ws://127.0.0.1:PORT/ws
    #[arg(long)]
    url: Target,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Connections in each room.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,
    /// Bytes of a `publish` as JSON.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// How long to measure, in seconds.
    #[arg(long, default_value = "5", value_parser = a_while)]
    seconds: Duration,
    /// How long to run before that, in seconds.
    #[arg(long, default_value = "1", value_parser = a_while)]
    warmup: Duration,
    /// Publishes on their way in each room at once.
    #[arg(long, default_value_t = 1, conflicts_with = "rate",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Publishes a second over all rooms, at even intervals, instead of a window.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// The server's process, to read its CPU time.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct Report {
    rooms: u32,
    members: u32,
    size: u32,
    window: Option<u32>,
    rate: Option<u32>,
    seconds: f64,
    publishes: u64,
    deliveries: u64,
    publishes_per_s: f64,
    deliveries_per_s: f64,
    /// The same CPU time, divided by the publishes and by the deliveries.
    cpu_us_per_publish: Option<f64>,
    cpu_us_per_delivery: Option<f64>,
    /// What a member got for a message: a server that adds an id and a time sends more than it received.
    delivered_bytes: f64,
    /// From the publish to each delivery.
    latency: Latency,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rooms, members, size, publishes, deliveries, seconds, .. } = self;
        write!(f, "rooms: {size} B in {rooms} rooms × {members} members, ")?;
        match (self.rate, self.window) {
            (Some(rate), _) => write!(f, "{rate} publishes/s asked for")?,
            (None, window) => write!(f, "{} on their way in each", window.unwrap_or(1))?,
        }
        writeln!(
            f,
            ": {publishes} publishes, {deliveries} deliveries of {:.0} B in {seconds:.2} s",
            self.delivered_bytes
        )?;
        writeln!(f, "  server CPU per publish   {} µs", Figure(self.cpu_us_per_publish))?;
        writeln!(f, "  server CPU per delivery  {} µs", Figure(self.cpu_us_per_delivery))?;
        writeln!(f, "  publishes per second     {:.0}", self.publishes_per_s)?;
        writeln!(f, "  deliveries per second    {:.0}", self.deliveries_per_s)?;
        writeln!(f, "  p50/p99/p99.9/max        {}", self.latency)?;
        write!(
            f,
            "  busy: server, driver     {}, {:.2}",
            Figure(self.server_busy),
            self.driver_busy
        )
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut load = Load::open(args)?;
    load.run_until(Instant::now() + args.warmup)?;
    load.tally.reset();
    load.crowd.take_idle();

    let meter = Meter::start(args.pid)?;
    load.run_until(Instant::now() + args.seconds)?;
    let spent = meter.stop()?;

    let Tally { publishes, deliveries, bytes, ref latency, .. } = load.tally;
    ensure!(deliveries > 0, "not one delivery came in {:.1} s", spent.wall_s);
    Ok(Report {
        rooms: args.rooms,
        members: args.members,
        size: args.size,
        window: args.rate.is_none().then_some(args.window),
        rate: args.rate,
        seconds: rounded(spent.wall_s),
        publishes,
        deliveries,
        publishes_per_s: spent.per_s(publishes),
        deliveries_per_s: spent.per_s(deliveries),
        cpu_us_per_publish: spent.server_us_per(publishes),
        cpu_us_per_delivery: spent.server_us_per(deliveries),
        delivered_bytes: rounded(bytes as f64 / deliveries as f64),
        latency: latency.read(),
        server_busy: spent.server_busy(),
        driver_busy: spent.driver_busy(load.crowd.take_idle()),
    })
}

/// The wire and the rooms, between which the members go in order: the first ones are in room 0.
struct Load {
    crowd: Crowd,
    rooms: Vec<Room>,
    /// What is published in each room.
    publishes: Vec<Repeated>,
    members: usize,
    /// The number that each link saw last.
    last_seen: Vec<u64>,
    pace: Pace,
    tally: Tally,
    last_delivery: Instant,
}

struct Room {
    /// What every message of this room starts with, up to its number.
    prefix: String,
    /// The member whose turn it is. It changes only while nothing is on its way: of two publishers at once
    /// nobody could say who comes first.
    publisher: usize,
    /// Publishes on their way, oldest first, and the number of the first.
    in_flight: VecDeque<InFlight>,
    first_seq: u64,
}

struct InFlight {
    due_at: Instant,
    /// Members who have not got it yet.
    missing: usize,
}

enum Pace {
    Window(usize),
    /// The next publish, and which room's turn it is.
    Rate {
        every: Duration,
        due_at: Instant,
        room: usize,
    },
}

struct Tally {
    publishes: u64,
    deliveries: u64,
    bytes: u64,
    latency: Stopwatch,
}

impl Tally {
    fn reset(&mut self) {
        (self.publishes, self.deliveries, self.bytes) = (0, 0, 0);
        self.latency.reset();
    }
}

impl Load {
    /// Connects everybody and has them join.
    fn open(args: &Args) -> anyhow::Result<Self> {
        let (rooms, members) = (args.rooms as usize, args.members as usize);
        let wire = Wire::WebSocket { keep_start: true };
        let mut crowd = Crowd::open(&args.url, wire, rooms * members)?;
        crowd.settle(QUIET, SETTLE_TIMEOUT)?;
        join_all(&mut crowd, rooms * members, |index| room_name(index / members))?;
        let names: Vec<String> = (0..rooms).map(room_name).collect();
        let publishes = names
            .iter()
            .map(|name| Ok(Repeated::new(&publish(name, args.size as usize)?, 1)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        crowd.stay_awake();
        let now = Instant::now();
        let pace = match args.rate {
            Some(rate) => {
                let every = Duration::from_secs(1) / rate;
                Pace::Rate { every, due_at: now, room: 0 }
            }
            None => Pace::Window(args.window as usize),
        };
        Ok(Self {
            crowd,
            rooms: names.iter().map(|name| Room::named(name)).collect(),
            publishes,
            last_seen: vec![0; rooms * members],
            members,
            pace,
            tally: Tally { publishes: 0, deliveries: 0, bytes: 0, latency: Stopwatch::new() },
            last_delivery: now,
        })
    }

    fn run_until(&mut self, until: Instant) -> anyhow::Result<()> {
        if let Pace::Window(_) = self.pace {
            for room in 0..self.rooms.len() {
                self.fill(room)?;
            }
        }
        // Rooms in which something came to everybody.
        let mut done = Vec::new();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let timeout = match self.publish_due(now)? {
                Some(due_at) => due_at.min(until).saturating_duration_since(now),
                None => (until - now).min(Duration::from_secs(1)),
            };
            self.turn(timeout, &mut done)?;
            if let Pace::Window(_) = self.pace {
                for room in done.drain(..) {
                    self.fill(room)?;
                }
            }
            done.clear();
        }
    }

    /// Reads what came.
    fn turn(&mut self, timeout: Duration, done: &mut Vec<usize>) -> anyhow::Result<()> {
        let Self { crowd, rooms, publishes, members, last_seen, tally, .. } = self;
        let members = *members;
        let mut wrong = None;
        let before = tally.deliveries;
        crowd.turn(
            timeout,
            |index, len, start| {
                let room = index / members;
                let last = &mut last_seen[index];
                match rooms[room].delivered(start, last, tally) {
                    Ok(true) => done.push(room),
                    Ok(false) => {}
                    Err(error) => wrong = wrong.take().or(Some(error)),
                }
                tally.bytes += len;
            },
            // A publish that the socket did not take whole goes on once it may.
            |index, link, _| link.flush(&publishes[index / members]),
        )?;
        crowd.ensure_whole()?;
        if let Some(error) = wrong {
            return Err(error);
        }
        let now = Instant::now();
        if tally.deliveries > before || rooms.iter().all(|room| room.in_flight.is_empty()) {
            self.last_delivery = now;
        }
        ensure!(
            now.duration_since(self.last_delivery) < STALL,
            "no delivery for {STALL:?}, with publishes on their way"
        );
        Ok(())
    }

    /// Publishes in `room` until its window is full.
    fn fill(&mut self, room: usize) -> anyhow::Result<()> {
        let Pace::Window(window) = self.pace else {
            return Ok(());
        };
        while self.rooms[room].in_flight.len() < window {
            self.publish(room, Instant::now())?;
        }
        Ok(())
    }

    /// Publishes all that the clock asks for by now. Says when the next one is due.
    fn publish_due(&mut self, now: Instant) -> anyhow::Result<Option<Instant>> {
        loop {
            let rooms = self.rooms.len();
            let Pace::Rate { every, due_at, room } = &mut self.pace else {
                return Ok(None);
            };
            if *due_at > now {
                return Ok(Some(*due_at));
            }
            let (this_room, this_due_at) = (*room, *due_at);
            *room = (*room + 1) % rooms;
            *due_at += *every;
            self.publish(this_room, this_due_at)?;
        }
    }

    fn publish(&mut self, index: usize, due_at: Instant) -> anyhow::Result<()> {
        let room = &mut self.rooms[index];
        if room.in_flight.is_empty() {
            room.publisher = (room.publisher + 1) % self.members;
        }
        ensure!(
            room.in_flight.len() < ROOM_IN_FLIGHT_MAX,
            "the server is too slow for this rate: {ROOM_IN_FLIGHT_MAX} publishes wait in one room"
        );
        room.in_flight.push_back(InFlight { due_at, missing: self.members - 1 });
        let link = self.crowd.link(index * self.members + room.publisher)?;
        link.send(&self.publishes[index], 1)
    }
}

impl Room {
    fn named(name: &str) -> Self {
        Self {
            prefix: format!(r#"{{"type":"message","room":"{name}","seq":"#),
            publisher: 0,
            in_flight: VecDeque::new(),
            first_seq: 1,
        }
    }

    /// Takes note of a delivery. Says whether everybody has that message now.
    fn delivered(
        &mut self,
        start: &[u8],
        last_seen: &mut u64,
        tally: &mut Tally,
    ) -> anyhow::Result<bool> {
        let said = || String::from_utf8_lossy(start).into_owned();
        let Some(rest) = start.strip_prefix(self.prefix.as_bytes()) else {
            bail!("the server sent something other than a message of this room: {}", said());
        };
        let seq = rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |seq: u64, digit| seq.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        ensure!(seq > *last_seen, "out of order: number {seq} came after {last_seen}");
        *last_seen = seq;
        let message = seq
            .checked_sub(self.first_seq)
            .and_then(|offset| self.in_flight.get_mut(offset as usize))
            .with_context(|| format!("nobody published what this is: {}", said()))?;
        message.missing =
            message.missing.checked_sub(1).context("a message came once too often")?;
        tally.deliveries += 1;
        tally.latency.record(message.due_at.elapsed());
        let before = self.first_seq;
        while self.in_flight.front().is_some_and(|message| message.missing == 0) {
            self.in_flight.pop_front();
            self.first_seq += 1;
        }
        tally.publishes += self.first_seq - before;
        Ok(self.first_seq > before)
    }
}

/// Another room for each driver, because what one has published stays in its rooms, and so do their numbers.
fn room_name(index: usize) -> String {
    format!("room-{:x}-{index}", std::process::id())
}

/// A `publish` of `size` bytes.
fn publish(room: &str, size: usize) -> anyhow::Result<Vec<u8>> {
    let frame =
        |content: &str| format!(r#"{{"type":"publish","room":"{room}","content":"{content}"}}"#);
    let least = frame("").len();
    ensure!(size > least, "a publish has at least {} bytes", least + 1);
    Ok(client_frame(TEXT, frame(&"x".repeat(size - least)).as_bytes()))
}

/// Has the first `count` links join a room each, and waits for the answers.
fn join_all(
    crowd: &mut Crowd,
    count: usize,
    room_of: impl Fn(usize) -> String,
) -> anyhow::Result<()> {
    for index in 0..count {
        let join = format!(r#"{{"type":"join","room":"{}","ref":0}}"#, room_of(index));
        crowd.link(index)?.send_alone(&client_frame(TEXT, join.as_bytes()))?;
    }
    let (mut joined, mut refused) = (0, None);
    let deadline = Instant::now() + JOIN_TIMEOUT;
    while joined < count {
        ensure!(Instant::now() < deadline, "only {joined} of {count} joins were answered");
        crowd.turn(
            Duration::from_secs(1),
            |_, _, start| {
                if start.starts_with(br#"{"type":"ok""#) {
                    joined += 1;
                } else {
                    refused = Some(String::from_utf8_lossy(start).into_owned());
                }
            },
            |_, _, _| Ok(()),
        )?;
        crowd.ensure_whole()?;
        if let Some(said) = refused {
            bail!("this is no answer to a join: {said}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(in_flight: usize, members: usize) -> (Room, Tally) {
        let due_at = Instant::now();
        let mut room = Room::named("a");
        room.in_flight.extend((0..in_flight).map(|_| InFlight { due_at, missing: members - 1 }));
        let latency = Stopwatch::new();
        (room, Tally { publishes: 0, deliveries: 0, bytes: 0, latency })
    }

    #[test]
    fn a_message_is_done_when_all_but_the_sender_have_it() {
        let (mut room, mut tally) = room(2, 3);
        let mut last_seen = [0; 2];
        let first = br#"{"type":"message","room":"a","seq":1,"content":""}"#;
        let second = br#"{"type":"message","room":"a","seq":2,"content":""}"#;
        assert!(!room.delivered(first, &mut last_seen[0], &mut tally).unwrap());
        assert!(!room.delivered(second, &mut last_seen[0], &mut tally).unwrap());
        assert!(room.delivered(first, &mut last_seen[1], &mut tally).unwrap());
        assert!(room.delivered(second, &mut last_seen[1], &mut tally).unwrap());
        assert_eq!((tally.publishes, tally.deliveries), (2, 4));
        assert!(room.in_flight.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_delivery_is_told() {
        let (mut room, mut tally) = room(2, 2);
        let mut last_seen = 0;
        for wrong in [
            r#"{"type":"message","room":"b","seq":1}"#,
            r#"{"type":"message","room":"a","seq":3}"#,
            r#"{"type":"message","room":"a","seq":0}"#,
            r#"{"type":"gap","room":"a"}"#,
        ] {
            let told = room.delivered(wrong.as_bytes(), &mut last_seen.clone(), &mut tally);
            assert!(told.is_err(), "{wrong}");
        }
        let second = br#"{"type":"message","room":"a","seq":2}"#;
        room.delivered(second, &mut last_seen, &mut tally).unwrap();
        let twice = room.delivered(second, &mut last_seen, &mut tally);
        assert!(twice.is_err(), "the same number twice on one link");
    }

    #[test]
    fn a_publish_has_the_size_that_was_asked_for() {
        // Two bytes of head with an extended length, and the mask.
        assert_eq!(publish("room-1", 128).unwrap().len(), 4 + 4 + 128);
        assert!(publish("room-1", 20).is_err());
    }
}
