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
    /// `None` if it does not have all of that.
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
            self.enter(room, epoch, seq, is_latest);
            self.lost.push(room.to_owned());
            return;
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
                    order.has_seen(*seq, item.id) || !order.holds(place, *seq, item.id)
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
            steps.push(Step::Fetch { room: room.to_owned(), after: gap_fill.next - 1 });
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
mod tests {
    use std::collections::VecDeque;

    use super::{room::HELD_MAX, *};

    fn item(places: &[(&str, u64)], payload: Option<u64>) -> Item<u64> {
        let places = places.iter().map(|(room, seq)| (String::from(*room), *seq)).collect();
        let id = payload.unwrap_or(0);
        Item { places, id, payload }
    }

    fn live(seq: u64) -> Item<u64> {
        item(&[("a", seq)], Some(seq))
    }

    fn steps(reorderer: &mut Reorderer<u64>) -> Vec<Step<u64>> {
        let mut steps = Vec::new();
        reorderer.pump(&mut steps);
        steps
    }

    fn lost(room: &str, range: Option<(u64, u64)>) -> Step<u64> {
        Step::Lost { room: room.into(), range }
    }

    fn fetch(after: u64) -> Step<u64> {
        Step::Fetch { room: "a".into(), after }
    }

    fn at(seq: u64) -> Reorderer<u64> {
        let mut reorderer = Reorderer::default();
        reorderer.enter("a", "e", seq, false);
        reorderer
    }

    #[test]
    fn what_was_seen_is_dropped_and_holes_are_ones_own() {
        let mut reorderer = at(3);
        for seq in [3, 4, 4, 7, 5] {
            reorderer.arrive(live(seq));
        }
        assert_eq!(steps(&mut reorderer), [Step::Yield(4), Step::Yield(7)]);
        assert_eq!(reorderer.position("a"), Some(("e", 7)));
    }

    #[test]
    fn an_answer_that_overtakes_messages_hides_none_of_them() {
        let mut reorderer = at(0);
        reorderer.own("a", 3);
        assert_eq!(reorderer.position("a"), Some(("e", 0)), "1 and 2 may still come");
        reorderer.arrive(live(1));
        reorderer.arrive(live(2));
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
        assert_eq!(reorderer.position("a"), Some(("e", 3)));
        reorderer.arrive(item(&[("a", 3)], None));
        reorderer.arrive(live(4));
        assert_eq!(steps(&mut reorderer), [Step::Yield(4)]);
    }

