//! The facts about the server that clients and programs are told.

use std::time::Duration;

use rusty_socks_protocol::{Seconds, answer::Limits};
use uuid::Uuid;

use crate::{Config, RoomName};

/// The facts about the server that every `welcome` states, and what a new client is given.
#[derive(Debug)]
pub(super) struct About {
    pub(super) default_room: Option<RoomName>,
    /// Messages of the default room that follow the welcome.
    pub(super) replay: usize,
    pub(super) auth_timeout: Duration,
    pub(super) token_grace: Duration,
    pub(super) node: String,
    pub(super) ping: Seconds,
    pub(super) max_message_bytes: usize,
    pub(super) resume_window: Seconds,
    pub(super) limits: Limits,
}

impl About {
    pub(super) fn new(config: &Config, default_room: Option<RoomName>) -> About {
        let unless_off = |limit: u32| (limit > 0).then_some(limit);
        About {
            default_room,
            replay: config.replay,
            auth_timeout: config.auth_timeout,
            token_grace: config.token_grace,
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
