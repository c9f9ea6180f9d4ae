//! What happens to a member that is too slow for its room.

use serde::{Deserialize, Serialize};

/// What happens to a member that is too slow for its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The member's connection is closed with 4102.
    Close,
    /// The member misses messages, and a `gap` says which.
    Gap,
    /// The member gets the newest message alone.
    Latest,
}
