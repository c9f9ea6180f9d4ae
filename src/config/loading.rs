//! A configuration while its values are loaded, and what is wrong with them.

use std::{ffi::OsStr, path::Path};

use super::{
    keys::Key,
    nearest::nearest,
    open::Open,
    secret::{self, Secret},
    settings::Config,
    source::{Source, told},
};

/// The variable that names the file. Not a key, because a file cannot name itself.
pub(super) const FILE_VARIABLE: &str = "RUSTY_SOCKS_CONFIG";

/// A configuration that is being loaded.
///
/// A wrong value is never skipped or replaced by a default. It is an error even where a later
/// source overrides it, because it would take effect once that source is gone.
pub(super) struct Loading {
    pub(super) open: Open,
    pub(super) config: Config,
    pub(super) sources: Vec<Source>,
    pub(super) rooms_source: Source,
    pub(super) tls_source: Source,
    pub(super) service_links: Vec<String>,
    pub(super) problems: Vec<String>,
}

impl Loading {
    pub(super) fn new(open: Open, service_links: Vec<String>) -> Loading {
        let sources = vec![Source::Default; Config::keys().len()];
        Loading {
            open,
            config: Config::default(),
            sources,
            rooms_source: Source::Default,
            tls_source: Source::Default,
            service_links,
            problems: Vec::new(),
        }
    }

    pub(super) fn variable(&mut self, name: &str, value: &OsStr) {
        match Config::keys().iter().position(|key| key.variable() == name) {
            Some(row) => self.set_os(row, value, Source::Variable(name.into())),
            None => {
                if let Some(row) =
                    Config::keys().iter().position(|key| is(key.file_variable(), name))
                {
                    let source = Source::Variable(name.into());
                    return self.set_from_file(row, Path::new(value), source);
                }
                let names = Config::keys().iter().map(Key::variable);
                let names = names.chain(Config::keys().iter().filter_map(Key::file_variable));
                let names = names.chain([FILE_VARIABLE.to_string()]);
                self.unknown(&format!("variable {name:?}"), name, names);
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str, value: &OsStr) {
        let bare = name.strip_prefix("--").unwrap_or(name);
        let flag = format!("--{}", bare.replace('_', "-"));
        match Config::keys().iter().position(|key| key.flag() == flag) {
            Some(row) if Config::keys()[row].is_secret() => {
                self.set_from_file(row, Path::new(value), Source::Flag(flag));
            }
            Some(row) => self.set_os(row, value, Source::Flag(flag)),
            None => {
                let flag = format!("--{bare}");
                let names = Config::keys().iter().map(Key::flag);
                self.unknown(&format!("flag {flag:?}"), &flag, names);
            }
        }
    }

    fn set_os(&mut self, row: usize, value: &OsStr, source: Source) {
        let written = Config::keys()[row].told(&format!("{value:?}"));
        match value.to_str() {
            Some(text) => self.set(row, text, &written, source),
            None => {
                let told = told(Config::keys()[row].name(), &written, Some(&source));
                self.problems.push(format!("{told}: must be valid UTF-8"));
            }
        }
    }

    /// Sets the key in this row to what `text` says; `written` is how a message shows it.
    pub(super) fn set(&mut self, row: usize, text: &str, written: &str, source: Source) {
        let key = &Config::keys()[row];
        if key.is_secret() && self.sources[row].ranks_with(&source) {
            let (name, first) = (key.name(), &self.sources[row]);
            self.problems.push(format!("{name} is given twice: {first} and {source}"));
        } else if key.set(&mut self.config, text) {
            self.sources[row] = source;
        } else {
            let told = told(key.name(), &key.told(written), Some(&source));
            self.problems.push(format!("{told}: {}", key.correction(text)));
        }
    }

    /// Sets a secret to what the file at `path` holds.
    pub(super) fn set_from_file(&mut self, row: usize, path: &Path, by: Source) {
        match Secret::read(path, self.open) {
            Ok(secret) => {
                let source = Source::SecretFile { path: path.into(), by: Box::new(by) };
                self.set(row, secret.reveal(), secret::SHOWN, source);
            }
            Err(why) => self.problems.push(format!("{by}: {why}")),
        }
    }

    /// Notes a name that is none of `known`.
    pub(super) fn unknown(&mut self, what: &str, name: &str, known: impl Iterator<Item = String>) {
        let advice = match nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`rusty_socks check-config` prints all there are".into(),
        };
        self.problems.push(format!("unknown {what}: {advice}"));
    }
}

/// Whether there is such a name, and it is `name`.
pub(super) fn is(known: Option<String>, name: &str) -> bool {
    known.is_some_and(|known| known == name)
}

/// Returns the place of the key `name` in the table of keys.
pub(super) fn row(name: &str) -> Option<usize> {
    Config::keys().iter().position(|key| key.name() == name)
}
