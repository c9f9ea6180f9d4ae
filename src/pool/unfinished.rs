//! Input that is of no use until more of it has come, and how much of it there may be when memory
//! is short.

use super::{
    connection::{Connection, Phase},
    stream::Stream,
    worker_cx::WorkerCtx,
};

/// What an upgrade in line, or an unfinished message, may hold when memory is short. Most messages
/// are smaller, and so are answered even then.
pub(super) const UNFINISHED_BYTES_MAX: usize = 16 << 10;

impl Connection {
    /// How much may be read, into a buffer of `buffer_bytes`. `None` if there is no memory for the
    /// rest of a message.
    #[inline]
    pub(super) fn readable_bytes(&self, buffer_bytes: usize, cx: &WorkerCtx) -> Option<usize> {
        if !cx.shared.hub.account.is_full() {
            return Some(buffer_bytes);
        }
        if self.unfinished_bytes() >= UNFINISHED_BYTES_MAX {
            return None;
        }
        // A record of TLS must fit the buffer.
        let is_plain = matches!(self.io.stream, Stream::Plain(_));
        Some(if is_plain { buffer_bytes.min(UNFINISHED_BYTES_MAX) } else { buffer_bytes })
    }

    /// Bytes of a message that is not whole.
    #[inline]
    pub(super) fn partial_bytes(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.partial_bytes(),
            Phase::Closing(closing) => closing.partial_bytes(),
            Phase::Admin(admin) => admin.partial_bytes(),
            Phase::Posting(post) => post.partial_bytes(),
            Phase::Head(_) | Phase::Asking(_) | Phase::Waiting(_) | Phase::Gone => 0,
        }
    }

    /// Bytes that were read and are of no use yet.
    #[inline]
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.io.stash.capacity() + self.partial_bytes()
    }
}
