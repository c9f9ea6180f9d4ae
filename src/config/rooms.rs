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
//! Each setting of a rule is read, shown and checked as the key of the same name.

use super::{
    keys::Key,
    nearest::nearest,
    room_rule::RoomRule,
    settings::Config,
    source::{Source, told},
    toml_text::{line_at, with_article},
    value::ROOM,
    words::Overflow,
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

impl RoomRule {
    /// Makes a rule for the rooms of `pattern` that sets nothing yet.
    pub fn new(pattern: impl Into<String>) -> RoomRule {
        RoomRule { pattern: pattern.into(), overflow: None, history: None }
    }

    /// Whether the rule's pattern is or matches `room`.
    pub(super) fn matches(&self, room: &str) -> bool {
        match self.prefix() {
            Some(prefix) => room.len() > prefix.len() && room.starts_with(prefix),
            None => room == self.pattern,
        }
    }

    /// Returns the prefix of matching names, dot included, or `None` if `pattern` is the name of
    /// one room.
    fn prefix(&self) -> Option<&str> {
        self.pattern.ends_with(".*").then(|| &self.pattern[..self.pattern.len() - 1])
    }

    pub(super) fn is_legal(&self) -> bool {
        let stem = self.pattern.strip_suffix(".*").unwrap_or(&self.pattern);
        self.pattern.len() <= PATTERN_BYTES_MAX && !stem.is_empty() && ROOM.allows(stem)
    }

    /// Returns every setting of this rule with its value and unit, as an operator would write them.
    pub fn entries(&self) -> Vec<[String; 3]> {
        let is_set = |setting: &&Setting| (setting.lend)(self, &mut Config::default());
        let entry = |setting: &Setting| {
            let (key, shown) = self.shown(setting);
            [self.path(setting.name), shown, key.unit().into()]
        };
        SETTINGS.iter().filter(is_set).map(entry).collect()
    }

    /// Returns the path of a setting as in the file, such as `rooms."prices.*".history`.
    fn path(&self, setting: &str) -> String {
        format!("{}.{setting}", path_of(&self.pattern))
    }

    fn shown(&self, setting: &Setting) -> (&'static Key, String) {
        let mut config = Config::default();
        (setting.lend)(self, &mut config);
        let key = setting.key();
        (key, key.show(&config))
    }

    /// Returns the beginning of an error message about a setting, such as `rooms."prices.*".history
    /// = 3`.
    pub(super) fn told(&self, name: &str) -> String {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => told(&self.path(name), &self.shown(setting).1, None),
            None => self.path(name),
        }
    }
}

/// A setting of a rule: the name of a key, and how to copy between the rule and the key's field.
struct Setting {
    name: &'static str,
    /// Copies the rule's value into the key's field. Returns `false` if the rule has none.
    lend: fn(&RoomRule, &mut Config) -> bool,
    /// Copies the value of the key's field into the rule.
    take: fn(&mut RoomRule, &Config),
}

macro_rules! setting {
    ($field:ident) => {
        Setting {
            name: stringify!($field),
            lend: |rule, config| rule.$field.map(|value| config.$field = value).is_some(),
            take: |rule, config| rule.$field = Some(config.$field),
        }
    };
}

static SETTINGS: [Setting; 2] = [setting!(overflow), setting!(history)];

impl Setting {
    fn key(&self) -> &'static Key {
        let found = Config::keys().iter().find(|key| key.name() == self.name);
        found.expect("a field that rules may set has its row in the table of keys")
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
            let mut config = Config::default();
            (setting.lend)(rule, &mut config);
            if setting.key().problem(&config, None).is_some() {
                problems.push(format!("{}: {}", rule.told(setting.name), setting.key().demand()));
            }
        }
    }
    problems
}

