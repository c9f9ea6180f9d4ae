//! Where log lines go and how they look: to standard error, as the keys `log` and `log_format` say.

use std::{
    env,
    io::{self, Write},
};

use chrono::{SecondsFormat, Utc};
use env_logger::{Builder, Target, fmt::Formatter};
use log::Record;
use rusty_socks::config::{Loaded, LogFormat, Source};
use serde::Serialize;

/// Starts logging for the rest of the program's life. The first call counts.
pub(crate) fn start(loaded: &Loaded) {
    let mut builder = Builder::new();
    builder.target(Target::Stderr).parse_filters(&filter(loaded, env::var("RUST_LOG").ok()));
    match loaded.config.log_format {
        LogFormat::Text => builder.format_timestamp_millis(),
        LogFormat::Json => builder.format(write_json),
    };
    // An earlier logger can only be this one again.
    let _ = builder.try_init();
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
}
