//! Received messages: whole, or assembled from fragments.

use std::borrow::Cow;

use super::{
    close::CloseReason,
    deflate::Inflater,
    frame::{Kind, Message},
    utf8::PartialText,
};

/// A received message: borrowed from the input, or owned if it was assembled.
#[derive(Debug)]
pub enum Received<'i> {
    /// A text message, checked to be UTF-8.
    Text(Cow<'i, str>),
    /// A binary message.
    Binary(Cow<'i, [u8]>),
}

impl<'i> Received<'i> {
    /// Borrows `payload` as a message. Returns `None` for text that is not UTF-8.
    #[inline(always)]
    pub(crate) fn in_place(kind: Kind, payload: &'i [u8]) -> Option<Received<'i>> {
        match kind {
            Kind::Binary => Some(Received::Binary(Cow::Borrowed(payload))),
            Kind::Text => {
                std::str::from_utf8(payload).ok().map(|text| Received::Text(Cow::Borrowed(text)))
            }
        }
    }

    /// Borrows `payload` as a message, or inflates it if an inflater is given. An error is the
    /// reason to close with.
    pub(crate) fn whole(
        kind: Kind,
        payload: &'i [u8],
        inflater: Option<&mut Inflater<'_>>,
        bytes_max: usize,
    ) -> Result<Received<'i>, CloseReason> {
        match inflater {
            Some(inflater) => Received::inflated(kind, payload, inflater, bytes_max),
            None => Received::in_place(kind, payload).ok_or(CloseReason::INVALID_UTF8),
        }
    }

    /// Inflates a payload to at most `bytes_max` bytes. An error is the reason to close with.
    fn inflated(
        kind: Kind,
        payload: &[u8],
        inflater: &mut Inflater<'_>,
        bytes_max: usize,
    ) -> Result<Received<'static>, CloseReason> {
        let payload = inflater.inflate(payload, bytes_max)?;
        match Received::in_place(kind, payload).ok_or(CloseReason::INVALID_UTF8)? {
            Received::Text(text) => Ok(Received::Text(text.into_owned().into())),
            Received::Binary(bytes) => Ok(Received::Binary(bytes.into_owned().into())),
        }
    }

    /// Borrows the message.
    pub fn message(&self) -> Message<'_> {
        match self {
            Received::Text(text) => Message::Text(text),
            Received::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

/// The received part of an incomplete message.
#[derive(Debug)]
pub(crate) enum PartialMessage {
    Text(PartialText),
    Binary(Vec<u8>),
    /// Inflated once it is complete, so that one inflater serves all connections of a thread.
    Compressed(Kind, Vec<u8>),
}

impl PartialMessage {
    pub(crate) fn new(kind: Kind, is_compressed: bool) -> PartialMessage {
        match (is_compressed, kind) {
            (true, kind) => PartialMessage::Compressed(kind, Vec::new()),
            (false, Kind::Text) => PartialMessage::Text(PartialText::default()),
            (false, Kind::Binary) => PartialMessage::Binary(Vec::new()),
        }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        matches!(self, PartialMessage::Compressed(..))
    }

    /// Returns the number of bytes received.
    pub(crate) fn len(&self) -> usize {
        match self {
            PartialMessage::Text(text) => text.len(),
            PartialMessage::Binary(bytes) | PartialMessage::Compressed(_, bytes) => bytes.len(),
        }
    }

    /// Returns the bytes that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            PartialMessage::Text(text) => text.held_bytes(),
            PartialMessage::Binary(bytes) | PartialMessage::Compressed(_, bytes) => {
                bytes.capacity()
            }
        }
    }

    fn reserve(&mut self, bytes: usize) {
        match self {
            PartialMessage::Text(text) => text.reserve(bytes),
            PartialMessage::Binary(held) | PartialMessage::Compressed(_, held) => {
                held.reserve(bytes);
            }
        }
    }

    fn reserve_exact(&mut self, bytes: usize) {
        match self {
            PartialMessage::Text(text) => text.reserve_exact(bytes),
            PartialMessage::Binary(held) | PartialMessage::Compressed(_, held) => {
                held.reserve_exact(bytes);
            }
        }
    }

    /// Adds the next part, behind which `rest` more bytes of its frame are to come. Fails as soon
    /// as a text cannot become valid UTF-8.
    pub(crate) fn push(&mut self, part: &[u8], rest: usize) -> Result<(), CloseReason> {
        if self.held_bytes() - self.len().min(self.held_bytes()) < part.len() {
            // Twice what is there, as usual, but no more than the frame needs. At the end of a
            // frame others may follow, however small: growing by each of them alone would copy all
            // each time.
            let more = part.len() + rest.min(self.len() + part.len());
            match rest {
                0 => self.reserve(part.len()),
                _ => self.reserve_exact(more),
            }
        }
        match self {
            PartialMessage::Text(text) => text.push(part).map_err(|_| CloseReason::INVALID_UTF8),
            PartialMessage::Binary(bytes) | PartialMessage::Compressed(_, bytes) => {
                bytes.extend_from_slice(part);
                Ok(())
            }
        }
    }

    /// Completes the message. Inflates a compressed one to at most `bytes_max` bytes.
    pub(crate) fn finish(
        self,
        inflater: Option<&mut Inflater<'_>>,
        bytes_max: usize,
    ) -> Result<Received<'static>, CloseReason> {
        match (self, inflater) {
            (PartialMessage::Text(text), _) => {
                let text = text.finish().map_err(|_| CloseReason::INVALID_UTF8)?;
                Ok(Received::Text(text.into()))
            }
            (PartialMessage::Binary(bytes), _) => Ok(Received::Binary(bytes.into())),
            (PartialMessage::Compressed(kind, bytes), Some(inflater)) => {
                Received::inflated(kind, &bytes, inflater, bytes_max)
            }
            // A compressed message can only begin if an inflater is given.
            (PartialMessage::Compressed(..), None) => Err(CloseReason::PROTOCOL),
        }
    }
}
