//! Which rooms and patterns are wanted: by the calls that are answered, and by those that are not
//! yet.
//!
//! What was called last counts, from the call on. A room is *heard* while it is wanted after each
//! call: from a call of `leave` on it is not, and a `join` that follows is heard only once it is
//! answered. So nothing that is on its way when a room is left, be it an answer, a notice or a
//! message, is taken for one of a later stay.

use std::collections::{BTreeMap, BTreeSet};

use crate::ask::Ask;

/// Rooms left one by one, though they fit a pattern, that are remembered.
const DECLINED_MAX: usize = 1000;

/// Rooms and patterns, and the calls that are yet to be answered.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Rooms asked for by their names, and the default room.
    by_name: BTreeSet<String>,
    /// Those of them that subscriptions alone want: what comes of these is not the session's to
    /// yield.
    by_subscriptions: BTreeSet<String>,
    patterns: BTreeSet<String>,
    /// Left one by one, though they fit a pattern. One that is joined anew brings them back.
    declined: BTreeSet<String>,
    /// What is yet to be answered, in order.
    calls: BTreeMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    is_join: bool,
    /// For a subscription, and not for the session as a whole.
    is_subscription: bool,
    name: String,
}

/// Who wants a room.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The session, or subscriptions.
    Anyone,
    /// The session as a whole.
    Session,
}

/// What concerns one room.
struct View<'w> {
    by_name: bool,
    /// By its name, and not by subscriptions alone.
    by_session: bool,
    patterns: BTreeSet<&'w str>,
    is_declined: bool,
}

impl<'w> View<'w> {
    fn is_wanted(&self, by: By) -> bool {
        let by_name = match by {
            By::Anyone => self.by_name,
            By::Session => self.by_session,
        };
        by_name || !self.patterns.is_empty() && !self.is_declined
    }

    fn apply(&mut self, room: &str, Call { is_join, is_subscription, name }: &'w Call) {
        match (is_join, name == room) {
            (true, true) if *is_subscription => self.by_name |= !self.is_wanted(By::Anyone),
            (true, true) => {
                (self.by_name, self.by_session, self.is_declined) = (true, true, false);
            }
            (false, true) => {
                (self.by_name, self.by_session) = (false, false);
                self.is_declined = !self.patterns.is_empty();
            }
            _ if !fits(name, room) => {}
            (true, false) => self.is_declined &= !self.patterns.insert(name),
            (false, false) => drop(self.patterns.remove(name.as_str())),
        }
    }
}

impl Wanted {
    /// A call is made.
    pub(super) fn call(&mut self, number: u64, ask: &Ask) {
        let (is_join, is_subscription, name) = match ask {
            Ask::Join { room, subscriber, .. } => (true, subscriber.is_some(), room),
            Ask::Leave { room } => (false, false, room),
            _ => return,
        };
        self.calls.insert(number, Call { is_join, is_subscription, name: name.clone() });
    }

    /// A call is answered. One that was refused has changed nothing, but that nobody wants to hear
    /// of a room whose leave was refused.
    pub(super) fn answered(&mut self, number: u64, is_granted: bool) {
        match self.calls.remove(&number) {
            Some(Call { is_join: true, is_subscription: true, name }) if is_granted => {
                self.subscribe(name);
            }
            Some(Call { is_join: true, name, .. }) if is_granted => self.join(name),
            Some(Call { is_join: false, name, .. }) => self.leave(&name),
            _ => {}
        }
    }

    /// A room or pattern is wanted, without a call.
    pub(super) fn join(&mut self, name: String) {
        if !name.ends_with(".*") {
            self.declined.remove(&name);
            self.by_subscriptions.remove(&name);
            self.by_name.insert(name);
        } else if !self.patterns.contains(&name) {
            self.declined.retain(|room| !fits(&name, room));
            self.patterns.insert(name);
        }
    }

    /// A subscription wants a room. One that the session wants is not kept for it.
    fn subscribe(&mut self, name: String) {
        if !self.has(&name) {
            self.by_subscriptions.insert(name.clone());
            self.by_name.insert(name);
        }
    }

