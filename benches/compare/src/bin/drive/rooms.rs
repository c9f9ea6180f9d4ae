//! Messages to many. In each room a member publishes, all others get it, and the time from the
//! publish to each delivery is known.
//!
//! Many rooms talk at once as JSON, where a delivery is known by its room and number. Two kinds of
//! load: with `--window` each room has so many publishes on their way at all times, and with
//! `--rate` publishes come when the clock says so, whether or not the earlier ones have arrived.
//! The latter counts latency from the moment a publish was due.
//!
//! A fan-out is one room in which always the same link publishes, and the next message only when
//! everybody has the last, or the oldest of a `--window`. It also loads servers that know no rooms
//! and send what they get to everyone.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rusty_socks_load::Times;
use serde_json::{Value, json};

use crate::commands::{Commands, is_answer};
use crate::crowd::{Crowd, LOOK, Patience, QUIET};
use crate::link::{Wire, client_text};
use crate::meter::{Meter, report};
use crate::{Server, Timing, rounded};

/// Publishes on their way in one room: a server that falls behind a `--rate` by more is too slow
/// for it.
const ROOM_IN_FLIGHT_MAX: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    timing: Timing,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Connections in each room.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,
    /// Bytes of a `publish` as JSON.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Publishes on their way in each room at once.
    #[arg(long, default_value_t = 1, conflicts_with = "rate",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Publishes a second over all rooms, at even intervals, instead of a window.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
}

#[derive(clap::Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    timing: Timing,
    /// Connections that only listen.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    members: u32,
    /// Bytes of a published message.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Publishes on their way at once. Those that can go at the same time leave in one write.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Each publish leaves in a write of its own.
    #[arg(long)]
    apart: bool,
    #[arg(long, value_enum, default_value_t = Protocol::Chat)]
    protocol: Protocol,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// Rusty Socks: JSON to the default room, and all but the sender get it.
    Chat,
    /// Any text frame goes to every client, the sender included.
    Raw,
    /// No WebSocket: any bytes go to every client, the sender included.
    Tcp,
}

