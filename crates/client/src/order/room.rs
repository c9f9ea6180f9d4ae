//! One room's order: its position, what waits for its turn there, and what is being fetched.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Messages of one room that are held while earlier ones are fetched. One more, and all of them are
/// fetched too.
pub(crate) const HELD_MAX: usize = 10_000;

/// Messages of one room, one's own and others, that are known to be in it ahead of what has been
/// received.
const KNOWN_MAX: usize = 10_000;

/// A message as far as its order matters.
#[derive(Debug)]
pub(crate) struct Item<T> {
    /// Every room it is in, with its number there.
    pub(crate) places: Vec<(String, u64)>,
    /// Tells it from others of the same number: a room that begins anew counts from one.
    pub(crate) id: u64,
    /// What is yielded; `None` for one's own, which only counts.
    pub(crate) payload: Option<T>,
}

impl<T> Item<T> {
    pub(crate) fn is(&self, room: &str, seq: u64, id: u64) -> bool {
        self.id == id && self.seq_in(room) == Some(seq)
    }

    pub(crate) fn seq_in(&self, room: &str) -> Option<u64> {
        self.places.iter().find(|(name, _)| name == room).map(|(_, seq)| *seq)
    }
}

/// What is to be done next, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    Yield(T),
    /// Without numbers it is not known how many.
    Lost {
        room: String,
        range: Option<(u64, u64)>,
    },
    /// Ask for a page of messages above `after`, and give it to [`page`](super::Reorderer::page),
    /// unless the room has another epoch by then.
    Fetch {
        room: String,
        epoch: String,
        after: u64,
    },
}

/// What waits for its turn in a room.
#[derive(Debug)]
pub(crate) enum Held<T> {
    Message(Arc<Item<T>>),
    /// Older than the position, and welcome all the same: the replay for a newcomer.
    Old(Arc<Item<T>>),
    Gap {
        from: u64,
        to: u64,
    },
    Lost {
        from: u64,
        to: u64,
    },
    /// Everything up to here is dealt with.
    UpTo(u64),
}

impl<T> Held<T> {
    /// The last number in `room` that it is about.
    fn end_in(&self, room: &str) -> u64 {
        match self {
            Held::Message(item) | Held::Old(item) => item.seq_in(room).unwrap_or(0),
            Held::Gap { to, .. } | Held::Lost { to, .. } | Held::UpTo(to) => *to,
        }
    }

    /// The part of it that is not above `seq` in `room`.
    fn up_to(self, room: &str, seq: u64) -> Option<Held<T>> {
        match self {
            held if held.end_in(room) <= seq => Some(held),
            Held::Gap { from, .. } if from <= seq => Some(Held::Gap { from, to: seq }),
            Held::Lost { from, .. } if from <= seq => Some(Held::Lost { from, to: seq }),
            _ => None,
        }
    }
}

/// What is being fetched: from `next` to `to`.
#[derive(Debug)]
pub(crate) struct GapFill {
    pub(crate) next: u64,
    pub(crate) to: u64,
    pub(crate) is_asked: bool,
}

/// Whether one is told of a room's messages on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Live,
    /// Not yet: what was missed will come, and what is in other rooms too waits for it.
    Expected,
    /// Not, and nobody knows whether one will be.
    Away,
}

/// One room.
#[derive(Debug)]
pub(crate) struct RoomOrder<T> {
    pub(crate) delivery: Delivery,
    pub(crate) epoch: String,
    pub(crate) seq: u64,
    /// Numbers above the position that are dealt with: one's own above all.
    pub(crate) known: BTreeSet<u64>,
    /// Messages above the position that came by way of another room before they came here, by
    /// their numbers. They may be of an earlier life of this room.
    pub(crate) ahead: BTreeMap<u64, u64>,
    /// The last message of a newcomer's replay; `None` when it is over.
    pub(crate) greeted: Option<u64>,
    /// In this room older messages give way to newer ones, and nobody fetches them.
    pub(crate) is_latest: bool,
    pub(crate) gap_fill: Option<GapFill>,
    /// Fetched, before everything in `held`.
    pub(crate) fetched: VecDeque<Held<T>>,
    pub(crate) held: VecDeque<Held<T>>,
    /// The highest number in `held`.
    pub(crate) held_to: u64,
}

