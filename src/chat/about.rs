//! The facts about the server that clients and programs are told.

use rusty_socks_protocol::{Seconds, answer::Limits};
use uuid::Uuid;

use crate::Config;

/// The facts about the server that every `welcome` states.
#[derive(Debug)]
pub(super) struct About {
    pub(super) node: String,
    pub(super) ping: Seconds,
    pub(super) max_message_bytes: usize,
    pub(super) resume_window: Seconds,
    pub(super) limits: Limits,
}

impl About {
    pub(super) fn new(config: &Config) -> About {
        let unless_off = |limit: u32| (limit > 0).then_some(limit);
        About {
            node: Uuid::new_v4().to_string(),
            ping: Seconds(config.ping.as_secs_f64()),
            max_message_bytes: config.max_message_bytes,
            resume_window: Seconds(config.resume_window.as_secs_f64()),
            limits: Limits {
                rate_messages: unless_off(config.rate_messages),
                rate_bytes: unless_off(config.rate_bytes),
                max_rooms: config.max_rooms_per_conn,
            },
        }
    }
}

/// Returns the most messages that any room keeps.
pub(super) fn kept_max(config: &Config) -> usize {
    let of_rules = config.rooms.iter().filter_map(|rule| rule.history);
    of_rules.chain([config.history]).max().unwrap_or_default()
}
