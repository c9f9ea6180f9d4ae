//! The values of keys as TOML has them.

use toml::Value as Toml;

use crate::config::value::Kind;

impl Kind {
    /// Returns the text to parse for a value from the file, or as an error the TOML type that it
    /// must have.
    pub(in crate::config) fn text_of_toml(&self, value: &Toml) -> Result<String, &'static str> {
        match (self, value) {
            (Kind::Count { .. } | Kind::Bytes { .. } | Kind::Seconds { .. }, Toml::Integer(n)) => {
                Ok(n.to_string())
            }
            (Kind::Port, Toml::Integer(n)) => Ok(n.to_string()),
            (Kind::Port, Toml::String(text)) if text.is_empty() => Ok(String::new()),
            (Kind::Count { .. } | Kind::Port, _) => Err("an integer"),
            (Kind::Bytes { .. }, Toml::String(text)) => Ok(text.clone()),
            (Kind::Bytes { .. }, _) => Err("an integer or a string"),
            (Kind::Seconds { .. }, Toml::Float(x)) => Ok(x.to_string()),
            (Kind::Seconds { .. }, _) => Err("an integer or a float"),
            (Kind::Switch, Toml::Boolean(on)) => Ok(on.to_string()),
            (Kind::Switch, _) => Err("a boolean"),
            (
                Kind::Word(_)
                | Kind::Text(_)
                | Kind::List(_)
                | Kind::Secret(_)
                | Kind::SecretUrl(_),
                Toml::String(text),
            ) => Ok(text.clone()),
            (Kind::Word(_) | Kind::Text(_) | Kind::Secret(_) | Kind::SecretUrl(_), _) => {
                Err("a string")
            }
            (Kind::List(_), Toml::Array(items)) => {
                let texts: Option<Vec<&str>> = items.iter().map(Toml::as_str).collect();
                Ok(texts.ok_or("an array of strings")?.join(","))
            }
            (Kind::List(_), _) => Err("an array of strings or a string"),
        }
    }
}

/// Returns a value as TOML, in one line that a terminal can show: an array or a table spans lines,
/// and text has characters that TOML does not escape, such as U+0087.
pub(super) fn in_one_line(value: &Toml) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        match c {
            '\n' => line.push(' '),
            c if c.is_control() => line.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}

/// Returns what a value is, for an error message: `an integer`.
pub(super) fn type_of(value: &Toml) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}
