//! What rooms keep: one client joins many, then publishes the same number of messages in each, and
//! the server's memory is read in between. Nobody else is there, so the CPU time of a publish is
//! that of numbering and keeping it, without a delivery.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Server;
use crate::commands::{Commands, is_answer};
use crate::crowd::{Crowd, QUIET};
use crate::link::{Wire, client_text};
use crate::meter::{Meter, Spent};
use crate::rooms::padded;
use crate::target::Target;

/// Commands on their way at once, and their bytes: few enough for any socket, many enough to keep
/// the server busy.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 128 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    // Of Rusty Socks' chat, which lets one connection be in so many rooms.
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rooms: u32,
    /// Messages published in each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    messages: u32,
    /// Bytes of a `publish` as JSON.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    size: u32,
}

pub(crate) fn run(args: &Args) -> Result<Value> {
    let server = args.server.process()?;
    let mut crowd = Crowd::open(&args.server.url, Wire::WebSocket, 1)?;
    crowd.settle(QUIET)?;
    crowd.stay_awake();
    let rss_before_kib = server.rss_kib()?;
    let join =
        |room| Ok(client_text(&format!(r#"{{"type":"join","room":"room-{room}","ref":0}}"#)));
    let joined = command(args, &mut crowd, args.rooms as usize, join)?;
    let rss_empty_kib = server.rss_kib()?;
    // One message a room and then the next in each, as many rooms that talk at once would have it.
    let publish = |index| {
        let room = index % args.rooms as usize;
        let head = format!(r#"{{"type":"publish","room":"room-{room}","content":""#);
        padded(&head, r#"","ref":0}"#, args.size as usize)
    };
    let count = args.rooms * args.messages;
    let published = command(args, &mut crowd, count as usize, publish)?;
    Ok(json!({
        "rooms": args.rooms,
        "messages": args.messages,
        "size": args.size,
        "rss_before_kib": rss_before_kib,
        // With all rooms made and joined, and with all messages published.
        "rss_empty_kib": rss_empty_kib,
        "rss_kept_kib": server.rss_kib()?,
        "history_bytes": history_bytes(&args.server.url)?,
        "cpu_us_per_join": joined.server_us_per(u64::from(args.rooms)),
        "cpu_us_per_publish": published.server_us_per(u64::from(count)),
        "publishes_per_s": published.per_s(u64::from(count)),
        "server_busy": published.server_busy(),
    }))
}

/// Sends `count` commands and waits until all of them are answered.
fn command(
    args: &Args,
    crowd: &mut Crowd,
    count: usize,
    frame: impl Fn(usize) -> Result<Vec<u8>>,
) -> Result<Spent> {
    let window = WINDOW.min(WINDOW_BYTES / args.size as usize).max(2);
    let meter = Meter::start(args.server.pid)?;
    // Half a window at a time, so that a write carries several.
    Commands { count, window, refill_at: window / 2 }.run(
        crowd,
        |crowd, numbers| {
            let frames = numbers.map(&frame).collect::<Result<Vec<_>>>()?;
            crowd.link(0)?.send_encoded(&frames.concat());
            Ok(())
        },
        is_answer,
    )?;
    meter.stop()
}

/// What the server's `/stats` say the histories of all rooms hold.
fn history_bytes(url: &Target) -> Result<u64> {
    let page = url.beside("/stats").page()?;
    let stats: Value = serde_json::from_slice(&page).context("/stats is no JSON")?;
    stats["history_bytes"].as_u64().context("/stats says nothing of history_bytes")
}