/// Returns the path of a rule as in the file, such as `rooms."prices.*"`. A pattern that is too
/// long to be legal is cut.
fn path_of(pattern: &str) -> String {
    let shown: String = pattern.chars().take(PATTERN_BYTES_MAX + 1).collect();
    format!("{NAME}.{shown:?}")
}

fn pattern_demand() -> String {
    format!(
        "must be a room name, or the beginning of one and .*, such as \"prices.*\": \
         at most {PATTERN_BYTES_MAX} bytes without control characters or another *"
    )
}

/// Reads the rules in the value of `rooms` in the file `text`. Returns also what is wrong there.
pub(super) fn read(
    value: &toml::Value,
    text: &str,
    source: &Source,
    problems: &mut Vec<String>,
) -> Vec<RoomRule> {
    let lines = Lines::of(text);
    let mut rules = Vec::new();
    let is_no_table = |path: &str, value: &toml::Value, line: usize| {
        let found = with_article(value.type_str());
        format!("{path} in {source}, line {line}: must be a table, not {found}")
    };
    let Some(table) = value.as_table() else {
        problems.push(is_no_table(NAME, value, lines.of_path(&[NAME])));
        return rules;
    };
    for (pattern, value) in table {
        let mut rule = RoomRule::new(pattern.as_str());
        let path = path_of(pattern);
        let line = lines.of_path(&[NAME, pattern]);
        if !rule.is_legal() {
            problems.push(format!("{path} in {source}, line {line}: {}", pattern_demand()));
            continue;
        }
        let Some(settings) = value.as_table() else {
            problems.push(is_no_table(&path, value, line));
            continue;
        };
        for (name, value) in settings {
            let line = lines.of_path(&[NAME, pattern, name]);
            if let Err(problem) = rule.read(name, value, source, line) {
                problems.push(problem);
            }
        }
        rules.push(rule);
    }
    rules
}

impl RoomRule {
    fn read(
        &mut self,
        name: &str,
        value: &toml::Value,
        source: &Source,
        line: usize,
    ) -> Result<(), String> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            let names = || SETTINGS.iter().map(|setting| setting.name.to_string());
            let advice = match nearest(name, names()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(" and ")),
            };
            let table = path_of(&self.pattern);
            return Err(format!(
                "unknown key {name:?} of {table} in {source}, line {line}: {advice}"
            ));
        };
        let (key, written) = (setting.key(), value.to_string().replace('\n', " "));
        let told = format!("{}, line {line}", told(&self.path(name), &written, Some(source)));
        let text = key.text_of_toml(value).map_err(|wanted| {
            let found = with_article(value.type_str());
            format!("{told}: must be {wanted}, not {found}; allowed is {}", key.range())
        })?;
        let mut config = Config::default();
        if !key.set(&mut config, &text) {
            return Err(format!("{told}: {}", key.correction(&text)));
        }
        (setting.take)(self, &config);
        Ok(())
    }
}

/// The lines of the keys in a file, which parsed values no longer know.
struct Lines<'t> {
    text: &'t str,
    root: Option<toml::Spanned<toml::de::DeTable<'t>>>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Lines<'t> {
        Lines { text, root: toml::de::DeTable::parse(text).ok() }
    }

    /// Returns the line, from 1, of the last key of `path`.
    fn of_path(&self, path: &[&str]) -> usize {
        let mut table = self.root.as_ref().map(toml::Spanned::get_ref);
        let mut at = 0;
        for part in path {
            let Some((key, value)) = table.and_then(|table| table.get_key_value(*part)) else {
                break;
            };
            at = key.span().start;
            table = value.get_ref().as_table();
        }
        line_at(self.text, at)
    }
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
        let RoomRule { pattern, overflow, history } = &config.rooms[1];
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
                "unknown key \"zzz\" of rooms.\"lobby\" in FILE, line 2: there are overflow and history",
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
        for illegal in ["", "*", ".*", "a*", "a*.b", "a.*.*", "a\\n", "a\\n.*", &"x".repeat(129)] {
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
