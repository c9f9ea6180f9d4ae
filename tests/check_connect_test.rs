//! `rusty_socks check-config --connect` against a real Redis: one that can be used, and others.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis;

use program::outcome;
use redis::Redis;

/// The exit code, and what was said beside the table.
fn checked(url: &str) -> (Option<i32>, String) {
    let settings = [("ENGINE", "redis"), ("REDIS_URL", url)];
    let (code, text) = outcome(&["check-config", "--connect"], &settings, "");
    let said = text.lines().find_map(|line| line.strip_prefix("rusty_socks: "));
    let connected = || text.lines().find(|line| line.starts_with("connected to "));
    (code, said.or_else(connected).unwrap_or(&text).to_owned())
}

#[test]
fn a_redis_that_can_be_used_is_named() {
    let Some(redis) = Redis::start() else { return };
    let (code, said) = checked(&redis.url());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("connected to Redis "), "{said}");
    assert!(said.ends_with(&format!(" at {}: it can be used", redis.addr())), "{said}");
    assert!(!redis.cli(&["INFO", "memory"]).contains("number_of_cached_scripts:0"), "not loaded");
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let Some(redis) = Redis::start() else { return };
    assert_eq!(redis.cli(&["CONFIG", "SET", "requirepass", "right-one"]), "OK");
    let (code, said) = checked(&format!("redis://:wrong-one@{}", redis.addr()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with(&format!("redis_url: {}: WRONGPASS", redis.addr())), "{said}");
    assert!(!said.contains("wrong-one"), "{said}");
    let (code, said) = checked(&redis.url());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("NOAUTH"), "{said}");
    assert_eq!(checked(&format!("redis://:right-one@{}", redis.addr())).0, Some(0));
}

#[test]
fn a_replica_is_refused() {
    let Some(redis) = Redis::start() else { return };
    let replica = redis.replica();
    let (code, said) = checked(&replica.url());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.ends_with("it is a replica, and only a primary can be used"), "{said}");
}

#[test]
fn nobody_there_is_no_engine() {
    let Some(mut redis) = Redis::start() else { return };
    let url = redis.url();
    redis.stop();
    let (code, said) = checked(&url);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with(&format!("redis_url: {}: ", redis.addr())), "{said}");
    // Without the flag nobody is asked.
    let settings = [("ENGINE", "redis"), ("REDIS_URL", url.as_str())];
    assert_eq!(outcome(&["check-config"], &settings, "").0, Some(0));
    let (code, text) = outcome(&["check-config", "--connect"], &[], "");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("connected to nothing: engine is memory"), "{text}");
}
