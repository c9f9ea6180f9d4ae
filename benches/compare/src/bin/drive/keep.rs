//! What rooms keep: one client joins many, then publishes the same number of messages in each, and the server's
//! memory is read in between. Nobody else is there, so the CPU time of a publish is that of numbering and
//! keeping it, without a delivery.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::crowd::Crowd;
use crate::frame::{TEXT, client_frame};
use crate::link::Wire;
use crate::meter::{Meter, Spent};
use crate::process::Process;
use crate::rounded;
use crate::target::Target;

/// Commands on their way at once, and their bytes: few enough for any socket, many enough to keep the server busy.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 128 << 10;
const STALL: Duration = Duration::from_secs(10);
/// Quiet enough after the welcome.
const QUIET: Duration = Duration::from_millis(200);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rusty Socks' chat, ws://127.0.0.1:PORT/ws, which lets one connection be in so many rooms.
    #[arg(long)]
    url: Target,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rooms: u32,
    /// Messages published in each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    messages: u32,
    /// Bytes of a `publish` as JSON.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    size: u32,
    /// The server's process, to read its memory.
    #[arg(long)]
    pid: u32,
}

#[derive(Serialize)]
pub(crate) struct Report {
    rooms: u32,
    messages: u32,
    size: u32,
    rss_before_kib: u64,
    /// With all rooms made and joined.
    rss_empty_kib: u64,
    /// With all messages published.
    rss_kept_kib: u64,
    /// What `/stats` says the histories of all rooms hold.
    history_bytes: u64,
    cpu_us_per_join: Option<f64>,
    cpu_us_per_publish: Option<f64>,
    publishes_per_s: f64,
    server_busy: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rooms, messages, size, .. } = self;
        let each =
            |kib: u64, before: u64| (kib as f64 - before as f64) * 1024.0 / f64::from(*rooms);
        writeln!(f, "keep: {rooms} rooms, {messages} messages of {size} B published in each")?;
        writeln!(f, "  an empty room   {:.0} B", each(self.rss_empty_kib, self.rss_before_kib))?;
        write!(
            f,
            "  its messages    {:.0} B, of which {:.0} are the messages themselves",
            each(self.rss_kept_kib, self.rss_empty_kib),
            self.history_bytes as f64 / f64::from(*rooms)
        )
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let server = Process::with_pid(args.pid);
    let mut crowd = Crowd::open(&args.url, Wire::WebSocket { keep_start: true }, 1)?;
    crowd.settle(QUIET, SETTLE_TIMEOUT)?;
    crowd.stay_awake();
    let rss_before_kib = server.rss_kib()?;
    let joins = |index| format!(r#"{{"type":"join","room":"room-{index}","ref":0}}"#);
    let joined = command(args, &mut crowd, args.rooms, joins)?;
    let rss_empty_kib = server.rss_kib()?;
    // One message a room and then the next in each, as many rooms that talk at once would have it.
    let publishes = args.rooms * args.messages;
    let published =
        command(args, &mut crowd, publishes, |index| publish(args, index % args.rooms))?;
    let rss_kept_kib = server.rss_kib()?;
    Ok(Report {
        rooms: args.rooms,
        messages: args.messages,
        size: args.size,
        rss_before_kib,
        rss_empty_kib,
        rss_kept_kib,
        history_bytes: history_bytes(&args.url)?,
        cpu_us_per_join: joined.server_us_per(u64::from(args.rooms)),
        cpu_us_per_publish: published.server_us_per(u64::from(publishes)),
        publishes_per_s: published.per_s(u64::from(publishes)),
        server_busy: published.server_busy().map(rounded),
    })
}

fn publish(args: &Args, room: u32) -> String {
    let frame = |content: &str| {
        format!(r#"{{"type":"publish","room":"room-{room}","content":"{content}","ref":0}}"#)
    };
    frame(&"x".repeat((args.size as usize).saturating_sub(frame("").len()).max(1)))
}

/// Says `count` commands and waits until all of them are answered with `ok`.
fn command(
    args: &Args,
    crowd: &mut Crowd,
    count: u32,
    say: impl Fn(u32) -> String,
) -> anyhow::Result<Spent> {
    let window = WINDOW.min(WINDOW_BYTES / args.size as usize).max(2) as u32;
    let meter = Meter::start(Some(args.pid))?;
    let (mut said, mut answered, mut other) = (0, 0, None);
    let mut last_answer = Instant::now();
    while answered < count {
        // Half a window at a time, so that a write carries several.
        if said - answered <= window / 2 {
            let until = count.min(answered + window);
            let batch: Vec<u8> =
                (said..until).flat_map(|index| client_frame(TEXT, say(index).as_bytes())).collect();
            said = until;
            crowd.link(0)?.send_alone(&batch)?;
        }
        let before = answered;
        crowd.turn(
            Duration::from_secs(1),
            |_, _, start| match start.starts_with(br#"{"type":"ok""#) {
                true => answered += 1,
                false => other = Some(String::from_utf8_lossy(start).into_owned()),
            },
            |_, _, _| Ok(()),
        )?;
        crowd.ensure_whole()?;
        if let Some(other) = other {
            bail!("this answers no command: {other}");
        }
        if answered > before {
            last_answer = Instant::now();
        }
        ensure!(last_answer.elapsed() < STALL, "only {answered} of {count} commands were answered");
    }
    meter.stop()
}

/// What the server's `/stats` say of all histories together.
fn history_bytes(target: &Target) -> anyhow::Result<u64> {
    let address = target.address;
    let mut stream = TcpStream::connect_timeout(&address, STALL)?;
    stream.set_read_timeout(Some(STALL))?;
    let request = format!("GET /stats HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no whole answer from /stats")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("/stats answers without a body")?;
    let stats: serde_json::Value = serde_json::from_str(body).context("/stats is no JSON")?;
    stats["history_bytes"].as_u64().context("/stats says nothing of history_bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_has_the_size_that_was_asked_for() {
        let url = "ws://127.0.0.1:1/ws".parse().unwrap();
        let args = Args { url, rooms: 1, messages: 1, size: 128, pid: 1 };
        assert_eq!(publish(&args, 7).len(), 128);
        assert!(serde_json::from_str::<serde_json::Value>(&publish(&args, 7)).is_ok());
    }
}
