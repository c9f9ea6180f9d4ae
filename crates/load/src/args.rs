//! What was typed: the flags of `load` and of its modes.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ValueEnum, builder::RangedI64ValueParser, value_parser};

use super::{
    expect::{Expect, ExpectMessages},
    request::Header,
    span,
    tls_args::TlsArgs,
};

const EXIT_CODES: &str = "\
Exit codes, of 3 to 6 the first that applies:
  0  passed: every connection was served and stayed, and nothing was lost
  1  the run could not be made, or its result not be written
  2  bad arguments
  3  connections failed: nobody there, no answer in time, or a broken one
  4  connections were refused with an HTTP status, or not let into their room
  5  the server closed connections early, messages were lost, or nothing was measured
  6  an expectation was not met
In a storm a refusal with 503 or 429 is what is measured, and no failure while anybody is served.
Where --expect-refused is given, it decides instead.";

const EXAMPLES: &str = "\
Without a mode it is a storm: many connections at once, held and counted.

Examples:
  rusty_socks load ws://127.0.0.1:3030/ws -c 1000 --hold 30
      A storm of 1,000 connections, held for half a minute.
  rusty_socks load echo ws://127.0.0.1:3030/echo -c 50 --rate 20000 --report echo.html
      20,000 messages a second over 50 connections, come what may: honest latencies, and a page.
  rusty_socks load echo ws://127.0.0.1:3030/echo -c 50 --depth 16
      As fast as it goes, with 16 messages in flight on each connection.
  rusty_socks load fanout ws://127.0.0.1:3030/ws --subscribers 1000 --rooms 10 --rate 100
      How long a message takes to each of those in its room.
  rusty_socks load fanout ws://10.0.0.1:3030/ws ws://10.0.0.2:3030/ws --allow-remote
      The same across two servers that share their rooms.
  rusty_socks load idle ws://127.0.0.1:3030/ws -c 50000 --ramp 20 --hold 60 --threads 2
      50,000 quiet connections, pinged now and then.

Ctrl-C ends a run early, and what was measured by then is told.";

/// Opens many WebSocket connections to a server, and tells what became of each.
///
/// A connection is "served at once", "served after waiting", "served after a retry", "refused"
/// (any HTTP status but 101) or "failed". Which ones waited is told by the server when it can: an
/// answer with the header `Queue-Wait-Ms` waited in line, and a server that sends it, or whose
/// /stats has `max_queued_tasks`, is believed about the others too. For any other server a
/// connection has waited when it took longer than --waited-after.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = format!("{EXIT_CODES}\n\n{EXAMPLES}")
)]
pub struct LoadArgs {
    #[command(subcommand)]
    pub(crate) mode: Option<ModeArgs>,

    #[command(flatten)]
    pub(crate) storm: StormArgs,
}

/// What is measured, beside a storm.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ModeArgs {
    /// Round trips through a server that returns each message.
    ///
    /// With --rate it is an open loop: messages leave by a timetable that no server can slow down,
    /// and a latency counts from the time its message was meant to leave. Without, it is a closed
    /// loop: each answer is followed by the next message, which shows the highest throughput, and
    /// hides what a stall would have meant to others (coordinated omission).
    Echo(EchoArgs),
    /// Deliveries of one message to many: publishers, subscribers, rooms.
    ///
    /// Always an open loop. Each message carries the time it was meant to be published, so that a
    /// delivery by any server can be timed.
    Fanout(FanoutArgs),
    /// Quiet connections: how many stay, and how soon each answers a ping.
    Idle(IdleArgs),
}

