//! The result of sending a message.

/// The result of sending a message.
///
/// A handler that only answers its client may ignore the status: the server stops reading a client
/// that does not read, and closes it if it never does. A handler that sends by itself pauses if the
/// status is not [`Sent`](SendStatus::Sent).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// The message was queued.
    Sent,
    /// The message was queued, and the client's outbox is more than half full: pause.
    Behind,
    /// The message was dropped: the connection is closing, or the client is too far behind and will
    /// be closed, or, from another thread, the mailbox of its worker is full.
    Dropped,
}
