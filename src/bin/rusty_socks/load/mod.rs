//! `rusty_socks load`: many WebSocket connections at once, to any server, and an honest table of
//! what came of them.
//!
//! Read in this order: [`LoadArgs`] is what was asked for; [`fleet`] opens, holds and closes the
//! connections on one thread; [`handshake`] is a connection until its answer, [`held`] after it;
//! [`tally`] counts; [`table`] and [`json`] tell. The server is a stranger here: nothing is shared
//! with its code, so that a fault cannot hide on both sides.

// What was typed.
mod header;
mod span;
mod target;
// What is done.
mod answer;
mod comeback;
mod dialer;
mod fleet;
mod handshake;
mod held;
mod open_files;
mod request;
mod stats;
mod stopper;
mod timers;
// What is told.
mod json;
mod progress;
mod table;
mod tally;

use std::{
    net::IpAddr,
    process::{self, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::value_parser;

use crate::exit::{Exit, PREFIX};

use self::{fleet::Fleet, header::Header, progress::Progress, tally::Tally, target::Target};

/// Descriptors the process needs beside its connections: the standard streams, the poll, the waker,
/// `/stats`.
const OPEN_FILES_SPARE: u64 = 32;

/// More source addresses than this would ask a machine for more sockets than it has memory for.
const SOURCES_MAX: usize = 64;

/// Opens many WebSocket connections to a server, holds them, and tells what became of each.
///
/// A connection is "served at once", "served after waiting", "served after a retry", "rejected"
/// (any HTTP status but 101) or "failed". Which ones waited is told by the server when it can: an
/// answer with the header `Queue-Wait-Ms` waited in line, and a server that sends it, or whose
/// /stats has `max_queued_tasks`, is believed about the others too. For any other server a
/// connection has waited when it took longer than --waited-after.
///
/// Exit code: 0 when every connection was served or rejected with an HTTP status, 1 when any
/// failed, 2 for bad arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The server. Plain ws:// only; wss:// is not supported yet.
    #[arg(
        value_name = "URL",
        default_value = "ws://127.0.0.1:3030/ws",
        value_parser = Target::parse
    )]
    target: Target,

    /// How many connections to open.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..=200_000)
    )]
    connections: u32,

    /// How long to hold them, counted from when the last one was answered (10, 1.5, 250ms, 2m).
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = span::parse)]
    hold: Duration,

    /// How long one connection waits for its answer before it counts as failed; waiting in the
    /// server's line included.
    #[arg(long, value_name = "TIME", default_value = "15", value_parser = span::parse_positive)]
    timeout: Duration,

    /// New connections per second; 0 opens all at once.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=1_000_000)
    )]
    rate: u32,

    /// How many connections may be in the making together.
    ///
    /// More than a server's backlog takes would be lost in the kernel and repeated after a second,
    /// and that second would be charged to the server. One that has had no answer for
    /// --waited-after is deemed to stand in line and counts no longer.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 512,
        value_parser = value_parser!(u32).range(1..=200_000)
    )]
    connecting: u32,

    /// From servers that do not say who waited, an answer slower than this counts as "served after
    /// waiting".
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = span::parse_positive)]
    waited_after: Duration,

    /// Follow the server's advice: a connection rejected with a Retry-After comes back after it,
    /// jittered, at most K times.
    ///
    /// A rejection without Retry-After, or with one over two minutes, is taken as final.
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=1000)
    )]
    retry: u32,

    /// A text message that each connection sends once it is served.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// Send the message again at this interval, on every connection.
    #[arg(long, value_name = "TIME", requires = "message", value_parser = span::parse_positive)]
    every: Option<Duration>,

    /// Local addresses to connect from, in turn (127.0.0.2,127.0.0.3): each brings its own range of
    /// ports.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    source: Vec<IpAddr>,

    /// The Origin header of the upgrade.
    #[arg(long, value_name = "ORIGIN", value_parser = header::parse_origin)]
    origin: Option<Header>,

    /// One more header for the upgrade, 'Name: value'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = Header::parse)]
    headers: Vec<Header>,

    /// Print one JSON object on standard output instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the load and prints what came of it; the exit code is the one [`LoadArgs`] promises.
pub(crate) fn run(args: LoadArgs) -> ExitCode {
    if args.source.len() > SOURCES_MAX {
        return fail(Exit::BadConfig, &format!("--source takes at most {SOURCES_MAX} addresses"));
    }
    let address = match args.target.resolve(&args.source) {
        Ok(address) => address,
        Err(reason) => return fail(Exit::Failure, &reason),
    };
    let wanted = u64::from(args.connections) + OPEN_FILES_SPARE;
    if let Some(limit) = open_files::raise(wanted).filter(|limit| *limit < wanted) {
        warn(&format!(
            "this client may open {limit} files, too few for {} connections: \
             it, not the server, will be the limit",
            args.connections
        ));
    }
    let fleet = match Fleet::new(&args, address) {
        Ok(fleet) => fleet,
        Err(error) => return fail(Exit::Failure, &format!("cannot watch sockets: {error}")),
    };
    end_on_interrupt(&fleet);
    match fleet.run(Progress::new(u64::from(args.connections))) {
        Ok(tally) => {
            report(&args, &tally);
            if tally.failed_total() == 0 { Exit::Clean.into() } else { Exit::Failure.into() }
        }
        Err(error) => fail(Exit::Failure, &format!("cannot watch sockets: {error}")),
    }
}

/// Says why nothing could be run at all.
fn fail(exit: Exit, reason: &str) -> ExitCode {
    eprintln!("{PREFIX}{reason}");
    exit.into()
}

/// Says what will make the run less than what was asked for.
fn warn(reason: &str) {
    eprintln!("{PREFIX}warning: {reason}");
}

/// The first Ctrl-C ends the run as if its time were up; a second one does not wait for the
/// goodbyes.
fn end_on_interrupt(fleet: &Fleet<'_>) {
    let stopper = fleet.stopper();
    let asked = AtomicBool::new(false);
    let installed = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        stopper.stop();
    });
    if let Err(error) = installed {
        warn(&format!("Ctrl-C will end the run without a table: {error}"));
    }
}

/// Prints the tally in the form that was asked for.
fn report(args: &LoadArgs, tally: &Tally) {
    if args.json {
        println!("{}", json::object(args, tally));
    } else {
        print!("{}", table::render(args, tally));
    }
}

#[cfg(test)]
impl LoadArgs {
    /// What a command line means, for the tests beside the code.
    fn typed(line: &str) -> Result<LoadArgs, clap::Error> {
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
        let args = LoadArgs::typed("").unwrap();
        assert_eq!(args.target.to_string(), "ws://127.0.0.1:3030/ws");
        assert_eq!((args.connections, args.rate, args.retry, args.connecting), (100, 0, 0, 512));
        assert_eq!((args.hold, args.timeout), (Duration::from_secs(10), Duration::from_secs(15)));
        assert_eq!(args.waited_after, Duration::from_millis(250));
    }

    #[test]
    fn sources_are_separated_by_commas() {
        let args = LoadArgs::typed("--source 127.0.0.2,127.0.0.3 ws://127.0.0.1:1/").unwrap();
        assert_eq!(args.source.len(), 2);
        assert_eq!(args.target.to_string(), "ws://127.0.0.1:1/");
    }

    #[test]
    fn bad_arguments_exit_with_two_and_a_reason() {
        for line in [
            "-c 0",
            "wss://host/",
            "--every 1",
            "--message hi --every 0",
            "-H nonsense",
            "--hold ages",
        ] {
            let error = LoadArgs::typed(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
