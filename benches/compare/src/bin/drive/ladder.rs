//! A ladder of connections: more and more are opened, and at each rung it is measured what the next
//! one costs to let in, what all of them cost while they say nothing, and what an echo costs among
//! them. The idle are a ladder with one rung.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::echo::Echo;
use crate::kernel::Kernel;
use crate::link::Wire;
use crate::meter::Meter;
use crate::{Server, Timing, rounded};

/// For the welcome of new connections, before anything is measured.
const SETTLE: Duration = Duration::from_millis(1000);
const ECHO_WARMUP: Duration = Duration::from_millis(300);
/// The server's accepting thread, as far as the kernel keeps a thread's name.
const ACCEPTOR: &str = "rusty-socks-acc";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
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
}

pub(crate) fn run(args: &Args) -> Result<Value> {
    ensure!(
        args.rungs.is_sorted_by(|one, next| one < next),
        "each rung must be above the one before"
    );
    let server = args.server.process()?;
    let rss_before_kib = server.rss_kib()?;
    let before = Kernel::now();
    let wire = Wire::WebSocket;
    let mut crowd = Crowd::open(&args.server.url, wire, 0)?;
    let mut rungs = Vec::new();
    for open in args.rungs.iter().map(|rung| *rung as usize) {
        let new = (open - crowd.len()) as u64;
        let acceptor_before = server.cpu_of_threads(ACCEPTOR);
        let meter = Meter::start(args.server.pid)?;
        crowd.grow(new as usize)?;
        let spent = meter.stop()?;
        let acceptor = server.cpu_of_threads(ACCEPTOR).zip(acceptor_before);
        let acceptor_us =
            acceptor.map(|(after, before)| (after - before).as_secs_f64() * 1e6 / new as f64);
        crowd.listen(SETTLE)?;
        let mut rung = json!({
            "connections": open,
            "rss_kib": server.rss_kib()?,
            "kernel": Kernel::now().since(&before, open),
            // Of those connections that are new at this rung; the acceptor is one thread.
            "connect": {
                "per_s": spent.per_s(new),
                "cpu_us_each": spent.server_us_per(new),
                "acceptor_cpu_us_each": acceptor_us.map(rounded),
            },
        });
        if args.idle_ms > 0 {
            rung["idle"] = silence(args, &mut crowd)?;
        }
        if args.echo_ms > 0 {
            rung["few"] = echo(args, &mut crowd, open.min(args.few as usize))?;
            rung["all"] = echo(args, &mut crowd, open)?;
        }
        rungs.push(rung);
    }
    Ok(json!({ "rss_before_kib": rss_before_kib, "rungs": rungs }))
}

fn silence(args: &Args, crowd: &mut Crowd) -> Result<Value> {
    let meter = Meter::start(args.server.pid)?;
    // A ping has two bytes, and nothing else is sent to the idle.
    let pings = crowd.listen(Duration::from_millis(args.idle_ms))? / 2;
    let spent = meter.stop()?;
    Ok(json!({
        "cpu_ms_per_s": spent.server_busy().map(|busy| rounded(busy * 1e3)),
        "pings": pings,
        "cpu_us_per_ping": spent.server_us_per(pings),
    }))
}

/// A message in flight on each of `count` connections, spread evenly among all of them.
fn echo(args: &Args, crowd: &mut Crowd, count: usize) -> Result<Value> {
    let timing = Timing { seconds: Duration::from_millis(args.echo_ms), warmup: ECHO_WARMUP };
    let open = crowd.len();
    let links = (0..count).map(|at| at * open / count);
    let mut echo = Echo::new(Wire::WebSocket, args.size as usize, 1);
    echo.measure(crowd, links, &timing, args.server.pid)
}

#[derive(clap::Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Seconds without a byte from the server that count as quiet.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600))]
    settle: u64,
    /// No WebSocket: connections without a handshake, for which the kernel answers in the server's
    /// place.
    #[arg(long)]
    raw: bool,
}

/// As one rung, with the time that each takes to open: the server's RSS before and after many
/// connections that say nothing.
pub(crate) fn idle(args: &IdleArgs) -> Result<Value> {
    let server = args.server.process()?;
    let rss_before_kib = server.rss_kib()?;
    let wire = if args.raw { Wire::Tcp { size: 1 } } else { Wire::WebSocket };
    let meter = Meter::start(args.server.pid)?;
    let mut crowd = Crowd::open(&args.server.url, wire, args.connections as usize)?;
    let spent = meter.stop()?;
    crowd.settle(Duration::from_secs(args.settle))?;
    let rss_after_kib = server.rss_kib()?;
    let grown = rss_after_kib as f64 - rss_before_kib as f64;
    let mut figures = json!({
        "connections": args.connections,
        "rss_before_kib": rss_before_kib,
        "rss_after_kib": rss_after_kib,
        "kib_per_connection": rounded(grown / f64::from(args.connections)),
    });
    if !args.raw {
        // From the first `connect` to the last answer, so many at a time.
        let connections = u64::from(args.connections);
        figures["connects_per_s"] = json!(spent.per_s(connections));
        figures["cpu_us_per_connect"] = json!(spent.server_us_per(connections));
        figures["opening"] = crowd.opening();
    }
    Ok(spent.report(Duration::ZERO, figures))
}
