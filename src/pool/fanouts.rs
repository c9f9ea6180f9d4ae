//! Messages for many connections of one worker, delivered in slices.
//!
//! A message to more members than one turn should carry waits here with its room, and rooms take
//! turns, so that the members of a large room delay nobody else by more than a slice. A room's
//! messages keep their order: while one waits, those behind it wait too. A message of several rooms
//! waits in each of them, and is delivered when it is the first in all. Messages of one room that
//! wait behind each other are delivered together.

use std::{collections::VecDeque, sync::Arc, vec};

use rustc_hash::FxHashMap;
use slab::Slab;

use super::run::{RoomMessage, Run};
use crate::hub::{conn_id::ConnId, room::RoomKey};

/// To whom messages go.
#[derive(Debug, Clone)]
pub(super) enum Audience {
    /// The members of one room.
    Room(RoomKey),
    /// The members of several rooms, each with the message's number there.
    Rooms(Arc<[(RoomKey, u64)]>),
    /// Everyone who is connected to a route.
    Route(u16),
}

/// What the messages of one queue have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum QueueKey {
    Room(RoomKey),
    Route(u16),
}

/// Messages and how far they are delivered.
pub(super) struct Fanout {
    pub(super) audience: Audience,
    /// More than one only for one room.
    pub(super) run: Run,
    /// The connections that are still to get them, for one room each with its place in the room's
    /// list; `None` before the first slice.
    pub(super) recipients: Option<vec::IntoIter<(u32, ConnId)>>,
}

/// The messages of one worker that wait. Bounded by the mailbox, in which each keeps its space
/// until it is delivered.
#[derive(Default)]
pub(super) struct Fanouts {
    fanouts: Slab<Fanout>,
    queues: FxHashMap<QueueKey, VecDeque<usize>>,
    /// The queues, the one whose turn is next first. A queue that has become empty is dropped when
    /// its turn comes.
    turns: VecDeque<QueueKey>,
}

impl Audience {
    fn queues(&self) -> impl Iterator<Item = QueueKey> {
        let (rooms, one) = match self {
            Audience::Room(room) => (&[][..], Some(QueueKey::Room(*room))),
            Audience::Rooms(rooms) => (&rooms[..], None),
            Audience::Route(route) => (&[][..], Some(QueueKey::Route(*route))),
        };
        rooms.iter().map(|(room, _)| QueueKey::Room(*room)).chain(one)
    }
}

impl Fanouts {
    pub(super) fn is_empty(&self) -> bool {
        self.fanouts.is_empty()
    }

    /// Whether a message for `audience` must wait for another one.
    pub(super) fn is_before(&self, audience: &Audience) -> bool {
        !self.is_empty() && audience.queues().any(|key| self.has_waiting(key))
    }

    /// Whether a message of `room` must wait for another one.
    #[inline]
    pub(super) fn is_before_room(&self, room: RoomKey) -> bool {
        !self.is_empty() && self.has_waiting(QueueKey::Room(room))
    }

    fn has_waiting(&self, key: QueueKey) -> bool {
        self.queues.get(&key).is_some_and(|queue| !queue.is_empty())
    }

    /// Has a message of one room wait, with those right before it if none of them was delivered to
    /// anybody yet.
    pub(super) fn push_to_room(&mut self, room: RoomKey, message: RoomMessage) {
        let last = self.queues.get(&QueueKey::Room(room)).and_then(VecDeque::back);
        if let Some(last) = last.and_then(|last| self.fanouts.get_mut(*last))
            && matches!(last.audience, Audience::Room(_))
            && last.recipients.is_none()
            && last.run.takes(&message.frame)
        {
            return last.run.push(message);
        }
        self.push(Audience::Room(room), message);
    }

    /// Has a message wait.
    pub(super) fn push(&mut self, audience: Audience, message: RoomMessage) {
        let queues: Vec<QueueKey> = audience.queues().collect();
        let mut run = Run::default();
        run.push(message);
        let id = self.fanouts.insert(Fanout { audience, run, recipients: None });
        for key in queues {
            let queue = self.queues.entry(key).or_insert_with(|| {
                self.turns.push_back(key);
                VecDeque::new()
            });
            queue.push_back(id);
        }
    }

