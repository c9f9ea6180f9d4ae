//! One message to many: what a delivery costs the server. The next message is published once the
//! previous ones, all but a window, have reached everybody.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{TEXT, client_frame};
use crate::link::{Repeated, Wire};
use crate::meter::{Latency, Meter, Stopwatch};
use crate::target::Target;
use crate::{Figure, a_while, rounded};

/// Without any delivery for so long the server counts as stuck.
const STALL: Duration = Duration::from_secs(10);
/// Quiet enough after the welcome and the replay.
const QUIET: Duration = Duration::from_millis(500);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The whole run, whatever its count.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The room, ws://127.0.0.1:PORT/ws
    #[arg(long)]
    url: Target,
    /// Connections that only listen.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    members: u32,
    /// Connections that publish, in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    publishers: u32,
    /// Bytes of a published message.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Messages to measure.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// When so many seconds have passed, no more messages are published, however many were to be measured.
    #[arg(long, value_parser = a_while)]
    seconds: Option<Duration>,
    /// Messages before that.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    warmup: u64,
    /// Messages that may be on their way at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    window: u64,
    #[arg(long, value_enum, default_value_t = Protocol::Chat)]
    protocol: Protocol,
    /// The server's process, to read its CPU time.
    #[arg(long)]
    pid: Option<u32>,
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

#[derive(Serialize)]
pub(crate) struct Report {
    members: u32,
    publishers: u32,
    size: u32,
    window: u64,
    messages: u64,
    deliveries: u64,
    seconds: f64,
    deliveries_per_s: f64,
    cpu_us_per_delivery: Option<f64>,
    /// What a member got for a message: a server that adds an id and a time sends more than it received.
    delivered_bytes: f64,
    /// From the publish until a member has the message, over all members, and until the last one has it;
    /// only when one is on its way at a time.
    latency: Option<Latency>,
    last_member: Option<Latency>,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fan-out: {} B to {} members, {} messages, {} deliveries of {:.0} B in {:.2} s",
            self.size,
            self.members,
            self.messages,
            self.deliveries,
            self.delivered_bytes,
            self.seconds
        )?;
        writeln!(f, "  server CPU per delivery  {} µs", Figure(self.cpu_us_per_delivery))?;
        writeln!(f, "  deliveries per second    {:.0}", self.deliveries_per_s)?;
        if let Some((each, last)) = self.latency.as_ref().zip(self.last_member.as_ref()) {
            writeln!(f, "  p50/p99/p99.9/max        {each}")?;
            writeln!(f, "  until the last member    {last}")?;
        }
        write!(
            f,
            "  busy: server, driver     {}, {:.2}",
            Figure(self.server_busy),
            self.driver_busy
        )
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let publishers = args.publishers as usize;
    let links = publishers + args.members as usize;
    let message = message(args.protocol, args.size as usize)?;
    let wire = match args.protocol {
        Protocol::Chat => Wire::WebSocket { keep_start: true },
        Protocol::Raw => Wire::WebSocket { keep_start: false },
        Protocol::Tcp => Wire::Tcp { size: u64::from(args.size) },
    };
    let per_message = match args.protocol {
        Protocol::Chat => links as u64 - 1,
        Protocol::Raw | Protocol::Tcp => links as u64,
    };

    let mut crowd = Crowd::open(&args.url, wire, links)?;
    crowd.settle(QUIET, SETTLE_TIMEOUT)?;
    crowd.stay_awake();
    let mut room = Room {
        crowd,
        repeated: Repeated::new(&message, 1),
        publishers,
        per_message,
        window: args.window,
        chat: args.protocol == Protocol::Chat,
        deadline: Instant::now() + RUN_TIMEOUT,
        bytes: 0,
        latency: Stopwatch::new(),
        last_member: Stopwatch::new(),
    };

    let limit = args.seconds.unwrap_or(RUN_TIMEOUT);
    room.publish(args.warmup, limit)?;
    room.bytes = 0;
    room.latency.reset();
    room.last_member.reset();
    room.crowd.take_idle();

    let meter = Meter::start(args.pid)?;
    let messages = room.publish(args.count, limit)?;
    let spent = meter.stop()?;

    let deliveries = messages * per_message;
    let one_at_a_time = args.window == 1;
    Ok(Report {
        members: args.members,
        publishers: args.publishers,
        size: args.size,
        window: args.window,
        messages,
        deliveries,
        seconds: rounded(spent.wall_s),
        deliveries_per_s: spent.per_s(deliveries),
        cpu_us_per_delivery: spent.server_us_per(deliveries),
        delivered_bytes: rounded(room.bytes as f64 / deliveries as f64),
        latency: one_at_a_time.then(|| room.latency.read()),
        last_member: one_at_a_time.then(|| room.last_member.read()),
        server_busy: spent.server_busy(),
        driver_busy: spent.driver_busy(room.crowd.take_idle()),
    })
}

