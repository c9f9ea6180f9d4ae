//! The limits of one client, of one address, or of one user.

use super::bucket::Rate;
use crate::config::Config;

/// The limits of one client, address or user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(super) messages: Rate,
    pub(super) bytes: Rate,
    pub(super) rooms: Rate,
}

impl Rates {
    /// Returns the limits of one client.
    pub(crate) fn of_client(config: &Config) -> Rates {
        Rates {
            messages: Rate::new(config.rate_messages, 1.0),
            bytes: Rate::new(config.rate_bytes, 1.0),
            rooms: Rate::new(config.rate_rooms, 60.0),
        }
    }

    /// Returns the limits of all clients at one address.
    pub(crate) fn of_address(config: &Config) -> Rates {
        Rates {
            messages: Rate::new(config.rate_messages_per_ip, 1.0),
            bytes: Rate::new(config.rate_bytes_per_ip, 1.0),
            rooms: Rate::new(config.rate_rooms_per_ip, 60.0),
        }
    }

    /// Returns the limits of all clients of one user.
    pub(crate) fn of_user(config: &Config) -> Rates {
        Rates {
            messages: Rate::new(config.rate_messages_per_user, 1.0),
            bytes: Rate::new(config.rate_bytes_per_user, 1.0),
            rooms: Rate::new(config.rate_rooms_per_user, 60.0),
        }
    }

    /// Whether neither messages nor bytes are limited.
    pub(crate) fn are_off(&self) -> bool {
        self.messages.is_off() && self.bytes.is_off()
    }
}
