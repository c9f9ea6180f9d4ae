//! `rusty_socks load`: a load test for any WebSocket server, and an honest account of what came of
//! it. Storms of connections, round trips, fan-out, idle holding.
//!
//! Read in this order: [`args`] is what was typed, [`plan`] what it means; [`coordinator`] runs it,
//! with one [`load_thread`] on each thread; [`handshake`] is a connection until its answer,
//! [`held`] after it; [`work`] is what connections then do; [`log`] is where each thread writes
//! down what it saw, [`report`] all of it; [`outcome`] judges it and [`summary`] puts it into
//! words, of which [`table`], [`json`] and [`page`] are made. The server is a stranger here:
//! nothing is shared with its code, so that a fault cannot hide on both sides.

// What was typed, and what it means.
mod args;
mod expect;
mod header;
mod span;
mod plan;
// What is done.
mod coordinator;
mod run_state;
mod load_thread;
mod dialer;
mod request;
mod handshake;
mod answer;
mod retry;
mod held;
mod work;
mod echo;
mod fanout;
mod stamp;
mod pacer;
mod ticker;
mod timers;
mod open_files;
mod stats;
// What is counted.
mod log;
mod tally;
mod times;
mod series;
mod busy;
mod report;
// What is told.
mod progress;
mod words;
mod outcome;
mod bottleneck;
mod comparison;
mod summary;
mod table;
mod json;
mod machine;
mod page;
mod plots;
mod chart;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
};

use crate::exit::{Exit, PREFIX, say};

pub(crate) use self::args::LoadArgs;
use self::{
    plan::{NoPlan, Plan},
    report::Report,
    run_state::ThreadEvent,
    summary::Summary,
};

/// Descriptors the process needs beside its connections: the standard streams, `/stats`, and for
/// each thread a poll and a waker.
const OPEN_FILES_SPARE: u64 = 160;

/// Runs the load and prints what came of it; the exit code is the one [`LoadArgs`] promises.
pub(crate) fn run(args: LoadArgs) -> Exit {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(NoPlan::BadArguments(reason)) => return fail(Exit::BadConfig, &reason),
        Err(NoPlan::Unreachable(reason)) => return fail(Exit::Unreachable, &reason),
    };
    // A page that cannot be written is better known before the run than after it.
    if let Some(path) = &plan.report
        && let Err(error) = fs::File::options().append(true).create(true).open(path)
    {
        return fail(Exit::BadConfig, &format!("cannot write {}: {error}", path.display()));
    }
    let wanted = u64::from(plan.connections) + OPEN_FILES_SPARE;
    if let Some(limit) = open_files::raise(wanted).filter(|limit| *limit < wanted) {
        warn(&format!(
            "this client may open {limit} files, too few for {} connections: \
             it, not the server, will be the limit",
            plan.connections
        ));
    }
    match coordinator::run(plan, end_on_interrupt) {
        Ok((plan, report)) => tell(&plan, &report),
        Err(error) => fail(Exit::Failure, &format!("cannot watch sockets: {error}")),
    }
}

/// Says why nothing could be run at all.
fn fail(exit: Exit, reason: &str) -> Exit {
    say(&format!("{PREFIX}{reason}"));
    exit
}

/// Says what will make the run less than what was asked for.
fn warn(reason: &str) {
    say(&format!("{PREFIX}warning: {reason}"));
}

/// The first Ctrl-C ends the run as if its time were up; a second one does not wait for the
/// closing handshakes.
fn end_on_interrupt(events: Sender<ThreadEvent>) {
    let asked = AtomicBool::new(false);
    let installed = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        // When nobody listens the run is over anyway.
        let _ = events.send(ThreadEvent::Stop);
    });
    if let Err(error) = installed {
        warn(&format!("Ctrl-C will end the run without a table: {error}"));
    }
}

/// Tells the run in the forms that were asked for, and how it is judged.
fn tell(plan: &Plan, report: &Report) -> Exit {
    let summary = Summary::of(plan, report);
    let text = match plan.json {
        true => format!("{}\n", json::object(&summary)),
        false => table::render(&summary),
    };
    let mut exit = summary.outcome.exit();
    if let Err(error) = print(&text) {
        exit = fail(Exit::Failure, &format!("cannot write to standard output: {error}"));
    }
    if let Some(path) = &plan.report {
        match fs::write(path, page::render(&summary)) {
            Ok(()) => say(&format!("The page is in {}.", path.display())),
            Err(error) => {
                exit = fail(Exit::Failure, &format!("cannot write {}: {error}", path.display()));
            }
        }
    }
    // Who sees the table has read it there.
    if !summary.outcome.passed() && (plan.json || !io::stdout().is_terminal()) {
        say(&format!("{PREFIX}{}", summary.outcome.headline()));
    }
    exit
}

/// Writes to standard output, to the last byte. A reader that has seen enough (`| head`) is no
/// failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
