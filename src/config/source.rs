//! The source of a value, and how a message names it.

use std::{fmt, path::PathBuf};

/// The prefix of every variable's name.
pub(super) const PREFIX: &str = "RUSTY_SOCKS_";

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The default.
    Default,
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Variable(String),
    /// The flag, with its dashes.
    Flag(String),
    /// The file at this path, for a secret; `by` says who named it.
    SecretFile {
        /// The file that holds the secret.
        path: PathBuf,
        /// What named the file.
        by: Box<Source>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Variable(name) => f.write_str(name),
            Source::Flag(flag) => f.write_str(flag),
            Source::SecretFile { path, by } => write!(f, "{}, named by {by}", path.display()),
        }
    }
}

impl Source {
    /// Whether both are the file, both variables or both flags, so that neither comes before the
    /// other.
    pub(super) fn ranks_with(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::SecretFile { by, .. }, other) | (other, Source::SecretFile { by, .. }) => {
                by.ranks_with(other)
            }
            (Source::File(_), Source::File(_))
            | (Source::Variable(_), Source::Variable(_))
            | (Source::Flag(_), Source::Flag(_)) => true,
            _ => false,
        }
    }
}

/// Returns the beginning of an error message, such as `max_conn = 0 from --max-conn`.
///
/// A long value is cut, so that a file pasted into a variable does not fill the screen.
pub(super) fn told(name: &str, value: &str, source: Option<&Source>) -> String {
    const SHOWN_CHARS: usize = 80;
    let mut shown: String = value.chars().take(SHOWN_CHARS).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    match source {
        None => format!("{name} = {shown}"),
        Some(Source::Default) => format!("{name} = {shown} by default"),
        Some(source) => format!("{name} = {shown} from {source}"),
    }
}
