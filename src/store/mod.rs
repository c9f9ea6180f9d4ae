//! The message store: one room's history, bounded by count, bytes and age.
//!
//! Each room has one [`History`], used under the room's lock. A position is an epoch and a sequence
//! number. `seq` has no holes within an epoch. An epoch ends when the room is removed or the server
//! stops, unless the next server goes on with it.

use std::{collections::VecDeque, time::Duration};

use uuid::Uuid;

use crate::ws::frame::PreparedFrame;

/// The life of a room that a sequence number belongs to. Opaque; compare with `==`.
///
/// A room that is removed and made again, or that belongs to a restarted server, has a new epoch,
/// unless the server before has left a [`snapshot`](crate::Config::snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// An epoch that no room has. A position in it cannot be recovered.
    pub const UNKNOWN: Epoch = Epoch(0);

    fn random() -> Epoch {
        Epoch(Uuid::new_v4().as_u64_pair().0 | 1)
    }

    /// The number that [`from_bits`](Epoch::from_bits) takes back.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// `None` for the unknown one.
    pub(crate) fn from_bits(bits: u64) -> Option<Epoch> {
        Some(Epoch(bits)).filter(|epoch| *epoch != Epoch::UNKNOWN)
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Epoch, Self::Err> {
        u64::from_str_radix(text, 16).map(Epoch)
    }
}

/// A position in a room's messages: just after message `seq` of `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the room.
    pub epoch: Epoch,
    /// The number of the last message before this position; 0 before the first.
    pub seq: u64,
}

/// The bounds of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryBounds {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) age_max: Duration,
}

/// The recent messages of one room, oldest first, and the counter that numbers them.
#[derive(Debug)]
pub(crate) struct History {
    epoch: Epoch,
    /// The number after which the epoch began.
    began_seq: u64,
    /// The number of the newest message, kept or not.
    last_seq: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    frame: PreparedFrame,
    /// In milliseconds of the server's monotonic clock.
    stored_ms: u64,
}

/// Messages that were taken out of a history, and take memory still.
#[derive(Default, Debug)]
pub(crate) struct TakenMessages(VecDeque<Entry>);

impl TakenMessages {
    /// Frees at most `max` messages. Returns how many it freed.
    pub(crate) fn free(&mut self, max: usize) -> usize {
        self.0.drain(..max.min(self.0.len())).count()
    }
}

/// The part of a history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest messages.
    Latest,
    /// The newest messages with a number below this one.
    Before(u64),
    /// The oldest messages with a number above this one.
    After(u64),
}

impl History {
    pub(crate) fn new() -> History {
        History::beginning_after(0)
    }

    /// A history of a new epoch, whose first message has the number after `seq`.
    pub(crate) fn beginning_after(seq: u64) -> History {
        let (epoch, entries) = (Epoch::random(), VecDeque::new());
        History { epoch, began_seq: seq, last_seq: seq, entries, bytes: 0 }
    }

    /// A history without messages that goes on behind `position`, where another one ended that
    /// began after `began_seq`.
    pub(crate) fn at(position: Position, began_seq: u64) -> History {
        let Position { epoch, seq } = position;
        History { epoch, began_seq, ..History::beginning_after(seq) }
    }

