//! Writes the messages of rooms: in the order of their age over all rooms, so that whoever reads
//! them can let go of the oldest ones, and the body of a message once, however many rooms have it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
};

use rustc_hash::FxHashMap;

use super::{Saved, SavedRoom, bytes_at_most, payload};
use crate::{
    hub::Hub,
    snapshot::{MESSAGE_OVERHEAD_BYTES, Record, SnapshotWriter},
    ws::frame::PreparedFrame,
};

/// A message that is written next.
struct Due {
    /// The place of its room among the records of rooms.
    place: u32,
    seq: u64,
    frame: PreparedFrame,
}

impl Hub {
    pub(super) fn save_messages<W: io::Write>(
        &self,
        out: &mut SnapshotWriter<W>,
        rooms: &[SavedRoom],
        saved: &mut Saved,
    ) -> io::Result<()> {
        let since_ms = stored_since(rooms, out.bytes_left());
        let now_ms = self.now_ms();
        let age_ms = |stored_ms: u64| now_ms.saturating_sub(stored_ms);
        // When the next message of each room was stored, the place of the room, and its number.
        let mut heads: BinaryHeap<Reverse<(u64, u32, u64)>> = BinaryHeap::new();
        for (place, SavedRoom { room, seq }) in (0..).zip(rooms) {
            let state = room.state.lock();
            let kept = state.history.kept_between(0, *seq);
            let mut kept = kept.skip_while(|(_, stored_ms, _)| {
                let is_left_out = *stored_ms < since_ms;
                saved.left_out.messages += usize::from(is_left_out);
                is_left_out
            });
            heads.extend(kept.next().map(|(seq, stored_ms, _)| Reverse((stored_ms, place, seq))));
        }
        // Copied, because nothing is written under a lock: a copy shares the bytes.
        let mut due: Vec<Due> = Vec::new();
        while let Some(Reverse((stored_ms, ..))) = heads.peek() {
            let age = age_ms(*stored_ms);
            while let Some(&Reverse((stored_ms, place, head))) = heads.peek()
                && age_ms(stored_ms) == age
            {
                heads.pop();
                let SavedRoom { room, seq } = &rooms[place as usize];
                let state = room.state.lock();
                for (seq, stored_ms, frame) in state.history.kept_between(head - 1, *seq) {
                    if age_ms(stored_ms) != age {
                        heads.push(Reverse((stored_ms, place, seq)));
                        break;
                    }
                    due.push(Due { place, seq, frame: frame.plain() });
                }
            }
            put_all(out, &due, age)?;
            saved.written.messages += due.len();
            due.clear();
        }
        Ok(())
    }
}

/// Writes messages of one age.
fn put_all<W: io::Write>(out: &mut SnapshotWriter<W>, due: &[Due], age_ms: u64) -> io::Result<()> {
    // In how many rooms each is, and once it was written its place among those that are shared.
    let mut rooms: FxHashMap<usize, (u32, Option<u32>)> = HashMap::default();
    for Due { frame, .. } in due {
        rooms.entry(identity(frame)).or_default().0 += 1;
    }
    let mut shared = 0;
    for Due { place, seq, frame } in due {
        let (room, seq) = (*place, *seq);
        let (count, written) = rooms.entry(identity(frame)).or_default();
        let is_shared = *count > 1;
        let record = match *written {
            Some(of) => Record::Shared { room, seq, of },
            None => Record::Message { room, seq, age_ms, is_shared, payload: payload(frame) },
        };
        if is_shared && written.is_none() {
            *written = Some(shared);
            shared += 1;
        }
        if !out.put(&record)? {
            debug_assert!(false, "it was measured");
            return Err(io::Error::other("a message has no space that was left for it"));
        }
    }
    Ok(())
}

/// The same for all copies of a message, as long as there is one.
fn identity(frame: &PreparedFrame) -> usize {
    frame.bytes().as_ptr().addr()
}

/// Returns when the oldest messages were stored that fit into `bytes_left` with all younger ones.
fn stored_since(rooms: &[SavedRoom], bytes_left: u64) -> u64 {
    let each = |visit: &mut dyn FnMut(u64, &PreparedFrame)| {
        for SavedRoom { room, seq } in rooms {
            let state = room.state.lock();
            let kept = state.history.kept_between(0, *seq);
            kept.for_each(|(_, stored_ms, frame)| visit(stored_ms, frame));
        }
    };
    let mut bytes = 0;
    each(&mut |_, frame| bytes += bytes_at_most(frame));
    if bytes <= bytes_left {
        return 0;
    }
    let mut stored: Vec<(u64, usize, u64)> = Vec::new();
    each(&mut |stored_ms, frame| stored.push((stored_ms, identity(frame), bytes_at_most(frame))));
    stored.sort_unstable_by(|one, other| other.cmp(one));
    let (mut bytes, mut before) = (0, None);
    let first_left_out = stored.iter().find(|(stored_ms, identity, bytes_at_most)| {
        let is_repeated = before.replace((*stored_ms, *identity)) == Some((*stored_ms, *identity));
        bytes += if is_repeated { MESSAGE_OVERHEAD_BYTES } else { *bytes_at_most };
        bytes > bytes_left
    });
    first_left_out.map_or(0, |(stored_ms, ..)| stored_ms + 1)
}
