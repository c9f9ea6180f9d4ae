//! Messages of one room in a row, and their frames in one piece for the members that get them all.
//!
//! A busy room has several messages in a turn. For most members nothing stands between them: one
//! copy of all frames serves these, and each has one place in its outbox and one plain write
//! however many messages it gets. Members that must not get all of them, or for which the messages
//! are to be looked at one by one, take them apart.

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;

use crate::{
    hub::{
        charge::{Charge, TOGETHER_BYTES_MAX},
        conn_id::ConnId,
        room::RoomKey,
    },
    ws::{
        deflate::{Deflate, Deflaters},
        frame::{PreparedFrame, join_frames},
    },
};

/// Messages of a run. Each member may take them apart, so they are few.
const MESSAGES_MAX: usize = 32;

/// What their frames may have together, in bytes: copying more costs more than it saves, and a slow
/// client keeps all of it for its last byte. Senders pay less for what goes together.
const BYTES_MAX: usize = TOGETHER_BYTES_MAX;

/// One message on its way to a room's members.
pub(super) struct RoomMessage {
    pub(super) seq: u64,
    pub(super) frame: PreparedFrame,
    pub(super) except: Option<ConnId>,
    /// The space that its letter takes in the mailbox, in bytes.
    pub(super) weight: usize,
    pub(super) charge: Option<Charge>,
}

/// Messages of one room that follow each other.
#[derive(Default)]
pub(super) struct Run {
    pub(super) messages: Vec<RoomMessage>,
    bytes: usize,
    /// The copies that were made of them.
    joined: Joined,
}

/// Messages of one room that were taken one behind the other, and go to its members together.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) room: RoomKey,
    pub(super) run: Run,
    /// Messages that go together to as many members as the room has here.
    pub(super) messages_max: usize,
}

/// The frames of a run in one piece, made when the first member is sent them.
#[derive(Default)]
struct Joined {
    plain: Option<Bytes>,
    /// For clients with compression, by the size of their window.
    compressed: Vec<(u8, Option<Bytes>)>,
}

impl Run {
    /// Whether `frame` may go with the messages that are there.
    pub(super) fn takes(&self, frame: &PreparedFrame) -> bool {
        self.messages.is_empty()
            || (self.messages.len() < MESSAGES_MAX && self.bytes + frame.len() <= BYTES_MAX)
    }

    pub(super) fn push(&mut self, message: RoomMessage) {
        self.bytes += message.frame.len();
        self.messages.push(message);
    }

    /// Takes all messages out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = RoomMessage> {
        (self.bytes, self.joined) = (0, Joined::default());
        self.messages.drain(..)
    }

    /// The lowest number and the highest. A room that began anew goes on with lower ones.
    pub(super) fn seqs(&self) -> (u64, u64) {
        let seqs = self.messages.iter().map(|message| message.seq);
        (seqs.clone().min().unwrap_or_default(), seqs.max().unwrap_or_default())
    }

    /// Whether `conn` is to get all of them.
    pub(super) fn is_for(&self, conn: ConnId) -> bool {
        self.messages.iter().all(|message| message.except != Some(conn))
    }

    /// The frames in one piece, as a client with this compression gets them. `None` if it must get
    /// one after the other.
    pub(super) fn joined(
        &mut self,
        deflate: Option<&Deflate>,
        bytes_min: usize,
        deflaters: &mut Deflaters,
        tally: &Arc<AtomicUsize>,
    ) -> Option<&Bytes> {
        let Run { messages, joined, .. } = self;
        let frames = messages.iter().map(|message| &message.frame);
        let Some(deflate) = deflate else {
            let join = || join_frames(frames.map(PreparedFrame::bytes), tally);
            return Some(joined.plain.get_or_insert_with(join));
        };
        let bits = deflate.shared_window_bits()?;
        let at = joined.compressed.iter().position(|(of, _)| *of == bits).unwrap_or_else(|| {
            let mut frame_for = |frame: &PreparedFrame| match frame.payload().len() < bytes_min {
                true => Some(frame.bytes().clone()),
                false => frame.shared(bits, deflaters).cloned(),
            };
            let frames: Option<Vec<Bytes>> = frames.map(&mut frame_for).collect();
            let all = frames.map(|frames| join_frames(frames.iter(), tally));
            joined.compressed.push((bits, all));
            joined.compressed.len() - 1
        });
        joined.compressed[at].1.as_ref()
    }
}
