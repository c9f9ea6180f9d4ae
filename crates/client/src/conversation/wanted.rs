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
    patterns: BTreeSet<String>,
    /// Left one by one, though they fit a pattern. One that is joined anew brings them back.
    declined: BTreeSet<String>,
    /// What is yet to be answered, in order.
    calls: BTreeMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    is_join: bool,
    name: String,
}

/// What concerns one room.
struct View<'w> {
    by_name: bool,
    patterns: BTreeSet<&'w str>,
    is_declined: bool,
}

impl<'w> View<'w> {
    fn is_wanted(&self) -> bool {
        self.by_name || !self.patterns.is_empty() && !self.is_declined
    }

    fn apply(&mut self, room: &str, Call { is_join, name }: &'w Call) {
        match (is_join, name == room) {
            (true, true) => (self.by_name, self.is_declined) = (true, false),
            (false, true) => {
                (self.by_name, self.is_declined) = (false, !self.patterns.is_empty());
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
        let (is_join, name) = match ask {
            Ask::Join { room, .. } => (true, room),
            Ask::Leave { room } => (false, room),
            _ => return,
        };
        self.calls.insert(number, Call { is_join, name: name.clone() });
    }

    /// A call is answered. One that was refused has changed nothing, but that nobody wants to hear
    /// of a room whose leave was refused.
    pub(super) fn answered(&mut self, number: u64, is_granted: bool) {
        match self.calls.remove(&number) {
            Some(Call { is_join: true, name }) if is_granted => self.join(name),
            Some(Call { is_join: false, name }) => self.leave(&name),
            _ => {}
        }
    }

    /// A room or pattern is wanted, without a call.
    pub(super) fn join(&mut self, name: String) {
        if !name.ends_with(".*") {
            self.declined.remove(&name);
            self.by_name.insert(name);
        } else if !self.patterns.contains(&name) {
            self.declined.retain(|room| !fits(&name, room));
            self.patterns.insert(name);
        }
    }

    /// A room or pattern cannot be had.
    pub(super) fn lose(&mut self, name: &str) {
        self.patterns.remove(name);
        self.by_name.remove(name);
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
        self.view(room).is_wanted()
    }

    /// Whether what comes of a room is to be yielded.
    pub(super) fn hears(&self, room: &str) -> bool {
        let mut view = self.view(room);
        let mut is_wanted = view.is_wanted();
        for call in self.calls.values() {
            view.apply(room, call);
            is_wanted &= view.is_wanted();
        }
        is_wanted
    }

    /// Whether the rooms of a pattern are.
    pub(super) fn hears_pattern(&self, pattern: &str) -> bool {
        self.patterns.contains(pattern) && !self.is_leaving(pattern)
    }

    /// Whether a leave of just this room or pattern is yet to be answered.
    pub(super) fn is_leaving(&self, name: &str) -> bool {
        self.calls.values().any(|call| !call.is_join && call.name == name)
    }

    /// Whether a call that is yet to be answered may change something about this room or pattern.
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.calls.values().any(|call| overlap(&call.name, name))
    }

    /// Whether a call has left this room or pattern.
    pub(super) fn is_left_by(&self, number: u64, name: &str) -> bool {
        let Some(leave) = self.calls.get(&number) else { return false };
        if leave.name == name && name.ends_with(".*") {
            return true;
        }
        let mut view = self.view(name);
        self.calls.range(..=number).for_each(|(_, call)| view.apply(name, call));
        overlap(&leave.name, name) && !view.is_wanted()
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
    use crate::ask::JoinOptions;

    use super::*;

    struct Calls(Wanted, u64);

    impl Calls {
        fn join(&mut self, room: &str) -> u64 {
            self.1 += 1;
            self.0.call(self.1, &Ask::Join { room: room.into(), options: JoinOptions::default() });
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
