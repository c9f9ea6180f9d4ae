//! A rule for some rooms.

use super::words::Overflow;

/// A rule for the rooms of one name or pattern. A field that is `None` is as for all rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRule {
    /// The name of a room, or a pattern such as `prices.*`, which matches `prices.eur` and
    /// `prices.eur.spot`, but not `prices`.
    pub pattern: String,
    /// The policy for a client that is too slow for these rooms.
    pub overflow: Option<Overflow>,
    /// Messages kept in each of these rooms, within the range of
    /// [`Config::history`](crate::Config::history).
    pub history: Option<usize>,
}
