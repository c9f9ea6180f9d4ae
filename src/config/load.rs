//! Loads the values: defaults < TOML file < environment < flags, and notes for each key the source
//! that won.

use std::{
    env,
    ffi::{OsStr, OsString},
    iter,
    path::{Path, PathBuf},
};

use super::{
    file,
    judge::error_of,
    keys::Key,
    loading::{FILE_VARIABLE, Loading, row},
    open::{Open, open, open_again},
    rooms,
    service_links::is_service_link,
    settings::Config,
    source::{PREFIX, Source},
    tls_pairs,
};
use crate::error::Error;

/// A valid configuration, and the source of each value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// One source for each row of the table of keys, in its order.
    sources: Vec<Source>,
    rooms_source: Source,
    tls_source: Source,
    /// Variables of Kubernetes that look like settings.
    service_links: Vec<String>,
}

impl Config {
    /// Loads the defaults, then the file that `RUSTY_SOCKS_CONFIG` names, then the environment of
    /// this process. A program with flags uses [`Config::load_from`].
    ///
    /// # Errors
    /// As [`Config::load_from`].
    pub fn load() -> Result<Config, Error> {
        let no_flags = iter::empty::<(&str, &str)>();
        Ok(Config::load_from(None, env::vars_os(), no_flags)?.config)
    }

    /// Loads the defaults, then a file, then `variables`, then `flags`; later ones win.
    ///
    /// `file` is the TOML file to read; if it is `None`, the variable `RUSTY_SOCKS_CONFIG` may name
    /// one. Variables that do not begin with `RUSTY_SOCKS_` are ignored, and those that Kubernetes
    /// sets for a Service of that name: [`Loaded::warnings`] names them. `flags` are pairs of a key
    /// and a value; the key is spelled `max_conn`, `max-conn` or `--max-conn`.
    ///
    /// Files need the cargo feature `config-file`; without it, one that is named is an error. Those
    /// that hold a single secret are read all the same.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config). The message has one line for each problem.
    pub fn load_from<V, F>(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (V, V)>,
        flags: impl IntoIterator<Item = (F, F)>,
    ) -> Result<Loaded, Error>
    where
        V: AsRef<OsStr>,
        F: AsRef<OsStr>,
    {
        Config::load_with(open, file, variables, flags)
    }

    /// Loads anew what [`Config::load_from`] loaded before: for a
    /// [`ConfigSource`](crate::config::ConfigSource).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), also if a file is no regular one: a pipe
    /// has nothing more to say, and could block for good.
    pub fn load_again<V, F>(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (V, V)>,
        flags: impl IntoIterator<Item = (F, F)>,
    ) -> Result<Loaded, Error>
    where
        V: AsRef<OsStr>,
        F: AsRef<OsStr>,
    {
        Config::load_with(open_again, file, variables, flags)
    }

    fn load_with<V, F>(
        open: Open,
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (V, V)>,
        flags: impl IntoIterator<Item = (F, F)>,
    ) -> Result<Loaded, Error>
    where
        V: AsRef<OsStr>,
        F: AsRef<OsStr>,
    {
        let mut ours: Vec<(String, OsString)> = variables
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_string_lossy().into_owned(), value))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .map(|(name, value)| (name, value.as_ref().to_os_string()))
            .collect();
        // Sorted, because the environment has no order and the errors should have one.
        ours.sort();
        let is_link = |(name, value): &mut (String, OsString)| {
            value.to_str().is_some_and(|value| is_service_link(name, value))
        };
        let service_links = ours.extract_if(.., is_link).map(|(name, _)| name).collect();
        let named = ours.iter().position(|(name, _)| name == FILE_VARIABLE);
        let named = named.map(|place| PathBuf::from(ours.remove(place).1));

        let mut loading = Loading::new(open, service_links);
        match (file, named) {
            (Some(path), _) => file::read(&mut loading, path, "--config"),
            (None, Some(path)) => file::read(&mut loading, &path, FILE_VARIABLE),
            (None, None) => {}
        }
        for (name, value) in &ours {
            loading.variable(name, value);
        }
        for (name, value) in flags {
            loading.flag(&name.as_ref().to_string_lossy(), value.as_ref());
        }
        Loaded::of(loading)
    }
}

