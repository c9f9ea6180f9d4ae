//! The overflow policy of a room.

use serde::{Deserialize, Serialize};

/// The policy of a room for a member that is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Closes the member's connection with 4102.
    Close,
    /// Skips messages, and a `gap` says which.
    Gap,
    /// Skips all but the newest message, and a `gap` says which.
    Latest,
}
