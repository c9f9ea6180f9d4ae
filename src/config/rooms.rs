//! Rules for rooms: settings for the rooms of one name or pattern, instead of the server's.
//!
//! Rules can only be set in the file, one table a rule:
//!
//! ```toml
//! [rooms."prices.*"]
//! overflow = "latest"
//! history = 1
//! ```
//!
//! A setting that is also a key is read, shown and checked as that key.

use super::{
    keys::Key,
    settings::Config,
    source::told,
    tables::RoomRule,
    texts::ROOM,
    value::{Field, Kind, Value},
    words::{Access, IdentityMode, Overflow},
};

/// The name of the table of rules in the file, and of the field in [`Config`].
pub(super) const NAME: &str = "rooms";

/// The most rules. Making a room looks at each of them.
const RULES_MAX: usize = 1000;

/// The longest room name or pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 128;

/// The settings of one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomSettings {
    pub(crate) overflow: Overflow,
    pub(crate) history: usize,
}

/// Who may do what in one room, and the pattern of the rule that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomAccess<'c> {
    /// The pattern of the rule that holds in the room, if there is one.
    pub pattern: Option<&'c str>,
    /// Who may join.
    pub join: Access,
    /// Who may publish.
    pub publish: Access,
    /// Who may read earlier messages.
    pub read_history: Access,
    /// Who may see who is there.
    pub presence: Access,
}

/// The settings of every possible room.
#[derive(Debug, Clone)]
pub(crate) struct RoomRules {
    rules: Box<[RoomRule]>,
    otherwise: RoomSettings,
}

impl Config {
    /// Returns the settings of every possible room.
    pub(crate) fn room_rules(&self) -> RoomRules {
        let otherwise = RoomSettings { overflow: self.overflow, history: self.history };
        RoomRules { rules: self.rooms.clone().into(), otherwise }
    }
}

impl Config {
    /// Returns who may do what in the room `room`: what the one rule that holds there says, and
    /// else `token` where identity is required, `everyone` elsewhere.
    pub fn room_access(&self, room: &str) -> RoomAccess<'_> {
        let rule = find(&self.rooms, room);
        let otherwise = match self.identity {
            IdentityMode::Required => Access::Token,
            IdentityMode::Off | IdentityMode::Optional => Access::Everyone,
        };
        let of =
            |access: fn(&RoomRule) -> Option<Access>| rule.and_then(access).unwrap_or(otherwise);
        RoomAccess {
            pattern: rule.map(|rule| rule.pattern.as_str()),
            join: of(|rule| rule.join),
            publish: of(|rule| rule.publish),
            read_history: of(|rule| rule.read_history),
            presence: of(|rule| rule.presence),
        }
    }
}

impl RoomRules {
    /// Returns the settings of the room `room`.
    pub(crate) fn of(&self, room: &str) -> RoomSettings {
        let RoomSettings { overflow, history } = self.otherwise;
        match find(&self.rules, room) {
            None => self.otherwise,
            Some(rule) => RoomSettings {
                overflow: rule.overflow.unwrap_or(overflow),
                history: rule.history.unwrap_or(history),
            },
        }
    }
}

/// Finds the one rule that holds in a room: the rule of its name, or else of the longest matching
/// pattern.
pub(super) fn find<'r>(rules: &'r [RoomRule], room: &str) -> Option<&'r RoomRule> {
    let matching = rules.iter().filter(|rule| rule.matches(room));
    matching.max_by_key(|rule| (rule.pattern == room, rule.pattern.len()))
}

/// Whether `pattern` is or matches `room`.
pub(super) fn matches(pattern: &str, room: &str) -> bool {
    match prefix(pattern) {
        Some(prefix) => room.len() > prefix.len() && room.starts_with(prefix),
        None => room == pattern,
    }
}

/// Returns the prefix of matching names, dot included, or `None` if `pattern` is the name of one
/// room.
pub(super) fn prefix(pattern: &str) -> Option<&str> {
    let is_pattern = pattern.ends_with(".*") || pattern == "*";
    is_pattern.then(|| &pattern[..pattern.len() - 1])
}

/// Whether `pattern` is `*`, or the name or a pattern of rooms that may be there.
pub(super) fn is_legal(pattern: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let stem = pattern.strip_suffix(".*").unwrap_or(pattern);
    pattern.len() <= PATTERN_BYTES_MAX && !stem.is_empty() && ROOM.allows(stem)
}

impl RoomRule {
    /// Makes a rule for the rooms of `pattern` that sets nothing yet.
    pub fn new(pattern: impl Into<String>) -> RoomRule {
        RoomRule {
            pattern: pattern.into(),
            overflow: None,
            history: None,
            join: None,
            publish: None,
            read_history: None,
            presence: None,
        }
    }

    /// Whether the rule says of any permission that not everyone has it.
    pub fn limits_access(&self) -> bool {
        let access = [self.join, self.publish, self.read_history, self.presence];
        access.into_iter().flatten().any(|access| access != Access::Everyone)
    }

    /// Whether the rule's pattern is or matches `room`.
    pub(super) fn matches(&self, room: &str) -> bool {
        matches(&self.pattern, room)
    }