// What all modes know. Not a doc comment: it would become the help of whoever flattens it.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// How long one connection waits for its answer before it counts as failed; waiting in the
    /// server's line included.
    #[arg(long, value_name = "TIME", default_value = "15", value_parser = span::parse_positive)]
    pub(crate) timeout: Duration,

    /// How many connections may wait for their answer at once.
    ///
    /// More than a server's backlog takes would be lost in the kernel and repeated after a second,
    /// and that second would be charged to the server. One that has had no answer for
    /// --waited-after is deemed to stand in line and counts no longer.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count(200_000))]
    pub(crate) connecting: u32,

    /// From servers that do not say who waited, an answer slower than this counts as "served after
    /// waiting".
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = span::parse_positive)]
    pub(crate) waited_after: Duration,

    /// Open the connections evenly over this time, and let the load grow with them.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = span::parse)]
    pub(crate) ramp: Duration,

    /// Threads of this client, each with connections of its own [default: 1, for echo and fanout
    /// half the cores].
    #[arg(long, value_name = "N", value_parser = count(64))]
    pub(crate) threads: Option<u32>,

    /// Local addresses to connect from, in turn (127.0.0.2,127.0.0.3): each brings its own range
    /// of ports. On the loopback of Linux they are taken by themselves when one has too few.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) source: Vec<IpAddr>,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    /// The Origin header of the upgrade.
    #[arg(long, value_name = "ORIGIN", value_parser = Header::origin)]
    pub(crate) origin: Option<Header>,

    /// One more header for the upgrade, 'Name: value'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<Header>,

    /// Load a server that is not on this machine. Ask its owner first.
    #[arg(long)]
    pub(crate) allow_remote: bool,

    #[command(flatten)]
    pub(crate) expect: Expect,

    /// Print one JSON object on standard output instead of the table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a page with plots to this file as well; it needs nothing else to be looked at.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StormArgs {
    /// The server: localhost, localhost:4000, ws://HOST:PORT/PATH. Without a scheme, what is left
    /// out is port 3030 and the path /ws (/echo for echo). wss:// has TLS. Of several
    /// servers each gets its share of the connections.
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:3030/ws")]
    pub(crate) urls: Vec<String>,

    /// How many connections to open.
    #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = count(200_000))]
    pub(crate) connections: u32,

    /// How long to hold them, counted from when the last one was answered (10, 1.5, 250ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = span::parse)]
    pub(crate) hold: Duration,

    /// New connections per second; 0 opens all at once.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "ramp",
        value_parser = value_parser!(u32).range(0..=1_000_000)
    )]
    pub(crate) rate: u32,

    /// Follow the server's advice: a connection refused with a Retry-After comes back after it,
    /// jittered, at most K times.
    ///
    /// A refusal without Retry-After, or with one over two minutes, is taken as final.
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=1000)
    )]
    pub(crate) retry: u32,

    /// A text message that each connection sends once it is served.
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,

    /// Send the message again at this interval, on every connection.
    #[arg(long, value_name = "TIME", requires = "message", value_parser = span::parse_positive)]
    pub(crate) every: Option<Duration>,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct EchoArgs {
    /// A route that returns every message as it came, as /echo of a server with
    /// RUSTY_SOCKS_ECHO=true. Of several servers each gets its share of the connections.
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:3030/echo")]
    pub(crate) urls: Vec<String>,

    /// How many connections send.
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = count(200_000))]
    pub(crate) connections: u32,

    #[command(flatten)]
    pub(crate) flags: EchoFlags,

    #[command(flatten)]
    pub(crate) measuring: Measuring,

    #[command(flatten)]
    pub(crate) common: Common,
}

// What an echo is. Not a doc comment, for the same reason.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoFlags {
    /// Messages in flight on each connection of the closed loop [default: 1].
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = count(4096))]
    depth: Option<u32>,

    /// Bytes in a message. From 16 on it carries a number, and each answer is checked for its own.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 128,
        value_parser = count(16 * 1024 * 1024)
    )]
    pub(crate) size: u32,

    /// Binary messages instead of text.
    #[arg(long)]
    pub(crate) binary: bool,

    /// Messages per second over all connections, as an open loop.
    #[arg(long, value_name = "N", value_parser = count(10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Measure so many messages instead, however long they take.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "duration",
        value_parser = value_parser!(u64).range(1..=1_000_000_000_000)
    )]
    pub(crate) messages: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct FanoutArgs {
    /// The chat route, or any route that passes each message on to all. Over several servers, which
    /// must be as one, the members of each room are spread.
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:3030/ws")]
    pub(crate) urls: Vec<String>,

    #[command(flatten)]
    pub(crate) flags: FanoutFlags,

    #[command(flatten)]
    pub(crate) measuring: Measuring,

    #[command(flatten)]
    pub(crate) common: Common,
}

// What a fan-out is. Not a doc comment, for the same reason.
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutFlags {
    /// Connections that publish, in turn; publisher n does so in room n modulo --rooms.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(100_000))]
    pub(crate) publishers: u32,

    /// Connections that listen, spread over the rooms in the same way.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(200_000))]
    pub(crate) subscribers: u32,

    /// Rooms (chat only).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(100_000))]
    pub(crate) rooms: u32,

    /// Messages published per second, over all publishers.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(10_000_000))]
    pub(crate) rate: u32,

    /// Bytes of what is published; 32 of them are the stamp by which a delivery is known.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 128,
        value_parser = value_parser!(u32).range(32..=16 * 1024 * 1024)
    )]
    pub(crate) size: u32,

    /// What the server speaks.
    #[arg(long, value_enum, default_value_t = Protocol::Chat)]
    pub(crate) protocol: Protocol,
}