impl<T> RoomOrder<T> {
    pub(crate) fn new(epoch: &str, seq: u64, is_latest: bool) -> RoomOrder<T> {
        RoomOrder {
            delivery: Delivery::Live,
            epoch: epoch.to_owned(),
            seq,
            known: BTreeSet::new(),
            ahead: BTreeMap::new(),
            greeted: None,
            is_latest,
            gap_fill: None,
            fetched: VecDeque::new(),
            held: VecDeque::new(),
            held_to: 0,
        }
    }

    pub(crate) fn suspend(&mut self) {
        self.delivery = Delivery::Expected;
        self.gap_fill = None;
        self.greeted = None;
        self.fetched.clear();
        self.held.clear();
    }

    /// Whether a message, which has the number `seq` here, is dealt with.
    pub(crate) fn has_seen(&self, seq: u64, id: u64) -> bool {
        seq <= self.seq || self.known.contains(&seq) || self.ahead.get(&seq) == Some(&id)
    }

    /// Whether a message waits here.
    pub(crate) fn holds(&self, room: &str, seq: u64, id: u64) -> bool {
        let is_it = |held: &Held<T>| match held {
            Held::Message(item) => item.is(room, seq, id),
            _ => false,
        };
        self.fetched.iter().chain(&self.held).any(is_it)
    }

    /// Whether what has the number `seq` here may still come with a page.
    pub(crate) fn may_fetch(&self, seq: u64) -> bool {
        let is_in = |held: &Held<T>| match held {
            Held::Gap { from, to } => (*from..=*to).contains(&seq),
            _ => false,
        };
        self.gap_fill.as_ref().is_some_and(|fill| (fill.next..=fill.to).contains(&seq))
            || self.held.iter().any(is_in)
    }

    /// A message is yielded by way of another room, before it has come here.
    pub(crate) fn overtake(&mut self, seq: u64, id: u64) {
        if seq > self.seq {
            self.ahead.insert(seq, id);
            if self.ahead.len() > KNOWN_MAX {
                self.ahead.pop_first();
            }
        }
    }

    /// Goes on at `seq` in a new epoch: what is above it is of the earlier one. Returns whether
    /// something was.
    pub(crate) fn begin_epoch(&mut self, room: &str, epoch: &str, seq: u64) -> bool {
        let waiting = self.fetched.iter().chain(&self.held).map(|held| held.end_in(room));
        let filling = self.gap_fill.as_ref().map_or(0, |gap_fill| gap_fill.to);
        // One's own numbers may be ahead of messages that were never sent.
        let heard = waiting.max().unwrap_or(0).max(filling).max(self.seq);
        let known = self.known.last().max(self.ahead.last_key_value().map(|(seq, _)| seq));
        let is_lost = known.is_some_and(|known| *known > seq) || heard > seq;
        epoch.clone_into(&mut self.epoch);
        self.seq = self.seq.min(seq);
        self.greeted = None;
        self.known.retain(|known| *known <= seq);
        self.ahead.retain(|ahead, _| *ahead <= seq);
        for held in [&mut self.fetched, &mut self.held] {
            *held = held.drain(..).filter_map(|held| held.up_to(room, seq)).collect();
        }
        self.held_to = self.held_to.min(seq);
        self.gap_fill = self.gap_fill.take().filter(|gap_fill| gap_fill.next <= seq);
        if let Some(gap_fill) = &mut self.gap_fill {
            (gap_fill.to, gap_fill.is_asked) = (gap_fill.to.min(seq), false);
        }
        if heard < seq {
            self.hold(Held::Gap { from: heard + 1, to: seq }, seq);
        } else if self.seq < seq {
            self.hold(Held::UpTo(seq), seq);
        }
        is_lost
    }

