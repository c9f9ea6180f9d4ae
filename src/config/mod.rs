//! The settings of the server, and how they are loaded and checked.
//!
//! [`Config`] is a plain struct: an embedder fills it in, the binary loads it from a file, the
//! environment and flags. [`Config::validate`] checks both. The files, in reading order:
//!
//! - `settings.rs`: the settings and their defaults; `words.rs`: those that are one of a few words;
//!   `tables.rs`: those that are tables of the file; `judge.rs`: their ranges, and the rules
//!   between them;
//! - `rooms.rs`: rules for some rooms, which only the file can set; `tls_pairs.rs`: further
//!   certificates, likewise;
//! - `keys.rs`: one table with a row for each setting, from which the file keys, the variables, the
//!   flags, the help text and the range checks all come;
//! - `secret.rs`: texts that are not shown, and may be read from files of their own;
//! - `value.rs`: the kinds of values, and how they are read and shown;
//! - `load.rs`: defaults < TOML file < environment < flags. It uses `nearest.rs` (the most similar
//!   name, for typing errors), `source.rs` (the source of a value) and `toml_text.rs` (its line in
//!   the file).

mod words;
mod tables;
mod settings;
mod secret;
mod value;
mod keys;
mod rooms;
mod tls_pairs;
mod judge;
mod load;
mod nearest;
mod source;
mod toml_text;

pub(crate) use rooms::RoomRules;
pub use {
    keys::{Group, Key},
    load::Loaded,
    secret::Secret,
    settings::Config,
    source::Source,
    tables::{RoomRule, TlsPair},
    words::{Compression, HookFail, LogFormat, Overflow},
};
