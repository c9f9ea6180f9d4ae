//! Closed-loop echo: each connection keeps `depth` messages in flight, and a reply is answered by
//! the next message. Replies that came in one read are answered in one write.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusty_socks_load::Times;
use rusty_socks_ws::encode::Kind;
use serde_json::{Value, json};

use crate::crowd::{Crowd, LOOK, Patience};
use crate::link::{Wire, client_frame};
use crate::meter::{Meter, report};
use crate::target::Target;
use crate::{Server, Timing};

/// All that may be in flight on one connection.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Replies on each connection before those that are measured, however short the warm-up.
const WARMUP_ROUNDS: u64 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    timing: Timing,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Messages in flight on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// Bytes of payload in a message.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    /// No WebSocket: bytes out are bytes in.
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(args: &Args) -> Result<Value> {
    let (depth, size) = (args.depth as usize, args.size as usize);
    ensure!(
        depth * size <= IN_FLIGHT_BYTES_MAX,
        "depth × size is over {IN_FLIGHT_BYTES_MAX} bytes"
    );
    let wire = match args.raw {
        true => Wire::Tcp { size },
        false => Wire::WebSocket,
    };
    let connections = args.connections as usize;
    let mut echo = Echo::new(wire, size, depth);
    echo.prove(&args.server.url, wire)?;
    let mut crowd = Crowd::open(&args.server.url, wire, connections)?;
    let mut report = echo.measure(&mut crowd, 0..connections, &args.timing, args.server.pid)?;
    (report["depth"], report["size"]) = (json!(depth), json!(size));
    Ok(report)
}

/// An echo on some of the connections of a crowd.
pub(crate) struct Echo {
    /// As many messages as a link may have in flight, of `frame_bytes` each.
    frames: Vec<u8>,
    frame_bytes: usize,
    /// Bytes of payload in a message, and so in its reply.
    size: usize,
    depth: usize,
    messages: u64,
    latency: Times,
}

/// When the messages in flight on one link were sent: batches, oldest first.
type Lane = VecDeque<(Instant, u64)>;

impl Echo {
    pub(crate) fn new(wire: Wire, size: usize, depth: usize) -> Self {
        let payload = vec![b'x'; size];
        let frame = match wire {
            Wire::Tcp { .. } => payload,
            Wire::WebSocket => client_frame(Kind::Binary, &payload),
        };
        let (frames, frame_bytes) = (frame.repeat(depth), frame.len());
        Self { frames, frame_bytes, size, depth, messages: 0, latency: Times::new() }
    }

    /// One message there and back on a connection of its own, compared to the byte: the loop itself
    /// looks only at lengths.
    fn prove(&self, target: &Target, wire: Wire) -> Result<()> {
        let mut crowd = Crowd::open(target, wire, 1)?;
        crowd.link(0)?.send_encoded(&self.frames[..self.frame_bytes]);
        let (mut patience, mut replies) = (Patience::new(), 0);
        while replies == 0 {
            let bytes = crowd.turn(
                LOOK,
                |_, reply| {
                    replies += 1;
                    let is_same =
                        reply.len() == self.size && reply.iter().all(|byte| *byte == b'x');
                    ensure!(is_same, "the first reply is not the message: this is no echo");
                    Ok(())
                },
                |_, _, _| Ok(()),
            )?;
            patience.after(bytes > 0, || "no whole echo of the first message".to_owned())?;
        }
        Ok(())
    }

    /// Echoes on the links with these indices, and reports what it cost. In the end all are
    /// answered.
    pub(crate) fn measure(
        &mut self,
        crowd: &mut Crowd,
        links: impl ExactSizeIterator<Item = usize>,
        timing: &Timing,
        pid: Option<u32>,
    ) -> Result<Value> {
        let connections = links.len() as u64;
        let mut lanes = vec![Lane::new(); crowd.len()];
        crowd.stay_awake();
        for index in links {
            lanes[index].push_back((Instant::now(), self.depth as u64));
            crowd.link(index)?.send_encoded(&self.frames);
        }
        self.messages = 0;
        let warm_at = Instant::now() + timing.warmup;
        let rounds = WARMUP_ROUNDS * connections;
        self.run(crowd, &mut lanes, true, |echo| {
            Instant::now() < warm_at || echo.messages < rounds
        })?;
        self.messages = 0;
        self.latency.reset();
        crowd.take_idle();

        let meter = Meter::start(pid)?;
        let until = Instant::now() + timing.seconds;
        self.run(crowd, &mut lanes, true, |_| Instant::now() < until)?;
        let spent = meter.stop()?;

        ensure!(self.messages > 0, "not one reply came in {:.1} s", spent.wall_s);
        let report = spent.report(
            crowd.take_idle(),
            json!({
                "connections": connections,
                "messages": self.messages,
                "messages_per_s": spent.per_s(self.messages),
                "cpu_us_per_message": spent.server_us_per(self.messages),
                "latency": report(&self.latency),
            }),
        );
        let last = self.messages + connections * self.depth as u64;
        self.run(crowd, &mut lanes, false, |echo| echo.messages < last)?;
        Ok(report)
    }

    /// Takes replies `while_` that holds, and answers them with the next messages if it `goes_on`.
    fn run(
        &mut self,
        crowd: &mut Crowd,
        lanes: &mut [Lane],
        goes_on: bool,
        while_: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let mut patience = Patience::new();
        while while_(self) {
            let Self { frames, frame_bytes, size, messages, latency, .. } = self;
            let before = *messages;
            crowd.turn(
                LOOK,
                |_, reply| {
                    let len = reply.len();
                    ensure!(len == *size, "{size} bytes were answered with {len}: this is no echo");
                    Ok(())
                },
                |index, link, replies| {
                    let now = Instant::now();
                    take(&mut lanes[index], now, replies as u64, latency)?;
                    *messages += replies as u64;
                    if goes_on && replies > 0 {
                        lanes[index].push_back((now, replies as u64));
                        link.send_encoded(&frames[..replies * *frame_bytes]);
                    }
                    Ok(())
                },
            )?;
            patience.after(*messages > before, || "messages are in flight".to_owned())?;
        }
        Ok(())
    }
}

fn take(lane: &mut Lane, now: Instant, mut replies: u64, latency: &mut Times) -> Result<()> {
    while replies > 0 {
        let (sent_at, messages) =
            lane.front_mut().context("the server sent more replies than it got messages")?;
        let taken = replies.min(*messages);
        latency.record_n(now.duration_since(*sent_at), taken);
        replies -= taken;
        *messages -= taken;
        if *messages == 0 {
            lane.pop_front();
        }
    }
    Ok(())
}