    /// No subscription wants a room any more.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        if self.by_subscriptions.remove(name) {
            self.by_name.remove(name);
        }
    }

    /// A room or pattern cannot be had.
    pub(super) fn lose(&mut self, name: &str) {
        self.patterns.remove(name);
        self.by_name.remove(name);
        self.by_subscriptions.remove(name);
    }

    fn leave(&mut self, name: &str) {
        self.lose(name);
        let is_matched = self.patterns.iter().any(|pattern| fits(pattern, name));
        if is_matched && self.declined.len() < DECLINED_MAX {
            self.declined.insert(name.to_owned());
        }
    }

    pub(super) fn by_name(&self) -> &BTreeSet<String> {
        &self.by_name
    }

    pub(super) fn patterns(&self) -> &BTreeSet<String> {
        &self.patterns
    }

    fn view(&self, room: &str) -> View<'_> {
        View {
            by_name: self.by_name.contains(room),
            by_session: self.by_name.contains(room) && !self.by_subscriptions.contains(room),
            patterns: self
                .patterns
                .iter()
                .filter(|pattern| fits(pattern, room))
                .map(String::as_str)
                .collect(),
            is_declined: self.declined.contains(room),
        }
    }

    /// Whether a room is wanted by what is answered.
    pub(super) fn has(&self, room: &str) -> bool {
        self.view(room).is_wanted(By::Anyone)
    }

    /// Whether what comes of a room is to be yielded, by the session or by subscriptions.
    pub(super) fn hears(&self, room: &str) -> bool {
        self.is_wanted_throughout(room, By::Anyone)
    }

    /// Whether what comes of a room is to be yielded by the session.
    pub(super) fn session_hears(&self, room: &str) -> bool {
        self.is_wanted_throughout(room, By::Session)
    }

    /// Whether a room is wanted now, and after each call that is yet to be answered.
    fn is_wanted_throughout(&self, room: &str, by: By) -> bool {
        let mut view = self.view(room);
        let mut is_wanted = view.is_wanted(by);
        for call in self.calls.values() {
            view.apply(room, call);
            is_wanted &= view.is_wanted(by);
        }
        is_wanted
    }

    /// Whether the rooms of a pattern are.
    pub(super) fn hears_pattern(&self, pattern: &str) -> bool {
        self.patterns.contains(pattern) && !self.is_leaving(pattern)
    }

    /// Whether a join of just this room or pattern is yet to be answered.
    pub(super) fn is_joining(&self, name: &str) -> bool {
        self.calls.values().any(|call| call.is_join && call.name == name)
    }

    /// Whether a leave of just this room or pattern is yet to be answered.
    pub(super) fn is_leaving(&self, name: &str) -> bool {
        self.calls.values().any(|call| !call.is_join && call.name == name)
    }

    /// Whether a call that is yet to be answered may change something about this room or pattern.
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.calls.values().any(|call| overlap(&call.name, name))
    }

    /// Whether the session has left this room or pattern with a call.
    pub(super) fn is_left_by(&self, number: u64, name: &str) -> bool {
        self.is_unwanted_after(number, name, By::Session)
    }

    /// Whether subscriptions to this room have ended with a call.
    pub(super) fn is_ended_by(&self, number: u64, name: &str) -> bool {
        self.is_unwanted_after(number, name, By::Anyone)
    }

    /// Whether a call of `leave` is about this room or pattern, which is not wanted then.
    fn is_unwanted_after(&self, number: u64, name: &str, by: By) -> bool {
        let Some(leave) = self.calls.get(&number) else { return false };
        if leave.name == name && name.ends_with(".*") {
            return true;
        }
        let mut view = self.view(name);
        self.calls.range(..=number).for_each(|(_, call)| view.apply(name, call));
        overlap(&leave.name, name) && !view.is_wanted(by)
    }
}

/// `a.*` has in it `a.b` and `a.b.c`, and not `a`.
pub(super) fn fits(pattern: &str, room: &str) -> bool {
    pattern
        .strip_suffix('*')
        .is_some_and(|prefix| room.len() > prefix.len() && room.starts_with(prefix))
}

