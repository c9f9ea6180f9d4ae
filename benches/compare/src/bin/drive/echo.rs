//! Closed-loop echo: each connection keeps `depth` messages in flight, and a reply is answered by the
//! next message. Replies that came in one read are answered in one write.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{BINARY, TEXT, client_frame, server_frame};
use crate::link::{Repeated, Wire};
use crate::meter::{Latency, Meter, Stopwatch};
use crate::target::Target;
use crate::{Figure, a_while, rounded};

/// Without any reply for so long the server counts as stuck.
const STALL: Duration = Duration::from_secs(5);
/// All that may be in flight on one connection.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The echo of the server, ws://127.0.0.1:PORT/echo
    #[arg(long)]
    url: Target,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Messages in flight on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// Bytes of payload in a message.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    /// How long to measure, in seconds.
    #[arg(long, default_value = "5", value_parser = a_while)]
    seconds: Duration,
    /// How long to run before that, in seconds.
    #[arg(long, default_value = "1", value_parser = a_while)]
    warmup: Duration,
    /// The server's process, to read its CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// Text messages instead of binary ones.
    #[arg(long, conflicts_with = "raw")]
    text: bool,
    /// No WebSocket: bytes out are bytes in.
    #[arg(long)]
    raw: bool,
}

#[derive(Serialize)]
pub(crate) struct Report {
    connections: u32,
    depth: u32,
    size: u32,
    seconds: f64,
    messages: u64,
    messages_per_s: f64,
    cpu_us_per_message: Option<f64>,
    latency: Latency,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, depth, size, seconds, messages, .. } = self;
        writeln!(
            f,
            "echo: {size} B, {depth} in flight × {connections}, {messages} messages in {seconds:.2} s"
        )?;
        writeln!(f, "  server CPU per message  {} µs", Figure(self.cpu_us_per_message))?;
        writeln!(f, "  messages per second     {:.0}", self.messages_per_s)?;
        writeln!(f, "  p50/p99/p99.9/max       {}", self.latency)?;
        write!(f, "  busy: server, driver    {}, {:.2}", Figure(self.server_busy), self.driver_busy)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let (depth, size) = (args.depth as usize, args.size as usize);
    ensure!(
        depth * size <= IN_FLIGHT_BYTES_MAX,
        "depth × size is over {IN_FLIGHT_BYTES_MAX} bytes"
    );
    let payload = vec![b'x'; size];
    let opcode = if args.text { TEXT } else { BINARY };
    let (wire, message, reply) = if args.raw {
        (Wire::Tcp { size: size as u64 }, payload.clone(), payload)
    } else {
        let wire = Wire::WebSocket { keep_start: false };
        (wire, client_frame(opcode, &payload), server_frame(opcode, &payload))
    };
    let repeated = Repeated::new(&message, depth);

    let mut crowd = Crowd::open(&args.url, wire, args.connections as usize)?;
    prove_echo(&mut crowd, &repeated, &reply)?;
    crowd.stay_awake();

    let mut lanes: Vec<Lane> = Vec::new();
    for index in 0..args.connections as usize {
        let mut lane = Lane::default();
        lane.sent(Instant::now(), depth as u64);
        lanes.push(lane);
        crowd.link(index)?.send(&repeated, depth)?;
    }
    let mut tally = Tally { messages: 0, wrong_len: None, latency: Stopwatch::new() };
    let mut last_reply = Instant::now();
    let mut run_until =
        |until: Instant, crowd: &mut Crowd, tally: &mut Tally| -> anyhow::Result<()> {
            loop {
                let now = Instant::now();
                if now >= until {
                    return Ok(());
                }
                let before = tally.messages;
                let Tally { messages, wrong_len, latency } = tally;
                crowd.turn(
                    (until - now).min(Duration::from_secs(1)),
                    |_, len, _| {
                        if len != size as u64 {
                            *wrong_len = Some(len);
                        }
                    },
                    |index, link, replies| {
                        if replies > 0 {
                            let now = Instant::now();
                            *messages += replies as u64;
                            lanes[index].replied(now, replies as u64, latency)?;
                            lanes[index].sent(now, replies as u64);
                        }
                        link.send(&repeated, replies)
                    },
                )?;
                crowd.ensure_whole()?;
                if let Some(len) = tally.wrong_len {
                    bail!("the server answered {size} bytes with {len}: this is no echo");
                }
                if tally.messages > before {
                    last_reply = Instant::now();
                } else if last_reply.elapsed() > STALL {
                    bail!("no reply for {STALL:?}, with messages in flight");
                }
            }
        };

    run_until(Instant::now() + args.warmup, &mut crowd, &mut tally)?;
    tally.messages = 0;
    tally.latency.reset();
    crowd.take_idle();

    let meter = Meter::start(args.pid)?;
    run_until(Instant::now() + args.seconds, &mut crowd, &mut tally)?;
    let spent = meter.stop()?;

    ensure!(tally.messages > 0, "not one reply came in {:.1} s", spent.wall_s);
    Ok(Report {
        connections: args.connections,
        depth: args.depth,
        size: args.size,
        seconds: rounded(spent.wall_s),
        messages: tally.messages,
        messages_per_s: spent.per_s(tally.messages),
        cpu_us_per_message: spent.server_us_per(tally.messages),
        latency: tally.latency.read(),
        server_busy: spent.server_busy(),
        driver_busy: spent.driver_busy(crowd.take_idle()),
    })
}

struct Tally {
    messages: u64,
    /// The length of a reply that was not as long as its message.
    wrong_len: Option<u64>,
    latency: Stopwatch,
}

/// When the messages in flight on one link were sent: batches, oldest first.
#[derive(Default)]
struct Lane {
    batches: VecDeque<(Instant, u64)>,
}

impl Lane {
    fn sent(&mut self, at: Instant, messages: u64) {
        self.batches.push_back((at, messages));
    }

    fn replied(
        &mut self,
        at: Instant,
        mut replies: u64,
        latency: &mut Stopwatch,
    ) -> anyhow::Result<()> {
        while replies > 0 {
            let (sent_at, messages) = self
                .batches
                .front_mut()
                .context("the server sent more replies than it got messages")?;
            let k = replies.min(*messages);
            latency.record_n(at.duration_since(*sent_at), k);
            replies -= k;
            *messages -= k;
            if *messages == 0 {
                self.batches.pop_front();
            }
        }
        Ok(())
    }
}

/// One message there and back, compared to the byte, before the counting starts: the loop itself looks
/// only at lengths.
fn prove_echo(crowd: &mut Crowd, repeated: &Repeated, reply: &[u8]) -> anyhow::Result<()> {
    let stream = crowd.link(0)?.stream();
    let message = repeated.one();
    let (mut sent, mut got) = (0, Vec::with_capacity(reply.len()));
    let mut chunk = vec![0; 64 * 1024];
    let deadline = Instant::now() + STALL;
    while got.len() < reply.len() {
        ensure!(Instant::now() < deadline, "no echo of the first message within {STALL:?}");
        let would_block = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        if sent < message.len() {
            match stream.write(&message[sent..]) {
                Ok(n) => sent += n,
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(error).context("cannot send the first message"),
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) => bail!("the server hung up on the first message"),
            Ok(n) => got.extend_from_slice(&chunk[..n]),
            Err(error) if would_block(&error) => std::thread::yield_now(),
            Err(error) => return Err(error).context("cannot read the first reply"),
        }
    }
    ensure!(got == reply, "the first reply is not the message that was sent: this is no echo");
    Ok(())
}
