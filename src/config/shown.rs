//! The settings as they may be shown, and where each came from.

use serde::Serialize;

use super::{load::Loaded, rooms, settings::Config, tables::RoomRule, tls_pairs};

/// A setting as it may be shown: of a secret, only whether there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShownSetting {
    /// The key, or the path of a setting in a table of the file.
    pub key: String,
    /// The value that holds, as an operator would write it.
    pub value: String,
    /// The unit; empty if the value is not a quantity.
    pub unit: String,
    /// Where the value came from, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether another value was read since, which holds only after a restart.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_restart: bool,
}

impl Config {
    /// Returns every setting, with the rules for rooms and further certificates behind the keys.
    /// `loaded` is what was read last, and knows where each value came from.
    pub fn shown(&self, loaded: Option<&Loaded>) -> Vec<ShownSetting> {
        let from = |name: &str| Some(loaded?.source(name)?.to_string());
        let keys = Config::keys().iter().map(|key| ShownSetting {
            key: key.name().to_owned(),
            value: key.show(self),
            unit: key.unit().to_owned(),
            from: from(key.name()),
            needs_restart: loaded.is_some_and(|loaded| key.differs(self, &loaded.config)),
        });
        // The rules for rooms come from the file as a whole, and so do further certificates.
        let rules_from = from(rooms::NAME);
        let rules = self.rooms.iter().flat_map(RoomRule::entries);
        let rules = rules.map(|[key, value, unit]| ShownSetting {
            key,
            value,
            unit,
            from: rules_from.clone(),
            needs_restart: false,
        });
        let pairs_from = from(tls_pairs::NAME);
        // They follow a reload, but for one that turns TLS off.
        let pairs_wait = loaded.is_some_and(|loaded| loaded.config.tls != self.tls);
        let pairs = self.tls_entries().into_iter().map(|[key, value]| ShownSetting {
            key,
            value,
            unit: String::new(),
            from: pairs_from.clone(),
            needs_restart: pairs_wait,
        });
        keys.chain(rules).chain(pairs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [(&str, &str); 0] = [];

    #[test]
    fn a_value_that_holds_is_shown_and_one_that_waits_for_a_restart_is_named() {
        let variables = [("RUSTY_SOCKS_BUFFER", "7"), ("RUSTY_SOCKS_PORT", "1")];
        let loaded = Config::load_from(None, variables, NONE).unwrap();
        let holds = Config { port: 2, ..loaded.config.clone() };
        let shown = holds.shown(Some(&loaded));
        let find = |name: &str| shown.iter().find(|setting| setting.key == name).unwrap();
        let buffer = find("buffer");
        assert_eq!((buffer.value.as_str(), buffer.needs_restart), ("7", false));
        assert_eq!(buffer.from.as_deref(), Some("RUSTY_SOCKS_BUFFER"));
        let port = find("port");
        assert_eq!((port.value.as_str(), port.needs_restart), ("2", true));
        assert!(holds.shown(None).iter().all(|setting| setting.from.is_none()));
    }

    #[test]
    fn pairs_wait_for_the_restart_that_turns_tls_off() {
        let loaded = Config::load_from(None, NONE, NONE).unwrap();
        let pair = super::super::TlsPair { cert: "a.pem".into(), key: "a.key".into() };
        let holds = Config { tls: vec![pair], ..loaded.config.clone() };
        let waits = |loaded| holds.shown(loaded).pop().map(|last| (last.key, last.needs_restart));
        assert_eq!(waits(Some(&loaded)), Some(("tls[1].key".to_owned(), true)));
        assert_eq!(waits(None), Some(("tls[1].key".to_owned(), false)));
    }

    #[test]
    fn no_secret_is_shown() {
        const SECRET: &str = "a-secret-of-32-bytes-or-a-few-more";
        let secret = || super::super::Secret::new(SECRET);
        let config = Config {
            api_key: secret(),
            hook_secret: secret(),
            events_secret: secret(),
            token_hmac_secret: secret(),
            token_hmac_secret_previous: secret(),
            token_public_key: secret(),
            redis_url: super::super::Secret::new(format!("redis://anna:{SECRET}@h:1/0")),
            hook_url: format!("https://anna:{SECRET}@h/hook?token={SECRET}"),
            events_url: format!("https://h/events?token={SECRET}"),
            token_jwks_url: format!("https://h/keys?token={SECRET}"),
            ..Config::default()
        };
        let shown = serde_json::to_string(&config.shown(None)).unwrap();
        assert!(!shown.contains(SECRET), "{shown}");
        let secrets = Config::keys().iter().filter(|key| key.is_secret()).count();
        assert_eq!(secrets, 7, "the test must set a new secret too");
    }
}
