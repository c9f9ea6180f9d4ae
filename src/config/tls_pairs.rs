//! Certificates beside the first: tables of the file, one a pair.
//!
//! ```toml
//! [[tls]]
//! cert = "chat.example.pem"
//! key = "chat.example.key"
//! ```

use super::{
    settings::Config, source::Source, tables::TlsPair, texts::PEM, toml_text::with_article,
};

/// The name of the tables in the file, and of the field in [`Config`].
pub(super) const NAME: &str = "tls";

/// The most pairs. A handshake looks at each of them.
const PAIRS_MAX: usize = 100;

impl TlsPair {
    /// Returns the names of its two settings, such as `tls[1].cert`; `index` counts from 0.
    pub(crate) fn paths(&self, index: usize) -> [String; 2] {
        ["cert", "key"].map(|name| path_of(index, name))
    }
}

impl Config {
    /// Whether the server speaks TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls_cert.is_empty() || !self.tls.is_empty()
    }

    /// Returns every setting of the pairs in [`Config::tls`] with its value.
    pub fn tls_entries(&self) -> Vec<[String; 2]> {
        let entries = |(index, pair): (usize, &TlsPair)| {
            let [cert, key] = pair.paths(index);
            [[cert, pair.cert.clone()], [key, pair.key.clone()]]
        };
        self.tls.iter().enumerate().flat_map(entries).collect()
    }
}

/// Returns what is wrong with the pairs, and between them and the keys about TLS.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if config.tls.len() > PAIRS_MAX {
        problems
            .push(format!("{NAME}: must be at most {PAIRS_MAX} pairs, not {}", config.tls.len()));
        return problems;
    }
    for [path, value] in config.tls_entries() {
        if value.is_empty() || !PEM.allows(&value) {
            problems.push(format!("{path} = {value:?}: must be the path of a PEM file"));
        }
    }
    if config.tls_cert.is_empty() != config.tls_key.is_empty() {
        let (set, missing) = match config.tls_cert.is_empty() {
            true => ("tls_key", "tls_cert"),
            false => ("tls_cert", "tls_key"),
        };
        problems.push(format!("{missing}: must be set too, because {set} is: the two are a pair"));
    }
    if !config.tls_client_ca.is_empty() && !config.has_tls() {
        problems.push(format!(
            "tls_client_ca = {:?}: needs tls_cert and tls_key, because only TLS knows certificates",
            config.tls_client_ca
        ));
    }
    problems
}

/// Reads the pairs in the value of `tls` in the file. Returns also what is wrong there.
pub(super) fn read(
    value: &toml::Value,
    source: &Source,
    problems: &mut Vec<String>,
) -> Vec<TlsPair> {
    let mut pairs = Vec::new();
    let Some(tables) = value.as_array() else {
        let found = with_article(value.type_str());
        problems.push(format!("{NAME} in {source}: must be tables [[{NAME}]], not {found}"));
        return pairs;
    };
    for (index, table) in tables.iter().enumerate() {
        let mut pair = TlsPair::default();
        let Some(table) = table.as_table() else {
            let found = with_article(table.type_str());
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
                    let (path, found) = (path_of(index, name), with_article(value.type_str()));
                    problems.push(format!("{path} in {source}: must be a string, not {found}"));
                }
            }
        }
        pairs.push(pair);
    }
    pairs
}

/// Counts from 1, as people do.
fn path_of(index: usize, name: &str) -> String {
    format!("{NAME}[{}].{name}", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(config: Config) -> String {
        config.validate().expect_err("this should be refused").to_string()
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        let with = |cert: &str, key: &str| Config {
            tls_cert: cert.into(),
            tls_key: key.into(),
            ..Config::default()
        };
        assert!(!with("", "").has_tls());
        with("a.pem", "a.key").validate().unwrap();
        assert_eq!(
            problems_of(with("a.pem", "")),
            "tls_key: must be set too, because tls_cert is: the two are a pair"
        );
        assert!(problems_of(with("", "a.key")).starts_with("tls_cert: must be set too"));
    }

    #[test]
    fn client_certificates_need_tls() {
        let config = Config { tls_client_ca: "ca.pem".into(), ..Config::default() };
        assert!(problems_of(config).contains("needs tls_cert and tls_key"));
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
