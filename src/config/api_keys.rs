//! The keys of the server API: who may do what in which rooms.
//!
//! `api_key` is one key that may do everything. Further keys can only be set in the file, one table
//! a key:
//!
//! ```toml
//! [[api_keys]]
//! name = "shop"
//! key_file = "shop.key"
//! scopes = ["publish"]
//! rooms = ["orders.*"]
//! ```

use super::{
    api_key::{ApiKey, ApiScope},
    rooms,
    settings::Config,
    texts::API_KEY,
};

/// The name of the tables in the file, and of the field in [`Config`].
pub(super) const NAME: &str = "api_keys";

/// The most keys. Each request of the API is held against all of them.
const KEYS_MAX: usize = 100;

/// The most rooms and patterns of one key.
const ROOMS_MAX: usize = 100;

/// The longest name of a key, in bytes. It stands in messages as their `sender`.
const NAME_BYTES_MAX: usize = 64;

/// The name of the key that is set as `api_key`.
const DEFAULT_NAME: &str = "api";

/// The pattern that every room matches.
pub(super) const ALL_ROOMS: &str = "*";

/// Rooms that are next to each other in the order of all rooms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoomRange {
    /// The name of the one room, or the beginning of the names, which have more behind it.
    pub(crate) text: Box<str>,
    pub(crate) is_prefix: bool,
}

impl ApiScope {
    /// Every scope.
    pub const ALL: [ApiScope; 3] = [ApiScope::Publish, ApiScope::Read, ApiScope::Admin];

    /// Returns the scope as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiScope::Publish => "publish",
            ApiScope::Read => "read",
            ApiScope::Admin => "admin",
        }
    }
}

impl ApiKey {
    /// Whether the key may be used for rooms of this name.
    pub fn allows_room(&self, room: &str) -> bool {
        self.allows_all_rooms() || self.rooms.iter().any(|pattern| rooms::matches(pattern, room))
    }

    /// Returns where in the order of all rooms those of the key are: no two ranges have a room in
    /// common.
    pub(crate) fn room_ranges(&self) -> Vec<RoomRange> {
        let range = |pattern: &String| match rooms::prefix(pattern) {
            Some(prefix) => RoomRange { text: prefix.into(), is_prefix: true },
            None => RoomRange { text: pattern.as_str().into(), is_prefix: false },
        };
        let mut ranges: Vec<RoomRange> = self.rooms.iter().map(range).collect();
        let prefixes: Vec<Box<str>> =
            self.rooms.iter().filter_map(|pattern| rooms::prefix(pattern)).map(Box::from).collect();
        let is_within =
            |text: &str, prefix: &str| text.len() > prefix.len() && text.starts_with(prefix);
        ranges.retain(|range| !prefixes.iter().any(|prefix| is_within(&range.text, prefix)));
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// Whether the key may be used for every room.
    pub fn allows_all_rooms(&self) -> bool {
        self.rooms.iter().any(|pattern| pattern == ALL_ROOMS)
    }

    fn problem(&self) -> Option<String> {
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            return Some(format!(
                "name must be 1 to {NAME_BYTES_MAX} bytes without control characters"
            ));
        }
        if self.key.is_empty() || !API_KEY.allows(self.key.reveal()) {
            return Some("key must be 16 to 256 letters, digits and -._~+/=".into());
        }
        if self.scopes.is_empty() {
            return Some("scopes must be one or more of publish, read and admin".into());
        }
        if self.rooms.is_empty() || self.rooms.len() > ROOMS_MAX {
            return Some(format!("rooms must be 1 to {ROOMS_MAX} names or patterns; \"*\" is all"));
        }
        let illegal = self.rooms.iter().find(|pattern| !rooms::is_legal(pattern))?;
        Some(format!(
            "rooms must be names, patterns such as \"prices.*\", or \"*\", not {illegal:?}"
        ))
    }
}

impl Config {
    /// Returns every key of the server API, that of `api_key` included.
    pub fn all_api_keys(&self) -> Vec<ApiKey> {
        let first = (!self.api_key.is_empty()).then(|| ApiKey {
            name: DEFAULT_NAME.into(),
            key: self.api_key.clone(),
            scopes: ApiScope::ALL.into(),
            rooms: vec![ALL_ROOMS.into()],
        });
        first.into_iter().chain(self.api_keys.iter().cloned()).collect()
    }
}

