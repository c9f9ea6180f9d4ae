//! One key of the server API, with what it may be used for.

use super::secret::Secret;

/// A key of the server API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The name in logs, and the `sender` of messages that give none. 1 to 64 bytes.
    pub name: String,
    /// What stands behind `Bearer`.
    pub key: Secret,
    /// What the key may be used for.
    pub scopes: Vec<ApiScope>,
    /// Rooms that the key may be used for, by name or by pattern such as `prices.*`; `*` stands for
    /// all.
    pub rooms: Vec<String>,
}

/// What a key of the server API may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiScope {
    /// To publish messages.
    Publish,
    /// To read rooms, histories, presence, sessions and figures.
    Read,
    /// To delete histories, close sessions and drain the server.
    Admin,
}