impl Loaded {
    /// Finishes the load. The rules between keys are checked only if every value could be read.
    fn of(mut loading: Loading) -> Result<Loaded, Error> {
        if loading.problems.is_empty() {
            let sources = &loading.sources;
            let source_of = |key: &Key| sources.get(row(key.name())?);
            loading.problems = loading.config.problems(&source_of);
        }
        error_of(loading.problems)?;
        let Loading { config, sources, rooms_source, tls_source, service_links, .. } = loading;
        Ok(Loaded { config, sources, rooms_source, tls_source, service_links })
    }

    /// Returns the source of the key `name`, of the rules for rooms under `rooms`, or of the
    /// further certificates under `tls`; `None` if there is no such key.
    pub fn source(&self, name: &str) -> Option<&Source> {
        match name {
            rooms::NAME => return Some(&self.rooms_source),
            tls_pairs::NAME => return Some(&self.tls_source),
            _ => {}
        }
        row(name).and_then(|row| self.sources.get(row))
    }

    /// Returns what is legal but probably not meant, one sentence each: of the values, and of
    /// variables that were passed over.
    pub fn warnings(&self) -> Vec<String> {
        let links = (!self.service_links.is_empty()).then(|| {
            format!(
                "no settings, but set by Kubernetes for a Service: {}; enableServiceLinks: false in the pod leaves them out",
                self.service_links.join(", ")
            )
        });
        links.into_iter().chain(self.config.warnings()).collect()
    }

