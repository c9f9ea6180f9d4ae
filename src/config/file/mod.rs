//! Reads the configuration file, which is TOML.
//!
//! Needs the cargo feature `config-file`; without it, a file that is named is an error.
//! `file/values.rs` reads the values of keys; what is a table of its own is read by
//! `file/rooms.rs`, `file/tls_pairs.rs` and `file/api_keys.rs`, and `lines.rs` says where it is.

mod values;
mod lines;
mod rooms;
mod tls_pairs;
mod api_keys;

use std::{io, path::Path};

use toml::{Table, de};

use super::{
    api_keys::NAME as API_KEYS,
    keys::Key,
    loading::{Loading, is, row},
    rooms::NAME as ROOMS,
    settings::Config,
    source::{Source, told},
    tls_pairs::NAME as TLS,
};
use lines::line_at;
use values::{in_one_line, type_of};

/// Reads the file at `path`; `named_by` is who named it.
pub(super) fn read(loading: &mut Loading, path: &Path, named_by: &str) {
    let text = match (loading.open)(path).and_then(io::read_to_string) {
        Ok(text) => text,
        Err(error) => {
            let path = path.display();
            loading.problems.push(format!(
                "cannot read the configuration file \"{path}\" from {named_by}: {error}"
            ));
            return;
        }
    };
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let line = line_of(&text, &error);
            // The parser's message may span lines, and a problem is one line.
            let why = error.message().replace('\n', " ");
            loading.problems.push(format!("{}: line {line}: {why}", path.display()));
            return;
        }
    };
    for (name, value) in &table {
        let source = Source::File(path.into());
        if name == ROOMS {
            loading.config.rooms = rooms::read(value, &text, &source, &mut loading.problems);
            loading.rooms_source = source;
            continue;
        }
        if name == TLS {
            loading.config.tls = tls_pairs::read(value, &source, &mut loading.problems);
            loading.tls_source = source;
            continue;
        }
        if name == API_KEYS {
            loading.config.api_keys =
                api_keys::read(value, &source, loading.open, &mut loading.problems);
            continue;
        }
        if let Some(row) = Config::keys().iter().position(|key| is(key.file_name(), name)) {
            match value.as_str() {
                Some(path) => loading.set_from_file(row, Path::new(path), source),
                None => loading.problems.push(format!(
                    "{name} in {source}: must be a string, the path of a file, not {}",
                    type_of(value)
                )),
            }
            continue;
        }
        let Some(row) = row(name) else {
            let names = Config::keys().iter().map(Key::name).chain([ROOMS, TLS, API_KEYS]);
            let files = Config::keys().iter().filter_map(Key::file_name);
            let names = names.map(String::from).chain(files);
            loading.unknown(&format!("key {name:?} in {source}"), name, names);
            continue;
        };
        let key = &Config::keys()[row];
        let written = in_one_line(value);
        match key.kind().text_of_toml(value) {
            Ok(text) => loading.set(row, &text, &written, source),
            Err(wanted) => loading.problems.push(format!(
                "{}: must be {wanted}, not {}; allowed is {}",
                told(name, &key.told(&written), Some(&source)),
                type_of(value),
                key.range(),
            )),
        }
    }
}

/// Returns the line, from 1, at which the parser stopped.
fn line_of(text: &str, error: &de::Error) -> usize {
    let end = error.span().map_or(0, |span| span.start.min(text.len()));
    line_at(text, end)
}
