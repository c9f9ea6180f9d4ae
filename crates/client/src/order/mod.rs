//! The order of each room's messages: which are new, which are missing, and when each may be
//! yielded.
//!
//! Pure: messages, gaps and pages go in, and [`Step`]s come out. A room has a *position*, up to
//! which everything is dealt with: yielded, one's own, or told to be lost. What arrives while
//! something before it is being fetched is held. A message that is in several rooms is yielded
//! once, when its turn has come in all of them. `order/room.rs` has the order of one room, this
//! file what its messages have to do with those of others.

mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use self::room::{Delivery, Held, RoomOrder};

pub(super) use self::room::{Item, Step};

/// All rooms of a session.
#[derive(Debug)]
pub(super) struct Reorderer<T> {
    rooms: BTreeMap<String, RoomOrder<T>>,
    /// Rooms where something waits.
    active: BTreeSet<String>,
    /// What is known to be lost before anything that waits.
    lost: Vec<String>,
}

impl<T> Default for Reorderer<T> {
    fn default() -> Reorderer<T> {
        Reorderer { rooms: BTreeMap::new(), active: BTreeSet::new(), lost: Vec::new() }
    }
}

impl<T> Reorderer<T> {
    /// A room one has just come into, at its position of that moment.
    pub(super) fn enter(&mut self, room: &str, epoch: &str, seq: u64, is_latest: bool) {
        self.rooms.insert(room.to_owned(), RoomOrder::new(epoch, seq, is_latest));
    }

    /// A room one has just come into, where older messages follow as a greeting.
    pub(super) fn greet(&mut self, room: &str, epoch: &str, seq: u64) {
        let order = RoomOrder { greeted: Some(0), ..RoomOrder::new(epoch, seq, false) };
        self.rooms.insert(room.to_owned(), order);
    }

    /// Drops a room that one is no longer in, and all that waits there. What waits in other rooms
    /// too stays, and has never been in this one: a later life of the room may use its numbers
    /// again.
    pub(super) fn forget(&mut self, room: &str)
    where
        T: Clone,
    {
        self.rooms.remove(room);
        self.active.remove(room);
        self.lost.retain(|lost| lost != room);
        for order in self.rooms.values_mut() {
            for held in order.fetched.iter_mut().chain(&mut order.held) {
                if let Held::Message(item) | Held::Old(item) = held
                    && item.seq_in(room).is_some()
                {
                    let places = item.places.iter().filter(|(place, _)| place != room).cloned();
                    let payload = item.payload.clone();
                    *item = Arc::new(Item { places: places.collect(), id: item.id, payload });
                }
            }
        }
    }

    /// The room goes on at `seq` in a new epoch. Up to there its numbers mean what they meant; what
    /// is above is of the earlier epoch, and its numbers are given again: what waits in other rooms
    /// too is told apart by its id.
    pub(super) fn begin_epoch(&mut self, room: &str, epoch: &str, seq: u64) {
        let is_live = |order: &&mut RoomOrder<T>| order.delivery == Delivery::Live;
        let Some(order) = self.rooms.get_mut(room).filter(is_live) else { return };
        // A page may have told it already.
        let is_new = order.epoch != epoch;
        if order.begin_epoch(room, epoch, seq) && is_new {
            self.lost.push(room.to_owned());
        }
        self.active.insert(room.to_owned());
    }

    /// Epoch and number up to which everything is dealt with.
    pub(super) fn position(&self, room: &str) -> Option<(&str, u64)> {
        self.rooms.get(room).map(|order| (order.epoch.as_str(), order.seq))
    }

    /// The connection is gone: what waits will come again.
    pub(super) fn suspend(&mut self) {
        for order in self.rooms.values_mut() {
            order.suspend();
        }
        self.active.clear();
    }

    /// One is out of a room, and about to come back.
    pub(super) fn suspend_room(&mut self, room: &str) {
        if let Some(order) = self.rooms.get_mut(room) {
            order.suspend();
        }
        self.active.remove(room);
    }

    /// Nothing more is to be expected of rooms that one has not come back to.
    pub(super) fn give_up_waiting(&mut self) {
        for order in self.rooms.values_mut() {
            if order.delivery == Delivery::Expected {
                order.delivery = Delivery::Away;
            }
        }
    }

