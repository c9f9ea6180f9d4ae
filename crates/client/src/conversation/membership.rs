//! One room of a session.

/// A room that the server has the session in, or that is to be joined again.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// In on this connection. Messages of a room one is not in yet come with the answer to the
    /// join.
    pub(crate) is_in: bool,
    /// The pattern by which the server has it, and with which it goes there.
    pub(crate) pattern: Option<String>,
    pub(crate) watches: bool,
    /// It is watched for subscriptions alone.
    pub(crate) is_watch_private: bool,
    /// Its members have been asked for, and the answer is to come.
    pub(crate) is_recounted: bool,
    pub(crate) sender: Option<String>,
}