/// Returns what is wrong with the keys, from whatever source.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let keys = &config.api_keys;
    if keys.len() > KEYS_MAX {
        return vec![format!("{NAME}: must be at most {KEYS_MAX} keys, not {}", keys.len())];
    }
    let mut problems = Vec::new();
    let all = config.all_api_keys();
    for (index, key) in all.iter().enumerate() {
        let shown: String = key.name.chars().take(NAME_BYTES_MAX).collect();
        let path = format!("{NAME} {shown:?}");
        problems.extend(key.problem().map(|problem| format!("{path}: {problem}")));
        if all[..index].iter().any(|other| other.name == key.name) {
            problems.push(format!("{path}: another key has this name"));
        }
        if all[..index].iter().any(|other| other.key == key.key) {
            problems.push(format!("{path}: another name has this key"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::Secret;

    fn load(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let nothing: [(&str, &str); 0] = [];
        let loaded = Config::load_from(Some(file.path()), nothing, nothing);
        loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_read_from_the_file() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"abcdefghijklmnop\n").unwrap();
        let config = load(&format!(
            "api_key = '0123456789abcdef'\n[[api_keys]]\nname = 'shop'\nkey_file = {:?}\n\
             scopes = ['publish']\nrooms = ['orders.*', 'news']\n[[api_keys]]\nname = 'ops'\n\
             key = 'ponmlkjihgfedcba'\nscopes = ['read', 'admin']\n",
            secret.path().to_str().unwrap()
        ));
        let keys = config.unwrap().all_api_keys();
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["api", "shop", "ops"]);
        assert_eq!(keys[1].key.reveal(), "abcdefghijklmnop");
        let allowed = |room: &str| keys.iter().map(|key| key.allows_room(room)).collect::<Vec<_>>();
        assert_eq!(allowed("orders.1"), [true, true, true]);
        assert_eq!(allowed("news"), [true, true, true]);
        assert_eq!(allowed("orders"), [true, false, true]);
        assert!(keys[0].allows_all_rooms() && !keys[1].allows_all_rooms());
    }

    #[test]
    fn the_ranges_of_a_key_are_in_order_and_have_no_room_in_common() {
        for (rooms, ranges) in [
            (&["b", "a.*", "a.b", "a.b.*", "a", "b", "a."][..], &["a", "a.", "a.*", "b"][..]),
            (&["z", "*", "a.*"], &["*"]),
            (&["a.*", "a.*"], &["a.*"]),
        ] {
            let key = ApiKey {
                name: "k".into(),
                key: Secret::default(),
                scopes: Vec::new(),
                rooms: rooms.iter().map(ToString::to_string).collect(),
            };
            let shown = |range: &RoomRange| match range.is_prefix {
                true => format!("{}*", range.text),
                false => range.text.to_string(),
            };
            assert_eq!(key.room_ranges().iter().map(shown).collect::<Vec<_>>(), ranges);
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_key() {
        let ops = "[[api_keys]]\nname = 'ops'\n";
        let key = "key = 'ponmlkjihgfedcba'\n";
        for (text, told) in [
            ("api_keys = 1".to_owned(), "must be tables [[api_keys]], not an integer"),
            (format!("{ops}scopes = ['read']"), "key must be 16 to 256 letters"),
            (format!("{ops}key = 'sesame'\nscopes = ['read']"), "key must be 16 to 256 letters"),
            (format!("{ops}{key}"), "scopes must be one or more"),
            (format!("{ops}{key}scopes = ['reed']"), "scopes must be publish, read or admin"),
            (format!("{ops}{key}scopes = ['read']\nrooms = ['a*']"), "rooms must be names, patt"),
            (format!("{ops}{key}scopes = ['read']\nrooms = []"), "rooms must be 1 to 100"),
            (format!("{ops}{key}key_file = 'x'"), "must have key or key_file, not both"),
            (format!("{ops}{key}scopes = ['read']\nroom = 'a'"), "unknown key \"room\""),
            (format!("[[api_keys]]\n{key}scopes = ['read']"), "name must be 1 to 64 bytes"),
            (
                format!(
                    "{ops}{key}scopes = ['read']\n{ops}key = 'abcdefghijklmnop'\nscopes = ['read']"
                ),
                "another key has this name",
            ),
            (
                format!("api_key = 'ponmlkjihgfedcba'\n{ops}{key}scopes = ['read']"),
                "another name has this key",
            ),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("sesame") && !error.contains("ponml"), "{error}");
        }
    }
}