    /// Goes on in another epoch, with the same numbers.
    pub(crate) fn change_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Returns the position before the first message of the epoch.
    pub(crate) fn beginning(&self) -> Position {
        Position { epoch: self.epoch, seq: self.began_seq }
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.last_seq }
    }

    /// Returns the kept messages with numbers above `after` and up to `until`, oldest first: their
    /// numbers, when they were stored, and themselves. None was stored before the one ahead of it.
    pub(crate) fn kept_between(
        &self,
        after: u64,
        until: u64,
    ) -> impl Iterator<Item = (u64, u64, &PreparedFrame)> {
        let before = self.last_seq - self.entries.len() as u64;
        let skipped = after.saturating_sub(before).min(self.entries.len() as u64);
        let numbered = (before + skipped + 1..).zip(self.entries.range(skipped as usize..));
        let kept = numbered.take_while(move |(seq, _)| *seq <= until);
        kept.map(|(seq, entry)| (seq, entry.stored_ms, &entry.frame))
    }

    /// Keeps `frame` as the next message, and drops old messages beyond the bounds.
    pub(crate) fn append(&mut self, frame: PreparedFrame, now_ms: u64, bounds: &HistoryBounds) {
        self.last_seq += 1;
        self.bytes += frame.len();
        // Publishers read the clock before they wait for the room, and may come in another order.
        let stored_ms = self.entries.back().map_or(now_ms, |last| now_ms.max(last.stored_ms));
        self.entries.push_back(Entry { frame, stored_ms });
        while self.entries.len() > bounds.messages_max || self.bytes > bounds.bytes_max {
            self.drop_oldest();
        }
        self.expire(now_ms, bounds);
    }

    /// Drops at most `max` of the messages beyond the bounds. Returns whether none is left there.
    pub(crate) fn shrink(&mut self, bounds: &HistoryBounds, max: usize) -> bool {
        let is_beyond = |history: &History| {
            history.entries.len() > bounds.messages_max || history.bytes > bounds.bytes_max
        };
        let mut dropped = 0;
        while dropped < max && is_beyond(self) {
            self.drop_oldest();
            dropped += 1;
        }
        !is_beyond(self)
    }

    /// Counts a message that is not kept, and returns its number.
    pub(crate) fn skip(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// Drops messages that are too old.
    pub(crate) fn expire(&mut self, now_ms: u64, bounds: &HistoryBounds) {
        let age_max_ms = bounds.age_max.as_millis().min(u64::MAX.into()) as u64;
        while self
            .entries
            .front()
            .is_some_and(|entry| now_ms.saturating_sub(entry.stored_ms) > age_max_ms)
        {
            self.drop_oldest();
        }
    }

    /// Lets go of the oldest messages until `bytes` are free, or nothing is left. Returns how many
    /// messages went.
    pub(crate) fn free(&mut self, bytes: usize) -> usize {
        let (kept, target) = (self.entries.len(), self.bytes.saturating_sub(bytes));
        while self.bytes > target {
            self.drop_oldest();
        }
        kept - self.entries.len()
    }

    /// Lets go of the messages up to number `seq`. Returns how many there were.
    pub(crate) fn forget_until(&mut self, seq: u64) -> usize {
        let kept = self.entries.len();
        while !self.is_empty() && self.last_seq - (self.entries.len() as u64) < seq {
            self.drop_oldest();
        }
        kept - self.entries.len()
    }

    /// Takes all messages out. The numbers go on.
    pub(crate) fn take_messages(&mut self) -> TakenMessages {
        self.bytes = 0;
        TakenMessages(std::mem::take(&mut self.entries))
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.frame.len();
        }
        if self.entries.is_empty() {
            // Free the memory of an idle room.
            self.entries = VecDeque::new();
        }
    }

    /// Returns how many messages are kept.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all messages after `since`, or `None` if some of them are not kept, if `since` is
    /// not a position of this epoch, or if they have more than `bytes_max` bytes.
    pub(crate) fn since(&self, since: Position, bytes_max: usize) -> Option<Vec<PreparedFrame>> {
        if since.epoch != self.epoch || since.seq > self.last_seq {
            return None;
        }
        let missed = usize::try_from(self.last_seq - since.seq.max(self.began_seq)).ok()?;
        if missed > self.entries.len() {
            return None;
        }
        let tail = self.entries.range(self.entries.len() - missed..);
        let frames: Vec<_> = tail.map(|entry| entry.frame.clone()).collect();
        let bytes: usize = frames.iter().map(PreparedFrame::len).sum();
        (bytes <= bytes_max).then_some(frames)
    }

    /// Returns the kept messages after `seq`.
    pub(crate) fn kept_since(&self, seq: u64) -> Vec<PreparedFrame> {
        let missed = usize::try_from(self.last_seq.saturating_sub(seq)).unwrap_or(usize::MAX);
        let tail = self.entries.range(self.entries.len().saturating_sub(missed)..);
        tail.map(|entry| entry.frame.clone()).collect()
    }

    /// Returns at most `limit` messages and `bytes_max` bytes of `range`, oldest first. At least
    /// one message is returned if there is any, so that paging makes progress.
    pub(crate) fn page(&self, range: Range, limit: usize, bytes_max: usize) -> Vec<PreparedFrame> {
        let kept = self.entries.len();
        let first_seq = self.last_seq - kept as u64 + 1;
        let index = |seq: u64| seq.saturating_sub(first_seq).min(kept as u64) as usize;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.frame.len();
            is_first || bytes <= bytes_max
        };
        let end = match range {
            Range::Latest => kept,
            Range::Before(seq) => index(seq),
            Range::After(seq) => {
                let oldest_first = self.entries.range(index(seq.saturating_add(1))..);
                let page = oldest_first.take(limit).take_while(fits);
                return page.map(|entry| entry.frame.clone()).collect();
            }
        };
        let newest_first = self.entries.range(..end).rev().take(limit).take_while(fits);
        let mut page: Vec<_> = newest_first.map(|entry| entry.frame.clone()).collect();
        page.reverse();
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::Message;

    const BOUNDS: HistoryBounds =
        HistoryBounds { messages_max: 5, bytes_max: 1000, age_max: Duration::from_millis(100) };

    fn filled(messages: u64) -> History {
        let mut history = History::new();
        for seq in 1..=messages {
            let text = seq.to_string();
            history.append(PreparedFrame::new(Message::Text(&text)), seq, &BOUNDS);
        }
        history
    }

    fn seqs(frames: &[PreparedFrame]) -> Vec<u64> {
        frames
            .iter()
            .map(|frame| std::str::from_utf8(frame.payload()).expect("text").parse().expect("seq"))
            .collect()
    }

    #[test]
    fn count_bytes_and_age_bound_it() {
        let mut history = filled(8);
        assert_eq!(seqs(&history.page(Range::Latest, 99, 1000)), [4, 5, 6, 7, 8]);
        let large = PreparedFrame::new(Message::Binary(&[b'9'; 994]));
        history.append(large, 9, &BOUNDS);
        assert_eq!(history.page(Range::Latest, 99, 1000).len(), 1);
        assert!(history.bytes <= 1000);
        history.expire(109, &BOUNDS);
        assert!(!history.is_empty());
        history.expire(110, &BOUNDS);
        assert!(history.is_empty());
        assert_eq!(history.position().seq, 9, "numbers go on where they were");
    }

    #[test]
    fn none_is_younger_than_the_next_one_whenever_its_publisher_looked_at_the_clock() {
        let mut history = History::new();
        for now_ms in [7, 5, 9, 8] {
            history.append(PreparedFrame::new(Message::Text("x")), now_ms, &BOUNDS);
        }
        let kept = |after, until| {
            let kept = history.kept_between(after, until);
            kept.map(|(seq, stored_ms, _)| (seq, stored_ms)).collect::<Vec<_>>()
        };
        assert_eq!(kept(0, 9), [(1, 7), (2, 7), (3, 9), (4, 9)]);
        assert_eq!((kept(1, 3), kept(4, 9)), (vec![(2, 7), (3, 9)], vec![]));
        history.forget_until(2);
        assert_eq!((history.forget_until(1), history.forget_until(3), history.len()), (0, 1, 1));
    }

    #[test]
    fn messages_that_were_taken_out_are_freed_bit_by_bit() {
        let mut history = filled(8);
        let mut taken = history.take_messages();
        assert_eq!((history.bytes(), history.len(), history.position().seq), (0, 0, 8));
        assert_eq!([taken.free(2), taken.free(2), taken.free(2), taken.free(2)], [2, 2, 1, 0]);
    }

    #[test]
    fn pages_both_ways() {
        let history = filled(8);
        assert_eq!(seqs(&history.page(Range::Latest, 2, 1000)), [7, 8]);
        assert_eq!(seqs(&history.page(Range::Before(7), 2, 1000)), [5, 6]);
        assert_eq!(seqs(&history.page(Range::Before(5), 9, 1000)), [4]);
        assert!(history.page(Range::Before(4), 9, 1000).is_empty());
        assert!(history.page(Range::Before(0), 9, 1000).is_empty());
        assert_eq!(seqs(&history.page(Range::Before(u64::MAX), 1, 1000)), [8]);
        assert_eq!(seqs(&history.page(Range::After(0), 2, 1000)), [4, 5]);
        assert_eq!(seqs(&history.page(Range::After(6), 9, 1000)), [7, 8]);
        assert!(history.page(Range::After(8), 9, 1000).is_empty());
        assert!(history.page(Range::After(u64::MAX), 9, 1000).is_empty());
        assert_eq!(seqs(&history.page(Range::After(0), 9, 7)), [4, 5], "3 bytes a frame");
        assert_eq!(seqs(&history.page(Range::Latest, 9, 1)), [8], "one is always given");
        assert!(History::new().page(Range::Latest, 9, 1000).is_empty());
    }

    #[test]
    fn since_gives_all_or_nothing() {
        let history = filled(8);
        let at = |seq| Position { seq, ..history.position() };
        assert_eq!(history.since(at(8), 1000).map(|frames| seqs(&frames)), Some(vec![]));
        assert_eq!(
            history.since(at(3), 1000).map(|frames| seqs(&frames)),
            Some(vec![4, 5, 6, 7, 8])
        );
        assert!(history.since(at(2), 1000).is_none(), "message 3 is gone");
        assert!(history.since(at(9), 1000).is_none(), "from the future");
        assert!(history.since(at(3), 14).is_none(), "15 bytes do not fit");
        let elsewhere = Position { epoch: Epoch::random(), seq: 8 };
        assert!(history.since(elsewhere, 1000).is_none());
        let epoch = history.position().epoch;
        assert_eq!(epoch.to_string().parse(), Ok(epoch));
    }
}
