//! A ladder of connections: more and more are opened, and at each rung it is measured what the next one costs to
//! let in, what all of them cost while they say nothing, and what an echo costs among them.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{BINARY, client_frame};
use crate::kernel::{Growth, Kernel};
use crate::link::{Repeated, Wire};
use crate::meter::{Latency, Meter, Stopwatch};
use crate::process::Process;
use crate::rounded;
use crate::target::Target;

/// Without any reply for so long the server counts as stuck.
const STALL: Duration = Duration::from_secs(10);
/// For the welcome of new connections, before anything is measured.
const SETTLE: Duration = Duration::from_millis(1000);
/// Echoes before those that are measured: so long, and each connection so often.
const WARMUP: Duration = Duration::from_millis(300);
const WARMUP_ROUNDS: u64 = 2;
/// The server's accepting thread, as far as the kernel keeps a thread's name.
const ACCEPTOR: &str = "rusty-socks-acc";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to connect, ws://127.0.0.1:PORT/echo or /ws
    #[arg(long)]
    url: Target,
    /// How many connections there are at each rung, rising.
    #[arg(long, value_delimiter = ',', required = true,
        value_parser = clap::value_parser!(u32).range(1..=60_000))]
    rungs: Vec<u32>,
    /// How long to watch them say nothing at each rung, in milliseconds. Pings are answered.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    idle_ms: u64,
    /// How long to echo at each rung, in milliseconds: first on few of them, then on all.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    echo_ms: u64,
    /// How many the few are.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    few: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: u32,
    /// The server's process.
    #[arg(long)]
    pid: u32,
}

#[derive(Serialize)]
pub(crate) struct Report {
    rss_before_kib: u64,
    rungs: Vec<Rung>,
}

#[derive(Serialize)]
struct Rung {
    connections: u32,
    rss_kib: u64,
    /// Since before the first connection.
    kernel: Growth,
    /// Of those connections that are new at this rung.
    connect: Connects,
    idle: Option<Idle>,
    few: Option<Echoes>,
    all: Option<Echoes>,
}

#[derive(Serialize)]
struct Connects {
    per_s: f64,
    cpu_us_each: Option<f64>,
    /// The part of it that is the accepting thread's, of which there is one.
    acceptor_cpu_us_each: Option<f64>,
}

#[derive(Serialize)]
struct Idle {
    seconds: f64,
    /// Of the server, in a second of the wall clock.
    cpu_ms_per_s: Option<f64>,
    /// A ping has two bytes, and nothing else is sent to the idle.
    pings: u64,
    cpu_us_per_ping: Option<f64>,
}

#[derive(Serialize)]
struct Echoes {
    connections: u32,
    messages: u64,
    messages_per_s: f64,
    cpu_us_per_message: Option<f64>,
    latency: Latency,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2} µs"));
        write!(f, "ladder: RSS {} KiB before the first", self.rss_before_kib)?;
        for rung in &self.rungs {
            let Rung { connections, rss_kib, connect, .. } = rung;
            write!(
                f,
                "\n  {connections} connections: RSS {rss_kib} KiB, connect {}, of it the acceptor {}",
                us(connect.cpu_us_each),
                us(connect.acceptor_cpu_us_each)
            )?;
            if let Some(Idle { pings, cpu_us_per_ping, .. }) = &rung.idle {
                write!(f, "\n    idle: {pings} pings, {} each", us(*cpu_us_per_ping))?;
            }
            for echoes in rung.few.iter().chain(&rung.all) {
                let Echoes { connections, cpu_us_per_message, latency, .. } = echoes;
                write!(f, "\n    echo on {connections}: {}, {latency}", us(*cpu_us_per_message))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    ensure!(
        args.rungs.is_sorted_by(|one, next| one < next),
        "each rung must be above the one before"
    );
    let server = Process::with_pid(args.pid);
    let rss_before_kib = server.rss_kib()?;
    let before = Kernel::now();
    let wire = Wire::WebSocket { keep_start: false };
    let mut crowd = Crowd::open(&args.url, wire, 0)?;
    let mut rungs = Vec::new();
    let mut open = 0;
    for connections in args.rungs.iter().copied() {
        let new = connections - open;
        open = connections;
        let acceptor_before = server.cpu_of_threads(ACCEPTOR);
        let meter = Meter::start(Some(args.pid))?;
        crowd.grow(&args.url, wire, new as usize)?;
        let spent = meter.stop()?;
        let acceptor = server.cpu_of_threads(ACCEPTOR).zip(acceptor_before);
        let connect = Connects {
            per_s: spent.per_s(u64::from(new)),
            cpu_us_each: spent.server_us_per(u64::from(new)),
            acceptor_cpu_us_each: acceptor.map(|(after, before)| {
                rounded((after - before).as_secs_f64() * 1e6 / f64::from(new))
            }),
        };
        listen(&mut crowd, SETTLE)?;
        let (rss_kib, kernel) = (server.rss_kib()?, Kernel::now().since(&before, open as usize));
        let idle = (args.idle_ms > 0).then(|| idle(args, &mut crowd)).transpose()?;
        let echoes = |count: u32, crowd: &mut Crowd| {
            (args.echo_ms > 0).then(|| echo(args, crowd, open, count)).transpose()
        };
        let few = echoes(args.few.min(open), &mut crowd)?;
        let all = echoes(open, &mut crowd)?;
        rungs.push(Rung { connections, rss_kib, kernel, connect, idle, few, all });
    }
    Ok(Report { rss_before_kib, rungs })
}

/// Reads and answers pings for so long. Returns the bytes that came.
fn listen(crowd: &mut Crowd, time: Duration) -> anyhow::Result<u64> {
    let until = Instant::now() + time;
    let mut bytes = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(bytes);
        }
        bytes += crowd.turn(left, |_, _, _| {}, |_, _, _| Ok(()))? as u64;
        crowd.ensure_whole()?;
    }
}

