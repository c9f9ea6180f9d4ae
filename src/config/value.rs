//! The values of keys: their kinds and ranges, and how they are read from and written as text.
//!
//! All sources have text in common, so each kind has one parser. For the file there is one check
//! before it: the value must have the TOML type of its kind.

use std::{fmt, path::PathBuf, time::Duration};

use super::{
    addresses::LimitedAddresses,
    nearest::nearest,
    secret::{self, Secret},
    texts::Rule,
    words::{
        Access, Compression, Dashboard, Engine, FirstPage, HookFail, IdentityMode, LogFormat,
        MetricsAccess, Overflow,
    },
};

/// The kind of values a key takes. Bounds are inclusive.
pub(super) enum Kind {
    /// A whole number of something.
    Count { unit: &'static str, min: u64, max: u64 },
    /// A number of bytes, which may have a suffix.
    Bytes { unit: &'static str, min: u64, max: u64 },
    /// A time in seconds, which may have decimals.
    Seconds { min: Duration, max: Duration },
    /// True or false.
    Switch,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A text that satisfies a rule.
    Text(Rule),
    /// Texts with commas between, each satisfying a rule.
    List(Rule),
    /// A TCP port, or empty for none.
    Port,
    /// A text that satisfies a rule and is not shown.
    Secret(Rule),
    /// An address that satisfies a rule and may have a password in it, without which it is shown.
    SecretUrl(Rule),
}

/// The value of a field, without its Rust type.
#[derive(PartialEq)]
pub(super) enum Value {
    Number(u64),
    Time(Duration),
    Switch(bool),
    Text(String),
    List(Vec<String>),
    Secret(Secret),
}

impl Kind {
    /// Returns the unit; empty if the value is not a quantity.
    pub(super) fn unit(&self) -> &'static str {
        match self {
            Kind::Count { unit, .. } | Kind::Bytes { unit, .. } => unit,
            Kind::Seconds { .. } => "seconds",
            Kind::Switch
            | Kind::Word(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Secret(_)
            | Kind::SecretUrl(_)
            | Kind::Port => "",
        }
    }

    /// Returns the allowed values in a few words.
    pub(super) fn range(&self) -> String {
        match self {
            Kind::Count { min, max, .. } => format!("{min} to {max}"),
            Kind::Bytes { min, max, .. } => format!("{} to {}", Size(*min), Size(*max)),
            Kind::Seconds { min, max } => {
                format!("{} to {}", min.as_secs_f64(), max.as_secs_f64())
            }
            Kind::Switch => "true or false".into(),
            Kind::Port => "0 to 65535, or empty".into(),
            Kind::Word(words) => words.join(" or "),
            Kind::Text(rule) | Kind::List(rule) | Kind::Secret(rule) | Kind::SecretUrl(rule) => {
                rule.range.into()
            }
        }
    }

    /// Returns what must be written, for the end of an error message.
    pub(super) fn demand(&self) -> String {
        let noun = match self {
            Kind::Count { .. } | Kind::Port => "a whole number, ",
            Kind::Bytes { .. } => "a size in bytes or with KiB, MiB or GiB, ",
            Kind::Seconds { .. } => "seconds, ",
            Kind::List(_) => "a comma-separated list, ",
            Kind::Switch | Kind::Word(_) | Kind::Text(_) | Kind::Secret(_) | Kind::SecretUrl(_) => {
                ""
            }
        };
        format!("must be {noun}{}", self.range())
    }

    /// Returns what must be written instead of `text`, for the end of an error message, with the
    /// most similar word that is allowed.
    pub(super) fn correction(&self, text: &str) -> String {
        let near = match self {
            Kind::Word(words) => nearest(text, words.iter().map(ToString::to_string)),
            _ => None,
        };
        match near {
            Some(near) => format!("{}; did you mean {near}?", self.demand()),
            None => self.demand(),
        }
    }

    /// Returns `value` as an operator would write it: `empty` for an empty text or list, and quotes
    /// around a text that a terminal would garble. A secret is only said to be set, or shown
    /// without its password.
    pub(super) fn show(&self, value: Value) -> String {
        let text = match (self, value) {
            (Kind::Bytes { .. }, Value::Number(number)) => Size(number).to_string(),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Time(time)) => time.as_secs_f64().to_string(),
            (_, Value::Switch(on)) => on.to_string(),
            (_, Value::Text(text)) => secret::shown_address(&text),
            (_, Value::List(texts)) => texts.join(","),
            (_, Value::Secret(secret)) if secret.is_empty() => String::new(),
            (Kind::SecretUrl(_), Value::Secret(url)) => secret::shown_links(url.reveal()),
            (_, Value::Secret(_)) => secret::SHOWN.into(),
        };
        if text.is_empty() {
            "empty".into()
        } else if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            format!("{text:?}")
        } else {
            text
        }
    }

