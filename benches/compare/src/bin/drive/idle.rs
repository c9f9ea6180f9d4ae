//! Memory of the quiet: the server's RSS before and after many connections that say nothing.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::crowd::Crowd;
use crate::link::Wire;
use crate::process::Process;
use crate::rounded;
use crate::target::Target;

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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "idle: {} connections", self.connections)?;
        writeln!(
            f,
            "  server RSS before, after  {} KiB, {} KiB",
            self.rss_before_kib, self.rss_after_kib
        )?;
        write!(f, "  per connection            {:.2} KiB", self.kib_per_connection)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let server = Process::with_pid(args.pid);
    let rss_before_kib = server.rss_kib()?;
    let wire = if args.raw { Wire::Tcp { size: 1 } } else { Wire::WebSocket { keep_start: false } };
    let mut crowd = Crowd::open(&args.url, wire, args.connections as usize)?;
    let quiet = Duration::from_secs(args.settle);
    crowd.settle(quiet, quiet + Duration::from_secs(60))?;
    let rss_after_kib = server.rss_kib()?;
    let grown = rss_after_kib as f64 - rss_before_kib as f64;
    Ok(Report {
        connections: args.connections,
        rss_before_kib,
        rss_after_kib,
        kib_per_connection: rounded(grown / f64::from(args.connections)),
    })
}