    pub(super) fn is_legal(&self) -> bool {
        is_legal(&self.pattern)
    }

    /// Returns every setting of this rule with its value and unit, as an operator would write them.
    pub fn entries(&self) -> Vec<[String; 3]> {
        let entry = |setting: &Setting| {
            let shown = setting.kind().show((setting.read)(self)?);
            Some([self.path(setting.name), shown, setting.kind().unit().into()])
        };
        SETTINGS.iter().filter_map(entry).collect()
    }

    /// Returns the path of the rule as in the file, such as `rooms."prices.*"`.
    pub(super) fn shown(&self) -> String {
        path_of(&self.pattern)
    }

    /// Returns the path of a setting as in the file, such as `rooms."prices.*".history`.
    pub(super) fn path(&self, setting: &str) -> String {
        format!("{}.{setting}", path_of(&self.pattern))
    }

    /// Returns the beginning of an error message about a setting, such as `rooms."prices.*".history
    /// = 3`.
    pub(super) fn told(&self, name: &str) -> String {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let shown = setting.and_then(|of| Some(of.kind().show((of.read)(self)?)));
        shown.map_or_else(|| self.path(name), |shown| told(&self.path(name), &shown, None))
    }
}

/// A setting of a rule.
pub(super) struct Setting {
    pub(super) name: &'static str,
    /// The kind of its values; `None` for that of the key of the same name.
    kind: Option<Kind>,
    /// Returns the value, if the rule has one.
    read: fn(&RoomRule) -> Option<Value>,
    /// Sets the value. Returns `false` if it is not of the field's type.
    #[cfg_attr(not(feature = "config-file"), expect(dead_code, reason = "the file alone sets it"))]
    pub(super) write: fn(&mut RoomRule, Value) -> bool,
}

macro_rules! setting {
    ($field:ident, $kind:expr) => {
        Setting {
            name: stringify!($field),
            kind: $kind,
            read: |rule| rule.$field.as_ref().map(Field::to_value),
            write: |rule, value| {
                rule.$field = Field::from_value(value);
                rule.$field.is_some()
            },
        }
    };
}

const ACCESS: Kind = Kind::Word(&["everyone", "users", "token"]);

pub(super) static SETTINGS: [Setting; 6] = [
    setting!(overflow, None),
    setting!(history, None),
    setting!(join, Some(ACCESS)),
    setting!(publish, Some(ACCESS)),
    setting!(read_history, Some(ACCESS)),
    setting!(presence, Some(ACCESS)),
];

impl Setting {
    pub(super) fn kind(&self) -> &Kind {
        let of_key = || Config::keys().iter().find(|key| key.name() == self.name);
        let kind = self.kind.as_ref().or_else(|| of_key().map(Key::kind));
        kind.expect("a setting has a kind, or a row in the table of keys")
    }
}

/// Returns what is wrong with the rules, from whatever source.
pub(super) fn problems(rules: &[RoomRule]) -> Vec<String> {
    let mut problems = Vec::new();
    if rules.len() > RULES_MAX {
        problems.push(format!("{NAME}: must be at most {RULES_MAX} rules, not {}", rules.len()));
        return problems;
    }
    for (index, rule) in rules.iter().enumerate() {
        let table = path_of(&rule.pattern);
        if !rule.is_legal() {
            problems.push(format!("{table}: {}", pattern_demand()));
        }
        if rules[..index].iter().any(|other| other.pattern == rule.pattern) {
            problems.push(format!("{table}: must be there only once"));
        }
        for setting in &SETTINGS {
            let value = (setting.read)(rule);
            if value.is_some_and(|value| !setting.kind().allows(&value)) {
                problems.push(format!("{}: {}", rule.told(setting.name), setting.kind().demand()));
            }
        }
    }
    problems
}

/// Returns the path of a rule as in the file, such as `rooms."prices.*"`. A pattern that is too
/// long to be legal is cut.
pub(super) fn path_of(pattern: &str) -> String {
    let shown: String = pattern.chars().take(PATTERN_BYTES_MAX + 1).collect();
    format!("{NAME}.{shown:?}")
}

