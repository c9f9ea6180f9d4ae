//! What became of a message that was sent.

/// What became of a message that was sent.
///
/// A handler may ignore it: a client that does not read is paused, and closed if it never does. A
/// handler that sends without being asked looks at it, and pauses where it is not
/// [`Sent`](SendStatus::Sent).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// The message is on its way.
    Sent,
    /// The message is on its way, and more than half of what may wait for this client does: pause
    /// if you can.
    Behind,
    /// The message was dropped: the connection is closing, or the client is too far behind and will
    /// be closed.
    Dropped,
}
