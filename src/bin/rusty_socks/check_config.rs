//! `rusty_socks check-config`: what would hold, and who said so.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, value_parser};
use rusty_socks::{
    Config, Error, Identity, Permissions, RoomName, Server,
    config::{Access, IdentityMode, Loaded},
    identity,
};

use crate::exit::{self, Exit};

/// The arguments, beside the server's flags.
pub(crate) fn args() -> [Arg; 3] {
    let explain = Arg::new("explain")
        .long("explain")
        .value_name("ROOM")
        .help("Print who may do what in this room, and why, in place of the table");
    let token = Arg::new("token")
        .long("token")
        .value_name("FILE")
        .requires("explain")
        .value_parser(value_parser!(PathBuf))
        .help("For the client with the token in this file; else for an anonymous one");
    let connect = Arg::new("connect")
        .long("connect")
        .action(ArgAction::SetTrue)
        .help("Connect to the Redis of the settings too, and say whether it can be used");
    [explain, token, connect]
}

/// Prints the table, or what holds in one room. A bad configuration never comes here: loading it
/// has already failed.
pub(crate) fn run(loaded: Loaded, args: &ArgMatches) -> Result<Exit, Error> {
    // The files that it names must be good too.
    let builder = Server::builder().config(loaded.config.clone());
    builder.check()?;
    let reached = args.get_flag("connect").then(|| builder.try_engine()).transpose()?;
    match reached {
        None => {}
        Some(None) => exit::say("connected to nothing: engine is memory"),
        Some(Some(reached)) => exit::say(&format!("connected to {reached}: it can be used")),
    }
    if let Some(room) = args.get_one::<String>("explain") {
        let token = args.get_one::<PathBuf>("token").map(PathBuf::as_path);
        let text = explain(&loaded.config, room, token)?;
        return Ok(exit::printed(io::stdout().write_all(text.as_bytes())));
    }
    let exit = exit::printed(io::stdout().write_all(table(&loaded).as_bytes()));
    for warning in loaded.warnings() {
        exit::say(&format!("{}warning: {warning}", exit::PREFIX));
    }
    Ok(exit)
}

/// Says who may do what in a room, and why.
fn explain(config: &Config, room: &str, token: Option<&Path>) -> Result<String, Error> {
    let room = RoomName::new(room)?;
    let client = token.map(|path| identity_of(config, path)).transpose()?;
    let mut text = match &client {
        Some(identity) => format!("{} in {room}, with the token", identity.user),
        None if config.identity == IdentityMode::Required => {
            format!("nobody in {room}: identity is required, and this client has no token")
        }
        None => format!("an anonymous client in {room}"),
    };
    let pattern = config.room_access(room.as_str()).pattern;
    text += &match pattern {
        Some(pattern) => format!("; the rule [rooms.{pattern:?}] holds\n"),
        None => "; no rule of the file holds\n".to_owned(),
    };
    let is_out = client.is_none() && config.identity == IdentityMode::Required;
    for verdict in identity::explain(config, client.as_ref(), room.as_str()) {
        let is_allowed = verdict.is_allowed && !is_out;
        let why = match verdict.access {
            Access::Everyone => "everyone may".to_owned(),
            Access::Users => "everyone with a user may".to_owned(),
            Access::Token => granted(client.as_ref(), verdict.permission, room.as_str()),
        };
        let answer = if is_allowed { "yes" } else { "no" };
        text += &format!("  {:10}{answer:5}{why}\n", verdict.permission.to_string());
    }
    Ok(text)
}

/// Says which grant of a token allows something in a room.
fn granted(client: Option<&Identity>, permission: Permissions, room: &str) -> String {
    let is_direct = permission == Permissions::DIRECT;
    let grants = client.map(|identity| &*identity.grants).unwrap_or_default().iter();
    let mut allowing = grants
        .filter(|grant| grant.allow().contains(permission) && (is_direct || grant.matches(room)));
    match allowing.next() {
        Some(grant) => format!("the token grants it for {:?}", grant.pattern()),
        None => "a token must grant it, and none does".to_owned(),
    }
}

fn identity_of(config: &Config, path: &Path) -> Result<Identity, Error> {
    let shown = path.display();
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| Error::config(format!("cannot read {shown}: {error}")))?;
    let verified = identity::verify_once(config, text.trim());
    verified.map_err(|error| Error::config(format!("the token in {shown}: {error}")))
}

fn table(loaded: &Loaded) -> String {
    let header = ["key", "value", "unit", "from"].map(String::from);
    let rows = loaded.config.shown(Some(loaded)).into_iter();
    let rows =
        rows.map(|shown| [shown.key, shown.value, shown.unit, shown.from.unwrap_or_default()]);
    let rows: Vec<[String; 4]> = [header].into_iter().chain(rows).collect();
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