pub(crate) fn run(args: &Args) -> Result<Value> {
    let (rooms, members) = (args.rooms as usize, args.members as usize);
    let mut crowd = Crowd::open(&args.server.url, Wire::WebSocket, rooms * members)?;
    crowd.settle(QUIET)?;
    join_all(&mut crowd, members)?;
    let room = |index| {
        let name = room_name(index);
        let head = format!(r#"{{"type":"publish","room":"{name}","content":""#);
        let message = padded(&head, r#""}"#, args.size as usize)?;
        Ok((Room::named(&name, members - 1), message))
    };
    let rooms = (0..rooms).map(room).collect::<Result<_>>()?;
    let pace = match args.rate {
        Some(rate) => {
            let every = Duration::from_secs(1) / rate;
            Pace::Rate { every, due_at: Instant::now(), room: 0 }
        }
        None => Pace::Window(args.window as usize),
    };
    let mut report = Load::new(crowd, rooms, pace).measure(&args.timing, args.server.pid)?;
    report["rooms"] = json!(args.rooms);
    report["members"] = json!(members);
    Ok(report)
}

pub(crate) fn fanout(args: &FanoutArgs) -> Result<Value> {
    let (size, links) = (args.size as usize, args.members as usize + 1);
    let (wire, message) = match args.protocol {
        Protocol::Chat => (Wire::WebSocket, padded(r#"{"content":""#, r#""}"#, size)?),
        Protocol::Raw => (Wire::WebSocket, client_text(&"x".repeat(size))),
        Protocol::Tcp => (Wire::Tcp { size }, vec![b'x'; size]),
    };
    let room = match args.protocol {
        Protocol::Chat => Room::new(r#"{"type":"message""#.to_owned(), false, links - 1),
        Protocol::Raw | Protocol::Tcp => Room::new(String::new(), false, links),
    };
    let mut crowd = Crowd::open(&args.server.url, wire, links)?;
    crowd.settle(QUIET)?;
    let pace = Pace::OneLink { window: args.window as usize, apart: args.apart };
    let load = Load::new(crowd, vec![(room, message)], pace);
    let mut report = load.measure(&args.timing, args.server.pid)?;
    report["members"] = json!(args.members);
    report["window"] = json!(args.window);
    Ok(report)
}

/// The links and the rooms, among which the members go in order: the first ones are in room 0.
struct Load {
    crowd: Crowd,
    rooms: Vec<Room>,
    /// What is published in each room.
    messages: Vec<Vec<u8>>,
    /// Links in each room.
    members: usize,
    /// The number that each link saw last.
    last_seen: Vec<u64>,
    pace: Pace,
    tally: Tally,
}

struct Room {
    /// What every delivery in this room starts with, and whether its number follows.
    prefix: String,
    is_numbered: bool,
    /// Deliveries that a publish makes.
    hearers: usize,
    /// The member whose turn it is. It changes only while nothing is on its way: of two publishers
    /// at once nobody could say who comes first.
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
    /// As a window, but always by the same link, and measured until everybody has the last. What
    /// can go at the same time goes in one write, unless it is to go `apart`.
    OneLink {
        window: usize,
        apart: bool,
    },
}

#[derive(Default)]
struct Tally {
    publishes: u64,
    deliveries: u64,
    bytes: u64,
    /// From the publish until a member has the message, over all members.
    latency: Times,
    /// From the publish until the last one has it.
    last_member: Times,
}

impl Load {
    /// With what is published in each room.
    fn new(mut crowd: Crowd, rooms: Vec<(Room, Vec<u8>)>, pace: Pace) -> Self {
        crowd.stay_awake();
        let (last_seen, members) = (vec![0; crowd.len()], crowd.len() / rooms.len());
        let (rooms, messages) = rooms.into_iter().unzip();
        Self { crowd, rooms, messages, members, last_seen, pace, tally: Tally::default() }
    }

    fn measure(mut self, timing: &Timing, pid: Option<u32>) -> Result<Value> {
        self.run_for(timing.warmup)?;
        let warmup = std::mem::take(&mut self.tally).publishes;
        self.crowd.take_idle();

        let meter = Meter::start(pid)?;
        self.run_for(timing.seconds)?;
        let spent = meter.stop()?;

        let Tally { publishes, deliveries, bytes, latency, last_member } = &self.tally;
        ensure!(*deliveries > 0, "not one delivery came in {:.1} s", spent.wall_s);
        let figures = json!({
            "warmup_publishes": warmup,
            "publishes": publishes,
            "deliveries": deliveries,
            "publishes_per_s": spent.per_s(*publishes),
            "deliveries_per_s": spent.per_s(*deliveries),
            // The same CPU time, divided by the publishes and by the deliveries.
            "cpu_us_per_publish": spent.server_us_per(*publishes),
            "cpu_us_per_delivery": spent.server_us_per(*deliveries),
            // A server that adds an id and a time sends more than it received.
            "delivered_bytes": rounded(*bytes as f64 / *deliveries as f64),
            "latency": report(latency),
            "last_member": report(last_member),
        });
        Ok(spent.report(self.crowd.take_idle(), figures))
    }

    fn run_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        for room in 0..self.rooms.len() {
            self.fill(room)?;
        }
        let mut patience = Patience::new();
        // Rooms in which something came to everybody.
        let mut done = Vec::new();
        loop {
            let now = Instant::now();
            let is_over = now >= until;
            if is_over && !(matches!(self.pace, Pace::OneLink { .. }) && self.is_owed()) {
                return Ok(());
            }
            let due_at = self.publish_due(now)?.map(|due_at| due_at.min(until));
            let left = due_at.unwrap_or(until).saturating_duration_since(now);
            let before = self.tally.deliveries;
            self.turn(if is_over { LOOK } else { left.min(LOOK) }, &mut done)?;
            let is_well = self.tally.deliveries > before || !self.is_owed();
            patience.after(is_well, || "publishes are on their way".to_owned())?;
            for room in done.drain(..) {
                if !is_over {
                    self.fill(room)?;
                }
            }
        }
    }

    fn is_owed(&self) -> bool {
        self.rooms.iter().any(|room| !room.in_flight.is_empty())
    }

    /// Reads what came.
    fn turn(&mut self, timeout: Duration, done: &mut Vec<usize>) -> Result<()> {
        let Self { crowd, rooms, members, last_seen, tally, .. } = self;
        let members = *members;
        crowd.turn(
            timeout,
            |index, message| {
                let room = index / members;
                tally.bytes += message.len() as u64;
                if rooms[room].delivered(message, &mut last_seen[index], tally)? {
                    done.push(room);
                }
                Ok(())
            },
            |_, _, _| Ok(()),
        )?;
        Ok(())
    }

    /// Publishes in `room` until its window is full.
    fn fill(&mut self, room: usize) -> Result<()> {
        let (window, apart) = match self.pace {
            Pace::Window(window) => (window, true),
            Pace::OneLink { window, apart } => (window, apart),
            Pace::Rate { .. } => return Ok(()),
        };
        let missing = window.saturating_sub(self.rooms[room].in_flight.len());
        if !apart {
            return self.publish(room, missing, Instant::now());
        }
        (0..missing).try_for_each(|_| self.publish(room, 1, Instant::now()))
    }

    /// Publishes all that the clock asks for by now. Says when the next one is due.
    fn publish_due(&mut self, now: Instant) -> Result<Option<Instant>> {
        loop {
            let rooms = self.rooms.len();
            let Pace::Rate { every, due_at, room } = &mut self.pace else { return Ok(None) };
            if *due_at > now {
                return Ok(Some(*due_at));
            }
            let (this_room, this_due_at) = (*room, *due_at);
            *room = (*room + 1) % rooms;
            *due_at += *every;
            self.publish(this_room, 1, this_due_at)?;
        }
    }

    /// Publishes `count` messages in a room with one write.
    fn publish(&mut self, index: usize, count: usize, due_at: Instant) -> Result<()> {
        let room = &mut self.rooms[index];
        if room.in_flight.is_empty() && !matches!(self.pace, Pace::OneLink { .. }) {
            room.publisher = (room.publisher + 1) % self.members;
        }
        ensure!(
            room.in_flight.len() + count <= ROOM_IN_FLIGHT_MAX,
            "the server is too slow for this rate: {ROOM_IN_FLIGHT_MAX} publishes wait in one room"
        );
        for _ in 0..count {
            room.in_flight.push_back(InFlight { due_at, missing: room.hearers });
        }
        let link = self.crowd.link(index * self.members + room.publisher)?;
        match count {
            0 => {}
            1 => link.send_encoded(&self.messages[index]),
            _ => link.send_encoded(&self.messages[index].repeat(count)),
        }
        Ok(())
    }
}

impl Room {
    /// A room whose deliveries start with `prefix`, and then have a number if `is_numbered`.
    fn new(prefix: String, is_numbered: bool, hearers: usize) -> Self {
        let in_flight = VecDeque::new();
        Self { prefix, is_numbered, hearers, publisher: 0, in_flight, first_seq: 1 }
    }

    fn named(name: &str, hearers: usize) -> Self {
        let prefix = format!(r#"{{"type":"message","room":"{name}","seq":"#);
        Self::new(prefix, true, hearers)
    }

    /// Takes note of a delivery. Says whether everybody has that message now.
    fn delivered(&mut self, start: &[u8], last_seen: &mut u64, tally: &mut Tally) -> Result<bool> {
        let said = || String::from_utf8_lossy(start).into_owned();
        let Some(rest) = start.strip_prefix(self.prefix.as_bytes()) else {
            bail!("the server sent something other than a message of this room: {}", said());
        };
        // Where others may have published before, a link counts what it is sent.
        let seq = if self.is_numbered { number(rest) } else { *last_seen + 1 };
        ensure!(seq > *last_seen, "out of order: number {seq} came after {last_seen}");
        *last_seen = seq;
        let message = seq
            .checked_sub(self.first_seq)
            .and_then(|offset| self.in_flight.get_mut(offset as usize))
            .with_context(|| format!("nobody published what this is: {}", said()))?;
        message.missing =
            message.missing.checked_sub(1).context("a message came once too often")?;
        let took = message.due_at.elapsed();
        tally.deliveries += 1;
        tally.latency.record(took);
        let before = self.first_seq;
        while self.in_flight.front().is_some_and(|message| message.missing == 0) {
            self.in_flight.pop_front();
            self.first_seq += 1;
            tally.last_member.record(took);
        }
        tally.publishes += self.first_seq - before;
        Ok(self.first_seq > before)
    }
}

/// The number that `text` starts with.
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |n: u64, digit| n.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

/// Another room for each driver, because what one has published stays in its rooms, and so do their
/// numbers.
fn room_name(index: usize) -> String {
    format!("room-{:x}-{index}", std::process::id())
}

/// Has all links join, `members` of them each room.
fn join_all(crowd: &mut Crowd, members: usize) -> Result<()> {
    let count = crowd.len();
    let commands = Commands { count, window: count, refill_at: 0 };
    let join = |crowd: &mut Crowd, links: Range<usize>| {
        for index in links {
            let room = room_name(index / members);
            let join = format!(r#"{{"type":"join","room":"{room}","ref":0}}"#);
            crowd.link(index)?.send_encoded(&client_text(&join));
        }
        Ok(())
    };
    commands.run(crowd, join, is_answer)
}

/// A frame of JSON with `size` bytes, of which those between `head` and `tail` are content.
pub(crate) fn padded(head: &str, tail: &str, size: usize) -> Result<Vec<u8>> {
    let least = head.len() + tail.len() + 1;
    ensure!(size >= least, "such a message has at least {least} bytes, and --size is {size}");
    Ok(client_text(&format!("{head}{}{tail}", "x".repeat(size + 1 - least))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(in_flight: usize, hearers: usize) -> (Room, Tally) {
        let due_at = Instant::now();
        let mut room = Room::named("a", hearers);
        room.in_flight.extend((0..in_flight).map(|_| InFlight { due_at, missing: hearers }));
        (room, Tally::default())
    }

    #[test]
    fn a_message_is_done_when_all_but_the_sender_have_it() {
        let (mut room, mut tally) = room(2, 2);
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
        let (mut room, mut tally) = room(2, 1);
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
    fn without_numbers_a_link_counts_what_it_is_sent() {
        let (mut room, mut tally) = room(2, 2);
        (room.prefix, room.is_numbered) = (String::new(), false);
        let mut last_seen = [0; 2];
        assert!(!room.delivered(b"", &mut last_seen[0], &mut tally).unwrap());
        assert!(!room.delivered(b"", &mut last_seen[0], &mut tally).unwrap());
        assert!(room.delivered(b"", &mut last_seen[0], &mut tally).is_err(), "one too many");
        assert!(room.delivered(b"", &mut last_seen[1], &mut tally).unwrap());
    }

    #[test]
    fn a_message_has_the_size_that_was_asked_for() {
        // Two bytes of head with an extended length, and the mask.
        assert_eq!(padded("head", "tail", 128).unwrap().len(), 4 + 4 + 128);
        assert!(padded("head", "tail", 8).is_err());
    }
}
