//! One room where everybody is told who comes and who goes: all join, one after the other, then all leave.
//! Of N members each is told of all that come after it, so there are N × (N − 1) / 2 notices each way.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{TEXT, client_frame};
use crate::link::Wire;
use crate::meter::{Latency, Meter, Stopwatch};
use crate::target::Target;
use crate::{Figure, rounded};

/// After so long without anything the notices that are missing will not come: a `gap` stands for them.
const STALL: Duration = Duration::from_secs(3);
/// Quiet enough after the welcome.
const QUIET: Duration = Duration::from_millis(500);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// For all to join, or all to leave.
const PHASE_TIMEOUT: Duration = Duration::from_secs(300);
/// Not the default room, which one is in already.
const ROOM: &str = "crowd";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rusty Socks' chat, ws://127.0.0.1:PORT/ws
    #[arg(long)]
    url: Target,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    members: u32,
    /// Joins, and later leaves, that wait for their answer at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// The server's process, to read its CPU time.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct Report {
    members: u32,
    window: u32,
    join: Phase,
    leave: Phase,
}

#[derive(Serialize)]
struct Phase {
    seconds: f64,
    per_s: f64,
    cpu_us_each: Option<f64>,
    notices: u64,
    /// Those that a `gap` stands for, or that were lost. Of those who leave at the same time nobody can say
    /// who still has to be told of whom.
    notices_missing: Option<u64>,
    gaps: u64,
    cpu_us_per_notice: Option<f64>,
    bytes: u64,
    /// From the command to its answer.
    latency: Latency,
    server_busy: Option<f64>,
    driver_busy: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "presence: {} members, {} at a time", self.members, self.window)?;
        for (name, phase) in [("join", &self.join), ("leave", &self.leave)] {
            write!(
                f,
                "\n  {name}: {:.0} a second for {:.2} s, server CPU {} µs each\n    \
                 {} notices{}, {} gaps, server CPU {} µs per notice\n    \
                 answer p50/p99/p99.9/max {}\n    busy: server, driver {}, {:.2}",
                phase.per_s,
                phase.seconds,
                Figure(phase.cpu_us_each),
                phase.notices,
                phase.notices_missing.map_or_else(String::new, |n| format!(", {n} missing")),
                phase.gaps,
                Figure(phase.cpu_us_per_notice),
                phase.latency,
                Figure(phase.server_busy),
                phase.driver_busy
            )?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let wire = Wire::WebSocket { keep_start: true };
    let mut crowd = Crowd::open(&args.url, wire, args.members as usize)?;
    crowd.settle(QUIET, SETTLE_TIMEOUT)?;
    let join = format!(r#"{{"type":"join","room":"{ROOM}","presence":true,"ref":0}}"#);
    let all = u64::from(args.members) * (u64::from(args.members) - 1) / 2;
    let join = phase(args, &mut crowd, &join, "joined", Some(all))?;
    let leave = format!(r#"{{"type":"leave","room":"{ROOM}","ref":0}}"#);
    let leave = phase(args, &mut crowd, &leave, "left", None)?;
    Ok(Report { members: args.members, window: args.window, join, leave })
}

/// Has each link say `command` once, and counts the notices of `kind` that the others get. It is done when
/// all are answered and the `expected` notices have come.
fn phase(
    args: &Args,
    crowd: &mut Crowd,
    command: &str,
    kind: &str,
    expected: Option<u64>,
) -> anyhow::Result<Phase> {
    let members = args.members as usize;
    let frame = client_frame(TEXT, command.as_bytes());
    let notice = format!(r#"{{"type":"{kind}""#);
    let mut asked_at: Vec<Instant> = Vec::with_capacity(members);
    let (mut answered, mut notices, mut gaps, mut bytes) = (0, 0, 0, 0);
    let mut latency = Stopwatch::new();
    let mut other = None;

    let meter = Meter::start(args.pid)?;
    let deadline = Instant::now() + PHASE_TIMEOUT;
    let mut last_byte = Instant::now();
    // Read when nothing comes any more, so that the wait for notices that never will does not count.
    let mut spent = None;
    while answered < members || expected.is_some_and(|expected| notices < expected) {
        while asked_at.len() < members && asked_at.len() - answered < args.window as usize {
            crowd.link(asked_at.len())?.send_alone(&frame)?;
            asked_at.push(Instant::now());
        }
        let n = crowd.turn(
            Duration::from_millis(100),
            |index, len, start| {
                bytes += len;
                if start.starts_with(notice.as_bytes()) {
                    notices += 1;
                } else if start.starts_with(br#"{"type":"ok""#) {
                    answered += 1;
                    latency.record(asked_at[index].elapsed());
                } else if start.starts_with(br#"{"type":"gap""#) {
                    gaps += 1;
                } else {
                    other = Some(String::from_utf8_lossy(start).into_owned());
                }
            },
            |_, _, _| Ok(()),
        )?;
        crowd.ensure_whole()?;
        if let Some(said) = other {
            bail!("this belongs to no {kind}: {said}");
        }
        let now = Instant::now();
        ensure!(now < deadline, "not done within {PHASE_TIMEOUT:?}");
        if n > 0 {
            last_byte = now;
            spent = None;
        } else if spent.is_none() {
            spent = Some(meter.stop()?);
        }
        if now.duration_since(last_byte) > STALL {
            ensure!(answered == members, "only {answered} of {members} commands were answered");
            break;
        }
    }
    let spent = match spent {
        Some(spent) => spent,
        None => meter.stop()?,
    };
    Ok(Phase {
        seconds: rounded(spent.wall_s),
        per_s: spent.per_s(u64::from(args.members)),
        cpu_us_each: spent.server_us_per(u64::from(args.members)),
        notices,
        notices_missing: expected.map(|expected| expected.saturating_sub(notices)),
        gaps,
        cpu_us_per_notice: spent.server_us_per(notices),
        bytes,
        latency: latency.read(),
        server_busy: spent.server_busy(),
        driver_busy: spent.driver_busy(Duration::ZERO),
    })
}