fn message(protocol: Protocol, size: usize) -> anyhow::Result<Vec<u8>> {
    Ok(match protocol {
        Protocol::Chat => {
            let frame = r#"{"content":""}"#;
            ensure!(size > frame.len(), "a chat message has at least {} bytes", frame.len() + 1);
            let payload = format!(r#"{{"content":"{}"}}"#, "x".repeat(size - frame.len()));
            client_frame(TEXT, payload.as_bytes())
        }
        Protocol::Raw => client_frame(TEXT, &vec![b'x'; size]),
        Protocol::Tcp => vec![b'x'; size],
    })
}

struct Room {
    crowd: Crowd,
    repeated: Repeated,
    /// The first so many links publish; all of them listen.
    publishers: usize,
    /// Deliveries that one message makes.
    per_message: u64,
    window: u64,
    chat: bool,
    deadline: Instant,
    /// Payload bytes delivered.
    bytes: u64,
    latency: Stopwatch,
    last_member: Stopwatch,
}

impl Room {
    /// Publishes `count` messages, or as many as `limit` has time for, and returns how many when all of
    /// them are delivered.
    fn publish(&mut self, mut count: u64, limit: Duration) -> anyhow::Result<u64> {
        let (mut published, mut delivered) = (0, 0);
        let mut published_at = Instant::now();
        let until = published_at + limit;
        let mut last_delivery = published_at;
        let mut stranger = None;
        loop {
            // With several messages on their way, deliveries are counted together: a message goes out
            // when a message's worth of deliveries has come in.
            while published < count
                && published * self.per_message <= delivered + (self.window - 1) * self.per_message
            {
                published_at = Instant::now();
                let publisher = (published % self.publishers as u64) as usize;
                self.crowd.link(publisher)?.send(&self.repeated, 1)?;
                published += 1;
                if published_at >= until {
                    count = published;
                }
            }
            if delivered == count * self.per_message {
                return Ok(count);
            }
            let (chat, before) = (self.chat, delivered);
            let (bytes, repeated) = (&mut self.bytes, &self.repeated);
            let (one_at_a_time, latency) = (self.window == 1, &mut self.latency);
            self.crowd.turn(
                Duration::from_secs(1),
                |_, len, start| {
                    delivered += 1;
                    if one_at_a_time {
                        latency.record(published_at.elapsed());
                    }
                    *bytes += len;
                    if chat && stranger.is_none() && !is_room_message(start) {
                        stranger = Some(String::from_utf8_lossy(start).into_owned());
                    }
                },
                |_, link, _| link.flush(repeated),
            )?;
            self.crowd.ensure_whole()?;
            if let Some(said) = stranger {
                bail!("the server sent something other than a message: {said}");
            }
            ensure!(
                delivered <= published * self.per_message,
                "{delivered} deliveries of {published} messages to {} clients: is anyone else in the room, \
                 or is this the wrong --protocol?",
                self.per_message
            );
            let now = Instant::now();
            if delivered > before {
                last_delivery = now;
            }
            if self.window == 1 && delivered == published * self.per_message {
                self.last_member.record(now.duration_since(published_at));
            }
            if now.duration_since(last_delivery) > STALL {
                bail!(
                    "no delivery for {STALL:?}: {delivered} of {} came",
                    published * self.per_message
                );
            }
            ensure!(now < self.deadline, "not done within {RUN_TIMEOUT:?}");
        }
    }
}

/// By its first bytes, where the server puts the type.
fn is_room_message(start: &[u8]) -> bool {
    const TYPE: &[u8] = br#""type":"message""#;
    start.windows(TYPE.len()).any(|window| window == TYPE)
}
