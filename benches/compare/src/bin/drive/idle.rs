//! Memory of the quiet: the server's RSS before and after many connections that say nothing. On the way
//! there, what it costs to let them in.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::crowd::Crowd;
use crate::link::Wire;
use crate::meter::{Latency, Meter};
use crate::process::Process;
use crate::target::Target;
use crate::{Figure, rounded};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to connect, ws://127.0.0.1:PORT/ws
    #[arg(long)]
    url: Target,
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Seconds without a byte from the server that count as quiet.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600))]
    settle: u64,
    /// The server's process, to read its memory.
    #[arg(long)]
    pid: u32,
    /// No WebSocket: connections without a handshake.
    #[arg(long)]
    raw: bool,
}

#[derive(Serialize)]
pub(crate) struct Report {
    connections: u32,
    rss_before_kib: u64,
    rss_after_kib: u64,
    kib_per_connection: f64,
    /// From the first `connect` to the last answer, so many at a time; not without a handshake, where the
    /// kernel answers for the server.
    connects_per_s: Option<f64>,
    cpu_us_per_connect: Option<f64>,
    opening: Option<Latency>,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "idle: {} connections", self.connections)?;
        writeln!(
            f,
            "  server RSS before, after  {} KiB, {} KiB",
            self.rss_before_kib, self.rss_after_kib
        )?;
        write!(f, "  per connection            {:.2} KiB", self.kib_per_connection)?;
        if let Some((per_s, opening)) = self.connects_per_s.zip(self.opening.as_ref()) {
            write!(f, "\n  connects per second       {per_s:.0}")?;
            write!(f, "\n  server CPU per connect    {} µs", Figure(self.cpu_us_per_connect))?;
            write!(f, "\n  opening p50/p99/p99.9/max {opening}")?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let server = Process::with_pid(args.pid);
    let rss_before_kib = server.rss_kib()?;
    let wire = if args.raw { Wire::Tcp { size: 1 } } else { Wire::WebSocket { keep_start: false } };
    let meter = Meter::start(Some(args.pid))?;
    let mut crowd = Crowd::open(&args.url, wire, args.connections as usize)?;
    let spent = meter.stop()?;
    let quiet = Duration::from_secs(args.settle);
    crowd.settle(quiet, quiet + Duration::from_secs(60))?;
    let rss_after_kib = server.rss_kib()?;
    let connections = u64::from(args.connections);
    let grown = rss_after_kib as f64 - rss_before_kib as f64;
    Ok(Report {
        connections: args.connections,
        rss_before_kib,
        rss_after_kib,
        kib_per_connection: rounded(grown / f64::from(args.connections)),
        connects_per_s: (!args.raw).then(|| spent.per_s(connections)),
        cpu_us_per_connect: spent.server_us_per(connections).filter(|_| !args.raw),
        opening: (!args.raw).then(|| crowd.opening()),
        server_busy: spent.server_busy(),
        driver_busy: spent.driver_busy(Duration::ZERO),
    })
}
