//! Where log lines go and how they look: to standard error, as the keys `log` and `log_format` say.
//!
//! No thread that logs waits for standard error, which may be a pipe that nobody reads: lines go
//! through a bounded queue to a thread of their own. Lines beyond the bound, and those that cannot
//! be written, are dropped, counted and reported.

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
use log::{
    Level, Log, Metadata, Record, error,
    kv::{self, Key, Value, VisitSource, VisitValue},
    warn,
};
use parking_lot::RwLock;
use rusty_socks::config::{Loaded, LogFormat, Source};
use serde::Serialize;

/// Bytes of log lines that may wait to be written. Lines beyond it are dropped.
const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// The target of the lines of the access log.
const ACCESS_TARGET: &str = "rusty_socks::access";

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
        LogFormat::Text => builder.format_timestamp_millis().format_key_values(write_fields),
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
        !shows_secrets(metadata) && self.0.read().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !shows_secrets(record.metadata()) {
            self.0.read().log(record);
        }
    }

    fn flush(&self) {}
}

/// Whether a line shows addresses and headers with secrets in them, whatever a filter wants: the
/// HTTP client of hooks, events and token keys writes such lines.
fn shows_secrets(metadata: &Metadata<'_>) -> bool {
    metadata.level() > Level::Info && metadata.target().starts_with("ureq")
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
    /// Lines dropped since the start.
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
    let mut reported = 0;
    for entry in waiting {
        match entry {
            Entry::Line(line) => {
                let written = output.write_all(&line);
                counts.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                if written.is_err() {
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                    // A report would be lost too, and be the next one to report.
                    continue;
                }
            }
            Entry::Mark(written) => drop(written),
        }
        // Once there is room again for the line that says so. It tells all of them, because an
        // earlier report may be among them.
        if counts.waiting_bytes.load(Ordering::Relaxed) < LOG_QUEUE_BYTES_MAX / 2 {
            let dropped = counts.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                reported = dropped;
                warn!(
                    "{dropped} log lines were dropped since the start: \
                     standard error was not read, or could not be written"
                );
            }
        }
    }
}

/// The key, or else the variable that every Rust program knows. Lines of the access log are written
/// at whatever level, if there is one.
fn filter(loaded: &Loaded, rust_log: Option<String>) -> String {
    let filter = match (loaded.source("log"), rust_log) {
        (Some(Source::Default), Some(rust_log)) if !rust_log.is_empty() => rust_log,
        _ => loaded.config.log.clone(),
    };
    match loaded.config.access_log && !filter.contains(ACCESS_TARGET) {
        true => format!("{ACCESS_TARGET}=info,{filter}"),
        false => filter,
    }
}

/// One log line for a collector. The names are a promise.
#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    level: &'static str,
    target: &'a str,
    message: String,
    #[serde(flatten)]
    fields: Fields,
}

/// The fields of a log line, in their order. None has a name of [`Line`]'s own.
#[derive(Default)]
struct Fields(Vec<(String, serde_json::Value)>);

impl Serialize for Fields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'a> VisitSource<'a> for Fields {
    fn visit_pair(&mut self, key: Key<'a>, value: Value<'a>) -> Result<(), kv::Error> {
        let mut json = ToJson(None);
        value.visit(&mut json)?;
        self.0.extend(json.0.map(|value| (key.to_string(), value)));
        Ok(())
    }
}

/// The value of a field as JSON; `None` where there is none.
struct ToJson(Option<serde_json::Value>);

impl<'a> VisitValue<'a> for &mut ToJson {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = Some(value.to_string().into());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = Some(value.into());
        Ok(())
    }
}

/// Writes the fields of a line for people: `name=value`, with quotes where the value is not one
/// plain word.
fn write_fields(out: &mut Formatter, source: &dyn kv::Source) -> io::Result<()> {
    for (name, value) in fields(source)?.0 {
        match value {
            serde_json::Value::String(text) if !is_word(&text) => write!(out, " {name}={text:?}")?,
            serde_json::Value::String(text) => write!(out, " {name}={text}")?,
            value => write!(out, " {name}={value}")?,
        }
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-._:/@[]+".contains(c))
}

fn fields(source: &dyn kv::Source) -> io::Result<Fields> {
    let mut fields = Fields::default();
    source.visit(&mut fields).map_err(io::Error::other)?;
    Ok(fields)
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
        fields: fields(record.key_values())?,
    };
    Ok(serde_json::to_string(&line)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

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
            json(&Record::builder().args(message).level(Level::Warn).target("rusty_socks").build())
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

    #[test]
    fn fields_are_fields_in_json_and_words_or_quoted_in_text() {
        let values: [(&str, Value<'_>); 5] = [
            ("remote", Value::from("127.0.0.1:5")),
            ("user", Value::from("anna\nb")),
            ("nobody", Value::null()),
            ("seconds", Value::from(1.5)),
            ("bytes_in", Value::from(7_u64)),
        ];
        let record = Record::builder()
            .args(format_args!("connection ended"))
            .target("rusty_socks::access")
            .key_values(&values)
            .build();
        let line: serde_json::Value = serde_json::from_str(&json(&record).unwrap()).unwrap();
        assert_eq!(line["seconds"], 1.5);
        assert_eq!((&line["bytes_in"], &line["user"]), (&7.into(), &"anna\nb".into()));
        assert_eq!(line.get("nobody"), None);
        assert!(is_word("127.0.0.1:5") && is_word("/ws") && !is_word("") && !is_word("a b"));
        assert!(!is_word("a=b") && !is_word("a\nb") && !is_word("\""));
    }

    #[test]
    fn the_access_log_is_written_at_whatever_level() {
        let on = loaded(&[("access_log", "true"), ("log", "warn")]);
        assert_eq!(filter(&on, None), "rusty_socks::access=info,warn");
        let own = loaded(&[("access_log", "true"), ("log", "rusty_socks::access=off")]);
        assert_eq!(filter(&own, None), "rusty_socks::access=off");
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

    /// An output that fails as long as it is full.
    struct Full {
        is_full: Arc<AtomicBool>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_as_dropped() {
        let (written, lines) = crossbeam_channel::unbounded();
        let is_full = Arc::new(AtomicBool::new(true));
        let mut queue = LogQueue::start(Full { is_full: Arc::clone(&is_full), written }).unwrap();
        for _ in 0..3 {
            queue.write_all(b"lost").unwrap();
        }
        queue.flush();
        assert_eq!(queue.counts.dropped.load(Ordering::Relaxed), 3);
        is_full.store(false, Ordering::Relaxed);
        queue.write_all(b"kept").unwrap();
        queue.flush();
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [b"kept"]);
        assert_eq!(queue.counts.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(queue.counts.waiting_bytes.load(Ordering::Relaxed), 0);
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
