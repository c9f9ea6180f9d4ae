//! Positions in the file.

/// The lines of the keys in a file, which parsed values no longer know.
pub(super) struct Lines<'t> {
    text: &'t str,
    root: Option<toml::Spanned<toml::de::DeTable<'t>>>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Lines<'t> {
        Lines { text, root: toml::de::DeTable::parse(text).ok() }
    }

    /// Returns the line, from 1, of the last key of `path`.
    pub(super) fn of_path(&self, path: &[&str]) -> usize {
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

/// Returns the line, from 1, of the byte at `at`.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
