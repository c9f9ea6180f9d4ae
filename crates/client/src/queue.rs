//! The events of a session that wait to be taken. Unlike a channel's, they can be taken back.

use std::{collections::VecDeque, time::Instant};

use parking_lot::{Condvar, Mutex};

use super::event::Event;

/// A bounded queue, filled by the session's thread and emptied by any number of others. No lock is
/// held while anything but the queue is looked at.
#[derive(Debug)]
pub(crate) struct EventQueue {
    state: Mutex<State>,
    /// There is an event, or there will be none.
    came: Condvar,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    is_over: bool,
}

/// Why there is no event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// None came in time.
    Late,
    /// None will come any more.
    Over,
}

impl EventQueue {
    pub(crate) fn new(max: usize) -> EventQueue {
        EventQueue { state: Mutex::default(), came: Condvar::new(), max }
    }

    /// Moves events from the front of `waiting` until the queue is full.
    pub(crate) fn fill(&self, waiting: &mut VecDeque<Event>) {
        if waiting.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        while state.events.len() < self.max
            && let Some(event) = waiting.pop_front()
        {
            state.events.push_back(event);
            self.came.notify_one();
        }
    }

    /// Takes back what `keep` does not want.
    pub(crate) fn retain(&self, keep: impl FnMut(&Event) -> bool) {
        self.state.lock().events.retain(keep);
    }

    /// Adds the last events, which may be more than the bound: they are there already.
    pub(crate) fn end(&self, last: VecDeque<Event>) {
        let mut state = self.state.lock();
        state.events.extend(last);
        state.is_over = true;
        drop(state);
        self.came.notify_all();
    }

    /// Waits for an event, at most until `deadline`. Also says whether the queue was full: then its
    /// filler waits for a ring.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<(Event, bool), Nothing> {
        let mut state = self.state.lock();
        loop {
            let was_full = state.events.len() >= self.max;
            if let Some(event) = state.events.pop_front() {
                return Ok((event, was_full));
            }
            if state.is_over {
                return Err(Nothing::Over);
            }
            match deadline {
                None => self.came.wait(&mut state),
                Some(deadline) => {
                    if self.came.wait_until(&mut state, deadline).timed_out()
                        && state.events.is_empty()
                        && !state.is_over
                    {
                        return Err(Nothing::Late);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn matched(room: &str) -> Event {
        Event::Matched { pattern: "a.*".into(), room: room.into() }
    }

    fn take(queue: &EventQueue) -> Option<(String, bool)> {
        match queue.take(None).ok()? {
            (Event::Matched { room, .. }, was_full) => Some((room, was_full)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_bounded_in_order_and_can_be_taken_back_from() {
        let queue = EventQueue::new(2);
        let mut waiting: VecDeque<Event> = ["a", "b", "c"].map(matched).into();
        queue.fill(&mut waiting);
        assert_eq!(waiting.len(), 1);
        queue.retain(|event| !matches!(event, Event::Matched { room, .. } if room == "a"));
        queue.fill(&mut waiting);
        assert_eq!(take(&queue), Some(("b".into(), true)));
        assert_eq!(take(&queue), Some(("c".into(), false)));
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(queue.take(Some(soon)).unwrap_err(), Nothing::Late);
        queue.end(["d", "e", "f"].map(matched).into());
        for name in ["d", "e", "f"] {
            assert_eq!(take(&queue).unwrap().0, name);
        }
        assert_eq!(queue.take(None).unwrap_err(), Nothing::Over);
    }

    #[test]
    fn whoever_waits_is_woken_by_an_event_and_by_the_end() {
        let queue = EventQueue::new(1);
        thread::scope(|scope| {
            let takers = [(); 3].map(|()| scope.spawn(|| take(&queue)));
            queue.fill(&mut [matched("a")].into());
            queue.end(VecDeque::new());
            let took = takers.map(|taker| taker.join().unwrap());
            assert_eq!(took.into_iter().flatten().count(), 1);
        });
    }
}