    #[test]
    fn a_gap_is_fetched_while_live_messages_wait() {
        let mut reorderer = at(1);
        reorderer.gap("a", 2, 5);
        reorderer.arrive(live(6));
        assert_eq!(steps(&mut reorderer), [fetch(1)]);
        reorderer.arrive(live(7));
        assert_eq!(steps(&mut reorderer), []);
        // 2 is no longer kept, and 3 is one's own.
        reorderer.page("a", "e", 7, vec![item(&[("a", 3)], None), live(4)]);
        assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 2))), Step::Yield(4), fetch(4)]);
        reorderer.page("a", "e", 7, vec![live(5), live(6), live(7)]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(5), Step::Yield(6), Step::Yield(7)]);
    }

    #[test]
    fn what_cannot_be_fetched_is_lost_and_told() {
        let mut reorderer = at(1);
        reorderer.gap("a", 2, 5);
        assert_eq!(steps(&mut reorderer), [fetch(1)]);
        reorderer.page_failed("a");
        reorderer.arrive(live(6));
        assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 5))), Step::Yield(6)]);
        reorderer.gap("a", 7, 9);
        assert_eq!(steps(&mut reorderer), [fetch(6)]);
        reorderer.page("a", "e", 12, vec![live(10)]);
        assert_eq!(steps(&mut reorderer), [lost("a", Some((7, 9)))], "10 will come by itself");
    }

    #[test]
    fn another_epoch_loses_the_unknown() {
        let mut reorderer = at(5);
        reorderer.replay("a", "f", 2, false, None);
        reorderer.arrive(live(3));
        assert_eq!(steps(&mut reorderer), [lost("a", None), Step::Yield(3)]);
        assert_eq!(reorderer.position("a"), Some(("f", 3)));
    }

    #[test]
    fn where_only_the_latest_counts_nothing_is_fetched() {
        let mut reorderer = Reorderer::default();
        reorderer.enter("a", "e", 1, true);
        reorderer.gap("a", 2, 5);
        reorderer.arrive(live(6));
        assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 5))), Step::Yield(6)]);
    }

    #[test]
    fn a_newcomer_is_greeted_with_older_messages_once() {
        let mut reorderer = Reorderer::default();
        reorderer.greet("a", "e", 5);
        for seq in [4, 5, 5, 6, 4] {
            reorderer.arrive(live(seq));
        }
        assert_eq!(steps(&mut reorderer), [Step::Yield(4), Step::Yield(5), Step::Yield(6)]);
    }

    #[test]
    fn a_message_of_two_rooms_waits_for_its_turn_in_both() {
        let mut reorderer = at(0);
        reorderer.enter("b", "e", 0, false);
        let both = || item(&[("a", 2), ("b", 1)], Some(21));
        let of_b = |seq, payload| item(&[("b", seq)], Some(payload));
        reorderer.replay("a", "e", 2, false, Some(vec![live(1), both()]));
        reorderer.replay("b", "e", 2, false, Some(vec![both(), of_b(2, 22)]));
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(21), Step::Yield(22)]);
        // Live, while one of the rooms is being fetched.
        reorderer.gap("a", 3, 3);
        reorderer.arrive(item(&[("a", 4), ("b", 3)], Some(43)));
        reorderer.arrive(of_b(4, 44));
        assert_eq!(steps(&mut reorderer), [fetch(2)]);
        reorderer.page("a", "e", 4, vec![live(3)]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(3), Step::Yield(43), Step::Yield(44)]);
    }

    #[test]
    fn a_room_that_is_left_takes_with_it_what_waited_there_alone() {
        let mut reorderer = at(0);
        reorderer.enter("b", "e", 0, false);
        reorderer.gap("a", 1, 1);
        reorderer.gap("b", 1, 1);
        assert_eq!(steps(&mut reorderer).len(), 2, "both are being fetched");
        reorderer.arrive(live(2));
        reorderer.arrive(item(&[("a", 3), ("b", 2)], Some(32)));
        reorderer.forget("a");
        // The room began anew meanwhile, and its numbers with it.
        reorderer.enter("a", "f", 0, false);
        reorderer.page("b", "e", 2, vec![item(&[("b", 1)], None)]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(32)]);
        for seq in 1..=3 {
            reorderer.arrive(live(seq));
        }
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2), Step::Yield(3)]);
    }

    /// After the loss of a session each room is joined by itself.
    #[test]
    fn a_message_of_two_rooms_waits_for_the_room_that_one_comes_back_to_later() {
        for comes_back in [true, false] {
            let mut reorderer = at(0);
            reorderer.enter("b", "e", 0, false);
            reorderer.suspend();
            let both = || item(&[("a", 1), ("b", 3)], Some(13));
            let of_b = |seq| item(&[("b", seq)], Some(seq));
            reorderer.replay("a", "e", 1, false, Some(vec![both()]));
            assert_eq!(steps(&mut reorderer), []);
            if comes_back {
                reorderer.replay("b", "e", 3, false, Some(vec![of_b(1), of_b(2), both()]));
                assert_eq!(
                    steps(&mut reorderer),
                    [Step::Yield(1), Step::Yield(2), Step::Yield(13)]
                );
                continue;
            }
            reorderer.give_up_waiting();
            assert_eq!(steps(&mut reorderer), [Step::Yield(13)]);
            assert_eq!(reorderer.position("b"), Some(("e", 0)), "1 and 2 are not seen");
        }
    }

    /// A page is answered at once, and a live message takes its time.
    #[test]
    fn a_message_that_a_page_of_another_room_brings_first_comes_once() {
        let mut reorderer = at(0);
        reorderer.enter("b", "e", 1, false);
        reorderer.gap("a", 1, 1);
        assert_eq!(steps(&mut reorderer), [fetch(0)]);
        let both = || item(&[("a", 1), ("b", 2)], Some(12));
        reorderer.page("a", "e", 1, vec![both()]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(12)]);
        reorderer.arrive(both());
        reorderer.arrive(item(&[("b", 3)], Some(3)));
        assert_eq!(steps(&mut reorderer), [Step::Yield(3)]);
    }

    #[test]
    fn a_message_of_an_earlier_life_of_a_room_hides_none_of_the_later_one() {
        let mut reorderer = at(0);
        reorderer.enter("b", "later", 0, false);
        reorderer.gap("a", 1, 1);
        assert_eq!(steps(&mut reorderer), [fetch(0)]);
        reorderer.page("a", "e", 1, vec![item(&[("a", 1), ("b", 2)], Some(12))]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(12)]);
        reorderer.arrive(item(&[("b", 1)], Some(1)));
        reorderer.arrive(item(&[("b", 2)], Some(2)));
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
    }

    #[test]
    fn a_loss_in_a_room_that_is_left_is_not_told() {
        let mut reorderer = at(5);
        reorderer.replay("a", "f", 2, false, None);
        reorderer.forget("a");
        assert_eq!(steps(&mut reorderer), []);
    }

    #[test]
    fn a_server_that_tells_of_gaps_without_end_is_held_to_the_bound() {
        let mut reorderer = at(0);
        reorderer.gap("a", 1, 1);
        assert_eq!(steps(&mut reorderer), [fetch(0)]);
        let last = 4 * HELD_MAX as u64;
        for seq in (4..=last).step_by(2) {
            match seq < last / 2 {
                true => reorderer.gap("a", seq, seq),
                false => reorderer.replay("a", "e", seq, false, None),
            }
            assert!(reorderer.rooms["a"].held.len() <= HELD_MAX);
        }
        reorderer.page("a", "e", 1, vec![live(1)]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), fetch(1)]);
        let mut told = Vec::new();
        while reorderer.rooms["a"].gap_fill.is_some() {
            reorderer.page_failed("a");
            told.extend(steps(&mut reorderer));
        }
        assert!(matches!(told.pop(), Some(Step::Lost { range: Some((_, to)), .. }) if to == last));
        assert_eq!(reorderer.position("a"), Some(("e", last)));
    }

    #[test]
    fn a_greeting_is_over_when_something_newer_is_told() {
        let mut reorderer = Reorderer::default();
        reorderer.greet("a", "e", 5);
        reorderer.gap("a", 6, 6);
        reorderer.arrive(live(5));
        assert_eq!(steps(&mut reorderer), [fetch(5)], "nothing old waits behind the new");
    }

    #[test]
    fn pages_that_bring_nothing_new_end_the_search() {
        for page in [vec![], vec![live(1), live(2)], vec![live(1000)]] {
            let mut reorderer = at(2);
            reorderer.gap("a", 0, 9);
            assert_eq!(steps(&mut reorderer), [fetch(2)]);
            reorderer.page("a", "e", 9, page);
            assert_eq!(steps(&mut reorderer), [lost("a", Some((3, 9)))]);
        }
    }

    #[test]
    fn messages_that_wait_for_each_other_do_not_wait_for_ever() {
        let mut reorderer = at(0);
        reorderer.enter("b", "e", 0, false);
        let (one, two) = ([("a", 1), ("b", 2)], [("a", 2), ("b", 1)]);
        let of = |places: &[(&str, u64)], payload| item(places, Some(payload));
        reorderer.replay("a", "e", 2, false, Some(vec![of(&one, 1), of(&two, 2)]));
        reorderer.replay("b", "e", 2, false, Some(vec![of(&two, 2), of(&one, 1)]));
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
    }

    #[test]
    fn what_does_not_fit_is_fetched_too() {
        let mut reorderer = at(0);
        reorderer.gap("a", 1, 1);
        assert_eq!(steps(&mut reorderer), [fetch(0)]);
        let end = HELD_MAX as u64 + 2;
        for seq in 2..=end {
            reorderer.arrive(live(seq));
        }
        reorderer.page("a", "e", end, vec![live(1)]);
        assert_eq!(steps(&mut reorderer), [Step::Yield(1), fetch(1)]);
    }

    /// A server of three rooms that loses, forgets and disconnects, and a client that must account
    /// for each message: yielded once and in order, or told to be lost.
    #[test]
    fn any_course_of_events_accounts_for_every_message_once() {
        for round in 0..400 {
            let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 ^ round;
            println!("seed {seed}");
            play(seed);
        }
    }

    /// The places of a message, and what is yielded of it.
    type Published = (Vec<(String, u64)>, Option<u64>);

    struct World {
        random: u64,
        /// Per room: places and payload of every message, and how many of the oldest are
        /// forgotten.
        rooms: [Vec<Published>; 3],
        kept_from: [u64; 3],
        payloads: u64,
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    impl World {
        fn below(&mut self, end: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % end
        }

        fn publish(&mut self) -> Published {
            let mask = match self.below(4) {
                0 => 1 + self.below(7),
                _ => 1 << self.below(3),
            };
            let is_own = self.below(4) == 0;
            self.payloads += 1;
            let payload = (!is_own).then_some(self.payloads);
            let in_it: Vec<usize> = (0..3).filter(|room| mask & (1 << room) != 0).collect();
            let place = |&room: &usize| (NAMES[room].to_owned(), self.rooms[room].len() as u64 + 1);
            let places: Vec<_> = in_it.iter().map(place).collect();
            for room in in_it {
                self.rooms[room].push((places.clone(), payload));
            }
            (places, payload)
        }

        fn kept(&self, room: usize, after: u64, max: usize) -> Vec<Item<u64>> {
            let from = after.max(self.kept_from[room]) as usize;
            let all = self.rooms[room].iter().skip(from).take(max);
            let item = |(places, payload): &Published| Item {
                places: places.clone(),
                id: payload.unwrap_or(0),
                payload: *payload,
            };
            all.map(item).collect()
        }
    }

    fn play(seed: u64) {
        let rooms = [const { Vec::new() }; 3];
        let mut world = World { random: seed | 1, rooms, kept_from: [0; 3], payloads: 0 };
        let mut reorderer = Reorderer::default();
        for name in NAMES {
            reorderer.enter(name, "e", 0, false);
        }
        let mut asked: VecDeque<(String, u64)> = VecDeque::new();
        let mut late_own: Vec<(String, u64)> = Vec::new();
        let mut yielded = Vec::new();
        let mut lost: BTreeSet<(String, u64)> = BTreeSet::new();
        for step in 0..120 {
            let is_last = step >= 100;
            match world.below(if is_last { 1 } else { 12 }) {
                // A page comes.
                0 | 1 => {
                    if let Some((room, after)) = asked.pop_front() {
                        let index = NAMES.iter().position(|name| *name == room).unwrap();
                        match world.below(10) {
                            0 if !is_last => reorderer.page_failed(&room),
                            _ => {
                                let seq = world.rooms[index].len() as u64;
                                let max = 1 + world.below(4) as usize;
                                reorderer.page(&room, "e", seq, world.kept(index, after, max));
                            }
                        }
                    }
                }
                // The connection goes, and comes back.
                2 => {
                    reorderer.suspend();
                    asked.clear();
                    late_own.clear();
                    for (index, name) in NAMES.iter().enumerate() {
                        let (_, seq) = reorderer.position(name).unwrap();
                        let newest = world.rooms[index].len() as u64;
                        let is_whole = seq >= world.kept_from[index] && world.below(3) > 0;
                        let missed = is_whole.then(|| world.kept(index, seq, usize::MAX));
                        reorderer.replay(name, "e", newest, false, missed);
                    }
                }
                // A message is not delivered, in any of its rooms.
                3 => {
                    let (places, payload) = world.publish();
                    match payload {
                        Some(_) => {
                            for (room, seq) in &places {
                                reorderer.gap(room, *seq, *seq);
                            }
                        }
                        None => late_own.extend(places),
                    }
                }
                // The server forgets.
                4 => {
                    let room = world.below(3) as usize;
                    let newest = world.rooms[room].len() as u64;
                    world.kept_from[room] =
                        newest.saturating_sub(world.below(4)).max(world.kept_from[room]);
                }
                // The answer to an own publish comes at last.
                5 => late_own.drain(..).for_each(|(room, seq)| reorderer.own(&room, seq)),
                _ => {
                    let (places, payload) = world.publish();
                    match payload {
                        Some(_) => {
                            reorderer.arrive(Item { places, id: payload.unwrap_or(0), payload });
                        }
                        None if world.below(2) == 0 => late_own.extend(places),
                        None => places.iter().for_each(|(room, seq)| reorderer.own(room, *seq)),
                    }
                }
            }
            let mut steps = Vec::new();
            reorderer.pump(&mut steps);
            for step in steps {
                match step {
                    Step::Yield(payload) => yielded.push(payload),
                    Step::Fetch { room, after } => asked.push_back((room, after)),
                    Step::Lost { room, range: Some((from, to)) } => {
                        lost.extend((from..=to).map(|seq| (room.clone(), seq)));
                    }
                    Step::Lost { range: None, .. } => panic!("the epoch is always the same"),
                }
            }
        }
        assert!(asked.is_empty(), "seed {seed}: nothing is left to fetch");
        let mut in_order = yielded.clone();
        in_order.sort_unstable();
        in_order.dedup();
        assert_eq!(in_order.len(), yielded.len(), "seed {seed}: each once");
        for (index, name) in NAMES.iter().enumerate() {
            // What this room gave up on, another may still have found.
            let of_room: Vec<u64> = (1u64..)
                .zip(&world.rooms[index])
                .filter(|(seq, _)| !lost.contains(&(name.to_string(), *seq)))
                .filter_map(|(_, (_, payload))| *payload)
                .collect();
            let seen: Vec<u64> =
                yielded.iter().copied().filter(|one| of_room.contains(one)).collect();
            assert!(seen.is_sorted(), "seed {seed}: {name} in order: {seen:?}");
            for (seq, (_, payload)) in (1u64..).zip(&world.rooms[index]) {
                let Some(payload) = payload else { continue };
                let is_told = yielded.contains(payload) || lost.contains(&(name.to_string(), seq));
                assert!(is_told, "seed {seed}: {name} {seq} is unaccounted for");
            }
        }
    }
}
