//! What an operator may set, and what each setting is for.
//!
//! [`Config`] is a plain struct: an embedder fills it by hand, the binary loads it. Either way
//! [`Config::validate`] is the judge. The files, in reading order:
//!
//! - `settings.rs`: the settings and their defaults; `judge.rs`: their ranges and the rules that
//!   bind several of them;
//! - `rooms.rs`: what may hold in some rooms instead, which the file alone can say;
//! - `keys.rs`: one table with a row for each setting, from which the file keys, the variables, the
//!   flags, the help text and the range checks all come;
//! - `value.rs`: what a value may be, and how it is read and shown;
//! - `load.rs`: defaults < TOML file < environment < flags; beside it `nearest.rs`, the name that
//!   was probably meant, `source.rs`, who said what, and `toml_text.rs`, where it stands.

mod settings;
mod value;
mod keys;
mod rooms;
mod judge;
mod load;
mod nearest;
mod source;
mod toml_text;

pub(crate) use rooms::RoomRules;
pub use {
    keys::{Group, Key},
    load::Loaded,
    settings::{Compression, Config, LogFormat, Overflow, RoomRule},
    source::Source,
};