    /// A live message. In rooms that one has not come back to yet it comes once more, with what was
    /// missed there.
    pub(super) fn arrive(&mut self, item: Item<T>) {
        let item = Arc::new(item);
        for (room, seq) in &item.places {
            let Some(order) = self.rooms.get_mut(room) else { continue };
            if order.delivery != Delivery::Live {
                continue;
            }
            if order.has_seen(*seq, item.id) {
                if order.ahead.remove(seq).is_some() {
                    order.know(*seq);
                }
                match order.greeted {
                    Some(last) if *seq > last && *seq <= order.seq => {
                        order.greeted = Some(*seq);
                        order.held.push_back(Held::Old(Arc::clone(&item)));
                    }
                    _ => continue,
                }
            } else {
                order.hold(Held::Message(Arc::clone(&item)), *seq);
            }
            self.active.insert(room.clone());
        }
    }

    /// The server did not deliver `from..=to`.
    pub(super) fn gap(&mut self, room: &str, from: u64, to: u64) {
        let order = self.rooms.get_mut(room);
        let counts = |order: &&mut RoomOrder<T>| order.delivery == Delivery::Live && to > order.seq;
        if let Some(order) = order.filter(counts) {
            order.hold(Held::Gap { from, to }, to);
            self.active.insert(room.to_owned());
        }
    }

    /// What the server tells about a room one comes back to: its position, and what was missed, or
    /// `None` if it does not have all of that. With all of it, a new epoch began above the position
    /// and costs nothing.
    pub(super) fn replay(
        &mut self,
        room: &str,
        epoch: &str,
        seq: u64,
        is_latest: bool,
        missed: Option<Vec<Item<T>>>,
    ) {
        let Some(order) = self.rooms.get_mut(room) else {
            self.enter(room, epoch, seq, is_latest);
            return;
        };
        (order.is_latest, order.delivery) = (is_latest, Delivery::Live);
        if order.epoch != epoch {
            if missed.is_none() {
                self.enter(room, epoch, seq, is_latest);
                self.lost.push(room.to_owned());
                return;
            }
            epoch.clone_into(&mut order.epoch);
            // Numbers of the earlier epoch. What came ahead is known by its id as well.
            order.known.clear();
        }
        match missed {
            Some(items) => {
                order.held.extend(items.into_iter().map(|item| Held::Message(Arc::new(item))));
                order.held.push_back(Held::UpTo(seq));
                order.held_to = order.held_to.max(seq);
            }
            None => order.hold(Held::Gap { from: order.seq + 1, to: seq }, seq),
        }
        self.active.insert(room.to_owned());
    }

    /// Whether a page that was asked for in `epoch` still is.
    pub(super) fn expects_page(&self, room: &str, epoch: &str) -> bool {
        self.position(room).is_some_and(|(current, _)| current == epoch)
    }

    /// The page that was asked for, oldest first.
    pub(super) fn page(&mut self, room: &str, epoch: &str, seq: u64, items: Vec<Item<T>>) {
        let Some(order) = self.rooms.get_mut(room) else { return };
        let Some(mut gap_fill) = order.gap_fill.take() else { return };
        if order.epoch != epoch {
            let held = mem::take(&mut order.held);
            let mut fresh = RoomOrder::new(epoch, seq, order.is_latest);
            (fresh.held, fresh.held_to) = (held, order.held_to);
            self.rooms.insert(room.to_owned(), fresh);
            self.lost.push(room.to_owned());
            return;
        }
        let before = gap_fill.next;
        for item in items {
            let Some(seq) = item.seq_in(room).filter(|seq| *seq >= gap_fill.next) else { continue };
            if seq > gap_fill.to {
                // There are messages, and none of them is what is missing.
                order.push_lost(gap_fill.next, gap_fill.to);
                gap_fill.next = gap_fill.to + 1;
                break;
            }
            order.push_lost(gap_fill.next, seq - 1);
            order.fetched.push_back(Held::Message(Arc::new(item)));
            gap_fill.next = seq + 1;
        }
        if gap_fill.next == before {
            order.push_lost(gap_fill.next, gap_fill.to);
            gap_fill.next = gap_fill.to + 1;
        }
        if gap_fill.next > gap_fill.to {
            order.fetched.push_back(Held::UpTo(gap_fill.to));
        } else {
            gap_fill.is_asked = false;
            order.gap_fill = Some(gap_fill);
        }
        self.active.insert(room.to_owned());
    }

