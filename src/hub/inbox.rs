//! A session's inbox: its direct messages, and which of them reached a connection.

use std::time::Duration;

use crate::{
    store::{History, HistoryBounds, Position},
    ws::frame::PreparedFrame,
};

/// The bounds of an inbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboxBounds {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// The direct messages of one session.
pub(super) struct Inbox {
    history: History,
    /// Number of the last message that was sent to a connection.
    delivered_seq: u64,
}

/// The messages that a resumed session finds in its inbox.
pub(super) struct Missed {
    /// Oldest first.
    pub(super) messages: Vec<PreparedFrame>,
    /// The number of the last direct message.
    pub(super) seq: u64,
    /// Whether `messages` are all that were asked for.
    pub(super) is_complete: bool,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox { history: History::new(), delivered_seq: 0 }
    }

    /// An inbox without messages that goes on behind message `seq`, of which those up to
    /// `delivered_seq` were sent to a connection.
    pub(super) fn at(seq: u64, delivered_seq: u64) -> Inbox {
        let history = History::at(Position { seq, ..History::new().position() }, 0);
        Inbox { history, delivered_seq }
    }

    /// Returns the number of the last message, and of the last one that was sent to a connection.
    pub(super) fn seqs(&self) -> (u64, u64) {
        (self.history.position().seq, self.delivered_seq)
    }

    /// Returns the messages that are kept, oldest first, with their numbers.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u64, &PreparedFrame)> {
        self.history.kept_between(0, u64::MAX).map(|(seq, _, frame)| (seq, frame))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// Returns the bytes of the messages that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.history.bytes()
    }

    /// Returns the number of the next message.
    pub(super) fn next_seq(&self) -> u64 {
        self.history.position().seq + 1
    }

    /// Whether a message of `bytes` must be refused, because too much already waits for a
    /// connection.
    pub(super) fn is_full(&self, bytes: usize, bounds: &InboxBounds) -> bool {
        let waiting = self.history.kept_since(self.delivered_seq);
        let waiting_bytes: usize = waiting.iter().map(PreparedFrame::len).sum();
        waiting.len() >= bounds.messages_max || waiting_bytes + bytes > bounds.bytes_max
    }

    /// Keeps the next message. `is_delivered` says that it was sent to a connection.
    pub(super) fn push(&mut self, frame: PreparedFrame, is_delivered: bool, bounds: &InboxBounds) {
        let bounds = HistoryBounds {
            messages_max: bounds.messages_max,
            bytes_max: bounds.bytes_max,
            // A message is dropped with its session, or earlier if space runs out.
            age_max: Duration::MAX,
        };
        self.history.append(frame, 0, &bounds);
        if is_delivered {
            self.delivered_seq = self.history.position().seq;
        }
    }

    /// Returns the messages after `since`, or if `None`, those that reached no connection. They
    /// count as delivered from now on.
    pub(super) fn take(&mut self, since: Option<u64>) -> Missed {
        let position = self.history.position();
        let since = Position { seq: since.unwrap_or(self.delivered_seq), ..position };
        self.delivered_seq = position.seq;
        let recovered = self.history.since(since, usize::MAX);
        let is_complete = recovered.is_some();
        let messages = recovered.unwrap_or_else(|| self.history.kept_since(since.seq));
        Missed { messages, seq: position.seq, is_complete }
    }
}
