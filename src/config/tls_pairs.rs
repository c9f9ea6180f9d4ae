//! Certificates beside the first: tables of the file, one a pair.
//!
//! ```toml
//! [[tls]]
//! cert = "chat.example.pem"
//! key = "chat.example.key"
//! ```

use super::{settings::Config, tables::TlsPair, texts::PEM};

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

/// Counts from 1, as people do.
pub(super) fn path_of(index: usize, name: &str) -> String {
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
}
