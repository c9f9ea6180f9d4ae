//! Memory of the quiet: the server's RSS before and after many connections that say nothing. On the
//! way there, what it costs to let them in.

use std::time::Duration;

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::link::Wire;
use crate::meter::Meter;
use crate::{Server, rounded};

#[derive(clap::Args)]
pub(crate) struct Args {
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

pub(crate) fn run(args: &Args) -> anyhow::Result<Value> {
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
