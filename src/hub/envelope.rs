//! A message on its way between nodes: as it was given, without its numbers, and who sent it.

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    conn_id::ConnId,
    names::RoomName,
    publish::{Parts, Publication},
};
use crate::ws::frame::{Kind, PreparedFrame};

/// What follows a text that no number follows.
const NO_NUMBER: u8 = u8::MAX;

/// Whom a message is from, and who does not get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) node: Uuid,
    /// The nil UUID for a publisher outside of any connection.
    pub(crate) client: Uuid,
    /// The connection at that node that does not get the message.
    pub(crate) except: Option<ConnId>,
    /// The client at whichever node that does not get it.
    pub(crate) without: Option<Uuid>,
    /// Which message of the node it is, so that no other one is the same.
    pub(crate) nth: u64,
}

/// The bytes before the texts: the kind, whom it is from, the two that do not get it, and which one
/// it is.
const HEAD_BYTES: usize = 1 + 16 + 16 + (1 + 10) + 16 + 8;

impl Publication<'_> {
    /// Writes the message down, to be numbered later. `rooms` are those that it goes to, if there
    /// are several.
    pub(crate) fn envelope(&self, from: &From, rooms: &[RoomName]) -> Bytes {
        let mut out = Vec::with_capacity(HEAD_BYTES + 16 + self.parts_len());
        out.push(match self.kind {
            Kind::Text => 0,
            Kind::Binary => 1,
        });
        out.extend(from.node.as_bytes());
        out.extend(from.client.as_bytes());
        let except = from.except.unwrap_or(ConnId::NONE);
        out.push(u8::from(from.except.is_some()));
        out.extend(except.worker.to_be_bytes());
        out.extend(except.slot.to_be_bytes());
        out.extend(except.generation.to_be_bytes());
        out.extend(from.without.unwrap_or_default().as_bytes());
        out.extend(from.nth.to_be_bytes());
        out.push(rooms.len() as u8);
        for room in rooms {
            out.push(room.as_str().len() as u8);
            out.extend(room.as_str().as_bytes());
        }
        let mut text = |text: &[u8], number: u8| {
            out.extend((text.len() as u32).to_be_bytes());
            out.push(number);
            out.extend(text);
        };
        match self.parts {
            Parts::Whole(bytes) => text(bytes, NO_NUMBER),
            Parts::AroundSeq(before, after) => {
                text(before.as_bytes(), 0);
                text(after.as_bytes(), NO_NUMBER);
            }
            Parts::AroundSeqs(pieces, after) => {
                for (before, index) in pieces {
                    text(before.as_bytes(), u8::try_from(*index).unwrap_or(NO_NUMBER));
                }
                text(after.as_bytes(), NO_NUMBER);
            }
        }
        out.into()
    }

    fn parts_len(&self) -> usize {
        match self.parts {
            Parts::Whole(bytes) => bytes.len(),
            Parts::AroundSeq(before, after) => before.len() + after.len() + 8,
            Parts::AroundSeqs(pieces, after) => {
                after.len() + pieces.iter().map(|(text, _)| text.len() + 5).sum::<usize>()
            }
        }
    }
}

/// A message as it came from a node.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    kind: Kind,
    pub(crate) from: From,
    /// The rooms that it goes to, if there are several.
    pub(crate) rooms: Vec<RoomName>,
    texts: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads a message; `None` if it is not one.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Envelope<'a>> {
        let (head, texts) = bytes.split_at_checked(HEAD_BYTES)?;
        let kind = match head[0] {
            0 => Kind::Text,
            1 => Kind::Binary,
            _ => return None,
        };
        let uuid = |at: usize| Uuid::from_slice(head.get(at..at + 16)?).ok();
        let except = ConnId {
            worker: u16::from_be_bytes(head[34..36].try_into().ok()?),
            slot: u32::from_be_bytes(head[36..40].try_into().ok()?),
            generation: u32::from_be_bytes(head[40..44].try_into().ok()?),
        };
        let from = From {
            node: uuid(1)?,
            client: uuid(17)?,
            except: (head[33] == 1).then_some(except),
            without: Some(uuid(44)?).filter(|id| !id.is_nil()),
            nth: u64::from_be_bytes(head[60..68].try_into().ok()?),
        };
        let (count, mut texts) = texts.split_first()?;
        let mut rooms = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let (length, rest) = texts.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            rooms.push(RoomName::new(std::str::from_utf8(name).ok()?).ok()?);
            texts = rest;
        }
        let envelope = Envelope { kind, from, rooms, texts };
        let mut left = texts;
        while !left.is_empty() {
            left = next_text(left)?.2;
        }
        // A text frame that is no text would be a violation of the protocol, and ours.
        let is_text = |(text, _): (&[u8], u8)| std::str::from_utf8(text).is_ok();
        (kind == Kind::Binary || envelope.texts().all(is_text)).then_some(envelope)
    }

    fn texts(&self) -> impl Iterator<Item = (&'a [u8], u8)> {
        let mut left = self.texts;
        std::iter::from_fn(move || {
            let (text, number, rest) = next_text(left)?;
            left = rest;
            Some((text, number))
        })
    }

    /// Encodes the message with its numbers. `tally` counts it for as long as it is kept or waits.
    pub(crate) fn frame(&self, seqs: &[u64], tally: &Arc<AtomicUsize>) -> PreparedFrame {
        let mut digits: Vec<(&[u8], String)> = Vec::new();
        for (text, number) in self.texts() {
            let seq = seqs.get(usize::from(number)).filter(|_| number != NO_NUMBER);
            digits.push((text, seq.map(u64::to_string).unwrap_or_default()));
        }
        let parts: Vec<&[u8]> =
            digits.iter().flat_map(|(text, number)| [*text, number.as_bytes()]).collect();
        PreparedFrame::counted(self.kind, &parts, tally)
    }
}

/// Splits the first text off, and what number follows it.
fn next_text(bytes: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((text, *number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_numbered_as_it_would_have_been() {
        let from = From {
            node: Uuid::new_v4(),
            client: Uuid::new_v4(),
            except: Some(ConnId { worker: 3, slot: 70_000, generation: 9 }),
            without: None,
            nth: 7,
        };
        let tally = Arc::default();
        let pieces = [("{\"a\":", 1), (",\"b\":", 0)];
        let publications = [
            Publication::around_seq("{\"seq\":", ",\"x\":\"ü\"}"),
            Publication::around_seqs(&pieces, "}"),
            Publication::from("as it stands"),
        ];
        for publication in publications {
            let rooms = ["a", "b"].map(|name| RoomName::new(name).expect("a legal name"));
            let bytes = publication.envelope(&from, &rooms);
            let envelope = Envelope::read(&bytes).expect("it was written so");
            assert_eq!((envelope.from, &envelope.rooms[..]), (from, &rooms[..]));
            let seqs = [7, u64::MAX];
            let (frame, direct) =
                (envelope.frame(&seqs, &tally), publication.encode(&seqs, &tally));
            assert_eq!(frame.bytes(), direct.bytes());
            for end in 0..bytes.len() {
                if let Some(cut) = Envelope::read(&bytes[..end]) {
                    cut.frame(&seqs, &tally);
                }
            }
        }
        let not_text = [&[0; HEAD_BYTES][..], &[0, 0, 0, 0, 1, NO_NUMBER, 0xff]].concat();
        assert!(Envelope::read(&not_text).is_none());
    }
}