fn idle(args: &Args, crowd: &mut Crowd) -> anyhow::Result<Idle> {
    let meter = Meter::start(Some(args.pid))?;
    let pings = listen(crowd, Duration::from_millis(args.idle_ms))? / 2;
    let spent = meter.stop()?;
    Ok(Idle {
        seconds: rounded(spent.wall_s),
        cpu_ms_per_s: spent.server_busy().map(|busy| rounded(busy * 1e3)),
        pings,
        cpu_us_per_ping: spent.server_us_per(pings),
    })
}

/// A message in flight on each of `count` of the `open` connections, spread evenly among them. In the end all are
/// answered, so that the next rung begins in silence.
fn echo(args: &Args, crowd: &mut Crowd, open: u32, count: u32) -> anyhow::Result<Echoes> {
    let size = u64::from(args.size);
    let repeated = Repeated::new(&client_frame(BINARY, &vec![b'x'; args.size as usize]), 1);
    crowd.stay_awake();
    let mut sent_at = vec![Instant::now(); open as usize];
    for at in 0..u64::from(count) {
        let index = (at * u64::from(open) / u64::from(count)) as usize;
        crowd.link(index)?.send(&repeated, 1)?;
    }
    let mut echoes = Loop { in_flight: u64::from(count), messages: 0, latency: Stopwatch::new() };
    let began = Instant::now();
    while began.elapsed() < WARMUP || echoes.messages < WARMUP_ROUNDS * u64::from(count) {
        echoes.turn(crowd, &repeated, size, &mut sent_at, true)?;
    }
    echoes.messages = 0;
    echoes.latency.reset();
    crowd.take_idle();
    let until = Instant::now() + Duration::from_millis(args.echo_ms);
    let meter = Meter::start(Some(args.pid))?;
    while Instant::now() < until {
        echoes.turn(crowd, &repeated, size, &mut sent_at, true)?;
    }
    let spent = meter.stop()?;
    let driver_busy = spent.driver_busy(crowd.take_idle());
    let (messages, latency) = (echoes.messages, echoes.latency.read());
    while echoes.in_flight > 0 {
        echoes.turn(crowd, &repeated, size, &mut sent_at, false)?;
    }
    Ok(Echoes {
        connections: count,
        messages,
        messages_per_s: spent.per_s(messages),
        cpu_us_per_message: spent.server_us_per(messages),
        latency,
        server_busy: spent.server_busy(),
        driver_busy,
    })
}

struct Loop {
    in_flight: u64,
    messages: u64,
    latency: Stopwatch,
}

impl Loop {
    /// Takes the replies there are, and answers each with the next message if `goes_on`.
    fn turn(
        &mut self,
        crowd: &mut Crowd,
        repeated: &Repeated,
        size: u64,
        sent_at: &mut [Instant],
        goes_on: bool,
    ) -> anyhow::Result<()> {
        let Self { in_flight, messages, latency } = self;
        let (before, mut wrong) = (*messages, None);
        crowd.turn(
            STALL,
            |_, len, _| wrong = wrong.or((len != size).then_some(len)),
            |index, link, replies| {
                if replies == 0 {
                    return link.flush(repeated);
                }
                let now = Instant::now();
                latency.record(now.duration_since(sent_at[index]));
                *messages += replies as u64;
                sent_at[index] = now;
                if goes_on {
                    return link.send(repeated, replies);
                }
                *in_flight -= replies as u64;
                Ok(())
            },
        )?;
        crowd.ensure_whole()?;
        if let Some(len) = wrong {
            bail!("the server answered {size} bytes with {len}: this is no echo");
        }
        let quiet = *messages == before && sent_at.iter().all(|sent_at| sent_at.elapsed() > STALL);
        ensure!(!quiet, "no reply for {STALL:?}, with messages in flight");
        Ok(())
    }
}
