//! Where log lines go and how they look: to standard error, as the keys `log` and `log_format` say.
//!
//! No thread that logs waits for standard error, which may be a pipe that nobody reads: lines go
//! through a bounded queue to a thread of their own, and lines beyond the bound are dropped,
//! counted and reported.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    io::{self, IsTerminal, Write},
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use chrono::{SecondsFormat, Utc};
use crossbeam_channel::{Receiver, Sender};
use env_logger::{Builder, Logger, Target, WriteStyle, fmt::Formatter};
use log::{Log, Metadata, Record, error, warn};
use parking_lot::RwLock;
use rusty_socks::config::{Loaded, LogFormat, Source};
use serde::Serialize;

/// Bytes of log lines that may wait to be written. Lines beyond it are dropped.
const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the end of the program waits for the last lines to be written.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// Starts logging for the rest of the program's life. The first call counts. Returns the queue, and
/// what changes the filter later.
///
/// The error is that of the system, which refused the thread that writes.
pub(crate) fn start(loaded: &Loaded) -> io::Result<(LogQueue, LogFilter)> {
    let queue = LogQueue::start(io::stderr())?;
    let format = loaded.config.log_format;
    let logger = Arc::new(RwLock::new(logger(loaded, format, &queue)));
    let filter = LogFilter { logger: Arc::clone(&logger), format, queue: queue.clone() };
    filter.follow();
    // An earlier logger can only be this one again.
    let _ = log::set_boxed_logger(Box::new(Switched(logger)));
    // The usual hook writes to standard error itself, and so would wait for it.
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => error!("{panic}\n{backtrace}"),
            _ => error!("{panic}"),
        }
    }));
    Ok((queue, filter))
}

fn logger(loaded: &Loaded, format: LogFormat, queue: &LogQueue) -> Logger {
    let mut builder = Builder::new();
    builder.parse_filters(&filter(loaded, env::var("RUST_LOG").ok()));
    builder.target(Target::Pipe(Box::new(queue.clone())));
    builder.write_style(match io::stderr().is_terminal() {
        true => WriteStyle::Auto,
        false => WriteStyle::Never,
    });
    match format {
        LogFormat::Text => builder.format_timestamp_millis(),
        LogFormat::Json => builder.format(write_json),
    };
    builder.build()
}

/// Changes which lines are written. Their format stays.
pub(crate) struct LogFilter {
    logger: Arc<RwLock<Logger>>,
    format: LogFormat,
    queue: LogQueue,
}

impl LogFilter {
    /// Takes the filter of these settings.
    pub(crate) fn set(&self, loaded: &Loaded) {
        *self.logger.write() = logger(loaded, self.format, &self.queue);
        self.follow();
    }

    /// Lets lines that no filter wants cost next to nothing.
    fn follow(&self) {
        log::set_max_level(self.logger.read().filter());
    }
}

/// The logger that is in use. No line waits for a reader: the queue never blocks.
struct Switched(Arc<RwLock<Logger>>);

impl Log for Switched {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.read().log(record);
    }

    fn flush(&self) {}
}

/// The lines that wait to be written, for the threads that log and for the end of the program.
/// Clones are handles of one queue.
#[derive(Clone)]
pub(crate) struct LogQueue {
    lines: Sender<Entry>,
    counts: Arc<Counts>,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written once this is taken.
    Mark(Sender<()>),
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    /// Lines dropped that were not reported yet.
    dropped: AtomicU64,
}

impl LogQueue {
    fn start(output: impl Write + Send + 'static) -> io::Result<LogQueue> {
        // Bounded by `waiting_bytes`.
        let (lines, waiting) = crossbeam_channel::unbounded();
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        thread::Builder::new()
            .name("rusty-socks-log".to_owned())
            .spawn(move || write_lines(&waiting, &theirs, output))?;
        Ok(LogQueue { lines, counts })
    }

