//! Many connections held at once, and a health check that must not notice: asked over and over on
//! fresh connections, while the crowd comes in and while it stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusty_socks_load::Times;
use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::link::Wire;
use crate::meter::quantile_us;
use crate::rounded;
use crate::target::Target;

/// Between two health checks.
const PAUSE: Duration = Duration::from_millis(10);

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

pub(crate) fn run(args: &Args) -> Result<Value> {
    let url = args.url.clone().unwrap_or_else(|| args.health.beside("/ws"));
    let start = Instant::now();
    let open = || Crowd::open(&url, Wire::WebSocket, args.connections as usize);
    let (mut crowd, while_opening) = check_during(&args.health, open)?;
    let opened_at = Instant::now();
    crowd.may_end = true;
    let stay = || crowd.listen(Duration::from_secs(args.seconds));
    let (_, while_held) = check_during(&args.health, stay)?;
    ensure!(while_held.count() > 0, "not one health check was answered while all were held");
    Ok(json!({
        "connections": args.connections,
        // Those the server ended before the time was up.
        "ended": crowd.ended(),
        "opening_s": rounded((opened_at - start).as_secs_f64()),
        "held_s": rounded(opened_at.elapsed().as_secs_f64()),
        "health_while_opening": in_ms(&while_opening),
        "health_while_held": in_ms(&while_held),
    }))
}

/// Checks over and over until `work` is done. The latencies beside what the work returns.
fn check_during<T>(health: &Target, work: impl FnOnce() -> Result<T>) -> Result<(T, Times)> {
    let is_done = AtomicBool::new(false);
    let check = || {
        let mut latency = Times::new();
        while !is_done.load(Ordering::Relaxed) {
            let start = Instant::now();
            health.page().context("a health check failed")?;
            latency.record(start.elapsed());
            thread::sleep(PAUSE);
        }
        anyhow::Ok(latency)
    };
    thread::scope(|scope| {
        let checker = scope.spawn(check);
        let result = work();
        // Whatever came of the work, the checker must end, or the scope would wait for ever.
        is_done.store(true, Ordering::Relaxed);
        let latency = checker.join().expect("the health checker does not panic");
        Ok((result?, latency?))
    })
}

fn in_ms(latency: &Times) -> Value {
    let ms = |quantile| rounded(quantile_us(latency, quantile) / 1e3);
    json!({ "checks": latency.count(), "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": ms(1.0) })
}
