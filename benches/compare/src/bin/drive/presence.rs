//! One room where everybody is told who comes and who goes: all join, one after the other, then all
//! leave. Of N members each is told of all that come after it, so there are N × (N − 1) / 2 notices
//! each way.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusty_socks_load::Times;
use serde_json::{Value, json};

use crate::Server;
use crate::commands::{Commands, is_answer};
use crate::crowd::{Crowd, QUIET};
use crate::link::{Wire, client_text};
use crate::meter::{Meter, report};

/// After so long without anything the notices that are missing will not come: a `gap` stands for
/// them.
const STALL: Duration = Duration::from_secs(3);

/// What each client has in a notice that tells of many.
const CLIENT: &[u8] = br#""client_id""#;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    members: u32,
    /// Joins, and later leaves, that wait for their answer at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
}

pub(crate) fn run(args: &Args) -> Result<Value> {
    let mut crowd = Crowd::open(&args.server.url, Wire::WebSocket, args.members as usize)?;
    crowd.settle(QUIET)?;
    // Not the default room, which one is in already.
    let join = r#"{"type":"join","room":"crowd","presence":true,"ref":0}"#;
    let all = u64::from(args.members) * (u64::from(args.members) - 1) / 2;
    let join = phase(args, &mut crowd, join, r#"{"type":"joined""#, Some(all))?;
    // Of those who leave at the same time nobody can say who still has to be told of whom.
    let leave = r#"{"type":"leave","room":"crowd","ref":0}"#;
    let leave = phase(args, &mut crowd, leave, r#"{"type":"left""#, None)?;
    Ok(json!({ "members": args.members, "window": args.window, "join": join, "leave": leave }))
}

/// Has each link say `command` once, and counts the notices that start with `notice`. It is done
/// when all are answered and the `expected` notices have come.
fn phase(
    args: &Args,
    crowd: &mut Crowd,
    command: &str,
    notice: &str,
    expected: Option<u64>,
) -> Result<Value> {
    let (count, window) = (args.members as usize, args.window as usize);
    let frame = client_text(command);
    let asked_at = vec![Cell::new(Instant::now()); count];
    let (mut heard, mut latency) = (Heard { kind: notice, notices: 0, gaps: 0 }, Times::new());
    let meter = Meter::start(args.server.pid)?;
    Commands { count, window, refill_at: window - 1 }.run(
        crowd,
        |crowd, links| {
            for index in links {
                crowd.link(index)?.send_encoded(&frame);
                asked_at[index].set(Instant::now());
            }
            Ok(())
        },
        |index, start| {
            if heard.takes(start) {
                return Ok(false);
            }
            latency.record(asked_at[index].get().elapsed());
            is_answer(index, start)
        },
    )?;
    // Read before each wait, so that one for notices that will never come does not count.
    let mut spent = meter.stop()?;
    while expected.is_some_and(|expected| heard.notices < expected) {
        let bytes = crowd.turn(
            STALL,
            |index, start| match heard.takes(start) {
                true => Ok(()),
                false => is_answer(index, start).map(|_| ()),
            },
            |_, _, _| Ok(()),
        )?;
        if bytes == 0 {
            break;
        }
        spent = meter.stop()?;
    }
    let Heard { notices, gaps, .. } = heard;
    let figures = json!({
        "per_s": spent.per_s(count as u64),
        "cpu_us_each": spent.server_us_per(count as u64),
        "notices": notices,
        // Those that a `gap` stands for, or that were lost.
        "notices_missing": expected.map(|expected| expected.saturating_sub(notices)),
        "gaps": gaps,
        "cpu_us_per_notice": spent.server_us_per(notices),
        // From the command to its answer.
        "latency": report(&latency),
    });
    Ok(spent.report(Duration::ZERO, figures))
}

/// What the links were told of others.
struct Heard<'a> {
    /// What a notice that counts starts with.
    kind: &'a str,
    notices: u64,
    gaps: u64,
}

impl Heard<'_> {
    /// Says whether it was a notice or a gap. One that tells of many counts as so many.
    fn takes(&mut self, start: &[u8]) -> bool {
        let is_one = start.starts_with(self.kind.as_bytes());
        let is_of_many = start.starts_with(br#"{"type":"presence""#);
        let is_gap = start.starts_with(br#"{"type":"gap""#);
        self.notices += match is_of_many {
            true => start.windows(CLIENT.len()).filter(|part| *part == CLIENT).count() as u64,
            false => u64::from(is_one),
        };
        self.gaps += u64::from(is_gap);
        is_one || is_of_many || is_gap
    }
}
