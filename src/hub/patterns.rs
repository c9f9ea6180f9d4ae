//! The patterns of one session, and those among them that the directory must know.
//!
//! A pattern is the beginning of names, so of two that match one room the shorter one covers the
//! longer. The directory is told only of those that no other one of the session covers: a new room
//! then finds each session once, however many patterns are nested in each other.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeSet,
    hash::{Hash, Hasher},
    ops::Bound,
};

use super::names::{RoomName, RoomPattern};

/// A pattern that is looked up by what every matching name begins with, such as `prices.`.
#[derive(Debug, Clone)]
pub(super) struct ByPrefix(pub(super) RoomPattern);

impl Borrow<str> for ByPrefix {
    fn borrow(&self) -> &str {
        self.0.prefix()
    }
}

impl PartialEq for ByPrefix {
    fn eq(&self, other: &ByPrefix) -> bool {
        self.0.prefix() == other.0.prefix()
    }
}

impl Eq for ByPrefix {}

impl PartialOrd for ByPrefix {
    fn partial_cmp(&self, other: &ByPrefix) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPrefix {
    fn cmp(&self, other: &ByPrefix) -> Ordering {
        self.0.prefix().cmp(other.0.prefix())
    }
}

impl Hash for ByPrefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.prefix().hash(state);
    }
}

/// Lists the prefixes of all patterns that match a room of that name, the shortest first.
pub(super) fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.').map(|(dot, _)| dot);
    dots.filter(|dot| (1..name.len() - 1).contains(dot)).map(|dot| &name[..=dot])
}

/// What a pattern takes: its text, at most, and its entries in the session and the directory.
const PATTERN_BYTES: usize = RoomName::BYTES_MAX + 4 * size_of::<ByPrefix>();

/// The patterns of one session, in the order of their prefixes.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeSet<ByPrefix>);

impl Patterns {
    pub(super) const fn new() -> Patterns {
        Patterns(BTreeSet::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes that the patterns take, with their subscriptions in the directory.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * PATTERN_BYTES
    }

    pub(super) fn contains(&self, pattern: &RoomPattern) -> bool {
        self.0.contains(pattern.prefix())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RoomPattern> {
        self.0.iter().map(|ByPrefix(pattern)| pattern)
    }

    pub(super) fn insert(&mut self, pattern: RoomPattern) {
        self.0.insert(ByPrefix(pattern));
    }

    /// Returns whether the pattern was there.
    pub(super) fn remove(&mut self, pattern: &RoomPattern) -> bool {
        self.0.remove(pattern.prefix())
    }

    /// The shortest pattern that matches a room of that name.
    pub(super) fn matching(&self, name: &RoomName) -> Option<&RoomPattern> {
        let found = prefixes(name.as_str()).find_map(|prefix| self.0.get(prefix));
        found.map(|ByPrefix(pattern)| pattern)
    }

    /// Whether a shorter pattern matches all that `pattern` does.
    pub(super) fn cover(&self, pattern: &RoomPattern) -> bool {
        let stem = &pattern.prefix()[..pattern.prefix().len() - 1];
        let dots = stem.match_indices('.').map(|(dot, _)| dot);
        dots.filter(|dot| *dot > 0).any(|dot| self.0.contains(&stem[..=dot]))
    }

    /// Lists the patterns that the directory knows.
    pub(super) fn uncovered(&self) -> Vec<RoomPattern> {
        uncovered(self.iter())
    }

    /// Lists the patterns that only `pattern` covers.
    pub(super) fn below(&self, pattern: &RoomPattern) -> Vec<RoomPattern> {
        let prefix = pattern.prefix();
        let longer = self.0.range::<str, _>((Bound::Excluded(prefix), Bound::Unbounded));
        let below = longer.map(|ByPrefix(other)| other);
        uncovered(below.take_while(|other| other.prefix().starts_with(prefix)))
    }
}

/// Lists those of `patterns`, given in the order of their prefixes, that none of the others covers.
fn uncovered<'a>(patterns: impl Iterator<Item = &'a RoomPattern>) -> Vec<RoomPattern> {
    let mut uncovered: Vec<RoomPattern> = Vec::new();
    for pattern in patterns {
        // A covered pattern follows the one that covers it, with nothing else in between.
        let is_covered =
            uncovered.last().is_some_and(|last| pattern.prefix().starts_with(last.prefix()));
        if !is_covered {
            uncovered.push(pattern.clone());
        }
    }
    uncovered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::harness::{name, pattern};

    fn patterns(texts: &[&str]) -> Patterns {
        let mut patterns = Patterns::new();
        texts.iter().for_each(|text| patterns.insert(pattern(text)));
        patterns
    }

    #[test]
    fn a_shorter_pattern_covers_longer_ones() {
        let own = patterns(&["a.b.*", "a.b.c.*", "a.!.*", "a.b.c.d.*", "b.*", "ab.*", "a.bc.*"]);
        let texts = |list: Vec<RoomPattern>| -> Vec<String> {
            list.iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        assert_eq!(texts(own.uncovered()), ["a.!.*", "a.b.*", "a.bc.*", "ab.*", "b.*"]);
        assert_eq!(texts(own.below(&pattern("a.*"))), ["a.!.*", "a.b.*", "a.bc.*"]);
        assert_eq!(texts(own.below(&pattern("a.b.*"))), ["a.b.c.*"]);
        assert!(own.cover(&pattern("a.b.x.*")) && own.cover(&pattern("a.b.c.*")));
        assert!(!own.cover(&pattern("a.b.*")) && !own.cover(&pattern("a.*")));
        let matching = |room| own.matching(&name(room)).map(RoomPattern::as_str);
        assert_eq!(matching("a.b.c.d.e"), Some("a.b.*"));
        assert_eq!(matching("a.bc.d"), Some("a.bc.*"));
        assert_eq!((matching("a.b"), matching("a.b."), matching("c.d")), (None, None, None));
    }

    #[test]
    fn prefixes_are_those_of_the_patterns_that_match() {
        for room in ["a", "a.", ".a", "a.b", "a..b", "a.b.", "..", "..a", "a.b.c.d", "ü.é.x"] {
            let room = name(room);
            for prefix in ["a.", "a..", "a.b.", "a.b.c.", "..", ".", "ü.", "ü.é."] {
                let Ok(pattern) = RoomPattern::new(&format!("{prefix}*")) else { continue };
                let is_listed = prefixes(room.as_str()).any(|listed| listed == prefix);
                assert_eq!(is_listed, pattern.matches(&room), "{pattern} {room}");
            }
        }
    }
}