    /// Returns every key with its source, in the order of [`Config::keys`].
    pub fn entries(&self) -> impl Iterator<Item = (&'static Key, &Source)> {
        Config::keys().iter().zip(&self.sources)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::config::LogFormat;

    const NONE: [(&str, &str); 0] = [];

    fn toml(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn complaint(loaded: Result<Loaded, Error>) -> String {
        let error = loaded.expect_err("this should be refused");
        assert!(error.is_config());
        error.to_string()
    }

    fn file_complaint(text: &str) -> String {
        let file = toml(text);
        let told = complaint(Config::load_from(Some(file.path()), NONE, NONE));
        told.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        let loaded = Config::load_from(None, NONE, NONE).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.entries().all(|(_, source)| *source == Source::Default));
    }

    #[test]
    fn each_source_beats_the_ones_before_it() {
        let file = toml("port = 1\nbuffer = 1\nreplay = 1\n");
        let variables =
            [("RUSTY_SOCKS_BUFFER", "2"), ("RUSTY_SOCKS_REPLAY", "2"), ("HOME", "/somewhere")];
        let loaded = Config::load_from(Some(file.path()), variables, [("--replay", "3")]).unwrap();
        let Config { host, port, buffer, replay, .. } = &loaded.config;
        assert_eq!((host.as_str(), *port, *buffer, *replay), ("0.0.0.0", 1, 2, 3));
        let source = |name| loaded.source(name).unwrap().clone();
        assert_eq!(source("host"), Source::Default);
        assert_eq!(source("port"), Source::File(file.path().into()));
        assert_eq!(source("buffer"), Source::Variable("RUSTY_SOCKS_BUFFER".into()));
        assert_eq!(source("replay"), Source::Flag("--replay".into()));
        assert_eq!(loaded.source("no_such"), None);
    }

    #[test]
    fn a_variable_names_the_file_and_an_argument_beats_it() {
        let (named, given) = (toml("port = 1"), toml("port = 2"));
        let variables = [(OsStr::new(FILE_VARIABLE), named.path().as_os_str())];
        let loaded = Config::load_from(None, variables, NONE).unwrap();
        assert_eq!(loaded.config.port, 1);
        let loaded = Config::load_from(Some(given.path()), variables, NONE).unwrap();
        assert_eq!(loaded.config.port, 2);
    }

    #[test]
    fn every_type_of_key_is_read_from_the_file() {
        let file = toml(
            "host = '::1'\nport = 0\ntimeout = 1.5\nping = 0\nmax_message_bytes = '1KiB'\n\
             buffer_bytes = 4096\necho = true\nlog_format = 'json'\ndefault_room = ''\n\
             allowed_origins = ['https://a.example', 'https://b.example']\n",
        );
        let config = Config::load_from(Some(file.path()), NONE, NONE).unwrap().config;
        assert_eq!(config.timeout.as_millis(), 1500);
        assert!(config.ping.is_zero());
        assert_eq!(config.max_message_bytes, 1024);
        assert_eq!(config.allowed_origins.len(), 2);
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(config.echo && config.default_room.is_empty());
        let comma = toml("allowed_origins = 'https://a.example,https://b.example'");
        let config = Config::load_from(Some(comma.path()), NONE, NONE).unwrap().config;
        assert_eq!(config.allowed_origins, ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn an_empty_variable_is_empty_text_but_no_number() {
        let empty = [("RUSTY_SOCKS_DEFAULT_ROOM", ""), ("RUSTY_SOCKS_ALLOWED_ORIGINS", "")];
        let config = Config::load_from(None, empty, NONE).unwrap().config;
        assert!(config.default_room.is_empty() && config.allowed_origins.is_empty());
        for key in ["PORT", "TIMEOUT", "BUFFER_BYTES", "ECHO", "LOG", "LOG_FORMAT", "HOST"] {
            let variable = format!("{PREFIX}{key}");
            let told = complaint(Config::load_from(None, [(variable.as_str(), "")], NONE));
            assert!(told.contains(&format!("= \"\" from {variable}: must be ")), "{told}");
        }
    }

    #[test]
    fn a_bad_value_is_told_with_its_source_and_range() {
        let told = complaint(Config::load_from(
            None,
            [("RUSTY_SOCKS_MAX_CONN", "many")],
            [("port", "65536")],
        ));
        assert_eq!(
            told,
            "max_conn = \"many\" from RUSTY_SOCKS_MAX_CONN: must be a whole number, 1 to 10000000\n\
             port = \"65536\" from --port: must be a whole number, 0 to 65535"
        );
    }

    #[test]
    fn a_bad_value_is_an_error_even_when_it_is_overridden() {
        let told = complaint(Config::load_from(None, [("RUSTY_SOCKS_PORT", "x")], [("port", "1")]));
        assert!(told.contains("RUSTY_SOCKS_PORT"), "{told}");
    }

    #[test]
    fn unknown_names_suggest_the_nearest_known_one() {
        let told = complaint(Config::load_from(
            None,
            [("RUSTY_SOCKS_MAX_CONNECTIONS", "1"), ("RUSTY_SOCKS_CONFG", "x")],
            [("--thread-pool", "1")],
        ));
        assert_eq!(
            told,
            "unknown variable \"RUSTY_SOCKS_CONFG\": did you mean RUSTY_SOCKS_CONFIG?\n\
             unknown variable \"RUSTY_SOCKS_MAX_CONNECTIONS\": did you mean RUSTY_SOCKS_MAX_CONN?\n\
             unknown flag \"--thread-pool\": did you mean --thread-pool-size?"
        );
        let told = file_complaint("max-conn = 1");
        assert_eq!(told, "unknown key \"max-conn\" in FILE: did you mean max_conn?");
        let told = file_complaint("zzzz = 1");
        assert!(told.ends_with("`rusty_socks check-config` prints all there are"), "{told}");
    }

    #[test]
    fn what_kubernetes_sets_is_passed_over_with_a_warning() {
        let links = [
            ("RUSTY_SOCKS_PORT", "tcp://10.96.0.11:3030"),
            ("RUSTY_SOCKS_SERVICE_HOST", "10.96.0.11"),
            ("RUSTY_SOCKS_BUFFER", "7"),
        ];
        let loaded = Config::load_from(None, links, NONE).unwrap();
        assert_eq!((loaded.config.port, loaded.config.buffer), (3030, 7));
        assert_eq!(loaded.source("port"), Some(&Source::Default));
        let told = &loaded.warnings()[0];
        assert!(
            told.contains("for a Service: RUSTY_SOCKS_PORT, RUSTY_SOCKS_SERVICE_HOST;"),
            "{told}"
        );
    }

    #[test]
    fn wrong_types_in_the_file_are_named() {
        for (line, wanted) in [
            ("port = '3030'", "must be an integer, not a string; allowed is 0 to 65535"),
            ("port = 30.5", "must be an integer, not a float"),
            ("timeout = '60'", "must be an integer or a float, not a string"),
            ("buffer_bytes = 1.5", "must be an integer or a string, not a float"),
            ("host = 1", "must be a string, not an integer"),
            ("echo = 'yes'", "must be a boolean, not a string"),
            ("allowed_origins = [1]", "must be an array of strings, not an array"),
            ("log = 1979-05-27", "must be a string, not a datetime"),
            ("[host]\nname = 'x'", "must be a string, not a table"),
        ] {
            let told = file_complaint(line);
            assert!(told.contains(" from FILE: ") && told.contains(wanted), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        assert!(file_complaint("timeout = inf").contains("must be seconds, 0.001 to 86400"));
        assert!(file_complaint("port = -1").contains("port = -1 from FILE: must be a whole"));
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let told = file_complaint("port = 1\nhost =\n");
        assert!(told.starts_with("FILE: line 2: "), "{told}");
        assert_eq!(told.lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let missing = Path::new("no/such/file.toml");
        let told = complaint(Config::load_from(Some(missing), NONE, NONE));
        let start = "cannot read the configuration file \"no/such/file.toml\" from --config: ";
        assert!(told.starts_with(start), "{told}");
        let told = complaint(Config::load_from(None, [(FILE_VARIABLE, "")], NONE));
        let start = "cannot read the configuration file \"\" from RUSTY_SOCKS_CONFIG: ";
        assert!(told.starts_with(start), "{told}");
    }

    #[test]
    fn the_rules_between_keys_tell_both_sources() {
        let told = complaint(Config::load_from(None, [("RUSTY_SOCKS_HISTORY", "5")], NONE));
        let start = "replay = 10 by default: must be at most history = 5 from RUSTY_SOCKS_HISTORY";
        assert!(told.starts_with(start), "{told}");
    }

    #[test]
    fn a_message_has_no_control_characters() {
        for text in [
            r#"default_room = "\u0087""#,
            r#"replay = ["\u0087"]"#,
            "[rooms.a]\noverflow = \"\\u0087\"",
        ] {
            let told = file_complaint(text);
            assert!(told.contains(r"\u0087") && !told.contains('\u{87}'), "{told:?}");
        }
    }

    #[test]
    fn a_long_value_is_cut_in_the_message() {
        let long = "9".repeat(10_000);
        let told = complaint(Config::load_from(None, NONE, [("port", long.as_str())]));
        assert!(told.len() < 250, "{told}");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        const KEY: &str = "0123456789abcdef-secret";
        let (secret, other) = (toml(&format!("{KEY}\n")), toml("another-key-of-some-length"));
        let path = secret.path().to_str().unwrap();
        let by_file = toml(&format!("api_key_file = {:?}", other.path().to_str().unwrap()));
        let loaded = Config::load_from(Some(by_file.path()), NONE, NONE).unwrap();
        assert_eq!(loaded.config.api_key.reveal(), "another-key-of-some-length");
        let variables = [("RUSTY_SOCKS_API_KEY_FILE", path)];
        let loaded = Config::load_from(Some(by_file.path()), variables, NONE).unwrap();
        assert_eq!(loaded.config.api_key.reveal(), KEY, "a variable beats the file");
        let source = loaded.source("api_key").unwrap().to_string();
        assert_eq!(source, format!("{path}, named by RUSTY_SOCKS_API_KEY_FILE"));
        let loaded = Config::load_from(None, NONE, [("--api-key-file", path)]).unwrap();
        assert_eq!(loaded.config.api_key.reveal(), KEY);
        let (key, _) = loaded.entries().find(|(key, _)| key.name() == "api_key").unwrap();
        assert_eq!(key.show(&loaded.config), "(set)");
        assert!(!format!("{:?}", loaded.config).contains(KEY), "not in logs either");

        let told = complaint(Config::load_from(None, NONE, [("--api-key", KEY)]));
        assert_eq!(told, "unknown flag \"--api-key\": did you mean --api-key-file?");
        let both = [variables[0], ("RUSTY_SOCKS_API_KEY", KEY)];
        let told = complaint(Config::load_from(None, both, NONE));
        assert!(told.starts_with("api_key is given twice: "), "{told}");
        assert!(!told.contains(KEY), "{told}");
        for (variable, value) in [("API_KEY", "short-sesame"), ("API_KEY", "sesame with spaces")] {
            let variable = format!("{PREFIX}{variable}");
            let told = complaint(Config::load_from(None, [(variable.as_str(), value)], NONE));
            assert!(told.contains("(set) from RUSTY_SOCKS_API_KEY: must be 16 to"), "{told}");
            assert!(!told.contains("sesame"), "{told}");
        }
        for line in ["api_key = ['sesame']", "api_key = 'sesame'", "api_key_file = 1"] {
            assert!(!file_complaint(line).contains("sesame"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_an_error() {
        use std::os::unix::ffi::OsStrExt;
        let bytes = OsStr::from_bytes(b"a\xff");
        let variables = [(OsStr::new("RUSTY_SOCKS_HOST"), bytes)];
        let told = complaint(Config::load_from(None, variables, NONE));
        assert!(told.ends_with("from RUSTY_SOCKS_HOST: must be valid UTF-8"), "{told}");
        let variables = [(OsStr::from_bytes(b"RUSTY_SOCKS_\xff"), OsStr::new("1"))];
        let told = complaint(Config::load_from(None, variables, NONE));
        assert!(told.starts_with("unknown variable"), "{told}");
    }

    /// Odd texts for every key from every source never panic, and what is accepted is valid.
    #[test]
    fn odd_input_is_answered() {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.as_nanos() as u64 | 1);
        println!("seed {seed}");
        let mut state = seed;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let pieces = [
            "0",
            "1",
            "9",
            "99999999999",
            ".",
            "-",
            "+",
            "e",
            "inf",
            "NaN",
            "KiB",
            "GiB",
            " ",
            ",",
            "=",
            "\"",
            "'",
            "[",
            "]",
            "\n",
            "\0",
            "é",
            "*",
            "://",
            "info",
            "true",
            "#",
            "{",
            "}",
            "\u{feff}",
            "port",
        ];
        for _ in 0..5_000 {
            let key = &Config::keys()[random(Config::keys().len())];
            if key.is_secret() {
                // Its flag takes a file.
                continue;
            }
            let value: String = (0..random(6)).map(|_| pieces[random(pieces.len())]).collect();
            let (variable, flag) = (key.variable(), key.flag());
            let from_variable =
                Config::load_from(None, [(variable.as_str(), value.as_str())], NONE);
            let from_flag = Config::load_from(None, NONE, [(flag.as_str(), value.as_str())]);
            assert_eq!(from_variable.is_ok(), from_flag.is_ok(), "{} = {value:?}", key.name());
            if let Ok(loaded) = from_flag {
                loaded.config.validate().unwrap();
            }
            let mut loading = Loading::new(open, Vec::new());
            if let Ok(table) = format!("{} = {value}", key.name()).parse::<toml::Table>() {
                for value in table.values() {
                    let _ = key.kind().text_of_toml(value).map(|text| {
                        loading.set(0, &text, &text, Source::Default);
                    });
                }
            }
        }
    }
}