// What the modes with messages know. Not a doc comment, for the same reason.
#[derive(Debug, clap::Args)]
pub(crate) struct Measuring {
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = span::parse_positive)]
    pub(crate) duration: Duration,

    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = span::parse)]
    pub(crate) warmup: Duration,

    #[command(flatten)]
    pub(crate) expect_messages: ExpectMessages,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct IdleArgs {
    /// The server. Of several each gets its share of the connections.
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:3030/ws")]
    pub(crate) urls: Vec<String>,

    /// How many connections to hold.
    #[arg(short, long, value_name = "N", default_value_t = 1000, value_parser = count(200_000))]
    pub(crate) connections: u32,

    /// How long to hold them, counted from when the last one was answered.
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = span::parse)]
    pub(crate) hold: Duration,

    /// Ping each connection at this interval and time its answer; 0 for never.
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = span::parse)]
    pub(crate) ping: Duration,

    #[command(flatten)]
    pub(crate) common: Common,
}

impl EchoFlags {
    /// Messages in flight on each connection of the closed loop.
    pub(crate) fn depth(&self) -> u32 {
        self.depth.unwrap_or(1)
    }
}

/// Reads a count from 1 to `max`.
fn count(max: i64) -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=max)
}

/// How a fan-out speaks to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Rusty Socks: joins rooms, publishes JSON, and checks each room's order by its `seq`.
    Chat,
    /// Any server that passes every text message on to everyone, the sender included or not.
    Raw,
}

#[cfg(test)]
impl LoadArgs {
    /// What a command line means, for the tests beside the code.
    pub(crate) fn typed(line: &str) -> Result<LoadArgs, clap::Error> {
        use clap::Parser;

        #[derive(Parser)]
        struct Typed {
            #[command(flatten)]
            load: LoadArgs,
        }
        Typed::try_parse_from(std::iter::once("load").chain(line.split_whitespace()))
            .map(|typed| typed.load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_documented() {
        let args = LoadArgs::typed("").unwrap().storm;
        assert_eq!(args.urls, ["ws://127.0.0.1:3030/ws"]);
        let common = &args.common;
        assert_eq!((args.connections, args.rate, args.retry, common.connecting), (100, 0, 0, 512));
        assert_eq!((args.hold, common.timeout), (Duration::from_secs(10), Duration::from_secs(15)));
        assert_eq!(common.waited_after, Duration::from_millis(250));
    }

    #[test]
    fn sources_are_separated_by_commas() {
        let args = LoadArgs::typed("--source 127.0.0.2,127.0.0.3 ws://127.0.0.1:1/").unwrap().storm;
        assert_eq!(args.common.source.len(), 2);
        assert_eq!(args.urls, ["ws://127.0.0.1:1/"]);
    }

    #[test]
    fn a_mode_is_named_before_its_url() {
        let args = LoadArgs::typed("echo ws://127.0.0.1:1/e --depth 4 --binary").unwrap();
        assert!(matches!(args.mode, Some(ModeArgs::Echo(echo)) if echo.flags.depth() == 4));
        let args = LoadArgs::typed("fanout --protocol raw").unwrap();
        assert!(
            matches!(args.mode, Some(ModeArgs::Fanout(fanout)) if fanout.flags.protocol == Protocol::Raw)
        );
    }

    #[test]
    fn bad_arguments_exit_with_two_and_a_reason() {
        for line in [
            "-c 0",
            "--every 1",
            "--message hi --every 0",
            "-H nonsense",
            "--hold ages",
            "--ramp 5 --rate 10",
            "echo --depth 0",
            "echo --depth 2 --rate 10",
            "echo --messages 5 --duration 1",
            "echo --size 20000000",
            "echo --hold 3",
            "fanout --size 31",
            "fanout --protocol mqtt",
            "idle -c 200001",
            "idle --threads 65",
            "--expect-refused many",
            "--expect-lost 3",
            "--expect-rate 3",
            "echo --expect-p99-ms 0",
            "fanout --expect-closed 3..1",
        ] {
            let error = LoadArgs::typed(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
