//! What Redis says of a room that is opened.

use std::collections::VecDeque;

use uuid::Uuid;

use super::{
    Core,
    mirrored_room::{KeptAt, Opened, Place},
    words::{nth_part, numbered, shown_as},
};
use crate::{
    engine::link::order::Value,
    hub::{envelope::Envelope, mirror::Kept, names::RoomName},
    store::{Epoch, Position},
};

impl Core {
    /// Reads it; `None` if it cannot be read.
    pub(super) fn read_opened(&self, answer: &Value) -> Option<Opened> {
        let [epoch, seq, elder, version, now_ms, messages, members] = answer.list()? else {
            return None;
        };
        let epoch: Epoch = epoch.text()?.parse().ok()?;
        let (seq, now_ms) = (seq.u64()?, now_ms.u64()?);
        let mut upto_min = u64::MAX;
        let mut earlier = Vec::new();
        for one in elder.text()?.split_whitespace() {
            let (epoch, upto) = one.split_once(':')?;
            upto_min = upto_min.min(upto.parse().ok()?);
            earlier.push((epoch.parse().ok()?, upto_min));
        }
        let age_max_ms = self.hub.limits.history_ms();
        let mut kept = VecDeque::new();
        for message in messages.list()?.iter().rev() {
            let [id, fields] = message.list()? else { return None };
            let seq: u64 = id.text()?.split_once('-')?.0.parse().ok()?;
            if seq == 0 {
                return None;
            }
            let [_, _, _, numbers, _, time_ms, _, body] = fields.list()? else { return None };
            let age_ms = now_ms.saturating_sub(time_ms.u64()?);
            let envelope = Envelope::read(body.bytes()?)?;
            let numbered = numbered(numbers.text()?)?;
            let seqs: Vec<u64> = numbered.iter().map(|(_, seq)| *seq).collect();
            let frame = self.hub.frame_of(&envelope, &seqs);
            if age_ms > age_max_ms {
                kept.clear();
                continue;
            }
            // What came before a hole is of no use.
            if kept.back().is_some_and(|last: &KeptAt| last.kept.seq + 1 != seq) {
                kept.clear();
            }
            let from = envelope.from;
            let others = places(envelope.rooms, &numbered)?;
            kept.push_back(KeptAt { kept: Kept { seq, age_ms, frame, from }, others });
        }
        if kept.back().is_some_and(|last| last.kept.seq != seq) {
            kept.clear();
        }
        let (mut listed, mut ours) = (Vec::new(), Vec::new());
        let own = self.node.as_str();
        for pair in members.list()?.chunks_exact(2) {
            let client = Uuid::try_parse(pair[0].text()?).ok()?;
            let shown = pair[1].bytes()?;
            let fence = shown.split(|byte| *byte == b' ').next()?;
            let fence: u64 = std::str::from_utf8(fence).ok()?.parse().ok()?;
            let node = nth_part(shown, 1)?;
            // A Redis that takes over late may show it by the node that had its session before.
            let is_here = self.sessions.get(&client).is_some_and(|kept| kept.fence >= fence);
            if is_here || node.starts_with(own.as_bytes()) {
                ours.push((client, fence));
            }
            listed.push((client, shown_as(nth_part(shown, 2)?)?));
        }
        let position = Position { epoch, seq };
        let version = version.u64()?;
        Some(Opened { position, elder: earlier, version, kept, members: listed, ours })
    }
}

/// Puts rooms and numbers together.
pub(super) fn places(rooms: Vec<RoomName>, numbered: &[(Epoch, u64)]) -> Option<Vec<Place>> {
    let place = |(at, room): (usize, RoomName)| {
        let (epoch, seq) = *numbered.get(at)?;
        Some((room, epoch, seq))
    };
    rooms.into_iter().enumerate().map(place).collect()
}
