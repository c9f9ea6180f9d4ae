//! Many connections held at once, and a health check that must not notice: asked over and over on fresh
//! connections, while the crowd comes in and while it stays.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::link::Wire;
use crate::rounded;
use crate::target::Target;

const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two health checks.
const PAUSE: Duration = Duration::from_millis(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The health check, http://127.0.0.1:PORT/health
    #[arg(long)]
    health: Target,
    /// Where to connect; the host of the health check and /ws unless told.
    #[arg(long)]
    url: Option<Target>,
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// How long to hold them once all are open.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    connections: u32,
    /// Those the server ended before the time was up.
    ended: usize,
    opening_s: f64,
    held_s: f64,
    health_while_opening: Latency,
    health_while_held: Latency,
}

#[derive(Serialize)]
struct Latency {
    checks: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hold: {} connections opened in {:.2} s, held for {:.2} s, {} ended by the server",
            self.connections, self.opening_s, self.held_s, self.ended
        )?;
        writeln!(f, "  health while opening  {}", self.health_while_opening)?;
        write!(f, "  health while held     {}", self.health_while_held)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checks, p50_ms, p99_ms, max_ms } = self;
        write!(f, "p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, max {max_ms:.2} ms ({checks} checks)")
    }
}

impl Latency {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |quantile: f64| {
            let index = (all.len() as f64 * quantile).ceil() as usize;
            let latency =
                all.get(index.clamp(1, all.len().max(1)) - 1).copied().unwrap_or_default();
            rounded(latency.as_secs_f64() * 1e3)
        };
        Self { checks: all.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// Where the work stands, as the health checker sees it.
const OPENING: u8 = 0;
const HELD: u8 = 1;
const DONE: u8 = 2;

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let target = args
        .url
        .clone()
        .unwrap_or_else(|| Target { path: "/ws".to_owned(), ..args.health.clone() });
    let phase = AtomicU8::new(OPENING);
    thread::scope(|scope| {
        let checker = scope.spawn(|| check_while(&args.health, &phase));
        let held = hold(args, &target, &phase);
        // Whatever came of the holding, the checker must end, or the scope would wait for ever.
        phase.store(DONE, Ordering::Relaxed);
        let checked = checker.join().expect("the health checker does not panic");
        let (opening, held_for, ended) = held?;
        let (while_opening, while_held) = checked?;
        ensure!(!while_held.is_empty(), "not one health check was answered while all were held");
        Ok(Report {
            connections: args.connections,
            ended,
            opening_s: rounded(opening.as_secs_f64()),
            held_s: rounded(held_for.as_secs_f64()),
            health_while_opening: Latency::of(while_opening),
            health_while_held: Latency::of(while_held),
        })
    })
}

/// Opens the crowd and keeps it. Returns how long each took, and how many links the server ended.
fn hold(
    args: &Args,
    target: &Target,
    phase: &AtomicU8,
) -> anyhow::Result<(Duration, Duration, usize)> {
    let start = Instant::now();
    let wire = Wire::WebSocket { keep_start: false };
    let mut crowd = Crowd::open(target, wire, args.connections as usize)?;
    let opening = start.elapsed();
    phase.store(HELD, Ordering::Relaxed);
    let start = Instant::now();
    loop {
        let left = Duration::from_secs(args.seconds).saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok((opening, start.elapsed(), crowd.ended()));
        }
        crowd.turn(left, |_, _, _| {}, |_, _, _| Ok(()))?;
    }
}

/// Checks until the work is done. The latencies while opening, and those while held.
fn check_while(
    health: &Target,
    phase: &AtomicU8,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut while_opening, mut while_held) = (Vec::new(), Vec::new());
    loop {
        let current = phase.load(Ordering::Relaxed);
        let latencies = match current {
            OPENING => &mut while_opening,
            HELD => &mut while_held,
            _ => return Ok((while_opening, while_held)),
        };
        let start = Instant::now();
        check(health).context("a health check failed")?;
        latencies.push(start.elapsed());
        thread::sleep(PAUSE);
    }
}

/// One request on a fresh connection, until its whole answer is there.
fn check(health: &Target) -> anyhow::Result<()> {
    let Target { address, path } = health;
    let mut stream = TcpStream::connect_timeout(address, HEALTH_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut have = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = match stream.read(&mut chunk) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("no whole answer"),
        };
        have.extend_from_slice(&chunk[..n]);
        ensure!(have.len() <= ANSWER_BYTES_MAX, "the answer is over {ANSWER_BYTES_MAX} bytes");

        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(head_len) = answer.parse(&have)? {
            let status = answer.code.unwrap_or(0);
            let body_len: Option<usize> = answer
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
            let whole = body_len.map_or(n == 0, |body_len| have.len() >= head_len + body_len);
            if whole {
                ensure!(status == 200, "the answer is {status}");
                return Ok(());
            }
        }
        if n == 0 {
            bail!("the server hung up after {} bytes", have.len());
        }
    }
}
