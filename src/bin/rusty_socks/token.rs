//! `rusty_socks token`: makes a token, for trying out.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Arg, ArgAction, ArgMatches};
use rusty_socks::{Config, Error, Permissions, config::Loaded, identity};
use serde_json::json;

use crate::exit::{self, Exit};

/// The arguments, beside the server's flags.
pub(crate) fn args() -> Vec<Arg> {
    let arg =
        |name: &'static str, value, help| Arg::new(name).long(name).value_name(value).help(help);
    vec![
        arg("user", "USER", "The user (claim sub)").required(true),
        arg("rooms", "PATTERN", "What --allow is for: a room, chat.* or *; several with commas")
            .action(ArgAction::Append)
            .value_delimiter(','),
        arg(
            "allow",
            "PERMISSION",
            "join, publish, history, presence, direct, with commas; default: all",
        )
        .action(ArgAction::Append)
        .value_delimiter(',')
        .requires("rooms"),
        arg("expires", "TIME", "How long it is good: 90s, 15m, 1h, 7d").default_value("1h"),
        arg("name", "NAME", "The name shown to others (claim name)"),
    ]
}

/// Prints a token, signed with the configured secret.
pub(crate) fn run(args: &ArgMatches, loaded: &Loaded) -> Result<Exit, Error> {
    let config = &loaded.config;
    if config.token_hmac_secret.is_empty() {
        return Err(Error::config(
            "there is no secret to sign with: set token_hmac_secret, such as by \
             --token-hmac-secret-file",
        ));
    }
    let token = identity::sign(&claims(args, config)?, config.token_hmac_secret.reveal())?;
    // A token that the server would refuse is told here.
    identity::verify_once(&own_key_alone(config), &token)?;
    Ok(exit::printed(writeln!(io::stdout(), "{token}")))
}

/// The configuration without keys that would have to be fetched.
fn own_key_alone(config: &Config) -> Config {
    Config { token_jwks_url: String::new(), ..config.clone() }
}

fn claims(args: &ArgMatches, config: &Config) -> Result<serde_json::Value, Error> {
    let text = |name: &str| args.get_one::<String>(name).map(String::as_str);
    let list = |name: &str| -> Vec<&str> {
        let values = args.get_many::<String>(name).into_iter().flatten();
        values.map(|value| value.trim()).collect()
    };
    let expires = text("expires").unwrap_or_default();
    let wrong = || {
        let text = format!("--expires {expires}: must be a number and s, m, h or d, such as 1h");
        Error::config(text)
    };
    let lifetime = seconds(expires).ok_or_else(wrong)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut claims = json!({
        "sub": text("user"),
        "iat": now,
        "exp": now.saturating_add(lifetime),
    });
    let mut set = |name: &str, value: serde_json::Value| claims[name] = value;
    if let Some(name) = text("name") {
        set("name", json!(name));
    }
    if let Some(audience) = config.token_audience.first() {
        set("aud", json!(audience));
    }
    if !config.token_issuer.is_empty() {
        set("iss", json!(config.token_issuer));
    }
    let (rooms, mut allow) = (list("rooms"), list("allow"));
    for name in &allow {
        let wrong = |error| Error::config(format!("--allow {name}: {error}"));
        name.parse::<Permissions>().map_err(wrong)?;
    }
    if allow.is_empty() {
        allow = Permissions::NAMED.iter().map(|(name, _)| *name).collect();
    }
    if !rooms.is_empty() {
        set("rooms", json!([{"match": rooms, "allow": allow}]));
    }
    Ok(claims)
}

/// Parses a time such as `1h`.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(
            [seconds("90s"), seconds("15m"), seconds("1h")],
            [Some(90), Some(900), Some(3600)]
        );
        for wrong in ["", "s", "1", "1y", "-1s", "+1s", "1.5h", "99999999999999999999d", "1\u{e9}"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
