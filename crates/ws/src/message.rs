//! A message that comes: all at once, or in parts.

use std::borrow::Cow;

use super::{
    close::CloseReason,
    deflate::Inflater,
    frame::{Kind, Message},
    utf8::PartialText,
};

/// A message that came: borrowed where it lies in the input, owned where it was put together.
#[derive(Debug)]
pub enum Received<'i> {
    /// Checked to be UTF-8.
    Text(Cow<'i, str>),
    /// Any bytes.
    Binary(Cow<'i, [u8]>),
}

impl<'i> Received<'i> {
    /// Takes `payload` as it lies there. `None` for text that is not UTF-8.
    #[inline(always)]
    pub(crate) fn in_place(kind: Kind, payload: &'i [u8]) -> Option<Received<'i>> {
        match kind {
            Kind::Binary => Some(Received::Binary(Cow::Borrowed(payload))),
            Kind::Text => {
                std::str::from_utf8(payload).ok().map(|text| Received::Text(Cow::Borrowed(text)))
            }
        }
    }

    /// Takes `payload` as it lies there, or inflated where an inflater is given. An error is the
    /// reason to close for.
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

    /// Inflates a payload to at most `bytes_max` bytes. An error is the reason to close for.
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

    /// The message, borrowed.
    pub fn message(&self) -> Message<'_> {
        match self {
            Received::Text(text) => Message::Text(text),
            Received::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

/// The payload of a message, as far as it has come.
#[derive(Debug)]
pub(crate) enum PartialMessage {
    Text(PartialText),
    Binary(Vec<u8>),
    /// Inflated when the last of it has come, so that one inflater serves all connections of a
    /// thread.
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

    /// How many bytes have come.
    pub(crate) fn len(&self) -> usize {
        match self {
            PartialMessage::Text(text) => text.len(),
            PartialMessage::Binary(bytes) | PartialMessage::Compressed(_, bytes) => bytes.len(),
        }
    }

    /// Adds what comes next. Text is refused as soon as nothing can make it right.
    pub(crate) fn push(&mut self, part: &[u8]) -> Result<(), CloseReason> {
        match self {
            PartialMessage::Text(text) => text.push(part).map_err(|_| CloseReason::INVALID_UTF8),
            PartialMessage::Binary(bytes) | PartialMessage::Compressed(_, bytes) => {
                bytes.extend_from_slice(part);
                Ok(())
            }
        }
    }

    /// The whole message. A compressed one is inflated to at most `bytes_max` bytes.
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
            // It began where compression was agreed, and that does not end.
            (PartialMessage::Compressed(..), None) => Err(CloseReason::PROTOCOL),
        }
    }
}
