//! Tokens of users.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// What tokens are signed with.
pub const SECRET: &str = "a secret for tests that has enough bytes";

/// Returns the seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn sign(claims: &Value) -> String {
    rusty_socks::identity::sign(claims, SECRET).unwrap()
}
