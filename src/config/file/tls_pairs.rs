//! The certificates beside the first, in the file.

use toml::Value as Toml;

use super::values::type_of;
use crate::config::{
    source::Source,
    tables::TlsPair,
    tls_pairs::{NAME, path_of},
};

/// Reads the pairs in the value of `tls` in the file. Returns also what is wrong there.
pub(super) fn read(value: &Toml, source: &Source, problems: &mut Vec<String>) -> Vec<TlsPair> {
    let mut pairs = Vec::new();
    let Some(tables) = value.as_array() else {
        let found = type_of(value);
        problems.push(format!("{NAME} in {source}: must be tables [[{NAME}]], not {found}"));
        return pairs;
    };
    for (index, table) in tables.iter().enumerate() {
        let mut pair = TlsPair::default();
        let Some(table) = table.as_table() else {
            let found = type_of(table);
            problems
                .push(format!("{NAME}[{}] in {source}: must be a table, not {found}", index + 1));
            continue;
        };
        for (name, value) in table {
            let field = match name.as_str() {
                "cert" => &mut pair.cert,
                "key" => &mut pair.key,
                _ => {
                    let path = path_of(index, name);
                    problems
                        .push(format!("unknown key {path} in {source}: there are cert and key"));
                    continue;
                }
            };
            match value.as_str() {
                Some(path) => *field = path.to_owned(),
                None => {
                    let (path, found) = (path_of(index, name), type_of(value));
                    problems.push(format!("{path} in {source}: must be a string, not {found}"));
                }
            }
        }
        pairs.push(pair);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn problems_of(config: Config) -> String {
        config.validate().expect_err("this should be refused").to_string()
    }

    #[test]
    fn pairs_are_read_from_the_file_and_checked() {
        let source = Source::File("FILE".into());
        let read_text = |text: &str| {
            let table: toml::Table = text.parse().unwrap();
            let mut problems = Vec::new();
            let pairs = read(&table["tls"], &source, &mut problems);
            (pairs, problems)
        };
        let (pairs, problems) = read_text("[[tls]]\ncert='a'\nkey='b'\n[[tls]]\ncert='c'\nkey='d'");
        assert_eq!((pairs.len(), problems.len()), (2, 0));
        let config = Config { tls: pairs, ..Config::default() };
        config.validate().unwrap();
        assert!(config.has_tls());
        assert_eq!(config.tls_entries()[3], ["tls[2].key", "d"].map(String::from));
        let (pairs, problems) = read_text("[[tls]]\ncert=1\nkeys='b'");
        assert_eq!(
            problems,
            [
                "tls[1].cert in FILE: must be a string, not an integer",
                "unknown key tls[1].keys in FILE: there are cert and key"
            ]
        );
        let problems = problems_of(Config { tls: pairs, ..Config::default() });
        assert_eq!(problems.lines().count(), 2, "{problems}");
        let (_, problems) = read_text("tls = 'a.pem'");
        assert_eq!(problems, ["tls in FILE: must be tables [[tls]], not a string"]);
    }
}
