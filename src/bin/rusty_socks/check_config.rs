//! `rusty_socks check-config`: what would hold, and who said so.

use std::io::{self, Write};

use rusty_socks::{
    Error, Server,
    config::{Loaded, RoomRule},
};

use crate::exit::{self, Exit};

/// Prints the table. A bad configuration never comes here: loading it has already failed.
pub(crate) fn run(loaded: Loaded) -> Result<Exit, Error> {
    // The files that it names must be good too.
    Server::builder().config(loaded.config.clone()).check()?;
    let exit = exit::printed(io::stdout().write_all(table(&loaded).as_bytes()));
    for warning in loaded.config.warnings() {
        exit::say(&format!("{}warning: {warning}", exit::PREFIX));
    }
    Ok(exit)
}

fn table(loaded: &Loaded) -> String {
    let header = ["key", "value", "unit", "from"].map(String::from);
    let rows = loaded.entries().map(|(key, source)| {
        [key.name().into(), key.show(&loaded.config), key.unit().into(), source.to_string()]
    });
    // The rules for rooms come from the file as a whole, and so do further certificates.
    let rules_from = loaded.source("rooms").map(ToString::to_string).unwrap_or_default();
    let rules = loaded.config.rooms.iter().flat_map(RoomRule::entries);
    let rules = rules.map(|[name, value, unit]| [name, value, unit, rules_from.clone()]);
    let pairs_from = loaded.source("tls").map(ToString::to_string).unwrap_or_default();
    let pairs = loaded.config.tls_entries().into_iter();
    let pairs = pairs.map(|[name, value]| [name, value, String::new(), pairs_from.clone()]);
    let rows: Vec<[String; 4]> =
        [header].into_iter().chain(rows).chain(rules).chain(pairs).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [key, value, unit, from] in &rows {
        let [a, b, c] = widths;
        text.push_str(&format!("{key:a$}  {value:b$}  {unit:c$}  {from}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use rusty_socks::Config;

    use super::*;

    #[test]
    fn the_columns_are_aligned() {
        let no_variables: [(&str, &str); 0] = [];
        let flags = [("allowed_origins", "https://a.long.name.example,https://another.example")];
        let table = table(&Config::load_from(None, no_variables, flags).unwrap());
        let lines: Vec<&str> = table.lines().collect();
        let from = lines[0].find("from").unwrap();
        assert_eq!(lines.len(), 1 + Config::keys().len());
        for line in lines {
            let source = &line[from..];
            assert!(["from", "default", "--allowed-origins"].contains(&source), "{line}");
        }
    }
}