    /// Finds the message whose slice is next, by turns of the queues. `None` if none waits.
    pub(super) fn next(&mut self) -> Option<usize> {
        // The oldest message is the first in all its queues, so the search ends.
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            let Some(&id) = self.queues.get(&key).and_then(VecDeque::front) else {
                self.queues.remove(&key);
                continue;
            };
            self.turns.push_back(key);
            let is_first =
                |key: QueueKey| self.queues.get(&key).is_some_and(|q| q.front() == Some(&id));
            if self.fanouts.get(id)?.audience.queues().all(is_first) {
                return Some(id);
            }
        }
        None
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut Fanout> {
        self.fanouts.get_mut(id)
    }

    /// Takes out the message `id`, which is the first in all its queues.
    pub(super) fn finish(&mut self, id: usize) -> Option<Fanout> {
        let fanout = self.fanouts.try_remove(id)?;
        for key in fanout.audience.queues() {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.pop_front();
            }
        }
        if self.fanouts.is_empty() {
            self.queues.clear();
            self.turns.clear();
        }
        Some(fanout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::{Message, PreparedFrame};

    fn message(seq: u64) -> RoomMessage {
        let frame = PreparedFrame::new(Message::Text("x"));
        RoomMessage { seq, frame, except: None, weight: 1, charge: None }
    }

    fn rooms(keys: &[RoomKey]) -> Audience {
        Audience::Rooms(keys.iter().map(|key| (*key, 1)).collect())
    }

    /// Finishes everything, one slice a message. Returns the order by the lowest room.
    fn play(fanouts: &mut Fanouts) -> Vec<Vec<RoomKey>> {
        let mut order = Vec::new();
        while let Some(id) = fanouts.next() {
            let fanout = fanouts.finish(id).expect("it waits");
            order.push(match fanout.audience {
                Audience::Room(key) => vec![key],
                Audience::Rooms(rooms) => rooms.iter().map(|(key, _)| *key).collect(),
                Audience::Route(_) => Vec::new(),
            });
        }
        assert!(fanouts.is_empty() && fanouts.queues.is_empty() && fanouts.turns.is_empty());
        order
    }

    #[test]
    fn rooms_take_turns() {
        let mut fanouts = Fanouts::default();
        for key in [1, 1, 1, 2, 3] {
            fanouts.push(rooms(&[key]), message(1));
        }
        assert!(fanouts.is_before_room(2) && !fanouts.is_before_room(4));
        assert_eq!(play(&mut fanouts), [[1], [2], [3], [1], [1]]);
    }

    #[test]
    fn a_message_of_several_rooms_keeps_its_place_in_each() {
        let mut fanouts = Fanouts::default();
        fanouts.push(rooms(&[1]), message(1));
        fanouts.push(rooms(&[2]), message(1));
        fanouts.push(rooms(&[1, 2]), message(1));
        fanouts.push(rooms(&[2]), message(1));
        fanouts.push(Audience::Route(0), message(1));
        assert!(fanouts.is_before(&rooms(&[9, 2])) && !fanouts.is_before(&Audience::Route(1)));
        let order = play(&mut fanouts);
        let at = |keys: &[RoomKey]| order.iter().position(|other| other == keys).expect("it came");
        let last = order.iter().rposition(|other| other == &[2]).expect("it came");
        assert!(at(&[1]) < at(&[1, 2]) && at(&[2]) < at(&[1, 2]) && at(&[1, 2]) < last);
    }

    #[test]
    fn what_waits_behind_each_other_in_one_room_goes_together() {
        let mut fanouts = Fanouts::default();
        let seqs = |fanouts: &mut Fanouts| {
            let id = fanouts.next().expect("one waits");
            fanouts.get_mut(id).expect("it waits").run.seqs()
        };
        (1..=3).for_each(|seq| fanouts.push_to_room(1, message(seq)));
        assert_eq!(seqs(&mut fanouts), (1, 3));
        let id = fanouts.next().expect("they wait");
        fanouts.get_mut(id).expect("they wait").recipients = Some(Vec::new().into_iter());
        (4..=5).for_each(|seq| fanouts.push_to_room(1, message(seq)));
        fanouts.push(rooms(&[1, 2]), message(6));
        (7..=8).for_each(|seq| fanouts.push_to_room(1, message(seq)));
        for expected in [(1, 3), (4, 5), (6, 6), (7, 8)] {
            assert_eq!(seqs(&mut fanouts), expected, "behind what has begun, and what is others'");
            let id = fanouts.next().expect("one waits");
            fanouts.finish(id);
        }
        (0..100).for_each(|seq| fanouts.push_to_room(1, message(seq)));
        assert_eq!(seqs(&mut fanouts), (0, 31), "so many and no more");
    }
}
