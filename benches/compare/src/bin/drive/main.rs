//! `drive`: one load driver for every server in the comparison.
//!
//! It runs on one thread, builds the bytes it sends once, and parses no more of what comes back than the
//! length of each frame, so that the server's core is busy before its own. It needs Linux, for `/proc`.

mod echo;
mod fanout;
mod hold;
mod idle;
mod keep;
mod ladder;
mod presence;
mod rooms;

mod crowd;
mod frame;
mod kernel;
mod link;
mod meter;
mod process;
mod target;

use std::fmt;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Loads a WebSocket server on this machine and measures what it costs")]
struct Args {
    /// One line of JSON instead of words.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Closed-loop echo: CPU per message, throughput, latency.
    Echo(echo::Args),
    /// Opens connections, lets them go quiet, and reads the server's memory: connections a second too.
    Idle(idle::Args),
    /// One message to many members: CPU per delivery.
    Fanout(fanout::Args),
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

fn main() {
    let args = Args::parse();
    let done = match &args.work {
        Work::Echo(work) => echo::run(work).map(|report| print(&report, args.json)),
        Work::Idle(work) => idle::run(work).map(|report| print(&report, args.json)),
        Work::Fanout(work) => fanout::run(work).map(|report| print(&report, args.json)),
        Work::Rooms(work) => rooms::run(work).map(|report| print(&report, args.json)),
        Work::Presence(work) => presence::run(work).map(|report| print(&report, args.json)),
        Work::Ladder(work) => ladder::run(work).map(|report| print(&report, args.json)),
        Work::Keep(work) => keep::run(work).map(|report| print(&report, args.json)),
        Work::Hold(work) => hold::run(work).map(|report| print(&report, args.json)),
    };
    if let Err(error) = done {
        eprintln!("drive: {error:#}");
        std::process::exit(1);
    }
}

fn print<R: Serialize + fmt::Display>(report: &R, json: bool) {
    if json {
        let line = serde_json::to_string(report).expect("a report has only strings and numbers");
        println!("{line}");
    } else {
        println!("{report}");
    }
}

/// A figure that needs a `--pid` or is left out.
struct Figure(Option<f64>);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:.2}"),
            None => f.write_str("- (needs --pid)"),
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

/// Digits beyond the third after the point are noise, and make a JSON line hard to read.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