pub(super) fn pattern_demand() -> String {
    format!(
        "must be a room name, or the beginning of one and .*, such as \"prices.*\": \
         at most {PATTERN_BYTES_MAX} bytes without control characters or another *; or * alone"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let nothing: [(&str, &str); 0] = [];
        let loaded = Config::load_from(Some(file.path()), nothing, nothing);
        let path = file.path().display().to_string();
        loaded.map(|loaded| loaded.config).map_err(|error| error.to_string().replace(&path, "FILE"))
    }

    fn rule(pattern: &str, overflow: Overflow) -> RoomRule {
        RoomRule { overflow: Some(overflow), ..RoomRule::new(pattern) }
    }

    #[test]
    fn rules_are_read_from_the_file() {
        let config = load(
            "overflow = 'gap'\n[rooms.'prices.*']\noverflow = 'latest'\nhistory = 1\n\
             [rooms.lobby]\noverflow = 'close'\nhistory = 20\n",
        );
        let config = config.unwrap();
        let RoomRule { pattern, overflow, history, .. } = &config.rooms[1];
        assert_eq!(
            (pattern.as_str(), *overflow, *history),
            ("prices.*", Some(Overflow::Latest), Some(1))
        );
        assert_eq!(config.rooms.len(), 2);
        let entries = config.rooms[1].entries();
        assert_eq!(entries[0], ["rooms.\"prices.*\".overflow", "latest", ""]);
        assert_eq!(entries[1], ["rooms.\"prices.*\".history", "1", "messages"]);
        let rules = config.room_rules();
        let holds = |room: &str| (rules.of(room).overflow, rules.of(room).history);
        assert_eq!(holds("prices.eur"), (Overflow::Latest, 1));
        assert_eq!(holds("lobby"), (Overflow::Close, 20));
        assert_eq!(holds("prices"), (Overflow::Gap, 100));
        assert_eq!(load("[rooms]\n").unwrap().rooms, []);
    }

    #[test]
    fn a_name_wins_over_patterns_and_a_longer_pattern_over_a_shorter_one() {
        let history =
            |pattern: &str, kept| RoomRule { history: Some(kept), ..RoomRule::new(pattern) };
        let rooms = vec![
            rule("a.*", Overflow::Latest),
            history("a.b.*", 7),
            // As long as the pattern that matches it.
            rule("a.b", Overflow::Gap),
        ];
        let rules = Config { rooms, ..Config::default() }.room_rules();
        let holds = |room: &str| (rules.of(room).overflow, rules.of(room).history);
        assert_eq!(holds("a.b"), (Overflow::Gap, 100));
        assert_eq!(holds("a.c"), (Overflow::Latest, 100));
        // Only one rule holds, and what it does not set is as for all rooms.
        assert_eq!(holds("a.b.c"), (Overflow::Close, 7));
        assert_eq!(holds("a."), (Overflow::Close, 100));
        assert_eq!(holds("b"), (Overflow::Close, 100));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_nearest_word() {
        for (text, told) in [
            (
                "port = 1\n\n[rooms.'prices.*']\n# so\noverflow = 'latst'\n",
                "rooms.\"prices.*\".overflow = \"latst\" from FILE, line 5: \
                 must be close or gap or latest; did you mean latest?",
            ),
            (
                "[rooms.'prices.*']\noverflw = 'latest'",
                "unknown key \"overflw\" of rooms.\"prices.*\" in FILE, line 2: did you mean overflow?",
            ),
            (
                "[rooms.lobby]\nzzz = 1",
                "unknown key \"zzz\" of rooms.\"lobby\" in FILE, line 2: \
                 there are overflow, history, join, publish, read_history, presence",
            ),
            (
                "[rooms.lobby]\nhistory = 1000001",
                "rooms.\"lobby\".history = 1000001 from FILE, line 2: must be a whole number, 0 to 1000000",
            ),
            (
                "[rooms]\nlobby = { history = '5' }",
                "rooms.\"lobby\".history = \"5\" from FILE, line 2: \
                 must be an integer, not a string; allowed is 0 to 1000000",
            ),
            ("rooms = 5", "rooms in FILE, line 1: must be a table, not an integer"),
            (
                "[rooms]\nlobby = 5",
                "rooms.\"lobby\" in FILE, line 2: must be a table, not an integer",
            ),
            ("[room.lobby]\nhistory = 1", "unknown key \"room\" in FILE: did you mean rooms?"),
            (
                "[rooms.lobby]\nhistory = 3",
                "rooms.\"lobby\".history = 3: must be at least replay = 10 by default, \
                 because the rule holds in the default room",
            ),
        ] {
            assert_eq!(load(text).unwrap_err(), told);
        }
        for illegal in ["", ".*", "a*", "a*.b", "a.*.*", "a\\n", "a\\n.*", &"x".repeat(129)] {
            let told = load(&format!("\n[rooms.\"{illegal}\"]\nhistory = 3")).unwrap_err();
            assert!(told.contains(" in FILE, line 2: must be a room name"), "{told}");
            assert!(told.lines().count() == 1 && told.len() < 400, "{told}");
        }
    }

    #[test]
    fn embedders_are_told_as_well() {
        let told = |rooms: Vec<RoomRule>| {
            Config { rooms, ..Config::default() }.validate().unwrap_err().to_string()
        };
        assert!(told(vec![RoomRule::new("a*")]).starts_with("rooms.\"a*\": must be a room name"));
        let much = RoomRule { history: Some(1_000_001), ..RoomRule::new("a.*") };
        assert_eq!(
            told(vec![much]),
            "rooms.\"a.*\".history = 1000001: must be a whole number, 0 to 1000000"
        );
        let twice = vec![rule("a", Overflow::Gap), rule("a", Overflow::Close)];
        assert_eq!(told(twice), "rooms.\"a\": must be there only once");
        let many = (0..=RULES_MAX).map(|n| RoomRule::new(n.to_string())).collect();
        assert_eq!(told(many), "rooms: must be at most 1000 rules, not 1001");
    }
}
