//! The settings that are tables in the file, and nowhere else.

use super::words::{Access, Overflow};

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
    /// Who may join these rooms. `None` is [`Access::Token`] where identity is required, and
    /// [`Access::Everyone`] elsewhere; so are the next three.
    pub join: Option<Access>,
    /// Who may publish in these rooms.
    pub publish: Option<Access>,
    /// Who may read earlier messages of these rooms, in replays and pages: the permission
    /// `history`.
    pub read_history: Option<Access>,
    /// Who may see who is in these rooms.
    pub presence: Option<Access>,
}

/// A certificate with its private key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsPair {
    /// The path of the PEM file with the chain, the server's own certificate first.
    pub cert: String,
    /// The path of the PEM file with the private key, without a passphrase.
    pub key: String,
}
