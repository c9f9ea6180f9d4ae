//! What happens to a member that is too slow for its room.

use serde::{Deserialize, Serialize};

/// What happens to a member that is too slow for its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The member misses messages, and a `gap` says which.
    Gap,
    /// The member gets the newest message alone.
    Latest,
    /// The member's connection is closed with 4102. Also read for what this version does not know.
    #[default]
    #[serde(other)]
    Close,
}
