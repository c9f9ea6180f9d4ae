//! Which settings a running server can take anew.

use std::sync::Arc;

use super::{api_keys, keys::TABLE, load::Loaded, rooms, settings::Config, tls_pairs};
use crate::error::Error;

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Reloaded {
    /// The keys that changed and hold now, in the order of the table. `tls_cert` is also here if
    /// only the files of certificates and keys have changed, and `tls_client_ca` if only that file
    /// has.
    pub changed: Vec<&'static str>,
    /// The keys that changed and hold only after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Where the settings of a server come from, for a server that is asked to read them anew. Given to
/// [`Builder::source`](crate::Builder::source).
pub trait ConfigSource: Send + Sync + 'static {
    /// Reads the settings. May block: it is called on the thread of whoever calls
    /// [`ServerHandle::reload_from_source`](crate::ServerHandle::reload_from_source), and on a
    /// thread of its own for `POST /v1/reload`; never twice at once. It cannot ask for a reload
    /// itself. A panic counts as an error. Read files with
    /// [`Config::load_again`]: [`Config::load_from`] would wait for good where a file is a pipe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): they are bad. The server goes on as it is.
    fn load(&self) -> Result<Config, Error>;

    /// Returns what was read last and was taken, with the source of each value, for operators who
    /// ask where their settings came from. Must not block. `None` by default.
    fn last(&self) -> Option<Arc<Loaded>> {
        None
    }

    /// Told what became of the settings that were read last. Does nothing by default.
    fn loaded(&self, outcome: Result<&Reloaded, &Error>) {
        let _ = outcome;
    }
}

impl Config {
    /// Makes the configuration of a running server from its present one and a new one: what cannot
    /// change stays as it is. Returns also what changed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the new configuration is bad, or does not
    /// agree with what stays.
    pub(crate) fn reloaded(&self, new: &Config) -> Result<(Config, Reloaded), Error> {
        new.validate()?;
        let (mut mixed, mut told) = (self.clone(), Reloaded::default());
        let changes_tls = self.has_tls() != new.has_tls();
        let is_of_tls = |name: &str| ["tls_cert", "tls_key", "tls_client_ca"].contains(&name);
        for key in TABLE {
            if !key.differs(self, new) {
                continue;
            }
            if key.is_live() && !(changes_tls && is_of_tls(key.name())) {
                key.copy(new, &mut mixed);
                told.changed.push(key.name());
            } else {
                told.needs_restart.push(key.name());
            }
        }
        if self.rooms != new.rooms {
            mixed.rooms.clone_from(&new.rooms);
            told.changed.push(rooms::NAME);
        }
        if self.api_keys != new.api_keys {
            mixed.api_keys.clone_from(&new.api_keys);
            told.changed.push(api_keys::NAME);
        }
        if self.tls != new.tls {
            if changes_tls {
                told.needs_restart.push(tls_pairs::NAME);
            } else {
                mixed.tls.clone_from(&new.tls);
                told.changed.push(tls_pairs::NAME);
            }
        }
        mixed.validate().map_err(|error| {
            let names = told.needs_restart.join(", ");
            let lines: Vec<String> = error
                .to_string()
                .lines()
                .map(|line| format!("{line} (before a restart, which {names} needs)"))
                .collect();
            Error::config(lines.join("\n"))
        })?;
        Ok((mixed, told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RoomRule;

    #[test]
    fn the_documents_name_those_that_need_a_restart() {
        let document = include_str!("../../docs/configuration.md").replace("\r\n", "\n");
        let fixed: Vec<String> = TABLE
            .iter()
            .filter(|key| !key.is_live())
            .map(|key| format!("`{}`", key.name()))
            .collect();
        let start = document.find("which need a restart:").expect("the list");
        let listed = &document[start..];
        let listed = &listed[..listed.find('.').expect("its end")];
        let named: Vec<String> =
            listed.split('`').skip(1).step_by(2).map(|name| format!("`{name}`")).collect();
        assert_eq!(named, fixed, "docs/configuration.md must say: {}", fixed.join(", "));
    }

    #[test]
    fn what_cannot_change_stays_and_is_named() {
        let old = Config::default();
        let new = Config {
            port: 1,
            rate_messages: 7,
            rooms: vec![RoomRule { history: Some(20), ..RoomRule::new("a.*") }],
            tls_cert: "a.pem".into(),
            tls_key: "a.key".into(),
            ..Config::default()
        };
        let (mixed, told) = old.reloaded(&new).expect("a good one");
        assert_eq!(told.changed, ["rate_messages", "rooms"]);
        assert_eq!(told.needs_restart, ["port", "tls_cert", "tls_key"]);
        assert_eq!((mixed.port, mixed.rate_messages, mixed.rooms.len()), (3030, 7, 1));
        assert!(mixed.tls_cert.is_empty());
        let same = mixed.reloaded(&mixed).expect("the same");
        assert_eq!((same.1, &same.0), (Reloaded::default(), &mixed));
    }

    #[test]
    fn what_is_bad_is_refused_and_so_is_what_does_not_agree_with_what_stays() {
        let told = |new: Config| Config::default().reloaded(&new).unwrap_err().to_string();
        assert!(told(Config { max_conn: 0, ..Config::default() }).starts_with("max_conn = 0"));
        let large = Config {
            max_message_bytes: 40 << 20,
            buffer_bytes: 80 << 20,
            mailbox_bytes: 80 << 20,
            ..Config::default()
        };
        let told = told(large);
        assert!(told.starts_with("mailbox_bytes = 64MiB: must be at least twice"), "{told}");
        assert!(told.ends_with("(before a restart, which mailbox_bytes needs)"), "{told}");
    }
}
