//! One message to many: what a delivery costs the server. The next message is published once the
//! previous ones, all but a window, have reached everybody.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{TEXT, client_frame};
use crate::link::{Repeated, Wire};
use crate::process::Process;
use crate::target::Target;
use crate::{Figure, rounded};

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
    /// From the publish until the last member has the message; only when one is on its way at a time.
    last_member_p50_us: Option<f64>,
    last_member_p99_us: Option<f64>,
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
        if let Some((p50, p99)) = self.last_member_p50_us.zip(self.last_member_p99_us) {
            writeln!(f, "  last member p50/p99      {p50:.0} / {p99:.0} µs")?;
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
    let server = args.pid.map(Process::with_pid);

    let mut crowd = Crowd::open(&args.url, wire, links)?;
    crowd.settle(QUIET, SETTLE_TIMEOUT)?;
    let mut room = Room {
        crowd,
        repeated: Repeated::new(&message, 1),
        publishers,
        per_message,
        window: args.window,
        chat: args.protocol == Protocol::Chat,
        deadline: Instant::now() + RUN_TIMEOUT,
        bytes: 0,
        last_member_ns: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
    };

    room.publish(args.warmup)?;
    room.bytes = 0;
    room.last_member_ns.reset();

    let cpu = || server.as_ref().map(Process::cpu).transpose();
    let this = Process::this();
    let (server_before, driver_before) = (cpu()?, this.cpu()?);
    let start = Instant::now();
    room.publish(args.count)?;
    let wall_s = start.elapsed().as_secs_f64();
    let (server_after, driver_after) = (cpu()?, this.cpu()?);

    let deliveries = args.count * per_message;
    let server_s = server_after
        .zip(server_before)
        .map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    let last_member_us = |quantile| {
        (args.window == 1)
            .then(|| rounded(room.last_member_ns.value_at_quantile(quantile) as f64 / 1e3))
    };
    Ok(Report {
        members: args.members,
        publishers: args.publishers,
        size: args.size,
        window: args.window,
        messages: args.count,
        deliveries,
        seconds: rounded(wall_s),
        deliveries_per_s: rounded(deliveries as f64 / wall_s),
        cpu_us_per_delivery: server_s.map(|s| rounded(s * 1e6 / deliveries as f64)),
        delivered_bytes: rounded(room.bytes as f64 / deliveries as f64),
        last_member_p50_us: last_member_us(0.5),
        last_member_p99_us: last_member_us(0.99),
        server_busy: server_s.map(|s| rounded(s / wall_s)),
        driver_busy: rounded(driver_after.saturating_sub(driver_before).as_secs_f64() / wall_s),
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
    last_member_ns: Histogram<u64>,
}

impl Room {
    /// Publishes `count` messages and returns when all are delivered.
    fn publish(&mut self, count: u64) -> anyhow::Result<()> {
        let due = count * self.per_message;
        let (mut published, mut delivered) = (0, 0);
        let mut published_at = Instant::now();
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
            }
            if delivered == due {
                return Ok(());
            }
            let (chat, before) = (self.chat, delivered);
            let (bytes, repeated) = (&mut self.bytes, &self.repeated);
            self.crowd.turn(
                Duration::from_secs(1),
                |len, start| {
                    delivered += 1;
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
                let elapsed = now.duration_since(published_at);
                self.last_member_ns.saturating_record(elapsed.as_nanos() as u64);
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
