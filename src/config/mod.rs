//! The settings of the server, and how they are loaded and checked.
//!
//! [`Config`] is a plain struct: an embedder fills it in, the binary loads it from a file, the
//! environment and flags. [`Config::validate`] checks both. The files, in reading order:
//!
//! - `settings.rs`: the settings, `defaults.rs` their defaults; `words.rs`: those that are one of a
//!   few words; `tables.rs`: those that are tables of the file; `judge.rs`: their ranges, and the
//!   rules between them;
//! - `addresses.rs`: which addresses have limits of their own;
//! - `rooms.rs`: rules for some rooms, which only the file can set; `tls_pairs.rs`: further
//!   certificates, likewise;
//! - `api_key.rs`: one key of the server API; `api_keys.rs`: all, of which the file can set
//!   several;
//! - `keys.rs`: one table with a row for each setting, from which the file keys, the variables, the
//!   flags, the help text and the range checks all come; `group.rs`: the headings of help;
//! - `secret.rs`: texts that are not shown, and may be read from files of their own;
//! - `value.rs`: the kinds of values, and how they are read and shown; `texts.rs`: which texts are
//!   legal;
//! - `load.rs`: defaults < TOML file < environment < flags. It uses `loading.rs` (what is known
//!   meanwhile), `file/` (the TOML file; `no_file.rs` without the cargo feature `config-file`),
//!   `open.rs` (how files are opened), `nearest.rs` (the most similar name, for typing errors),
//!   `service_links.rs` (variables that are no settings) and `source.rs` (the source of a value);
//! - `reload.rs`: which settings a running server can take anew.

mod addresses;
mod words;
mod tables;
mod settings;
mod defaults;
mod secret;
mod api_key;
mod texts;
pub(crate) mod url_list;
mod value;
mod group;
mod keys;
mod rooms;
mod api_keys;
mod tls_pairs;
mod judge;
mod loading;
#[cfg(feature = "config-file")]
mod file;
#[cfg(not(feature = "config-file"))]
#[path = "no_file.rs"]
mod file;
mod load;
mod shown;
mod reload;
mod memory_max;
mod nearest;
pub(crate) mod open;
mod service_links;
mod source;

pub(crate) use api_keys::RoomRange;
pub(crate) use judge::ADMIN_NEEDS_KEY;
pub(crate) use rooms::RoomRules;
#[cfg(feature = "identity")]
pub(crate) use secret::shown_address;
#[cfg(feature = "identity")]
pub(crate) use texts::HMAC_SECRET_BYTES_MIN;
pub(crate) use texts::{HOOKS, REDIS_URLS_MAX, UNIX_PREFIX};
pub use {
    addresses::LimitedAddresses,
    api_key::{ApiKey, ApiScope},
    group::Group,
    keys::Key,
    load::Loaded,
    memory_max::MemoryMax,
    reload::{ConfigSource, Reloaded},
    secret::Secret,
    settings::Config,
    shown::ShownSetting,
    source::Source,
    tables::{RoomRule, TlsPair},
    words::{
        Access, Compression, Dashboard, Engine, FirstPage, HookFail, IdentityMode, LogFormat,
        MetricsAccess, Overflow,
    },
};
