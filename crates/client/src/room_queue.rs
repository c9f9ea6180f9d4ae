//! The events of a room that wait to be taken by one subscription.

use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    error::{Error, ErrorKind},
    event::RoomEvent,
};

/// A bounded queue, filled by the session's thread and emptied by whoever has the subscription.
/// When it is full the oldest go, and the place where they were says so: one who is slow does not
/// hold up the others. No lock is held while anything but the queue is looked at.
#[derive(Debug)]
pub(crate) struct RoomQueue {
    /// Whether who comes and goes is wanted too.
    pub(crate) wants_presence: bool,
    state: Mutex<State>,
    /// There is an event, or there will be none.
    came: Condvar,
    max: usize,
    /// Nobody will take anything any more.
    is_dropped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<RoomEvent>,
    /// What went, from before the first event.
    missed: Option<Missed>,
    end: Option<Result<(), Error>>,
}

#[derive(Debug, Default)]
struct Missed {
    events: u64,
    messages: Option<(u64, u64)>,
}

impl Missed {
    fn note(&mut self, event: &RoomEvent) {
        let range = match event {
            RoomEvent::Message(message) => Some((message.seq, message.seq)),
            RoomEvent::Lost { range } => *range,
            RoomEvent::Missed { .. }
            | RoomEvent::Joined(_)
            | RoomEvent::Left(_)
            | RoomEvent::Members(_) => None,
        };
        self.events += 1;
        if let Some((from, to)) = range {
            self.messages = Some((self.messages.map_or(from, |(first, _)| first), to));
        }
    }
}

/// Why there is no event.
#[derive(Debug)]
pub(crate) enum NoRoomEvent {
    /// None came in time.
    Late,
    /// None will come any more: the room was left from here, or for another reason.
    Over(Result<(), Error>),
}

impl RoomQueue {
    pub(crate) fn new(max: usize, wants_presence: bool) -> RoomQueue {
        RoomQueue {
            wants_presence,
            state: Mutex::default(),
            came: Condvar::new(),
            max: max.max(1),
            is_dropped: AtomicBool::new(false),
        }
    }

    pub(crate) fn push(&self, event: RoomEvent) {
        let mut state = self.state.lock();
        if state.end.is_some() || self.is_dropped() {
            return;
        }
        if state.events.len() >= self.max
            && let Some(oldest) = state.events.pop_front()
        {
            state.missed.get_or_insert_default().note(&oldest);
        }
        state.events.push_back(event);
        drop(state);
        self.came.notify_one();
    }

    /// Nothing more will come; what waits can still be taken.
    pub(crate) fn end(&self, end: Result<(), Error>) {
        self.state.lock().end.get_or_insert(end);
        self.came.notify_all();
    }

    /// The room was left from here: nothing of it is to be yielded any more.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        state.events.clear();
        state.missed = None;
        state.end.get_or_insert(Ok(()));
        drop(state);
        self.came.notify_all();
    }

    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<RoomEvent, NoRoomEvent> {
        let mut state = self.state.lock();
        loop {
            if let Some(Missed { events, messages }) = state.missed.take() {
                return Ok(RoomEvent::Missed { events, messages });
            }
            if let Some(event) = state.events.pop_front() {
                return Ok(event);
            }
            if let Some(end) = &state.end {
                return Err(NoRoomEvent::Over(end.clone()));
            }
            match deadline {
                None => self.came.wait(&mut state),
                Some(deadline) => {
                    if self.came.wait_until(&mut state, deadline).timed_out()
                        && state.events.is_empty()
                        && state.end.is_none()
                    {
                        return Err(NoRoomEvent::Late);
                    }
                }
            }
        }
    }

    /// The subscription is gone.
    pub(crate) fn abandon(&self) {
        self.is_dropped.store(true, Ordering::SeqCst);
        self.state.lock().events.clear();
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::SeqCst)
    }
}

/// The near end of a subscription's queue.
#[derive(Debug)]
pub(crate) struct Subscriber(Arc<RoomQueue>);

impl Subscriber {
    pub(crate) fn new(queue: &Arc<RoomQueue>) -> Subscriber {
        Subscriber(Arc::clone(queue))
    }
}

impl Deref for Subscriber {
    type Target = RoomQueue;

    fn deref(&self) -> &RoomQueue {
        &self.0
    }
}

impl Drop for Subscriber {
    /// Whoever waits for an event waits no longer, even if the thread has panicked.
    fn drop(&mut self) {
        self.0.end(Err(Error::new(ErrorKind::Closed, "the session is over")));
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn lost(seq: u64) -> RoomEvent {
        RoomEvent::Lost { range: Some((seq, seq)) }
    }

    fn take(queue: &RoomQueue) -> String {
        format!("{:?}", queue.take(Some(Instant::now())))
    }

    #[test]
    fn the_oldest_go_when_it_is_full_and_their_place_says_so() {
        let queue = RoomQueue::new(2, false);
        (1..=5).for_each(|seq| queue.push(lost(seq)));
        assert_eq!(take(&queue), "Ok(Missed { events: 3, messages: Some((1, 3)) })");
        assert_eq!(take(&queue), "Ok(Lost { range: Some((4, 4)) })");
        queue.push(lost(6));
        for seq in 5..=6 {
            assert_eq!(take(&queue), format!("Ok(Lost {{ range: Some(({seq}, {seq})) }})"));
        }
        assert_eq!(take(&queue), "Err(Late)");
    }

    #[test]
    fn what_waits_outlives_an_end_and_does_not_outlive_a_leave() {
        let queue = RoomQueue::new(2, false);
        queue.push(lost(1));
        queue.end(Err(Error::new(ErrorKind::Closed, "over")));
        queue.push(lost(2));
        assert_eq!(take(&queue), "Ok(Lost { range: Some((1, 1)) })");
        assert!(take(&queue).contains("over"));
        let queue = RoomQueue::new(2, false);
        queue.push(lost(1));
        queue.cut();
        assert_eq!(take(&queue), "Err(Over(Ok(())))");
    }

    #[test]
    fn whoever_waits_is_woken_by_an_event_and_by_the_end() {
        let queue = RoomQueue::new(2, false);
        let in_time = Some(Instant::now() + Duration::from_secs(20));
        thread::scope(|scope| {
            let waits = scope.spawn(|| queue.take(in_time).is_ok());
            queue.push(lost(1));
            assert!(waits.join().expect("no panic"));
            let waits = scope.spawn(|| queue.take(in_time));
            queue.cut();
            assert!(matches!(waits.join().expect("no panic"), Err(NoRoomEvent::Over(Ok(())))));
        });
    }
}
