//! The ceiling of memory, as an operator writes it.

use super::value::{Field, GIB, MIB, Rule, Size, Value, size, whole};

/// A ceiling of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    /// No ceiling.
    Off,
    /// Bytes.
    Bytes(usize),
    /// Percent of the memory of the process's cgroup, or of the machine if it has less.
    Share(u8),
}

impl Field for MemoryMax {
    fn to_value(&self) -> Value {
        Value::Text(match self {
            MemoryMax::Off => OFF.into(),
            MemoryMax::Bytes(bytes) => Size(*bytes as u64).to_string(),
            MemoryMax::Share(percent) => format!("{percent}%"),
        })
    }

    fn from_value(value: Value) -> Option<MemoryMax> {
        match value {
            Value::Text(text) => memory_max(&text),
            _ => None,
        }
    }
}

/// No ceiling of memory.
const OFF: &str = "off";

fn memory_max(text: &str) -> Option<MemoryMax> {
    if text == OFF {
        return Some(MemoryMax::Off);
    }
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = whole(percent.trim_end())?.try_into().ok()?;
            (1..=100).contains(&percent).then_some(MemoryMax::Share(percent))
        }
        None => {
            let bytes = size(text).filter(|bytes| (16 * MIB..=1024 * GIB).contains(bytes))?;
            Some(MemoryMax::Bytes(bytes.try_into().ok()?))
        }
    }
}

pub(super) const MEMORY: Rule = Rule {
    range: "16MiB to 1024GiB, or 1% to 100% of what there is, or off",
    legal: |text| memory_max(text).is_some(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_size_or_a_share() {
        for (text, is) in [
            ("off", MemoryMax::Off),
            ("80%", MemoryMax::Share(80)),
            ("1 %", MemoryMax::Share(1)),
            ("512MiB", MemoryMax::Bytes(512 << 20)),
            ("16777216", MemoryMax::Bytes(16 << 20)),
        ] {
            assert_eq!(memory_max(text), Some(is), "{text}");
        }
        for text in ["", "0", "0%", "101%", "1.5%", "%", "15MiB", "1025GiB", "auto", "-1", "OFF"] {
            assert_eq!(memory_max(text), None, "{text}");
        }
    }
}
