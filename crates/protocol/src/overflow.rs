//! What happens to a member that is too slow for its room.

use serde::{Deserialize, Serialize};

/// What happens to a member that is too slow for its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Its connection is closed with 4102.
    Close,
    /// It misses messages, and a `gap` says which.
    Gap,
    /// It gets the newest message alone.
    Latest,
}
