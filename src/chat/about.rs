//! The facts about the server that clients and programs are told.

use std::time::Duration;

use rusty_socks_protocol::{
    Seconds,
    answer::{AddressLimits, Limits, UserLimits},
};

use crate::{Config, RoomName};

/// The facts about the server that every `welcome` states, and what a new client is given.
#[derive(Debug)]
pub(super) struct About {
    pub(super) default_room: Option<RoomName>,
    /// Messages of the default room that follow the welcome.
    pub(super) replay: usize,
    pub(super) auth_timeout: Duration,
    pub(super) token_grace: Duration,
    pub(super) ping: Seconds,
    pub(super) max_message_bytes: usize,
    pub(super) resume_window: Seconds,
    limits: Limits,
    address_limits: AddressLimits,
    user_limits: UserLimits,
}

impl About {
    pub(super) fn new(config: &Config, default_room: Option<RoomName>) -> About {
        let unless_off = |limit: u32| (limit > 0).then_some(limit);
        About {
            default_room,
            replay: config.replay,
            auth_timeout: config.auth_timeout,
            token_grace: config.token_grace,
            ping: Seconds(config.ping.as_secs_f64()),
            max_message_bytes: config.max_message_bytes,
            resume_window: Seconds(config.resume_window.as_secs_f64()),
            limits: Limits {
                rate_messages: unless_off(config.rate_messages),
                rate_bytes: unless_off(config.rate_bytes),
                rate_rooms: unless_off(config.rate_rooms),
                max_rooms: config.max_rooms_per_conn,
                address: None,
                user: None,
            },
            address_limits: AddressLimits {
                rate_messages: unless_off(config.rate_messages_per_ip),
                rate_bytes: unless_off(config.rate_bytes_per_ip),
                rate_rooms: unless_off(config.rate_rooms_per_ip),
                rate_connections: unless_off(config.rate_accepts_per_ip),
                max_connections: config.conn_per_ip_max(),
            },
            user_limits: UserLimits {
                rate_messages: unless_off(config.rate_messages_per_user),
                rate_bytes: unless_off(config.rate_bytes_per_user),
                rate_rooms: unless_off(config.rate_rooms_per_user),
                max_connections: config.conn_per_user_max(),
            },
        }
    }

    /// Returns the limits of a client, with or without those of its address and of its user.
    pub(super) fn limits(&self, has_address: bool, has_user: bool) -> Limits {
        Limits {
            address: has_address.then_some(self.address_limits),
            user: has_user.then_some(self.user_limits),
            ..self.limits
        }
    }
}

/// Returns the most messages that any room keeps.
pub(super) fn kept_max(config: &Config) -> usize {
    let of_rules = config.rooms.iter().filter_map(|rule| rule.history);
    of_rules.chain([config.history]).max().unwrap_or_default()
}
