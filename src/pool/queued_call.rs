//! A call of a handler that waits for a thread.

use crate::{
    handler::erased::Call,
    ws::{
        close::CloseReason,
        frame::{Kind, Message},
    },
};

/// A [`Call`] that owns its message.
pub(super) enum QueuedCall {
    Open,
    Message(Kind, Box<[u8]>),
    Wake,
    Drain,
    Close(CloseReason),
}

impl QueuedCall {
    pub(super) fn new(call: &Call<'_>) -> QueuedCall {
        match call {
            Call::Open => QueuedCall::Open,
            Call::Message(message) => {
                QueuedCall::Message(message.kind(), message.as_bytes().into())
            }
            Call::Wake => QueuedCall::Wake,
            Call::Drain => QueuedCall::Drain,
            Call::Close(reason) => QueuedCall::Close((*reason).clone()),
        }
    }

    /// Bytes that it takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        let message = match self {
            QueuedCall::Message(_, bytes) => bytes.len(),
            QueuedCall::Open | QueuedCall::Wake | QueuedCall::Drain | QueuedCall::Close(_) => 0,
        };
        size_of::<QueuedCall>() + message
    }

    pub(super) fn borrowed(&self) -> Call<'_> {
        match self {
            QueuedCall::Open => Call::Open,
            QueuedCall::Message(Kind::Text, bytes) => {
                Call::Message(Message::Text(std::str::from_utf8(bytes).unwrap_or_default()))
            }
            QueuedCall::Message(Kind::Binary, bytes) => Call::Message(Message::Binary(bytes)),
            QueuedCall::Wake => Call::Wake,
            QueuedCall::Drain => Call::Drain,
            QueuedCall::Close(reason) => Call::Close(reason),
        }
    }
}
