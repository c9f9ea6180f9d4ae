//! Permissions: what a client may do in a room.

use std::{fmt, str::FromStr};

use bitflags::bitflags;

bitflags! {
    /// What a client may do in a room. `DIRECT` concerns no room: it allows direct messages.
    ///
    /// In tokens, in files and in messages each has its name in lower case.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Permissions: u8 {
        /// Become a member, and so get the messages.
        const JOIN = 1;
        /// Publish messages.
        const PUBLISH = 1 << 1;
        /// Read earlier messages, a replay at the join too.
        const HISTORY = 1 << 2;
        /// See who is in the room.
        const PRESENCE = 1 << 3;
        /// Send direct messages.
        const DIRECT = 1 << 4;
    }
}

/// The text is not the name of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPermission;

impl Permissions {
    /// Each permission and its name.
    pub const NAMED: [(&'static str, Permissions); 5] = [
        ("join", Permissions::JOIN),
        ("publish", Permissions::PUBLISH),
        ("history", Permissions::HISTORY),
        ("presence", Permissions::PRESENCE),
        ("direct", Permissions::DIRECT),
    ];
}

impl FromStr for Permissions {
    type Err = NotAPermission;

    /// Parses the name of one permission.
    fn from_str(name: &str) -> Result<Permissions, NotAPermission> {
        let found = Permissions::NAMED.iter().find(|(known, _)| *known == name);
        found.map(|(_, permission)| *permission).ok_or(NotAPermission)
    }
}

impl fmt::Display for NotAPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the permissions are join, publish, history, presence and direct")
    }
}

impl std::error::Error for NotAPermission {}

impl fmt::Display for Permissions {
    /// Lists the names with commas between, or writes `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Permissions::NAMED.iter().filter(|(_, permission)| self.contains(*permission));
        let names: Vec<&str> = held.map(|(name, _)| *name).collect();
        match names.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&names.join(", ")),
        }
    }
}