    /// Everything up to `seq` is dealt with.
    pub(crate) fn reach(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
        while self.known.remove(&(self.seq + 1)) {
            self.seq += 1;
        }
        self.known = self.known.split_off(&(self.seq + 1));
        self.ahead = self.ahead.split_off(&(self.seq + 1));
    }

    /// `seq` is dealt with, whatever is before it.
    pub(crate) fn know(&mut self, seq: u64) {
        if seq > self.seq {
            self.known.insert(seq);
            if self.known.len() > KNOWN_MAX
                && let Some(first) = self.known.pop_first()
            {
                self.reach(first);
            }
            self.reach(self.seq);
        }
    }

    /// What is next, unless it is still to be fetched.
    pub(crate) fn head(&self) -> Option<&Held<T>> {
        match self.fetched.front() {
            None if self.gap_fill.is_none() => self.held.front(),
            head => head,
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Held<T>> {
        match self.fetched.pop_front() {
            None if self.gap_fill.is_none() => self.held.pop_front(),
            head => head,
        }
    }

    /// Whether a page is under way. What was fetched before it does not wait for it.
    pub(crate) fn is_asking(&self) -> bool {
        self.gap_fill.as_ref().is_some_and(|gap_fill| gap_fill.is_asked)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.gap_fill.is_none() && self.fetched.is_empty() && self.held.is_empty()
    }

    /// Keeps what ends at `to` until its turn.
    pub(crate) fn hold(&mut self, held: Held<T>, to: u64) {
        self.greeted = None;
        self.held_to = self.held_to.max(to);
        if self.held.len() >= HELD_MAX {
            self.held.clear();
            self.held.push_back(Held::Gap { from: self.seq + 1, to: self.held_to });
        } else {
            self.held.push_back(held);
        }
    }

    /// Whether something up to `seq` is waiting here or will be looked for.
    pub(crate) fn awaits(&self, room: &str, seq: u64) -> bool {
        let is_before = |held: &Held<T>| match held {
            Held::Message(item) => item.seq_in(room).is_some_and(|other| other <= seq),
            Held::Gap { from, .. } | Held::Lost { from, .. } => *from <= seq,
            Held::Old(_) | Held::UpTo(_) => false,
        };
        self.gap_fill.as_ref().is_some_and(|gap_fill| gap_fill.next <= seq)
            || self.fetched.iter().any(is_before)
            || self.held.iter().any(is_before)
    }

    /// Those of `from..=to` that are lost indeed, as ranges.
    pub(crate) fn push_lost(&mut self, from: u64, to: u64) {
        let mut from = from.max(self.seq + 1);
        if from > to {
            return;
        }
        for &known in self.known.range(from..=to) {
            if from < known {
                self.fetched.push_back(Held::Lost { from, to: known - 1 });
            }
            from = known + 1;
        }
        if from <= to {
            self.fetched.push_back(Held::Lost { from, to });
        }
    }
}

impl<T: Clone> RoomOrder<T> {
    /// Everything that is no message.
    pub(crate) fn deal_with(&mut self, room: &str, held: Held<T>, steps: &mut Vec<Step<T>>) {
        let lost = |from, to| Step::Lost { room: room.to_owned(), range: Some((from, to)) };
        match held {
            Held::Old(item) => steps.extend(item.payload.clone().map(Step::Yield)),
            Held::UpTo(seq) => self.reach(seq),
            Held::Lost { from, to } => {
                steps.push(lost(from, to));
                self.reach(to);
            }
            Held::Gap { from, to } => {
                let from = from.max(self.seq + 1);
                if from > to {
                } else if self.is_latest {
                    steps.push(lost(from, to));
                    self.reach(to);
                } else {
                    self.gap_fill = Some(GapFill { next: from, to, is_asked: false });
                }
            }
            // Only the caller can tell whether its turn has come.
            Held::Message(item) => self.fetched.push_front(Held::Message(item)),
        }
    }
}
