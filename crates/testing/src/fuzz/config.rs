//! Settings from a file, variables and flags.

use std::fs;

use rusty_socks::Config;

/// Fuzzes a TOML file, and after a line `%%` variables and flags, one a line as `NAME=value`.
/// Accepted settings are valid, and errors are lines that a terminal can show.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (toml, rest) = text.split_once("%%\n").unwrap_or((&text, ""));
    let thread = std::thread::current().id();
    let name = format!("rusty_socks-fuzz-{}-{thread:?}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, toml).expect("a writable directory for temporary files");
    let pairs = rest.lines().filter_map(|line| line.split_once('='));
    let (flags, variables): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name.starts_with("--"));
    let variables: Vec<(String, &str)> = variables
        .into_iter()
        .map(|(name, value)| (format!("RUSTY_SOCKS_{}", name.trim()), value))
        .collect();
    let variables = variables.iter().map(|(name, value)| (name.as_str(), *value));
    let loaded = Config::load_from(Some(&path), variables.clone(), flags.iter().copied());
    let again = Config::load_from(Some(&path), variables, flags.iter().copied());
    fs::remove_file(&path).expect("the file is still there");
    match (loaded, again) {
        (Ok(loaded), Ok(again)) => {
            assert_eq!(loaded.config, again.config);
            loaded.config.validate().expect("what was loaded is valid");
            loaded.config.warnings();
            for (key, _) in loaded.entries() {
                let shown = key.show(&loaded.config);
                assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
            }
        }
        (Err(error), Err(again)) => {
            let told = error.to_string();
            assert_eq!(told, again.to_string());
            assert!(error.is_config() && !told.is_empty());
            assert!(told.lines().all(|line| !line.trim().is_empty()), "{told:?}");
            assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
        }
        _ => panic!("the same sources were accepted once"),
    }
}
