//! `drive`: one load driver for every server in the comparison.
//!
//! It runs on one thread and encodes what it sends once, so that the server's core is busy before
//! its own. Its sockets, handshakes, buffers and histograms are those of `rusty_socks_load`; its
//! loops are its own, because a server pays for waking a client that sleeps. It needs Linux, for
//! `/proc`.

mod echo;
mod hold;
mod keep;
mod ladder;
mod presence;
mod rooms;

mod commands;
mod crowd;
mod kernel;
mod link;
mod meter;
mod process;
mod target;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use process::Process;
use target::Target;

#[derive(Parser)]
#[command(about = "Loads a WebSocket server on this machine and measures what it costs")]
struct Args {
    /// The report on one line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Closed-loop echo: CPU per message, throughput, latency.
    Echo(echo::Args),
    /// Opens connections, lets them go quiet, and reads the server's memory: connections a second
    /// too.
    Idle(ladder::IdleArgs),
    /// One message to many members: CPU per delivery.
    Fanout(rooms::FanoutArgs),
    /// Many rooms that talk at once: CPU per publish and per delivery.
    Rooms(rooms::Args),
    /// One room where all see who comes and goes: CPU per join, leave and notice.
    Presence(presence::Args),
    /// More and more connections: what each costs to let in, to keep, and as a neighbour.
    Ladder(ladder::Args),
    /// Many rooms and what they remember: memory per room, CPU per publish without a delivery.
    Keep(keep::Args),
    /// Holds many connections and asks `/health` meanwhile.
    Hold(hold::Args),
}

/// The server under load.
#[derive(clap::Args)]
struct Server {
    /// Where to connect, such as ws://127.0.0.1:3030/ws
    #[arg(long)]
    url: Target,
    /// The server's process, to read its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
}

impl Server {
    fn process(&self) -> Result<Process> {
        Ok(Process::with_pid(self.pid.context("this work needs the server's --pid")?))
    }
}

/// How long to run a load.
#[derive(clap::Args)]
struct Timing {
    /// How long to measure, in seconds.
    #[arg(long, default_value = "5", value_parser = a_while)]
    seconds: Duration,
    /// How long to run before that, in seconds.
    #[arg(long, default_value = "1", value_parser = a_while)]
    warmup: Duration,
}

fn main() {
    let args = Args::parse();
    let done = match &args.work {
        Work::Echo(work) => echo::run(work),
        Work::Idle(work) => ladder::idle(work),
        Work::Fanout(work) => rooms::fanout(work),
        Work::Rooms(work) => rooms::run(work),
        Work::Presence(work) => presence::run(work),
        Work::Ladder(work) => ladder::run(work),
        Work::Keep(work) => keep::run(work),
        Work::Hold(work) => hold::run(work),
    };
    match done {
        Ok(report) if args.json => println!("{report}"),
        Ok(report) => println!("{report:#}"),
        Err(error) => {
            eprintln!("drive: {error:#}");
            std::process::exit(1);
        }
    }
}

/// Seconds, whole or not, of which there are at most ten minutes.
fn a_while(text: &str) -> Result<Duration, String> {
    let fault = || format!("'{text}' is not a number of seconds from 0 to 600");
    text.parse()
        .ok()
        .filter(|seconds| (0.0..=600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(fault)
}

/// Digits beyond the third after the point are noise, and make a report hard to read.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
