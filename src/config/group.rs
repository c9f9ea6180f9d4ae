//! The headings under which help lists the settings.

/// The heading under which help lists a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The settings that most operators change.
    First,
    /// Which connections are admitted.
    Admission,
    /// Timeouts and intervals.
    Time,
    /// Sizes and queues.
    Size,
    /// Rooms and their history.
    Rooms,
    /// Sessions that outlive their connections.
    Sessions,
    /// Servers that are to their clients as one.
    Engine,
    /// Limits and permissions of one client.
    Clients,
    /// Questions to the operator's backend, and events for it.
    Hooks,
    /// Certificates.
    Tls,
    /// Tokens, and who must have one.
    Identity,
    /// The server API and its listener.
    Admin,
    /// Logging.
    Logging,
}

impl Group {
    /// Returns the heading.
    pub fn heading(self) -> &'static str {
        match self {
            Group::First => "What most operators set",
            Group::Admission => "Admission",
            Group::Time => "Time limits",
            Group::Size => "Sizes and queues",
            Group::Rooms => "Rooms and history",
            Group::Sessions => "Slow clients and sessions",
            Group::Engine => "Many servers",
            Group::Clients => "Clients",
            Group::Hooks => "Hooks and events",
            Group::Tls => "TLS",
            Group::Identity => "Identity",
            Group::Admin => "The server API",
            Group::Logging => "Logging",
        }
    }
}
