//! The rules for rooms in the file.

use toml::Value as Toml;

use super::{
    lines::Lines,
    values::{in_one_line, type_of},
};
use crate::config::{
    nearest::nearest,
    rooms::{NAME, SETTINGS, path_of, pattern_demand},
    source::{Source, told},
    tables::RoomRule,
};

/// Reads the rules in the value of `rooms` in the file `text`. Returns also what is wrong there.
pub(super) fn read(
    value: &Toml,
    text: &str,
    source: &Source,
    problems: &mut Vec<String>,
) -> Vec<RoomRule> {
    let lines = Lines::of(text);
    let mut rules = Vec::new();
    let is_no_table = |path: &str, value: &Toml, line: usize| {
        let found = type_of(value);
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
            if let Err(problem) = set(&mut rule, name, value, source, line) {
                problems.push(problem);
            }
        }
        rules.push(rule);
    }
    rules
}

/// Sets what a rule says of `name`.
fn set(
    rule: &mut RoomRule,
    name: &str,
    value: &Toml,
    source: &Source,
    line: usize,
) -> Result<(), String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
        let names = || SETTINGS.iter().map(|setting| setting.name.to_string());
        let advice = match nearest(name, names()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let table = path_of(&rule.pattern);
        return Err(format!("unknown key {name:?} of {table} in {source}, line {line}: {advice}"));
    };
    let (kind, written) = (setting.kind(), in_one_line(value));
    let told = format!("{}, line {line}", told(&rule.path(name), &written, Some(source)));
    let text = kind.text_of_toml(value).map_err(|wanted| {
        let found = type_of(value);
        format!("{told}: must be {wanted}, not {found}; allowed is {}", kind.range())
    })?;
    let parsed = kind.parse(&text).filter(|value| kind.allows(value));
    if !parsed.is_some_and(|value| (setting.write)(rule, value)) {
        return Err(format!("{told}: {}", kind.correction(&text)));
    }
    Ok(())
}
