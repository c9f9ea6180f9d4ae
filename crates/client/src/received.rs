//! A message that came.

use rusty_socks_ws::message;

use crate::Message;

/// A received message, whole, its UTF-8 checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl Received {
    /// Borrows the message, as handlers get it and [`Client::send`](crate::Client::send) takes it.
    pub fn as_message(&self) -> Message<'_> {
        match self {
            Received::Text(text) => Message::Text(text),
            Received::Binary(bytes) => Message::Binary(bytes),
        }
    }

    /// The text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        self.as_message().as_text()
    }

    pub(crate) fn len(&self) -> usize {
        self.as_message().as_bytes().len()
    }
}

impl From<message::Received<'_>> for Received {
    fn from(message: message::Received<'_>) -> Received {
        match message {
            message::Received::Text(text) => Received::Text(text.into_owned()),
            message::Received::Binary(bytes) => Received::Binary(bytes.into_owned()),
        }
    }
}