    /// Parses `text`. The value may be out of range.
    pub(super) fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Kind::Count { .. } => whole(text).map(Value::Number),
            Kind::Bytes { .. } => size(text).map(Value::Number),
            Kind::Seconds { .. } => time(text).map(Value::Time),
            Kind::Switch => text.parse().ok().map(Value::Switch),
            Kind::Port if text.is_empty() => Some(Value::Text(String::new())),
            Kind::Port => whole(text).map(Value::Number),
            Kind::Word(_) | Kind::Text(_) => Some(Value::Text(text.into())),
            Kind::Secret(_) | Kind::SecretUrl(_) => Some(Value::Secret(Secret::new(text))),
            Kind::List(_) if text.trim().is_empty() => Some(Value::List(Vec::new())),
            Kind::List(_) => {
                Some(Value::List(text.split(',').map(|item| item.trim().into()).collect()))
            }
        }
    }

    /// Whether `value` is of this kind and in range.
    pub(super) fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Count { min, max, .. } | Kind::Bytes { min, max, .. }, Value::Number(n)) => {
                (min..=max).contains(&n)
            }
            (Kind::Seconds { min, max }, Value::Time(time)) => (min..=max).contains(&time),
            (Kind::Switch, Value::Switch(_)) => true,
            (Kind::Port, Value::Number(port)) => *port <= 65535,
            (Kind::Port, Value::Text(text)) => text.is_empty(),
            (Kind::Word(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Kind::Text(rule), Value::Text(text)) => (rule.legal)(text),
            (Kind::Secret(rule) | Kind::SecretUrl(rule), Value::Secret(secret)) => {
                (rule.legal)(secret.reveal())
            }
            (Kind::List(rule), Value::List(texts)) => texts.iter().all(|text| (rule.legal)(text)),
            // The row's kind does not fit its field; a test rules this out.
            _ => false,
        }
    }
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Parses digits alone: no sign, no point, no separators.
pub(super) fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Parses a number of bytes, or a whole number of a larger unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let units = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];
    let found = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = found.unwrap_or((text, 1));
    whole(number.trim_end())?.checked_mul(unit)
}

/// Parses digits and at most one point: `1e9`, `inf` and `-0` are numbers, but not times.
fn time(text: &str) -> Option<Duration> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = plain.then(|| text.parse().ok())??;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A number of bytes, shown in the largest unit that divides it, as [`size`] reads it.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % GIB == 0 => write!(f, "{}GiB", n / GIB),
            n if n % MIB == 0 => write!(f, "{}MiB", n / MIB),
            n if n % KIB == 0 => write!(f, "{}KiB", n / KIB),
            n => write!(f, "{n}"),
        }
    }
}

/// A type of a field of [`Config`](super::Config). `from_value` returns `None` for a value of
/// another kind or outside the range of the type.
pub(super) trait Field: Sized {
    fn to_value(&self) -> Value;
    fn from_value(value: Value) -> Option<Self>;
}

macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn to_value(&self) -> Value {
                // A number too large for 64 bits is out of every range.
                Value::Number(u64::try_from(*self).unwrap_or(u64::MAX))
            }
            fn from_value(value: Value) -> Option<$number> {
                match value {
                    Value::Number(number) => number.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}
number_field!(u16, u32, usize);

macro_rules! plain_field {
    ($($field:ty, $variant:ident;)*) => {$(
        impl Field for $field {
            fn to_value(&self) -> Value {
                Value::$variant(self.clone())
            }
            fn from_value(value: Value) -> Option<$field> {
                match value {
                    Value::$variant(field) => Some(field),
                    _ => None,
                }
            }
        }
    )*};
}
plain_field! {
    Duration, Time;
    bool, Switch;
    String, Text;
    Vec<String>, List;
    Secret, Secret;
}

impl Field for Option<u16> {
    fn to_value(&self) -> Value {
        self.map_or_else(|| Value::Text(String::new()), |port| Value::Number(port.into()))
    }

    fn from_value(value: Value) -> Option<Option<u16>> {
        match value {
            Value::Number(port) => port.try_into().ok().map(Some),
            Value::Text(text) => text.is_empty().then_some(None),
            _ => None,
        }
    }
}

impl Field for Option<PathBuf> {
    fn to_value(&self) -> Value {
        // A path that is no text is out of the range of every rule, as a control character is: a
        // message could not name the file, and a reload would look for another one.
        let text = |path: &PathBuf| path.to_str().unwrap_or("\0").to_owned();
        Value::Text(self.as_ref().map_or_else(String::new, text))
    }

    fn from_value(value: Value) -> Option<Option<PathBuf>> {
        match value {
            Value::Text(text) => Some((!text.is_empty()).then(|| text.into())),
            _ => None,
        }
    }
}

/// Implements [`Field`] for an enum that is written as one of a few words.
macro_rules! word_field {
    ($field:ident: $($variant:ident = $word:literal),*) => {
        impl Field for $field {
            fn to_value(&self) -> Value {
                let word = match self {
                    $($field::$variant => $word,)*
                };
                Value::Text(word.into())
            }

            fn from_value(value: Value) -> Option<$field> {
                match value {
                    $(Value::Text(word) if word == $word => Some($field::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
word_field!(Dashboard: On = "on", Off = "off");
word_field!(Engine: Memory = "memory", Redis = "redis");
word_field!(FirstPage: On = "on", Off = "off");
word_field!(HookFail: Closed = "closed", Open = "open");
word_field!(LogFormat: Text = "text", Json = "json");
word_field!(MetricsAccess: Admin = "admin", Public = "public");
word_field!(Overflow: Close = "close", Gap = "gap", Latest = "latest");
word_field!(IdentityMode: Off = "off", Optional = "optional", Required = "required");
word_field!(Access: Everyone = "everyone", Users = "users", Token = "token");
word_field!(LimitedAddresses: Public = "public", All = "all", None = "none");
word_field!(Compression: Off = "off", Shared = "shared", Dedicated = "dedicated");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_binary_suffix() {
        for (text, bytes) in [("0", 0), ("65536", 65536), ("64KiB", 65536), ("1 MiB", MIB)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in
            ["", "KiB", "1kb", "1K", "1.5MiB", "-1KiB", "0x10", "1KiBKiB", "99999999999999999999"]
        {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size("18446744073709551615GiB"), None);
    }

    #[test]
    fn times_are_seconds_with_decimals() {
        for (text, ms) in [("0", 0), ("5", 5000), ("0.5", 500), (".25", 250), ("1.", 1000)] {
            assert_eq!(time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", ".", "1.2.3", "1e3", "inf", "NaN", "-1", "+1", "5s", " 5", &"9".repeat(400)]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