/// Whether two names of rooms or patterns may mean the same room.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    one == other || fits(one, other) || fits(other, one)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{ask::JoinOptions, room_queue::RoomQueue};

    use super::*;

    fn join(room: &str, subscriber: Option<Arc<RoomQueue>>) -> Ask {
        Ask::Join { room: room.into(), options: JoinOptions::default(), subscriber }
    }

    struct Calls(Wanted, u64);

    impl Calls {
        fn join(&mut self, room: &str) -> u64 {
            self.1 += 1;
            self.0.call(self.1, &join(room, None));
            self.1
        }

        fn subscribe(&mut self, room: &str) -> u64 {
            self.1 += 1;
            self.0.call(self.1, &join(room, Some(Arc::new(RoomQueue::new(1, false)))));
            self.1
        }

        fn leave(&mut self, room: &str) -> u64 {
            self.1 += 1;
            self.0.call(self.1, &Ask::Leave { room: room.into() });
            self.1
        }
    }

    #[test]
    fn a_room_is_heard_from_the_answer_to_its_join_to_the_call_of_leave() {
        let mut calls = Calls(Wanted::default(), 0);
        let (join, leave, again) = (calls.join("a"), calls.leave("a"), calls.join("a"));
        for (number, is_heard) in [(join, false), (leave, false), (again, true)] {
            assert!(!calls.0.hears("a"));
            calls.0.answered(number, true);
            assert_eq!(calls.0.hears("a"), is_heard);
        }
        let leave = calls.leave("a");
        assert!(!calls.0.hears("a") && calls.0.has("a") && calls.0.is_left_by(leave, "a"));
        calls.0.answered(leave, false);
        assert!(!calls.0.has("a"), "not even if that was refused");
        let refused = calls.join("a");
        calls.0.answered(refused, false);
        assert!(!calls.0.has("a"));
    }

    #[test]
    fn a_room_of_two_patterns_stays_with_the_one_that_stays() {
        let mut calls = Calls(Wanted::default(), 0);
        for pattern in ["p.*", "p.b.*"] {
            let number = calls.join(pattern);
            calls.0.answered(number, true);
        }
        let leave = calls.leave("p.*");
        assert!(calls.0.hears("p.b.c") && !calls.0.hears("p.a"));
        assert!(!calls.0.is_left_by(leave, "p.b.c") && calls.0.is_left_by(leave, "p.a"));
        assert!(calls.0.is_left_by(leave, "p.*") && !calls.0.hears_pattern("p.*"));
    }

    #[test]
    fn what_subscriptions_alone_want_is_not_the_sessions() {
        let mut calls = Calls(Wanted::default(), 0);
        let subscribed = calls.subscribe("a");
        calls.0.answered(subscribed, true);
        assert!(calls.0.hears("a") && !calls.0.session_hears("a"));
        let joined = calls.join("a");
        assert!(calls.0.hears("a") && !calls.0.session_hears("a"), "not before the answer");
        calls.0.answered(joined, true);
        assert!(calls.0.session_hears("a"));
        calls.0.unsubscribe("a");
        assert!(calls.0.session_hears("a"), "the session has joined it");
        let leave = calls.leave("a");
        assert!(calls.0.is_left_by(leave, "a") && calls.0.is_ended_by(leave, "a"));
        calls.0.answered(leave, true);
        assert!(!calls.0.has("a"));
    }

    #[test]
    fn a_pattern_and_a_subscription_want_a_room_each_for_itself() {
        let mut calls = Calls(Wanted::default(), 0);
        for number in [calls.subscribe("p.a"), calls.join("p.*"), calls.subscribe("p.b")] {
            calls.0.answered(number, true);
        }
        assert!(calls.0.session_hears("p.a") && calls.0.session_hears("p.b"));
        let leave = calls.leave("p.*");
        assert!(calls.0.is_left_by(leave, "p.a") && !calls.0.is_ended_by(leave, "p.a"));
        assert!(calls.0.is_ended_by(leave, "p.b"), "it was there by the pattern");
        calls.0.answered(leave, true);
        assert!(calls.0.hears("p.a") && !calls.0.session_hears("p.a"));
        calls.0.unsubscribe("p.a");
        assert!(!calls.0.has("p.a"));
    }

    #[test]
    fn a_room_left_by_its_name_comes_back_with_a_pattern_that_is_joined_anew() {
        let mut calls = Calls(Wanted::default(), 0);
        let course = [
            (true, "p.*", true),
            (false, "p.a", false),
            (true, "p.*", false),
            (false, "p.*", false),
            (true, "p.*", true),
        ];
        for (is_join, name, is_heard) in course {
            let number = if is_join { calls.join(name) } else { calls.leave(name) };
            calls.0.answered(number, true);
            assert_eq!(calls.0.hears("p.a"), is_heard, "{is_join} {name}");
        }
    }
}
