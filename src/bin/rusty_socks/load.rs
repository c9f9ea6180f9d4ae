//! `rusty_socks load`: a front of the crate `rusty_socks_load`, from arguments to exit code.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use rusty_socks_load::{
    NoPlan, Plan, ProblemKind, Progress, Report, StopHandle, Summary, json, page, table,
};

pub(crate) use rusty_socks_load::LoadArgs;

use crate::exit::{Exit, PREFIX, printed, say};

/// Descriptors the process needs beside its connections: the standard streams, `/stats`, and for
/// each thread a poll and a waker.
const OPEN_FILES_SPARE: u64 = 160;

/// How often the bar of a terminal is redrawn.
const BAR_EVERY: Duration = Duration::from_millis(250);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Runs the load and prints what came of it; the exit code is the one that the help promises.
pub(crate) fn run(args: LoadArgs) -> Exit {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(NoPlan::BadArguments(reason)) => return fail(Exit::BadConfig, &reason),
        Err(NoPlan::Unreachable(reason)) => return fail(Exit::Unreachable, &reason),
    };
    // A page that cannot be written is better known before the run than after it.
    if let Some(path) = plan.report()
        && let Err(error) = fs::File::options().append(true).create(true).open(path)
    {
        return fail(Exit::BadConfig, &format!("cannot write {}: {error}", path.display()));
    }
    let wanted = u64::from(plan.connections) + OPEN_FILES_SPARE;
    if let Some(limit) = raise_open_files(wanted).filter(|limit| *limit < wanted) {
        warn(&format!(
            "this client may open {limit} files, too few for {} connections: \
             it, not the server, will be the limit",
            plan.connections
        ));
    }
    let bar = bar(&plan);
    let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
    let done =
        rusty_socks_load::run(plan, every, end_on_interrupt, |news| show(bar.as_ref(), news));
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match done {
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

/// Raises the soft limit of open files towards `wanted` as far as the hard one allows; the limit
/// that now holds. `None` where there is no such limit to speak of (Windows), or when the system
/// would not say.
#[cfg(unix)]
fn raise_open_files(wanted: u64) -> Option<u64> {
    rlimit::increase_nofile_limit(wanted).ok()
}

#[cfg(not(unix))]
fn raise_open_files(_wanted: u64) -> Option<u64> {
    None
}

/// The first Ctrl-C ends the run as if its time were up; a second one does not wait for the
/// closing handshakes.
fn end_on_interrupt(run: StopHandle) {
    let asked = AtomicBool::new(false);
    let installed = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
        run.stop();
    });
    if let Err(error) = installed {
        warn(&format!("Ctrl-C will end the run without a table: {error}"));
    }
}

/// A bar on standard error, if that is a terminal.
fn bar(plan: &Plan) -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:24} {msg}");
        ProgressBar::new(u64::from(plan.connections))
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    })
}

/// Shows how the run stands: on the bar, else as a plain line.
fn show(bar: Option<&ProgressBar>, news: Progress) {
    match (bar, news) {
        (Some(bar), Progress::Counts { settled, line, .. }) => {
            bar.set_position(settled);
            bar.set_message(line);
        }
        (Some(bar), Progress::Note(line)) => bar.suspend(|| say(&line)),
        (None, Progress::Counts { elapsed, line, .. }) => {
            say(&format!("{:5.1} s  {line}", elapsed.as_secs_f64()));
        }
        (None, Progress::Note(line)) => say(&line),
    }
}

/// Tells the run in the forms that were asked for, and how it is judged.
fn tell(plan: &Plan, report: &Report) -> Exit {
    let summary = Summary::of(plan, report);
    let text = match plan.json() {
        true => format!("{}\n", json::object(&summary)),
        false => table::render(&summary),
    };
    let mut exit = exit_for(summary.outcome.problems.first().map(|problem| problem.kind));
    let written = printed(io::stdout().lock().write_all(text.as_bytes()));
    if written != Exit::Clean {
        exit = written;
    }
    if let Some(path) = plan.report() {
        match fs::write(path, page::render(&summary)) {
            Ok(()) => say(&format!("The page is in {}.", path.display())),
            Err(error) => {
                exit = fail(Exit::Failure, &format!("cannot write {}: {error}", path.display()));
            }
        }
    }
    // Who sees the table has read it there.
    if !summary.outcome.passed() && (plan.json() || !io::stdout().is_terminal()) {
        say(&format!("{PREFIX}{}", summary.outcome.headline()));
    }
    exit
}

/// The exit code for the first problem of a run.
fn exit_for(problem: Option<ProblemKind>) -> Exit {
    match problem {
        None => Exit::Clean,
        Some(ProblemKind::Failed) => Exit::Unreachable,
        Some(ProblemKind::Refused) => Exit::Refused,
        Some(ProblemKind::Lost) => Exit::Closed,
        Some(ProblemKind::Unmet) => Exit::Unmet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_of_the_headline() {
        for kind in
            [ProblemKind::Failed, ProblemKind::Refused, ProblemKind::Lost, ProblemKind::Unmet]
        {
            assert_eq!(exit_for(Some(kind)) as u8, kind.exit_code());
        }
        assert_eq!(exit_for(None), Exit::Clean);
    }
}
