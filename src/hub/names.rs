//! Room names and room patterns, checked once and legal from then on.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::error::{Error, ErrorKind};

/// A legal room name.
///
/// 1 to 128 bytes of UTF-8, without control characters and without `*`, which is reserved for
/// patterns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: `name` is not legal. The message says what is allowed.
    pub fn new(name: &str) -> Result<RoomName, Error> {
        if is_legal(name) {
            return Ok(RoomName(name.into()));
        }
        let message = format!(
            "a room name has 1 to {} bytes, no control characters and no '*'",
            RoomName::BYTES_MAX
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_legal(name: &str) -> bool {
    (1..=RoomName::BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c == '*')
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// A pattern for the rooms below a name: `prices.*` matches `prices.eur` and `prices.eur.spot`, but
/// not `prices`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomPattern(Arc<str>);

impl RoomPattern {
    /// Checks `pattern`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: `pattern` is not legal. The message says what is allowed.
    pub fn new(pattern: &str) -> Result<RoomPattern, Error> {
        match pattern.strip_suffix(".*") {
            Some(stem) if is_legal(stem) && pattern.len() <= RoomName::BYTES_MAX => {
                Ok(RoomPattern(pattern.into()))
            }
            _ => {
                let message = format!(
                    "a room pattern is the beginning of a room name and '.*', {} bytes at most",
                    RoomName::BYTES_MAX
                );
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the prefix of every matching name.
    pub(crate) fn prefix(&self) -> &str {
        // `new` has checked that the pattern ends in a star.
        &self.0[..self.0.len() - 1]
    }

    /// Whether the pattern matches `name`.
    pub fn matches(&self, name: &RoomName) -> bool {
        name.as_str().len() > self.prefix().len() && name.as_str().starts_with(self.prefix())
    }
}

impl fmt::Debug for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overflow, RoomRule};

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
    }

    #[test]
    fn names_are_checked() {
        assert!(RoomName::new("prices.EUR/USD ü").is_ok());
        assert!(RoomName::new(&"x".repeat(128)).is_ok());
        for illegal in ["", "a\nb", "a*", "\u{7f}", &"x".repeat(129)] {
            assert!(RoomName::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn patterns_match_what_is_below_them() {
        let pattern = RoomPattern::new("prices.*").expect("a legal pattern");
        assert!(pattern.matches(&name("prices.eur")) && pattern.matches(&name("prices.eur.spot")));
        assert!(!pattern.matches(&name("prices")) && !pattern.matches(&name("pricesx.a")));
        assert!(!pattern.matches(&name("prices.")));
        for illegal in
            ["", "*", ".*", "a*", "a.b", "a.*.*", "a\n.*", &format!("{}.*", "x".repeat(127))]
        {
            assert!(RoomPattern::new(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn rules_take_the_names_and_patterns_that_there_are() {
        let long = |suffix: &str, bytes: usize| format!("{}{suffix}", "x".repeat(bytes));
        let mut texts: Vec<String> = [
            "", "*", ".*", "a", "a*", "a.*", "a.b.*", "a.*.*", "*.a", "a\n", "a\n.*", "ü.*", "..*",
        ]
        .map(String::from)
        .into();
        texts.extend([long("", 128), long("", 129), long(".*", 126), long(".*", 127)]);
        for text in &texts {
            let rule = RoomRule { overflow: Some(Overflow::Gap), ..RoomRule::new(text.as_str()) };
            let config = Config { rooms: vec![rule], ..Config::default() };
            let (as_name, as_pattern) = (RoomName::new(text), RoomPattern::new(text));
            // The rule for all rooms has no pattern that a client could join.
            let is_every = text == "*";
            let is_legal = as_name.is_ok() || as_pattern.is_ok() || is_every;
            assert_eq!(config.validate().is_ok(), is_legal, "{text:?}");
            let rules = config.room_rules();
            for room in ["a", "a.", "a.b", "a.b.", "a.b.c", "b", "ab", "ü.ü", "..a"].map(name) {
                let is_of_pattern = as_pattern.as_ref().is_ok_and(|pattern| pattern.matches(&room));
                let is_it =
                    as_name.as_ref().is_ok_and(|name| *name == room) || is_of_pattern || is_every;
                let holds = rules.of(room.as_str()).overflow == Overflow::Gap;
                assert_eq!(is_legal && holds, is_it, "{text:?} {room}");
            }
        }
    }
}
