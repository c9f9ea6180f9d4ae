//! The keys of the server API in the file.

use std::path::Path;

use toml::Value as Toml;

use super::values::type_of;
use crate::config::{
    api_key::{ApiKey, ApiScope},
    api_keys::{ALL_ROOMS, NAME},
    open::Open,
    secret::Secret,
    source::Source,
};

/// Reads the keys in the value of `api_keys` in the file. Returns also what is wrong there.
pub(super) fn read(
    value: &Toml,
    source: &Source,
    open: Open,
    problems: &mut Vec<String>,
) -> Vec<ApiKey> {
    let Some(tables) = value.as_array() else {
        let found = type_of(value);
        problems.push(format!("{NAME} in {source}: must be tables [[{NAME}]], not {found}"));
        return Vec::new();
    };
    let mut keys = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        match read_one(table, open) {
            Ok(key) => keys.push(key),
            Err(problem) => problems.push(format!("{NAME} {} in {source}: {problem}", index + 1)),
        }
    }
    keys
}

fn read_one(value: &Toml, open: Open) -> Result<ApiKey, String> {
    let table = value.as_table().ok_or("must be a table")?;
    let mut key = ApiKey {
        name: String::new(),
        key: Secret::default(),
        scopes: Vec::new(),
        rooms: vec![ALL_ROOMS.into()],
    };
    let text = |name: &str, value: &Toml| {
        value.as_str().map(str::to_owned).ok_or_else(|| format!("{name} must be a string"))
    };
    let list = |name: &str, value: &Toml| -> Result<Vec<String>, String> {
        let items = value.as_array().map(|items| items.iter().map(Toml::as_str).collect());
        let items: Option<Vec<&str>> = items.flatten();
        let items = items.ok_or_else(|| format!("{name} must be an array of strings"))?;
        Ok(items.into_iter().map(str::to_owned).collect())
    };
    for (name, value) in table {
        match name.as_str() {
            "name" => key.name = text(name, value)?,
            "key" | "key_file" if !key.key.is_empty() => {
                return Err("must have key or key_file, not both".into());
            }
            "key" => key.key = Secret::new(text(name, value)?),
            "key_file" => key.key = Secret::read(Path::new(&text(name, value)?), open)?,
            "scopes" => {
                for word in list(name, value)? {
                    let scope = ApiScope::ALL.into_iter().find(|scope| scope.as_str() == word);
                    let wrong = || format!("scopes must be publish, read or admin, not {word:?}");
                    key.scopes.push(scope.ok_or_else(wrong)?);
                }
            }
            "rooms" => key.rooms = list(name, value)?,
            other => {
                return Err(format!(
                    "unknown key {other:?}: there are name, key, key_file, scopes and rooms"
                ));
            }
        }
    }
    Ok(key)
}
