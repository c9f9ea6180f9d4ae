//! What a stretch of work cost: wall time, the server's and the driver's CPU time, and how long
//! things took.

use std::time::{Duration, Instant};

use anyhow::Result;
use rusty_socks_load::Times;
use serde_json::{Value, json};

use crate::process::Process;
use crate::rounded;

/// Runs from `start` to `stop`.
pub(crate) struct Meter {
    server: Option<Process>,
    server_before: Option<Duration>,
    driver_before: Duration,
    start: Instant,
}

/// What a [`Meter`] read.
pub(crate) struct Spent {
    pub(crate) wall_s: f64,
    server_s: Option<f64>,
    driver_s: f64,
}

impl Meter {
    /// Without the server's `pid` its CPU time is left out.
    pub(crate) fn start(pid: Option<u32>) -> Result<Self> {
        let server = pid.map(Process::with_pid);
        let server_before = server.as_ref().map(Process::cpu).transpose()?;
        let driver_before = Process::this().cpu()?;
        Ok(Self { server, server_before, driver_before, start: Instant::now() })
    }

    pub(crate) fn stop(&self) -> Result<Spent> {
        let wall_s = self.start.elapsed().as_secs_f64();
        let server_after = self.server.as_ref().map(Process::cpu).transpose()?;
        let driver_after = Process::this().cpu()?;
        let between = |after: Duration, before| after.saturating_sub(before).as_secs_f64();
        Ok(Spent {
            wall_s,
            server_s: server_after.zip(self.server_before).map(|(a, b)| between(a, b)),
            driver_s: between(driver_after, self.driver_before),
        })
    }
}

impl Spent {
    pub(crate) fn per_s(&self, count: u64) -> f64 {
        rounded(count as f64 / self.wall_s)
    }

    /// The server's CPU time for each of `count` things.
    pub(crate) fn server_us_per(&self, count: u64) -> Option<f64> {
        self.server_s.filter(|_| count > 0).map(|s| rounded(s * 1e6 / count as f64))
    }

    /// CPU time by wall time. Well below 1 the server had idle moments, and its CPU per message
    /// counts more wake-ups than it would under full load.
    pub(crate) fn server_busy(&self) -> Option<f64> {
        self.server_s.map(|s| rounded(s / self.wall_s))
    }

    /// `figures` with how long that took and how busy both sides were. Of the driver's CPU time
    /// `idle` was in vain.
    pub(crate) fn report(&self, idle: Duration, mut figures: Value) -> Value {
        figures["seconds"] = json!(rounded(self.wall_s));
        figures["server_busy"] = json!(self.server_busy());
        let driver_s = (self.driver_s - idle.as_secs_f64()).max(0.0);
        figures["driver_busy"] = json!(rounded(driver_s / self.wall_s));
        figures
    }
}

pub(crate) fn quantile_us(times: &Times, quantile: f64) -> f64 {
    rounded(times.quantile(quantile).as_nanos() as f64 / 1e3)
}

pub(crate) fn report(times: &Times) -> Value {
    let us = |quantile| quantile_us(times, quantile);
    json!({ "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_that_was_recorded() {
        let mut times = Times::new();
        times.record_n(Duration::from_micros(10), 980);
        times.record_n(Duration::from_micros(1000), 19);
        times.record(Duration::from_secs(60));
        for (quantile, us) in [(0.5, 10.0_f64), (0.99, 1000.0), (1.0, 60e6)] {
            let found = quantile_us(&times, quantile);
            assert!((found - us).abs() < 1.0 + us / 1000.0, "{quantile}: {found} µs");
        }
        times.reset();
        assert!(quantile_us(&times, 1.0) < 1.0);
    }

    #[test]
    fn without_a_server_only_the_driver_is_metered() {
        let spent = Meter::start(None).unwrap().stop().unwrap();
        assert!(spent.server_us_per(1).is_none() && spent.server_busy().is_none());
        assert!(spent.wall_s >= 0.0);
    }
}
