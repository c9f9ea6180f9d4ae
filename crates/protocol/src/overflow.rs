//! The overflow policy of a room.

use serde::{Deserialize, Serialize};

/// The policy of a room for a member that is too slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Skips messages, and a `gap` says which.
    Gap,
    /// Skips all but the newest message, and a `gap` says which.
    Latest,
    /// Closes the member's connection with 4102. Also the value for an unknown policy.
    #[default]
    #[serde(other)]
    Close,
}
