//! The limits of one client, of one address, or of one user.

use super::bucket::Rate;
use crate::config::Config;

/// The limits of one client, address or user.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    pub(super) messages: Rate,
    pub(super) bytes: Rate,
    pub(super) rooms: Rate,
}

impl Rates {
    /// Messages and bytes a second, and rooms a minute; 0 is no limit.
    #[inline]
    pub(crate) fn new(messages: u32, bytes: u32, rooms: u32) -> Rates {
        Rates {
            messages: Rate::new(messages, 1.0),
            bytes: Rate::new(bytes, 1.0),
            rooms: Rate::new(rooms, 60.0),
        }
    }

    /// Returns the limits of all clients at one address.
    pub(crate) fn of_address(config: &Config) -> Rates {
        let Config { rate_messages_per_ip, rate_bytes_per_ip, rate_rooms_per_ip, .. } = config;
        Rates::new(*rate_messages_per_ip, *rate_bytes_per_ip, *rate_rooms_per_ip)
    }

    /// Returns the limits of all clients of one user.
    pub(crate) fn of_user(config: &Config) -> Rates {
        let Config { rate_messages_per_user, rate_bytes_per_user, rate_rooms_per_user, .. } =
            config;
        Rates::new(*rate_messages_per_user, *rate_bytes_per_user, *rate_rooms_per_user)
    }

    /// Whether neither messages nor bytes are limited.
    pub(crate) fn are_off(&self) -> bool {
        self.messages.is_off() && self.bytes.is_off()
    }
}