    /// The page cannot be had.
    pub(super) fn page_failed(&mut self, room: &str) {
        let Some(order) = self.rooms.get_mut(room) else { return };
        if let Some(gap_fill) = order.gap_fill.take() {
            order.push_lost(gap_fill.next, gap_fill.to);
            order.fetched.push_back(Held::UpTo(gap_fill.to));
            self.active.insert(room.to_owned());
        }
    }

    /// A message of one's own has this number.
    pub(super) fn own(&mut self, room: &str, seq: u64) {
        if let Some(order) = self.rooms.get_mut(room) {
            order.know(seq);
        }
    }

    /// Everything that can be done now.
    pub(super) fn pump(&mut self, steps: &mut Vec<Step<T>>)
    where
        T: Clone,
    {
        steps.extend(self.lost.drain(..).map(|room| Step::Lost { room, range: None }));
        loop {
            let mut moved = false;
            for room in self.active.iter().cloned().collect::<Vec<_>>() {
                while self.advance(&room, false, steps) {
                    moved = true;
                }
                if self.rooms.get(&room).is_none_or(RoomOrder::is_idle) {
                    self.active.remove(&room);
                }
            }
            if !moved && !self.break_deadlock(steps) {
                return;
            }
        }
    }

    /// Messages that wait for each other, which no server numbers so, must not wait for ever.
    fn break_deadlock(&mut self, steps: &mut Vec<Step<T>>) -> bool
    where
        T: Clone,
    {
        let is_waiting =
            |order: &RoomOrder<T>| order.is_asking() || order.delivery == Delivery::Expected;
        if self.rooms.values().any(is_waiting) {
            return false;
        }
        // One that waits for what is not there is of an earlier life of that room.
        let is_late = |room: &&String| {
            let head = self.rooms.get(*room).and_then(RoomOrder::head);
            let Some(Held::Message(item)) = head else { return false };
            item.places.iter().filter(|(place, _)| place != *room).all(|(place, seq)| {
                let order = self.rooms.get(place);
                order.is_none_or(|order| {
                    order.has_seen(*seq, item.id)
                        || !order.holds(place, *seq, item.id) && !order.may_fetch(*seq)
                })
            })
        };
        let room = self.active.iter().find(is_late).or_else(|| self.active.first()).cloned();
        room.is_some_and(|room| self.advance(&room, true, steps))
    }

    /// Deals with the head of one room, if its turn has come.
    fn advance(&mut self, room: &str, by_force: bool, steps: &mut Vec<Step<T>>) -> bool
    where
        T: Clone,
    {
        let Some(order) = self.rooms.get_mut(room) else { return false };
        if let Some(gap_fill) = &mut order.gap_fill
            && !gap_fill.is_asked
            && order.fetched.is_empty()
        {
            gap_fill.is_asked = true;
            let after = gap_fill.next - 1;
            steps.push(Step::Fetch { room: room.to_owned(), epoch: order.epoch.clone(), after });
            return true;
        }
        let item = match order.head() {
            None => return false,
            Some(Held::Message(item)) => Arc::clone(item),
            Some(_) => {
                if let Some(held) = order.pop() {
                    order.deal_with(room, held, steps);
                }
                return true;
            }
        };
        let is_seen = item.seq_in(room).is_none_or(|seq| order.has_seen(seq, item.id));
        if is_seen {
            order.pop();
            return true;
        }
        if !by_force && !self.has_turn(&item, room) {
            return false;
        }
        for (place, seq) in &item.places {
            let Some(order) = self.rooms.get_mut(place) else { continue };
            let is_head = match order.head() {
                Some(Held::Message(head)) => head.is(place, *seq, item.id),
                _ => false,
            };
            if is_head {
                order.pop();
                order.reach(*seq);
            } else if order.holds(place, *seq, item.id) {
                order.know(*seq);
            } else {
                order.overtake(*seq, item.id);
            }
        }
        steps.extend(item.payload.clone().map(Step::Yield));
        true
    }

    /// Whether `item`, at the head of `room`, is at the head wherever else it waits.
    fn has_turn(&self, item: &Item<T>, room: &str) -> bool {
        item.places.iter().filter(|(place, _)| place != room).all(|(place, seq)| {
            let Some(order) = self.rooms.get(place).filter(|order| !order.has_seen(*seq, item.id))
            else {
                return true;
            };
            if order.delivery != Delivery::Live {
                return order.delivery == Delivery::Away;
            }
            match order.head() {
                Some(Held::Message(head)) if head.is(place, *seq, item.id) => true,
                _ => !order.awaits(place, *seq),
            }
        })
    }
}

#[cfg(test)]
mod tests;