    /// Waits until what was logged before is written, for a second at most.
    pub(crate) fn flush(&self) {
        let (written, is_written) = crossbeam_channel::bounded(1);
        let _ = self.lines.send(Entry::Mark(written));
        let _ = is_written.recv_timeout(LAST_LINES_WAIT);
    }
}

/// The logger writes each line in one call.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.counts.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        if before + line.len() > LOG_QUEUE_BYTES_MAX {
            self.counts.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = self.lines.send(Entry::Line(line.to_vec()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines for as long as the program runs. An output that is broken changes nothing else: its
/// lines are lost, and the next one is tried again.
fn write_lines(waiting: &Receiver<Entry>, counts: &Counts, mut output: impl Write) {
    for entry in waiting {
        match entry {
            Entry::Line(line) => {
                let _ = output.write_all(&line);
                counts.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Entry::Mark(written) => drop(written),
        }
        // Once there is room again for the line that says so.
        if counts.waiting_bytes.load(Ordering::Relaxed) < LOG_QUEUE_BYTES_MAX / 2 {
            let dropped = counts.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                warn!("{dropped} log lines were dropped: standard error was not read");
            }
        }
    }
}

/// The key, or else the variable that every Rust program knows.
fn filter(loaded: &Loaded, rust_log: Option<String>) -> String {
    match (loaded.source("log"), rust_log) {
        (Some(Source::Default), Some(rust_log)) if !rust_log.is_empty() => rust_log,
        _ => loaded.config.log.clone(),
    }
}

/// One log line for a collector. The names are a promise.
#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    level: &'static str,
    target: &'a str,
    message: String,
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    writeln!(out, "{}", json(record)?)
}

fn json(record: &Record<'_>) -> io::Result<String> {
    let line = Line {
        ts: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        level: record.level().as_str(),
        target: record.target(),
        message: record.args().to_string(),
    };
    Ok(serde_json::to_string(&line)?)
}

#[cfg(test)]
mod tests {
    use rusty_socks::Config;

    use super::*;

    fn loaded(flags: &[(&str, &str)]) -> Loaded {
        let no_variables: [(&str, &str); 0] = [];
        Config::load_from(None, no_variables, flags.iter().copied()).unwrap()
    }

    #[test]
    fn the_key_beats_the_common_variable_once_it_is_set() {
        let common = || Some(String::from("trace"));
        assert_eq!(filter(&loaded(&[]), None), "info");
        assert_eq!(filter(&loaded(&[]), common()), "trace");
        assert_eq!(filter(&loaded(&[]), Some(String::new())), "info");
        assert_eq!(filter(&loaded(&[("log", "info")]), common()), "info");
    }

    #[test]
    fn a_json_line_is_one_line_whatever_the_message_holds() {
        let record = |message| {
            json(
                &Record::builder()
                    .args(message)
                    .level(log::Level::Warn)
                    .target("rusty_socks")
                    .build(),
            )
            .unwrap()
        };
        let line = record(format_args!("a \"quote\"\nand a line"));
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "a \"quote\"\nand a line");
        let ts = value["ts"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(ts).is_ok(), "{ts}");
    }

    /// An output that blocks until it is told to go on.
    struct Blocked {
        go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_blocks_holds_up_nobody_and_the_queue_is_bounded() {
        let (open, go_on) = crossbeam_channel::unbounded();
        let (written, lines) = crossbeam_channel::unbounded();
        let mut queue = LogQueue::start(Blocked { go_on, written }).unwrap();
        let line = vec![b'x'; 1000];
        for _ in 0..3000 {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.counts.waiting_bytes.load(Ordering::Relaxed) <= LOG_QUEUE_BYTES_MAX);
        let dropped = queue.counts.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped, 3000 - (LOG_QUEUE_BYTES_MAX / line.len()) as u64);
        drop(open);
        queue.flush();
        assert_eq!(lines.len() as u64, 3000 - dropped);
        assert_eq!(queue.counts.waiting_bytes.load(Ordering::Relaxed), 0);
    }
}
