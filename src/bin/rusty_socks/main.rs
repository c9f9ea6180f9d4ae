//! The `rusty_socks` program: the server, and what goes with running one.
//!
//! This file reads the command line and hands over to one file a subcommand. The flags of the
//! server are not listed here: they come from the table of keys in the library.

mod exit;
mod first_page;
mod dashboard;
mod generate;
mod logging;

mod check_config;
mod connect;
mod health;
mod load;
mod serve;
mod service_manager;
mod signals;
mod token;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind, value_parser,
};
use rusty_socks::{
    Config, Error,
    config::{Group, Key, Loaded},
};

use rusty_socks_load::TlsArgs;

use connect::ConnectArgs;
use exit::Exit;
use load::LoadArgs;

/// Gives memory back to the system within seconds after it is freed. The allocator of glibc keeps
/// hundreds of megabytes once they were in use. `build.rs` has its settings.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABOUT: &str = "\
A WebSocket server for messages in real time.

It serves a JSON chat protocol (rooms, history, replay) on /ws, and tells how it is on /health and \
/stats. When it is full it says so: an upgrade waits in line for a bounded time, and beyond that \
gets a 503 with Retry-After. Without a command it serves.

Every setting is a flag, an environment variable and a key of the TOML file. The brackets behind a \
flag show the variable with its default.";

const SERVE_ABOUT: &str = "Serve until a signal ends it (the default command)";

const SERVE_EPILOGUE: &str = "\
The first SIGTERM or SIGINT drains: nobody new comes in, everyone inside is told and flushed, for at \
most --drain-timeout. The second one ends the program at once with exit code 1. SIGHUP reads the \
file, the environment and the flags anew; the log says what changed, and what needs a restart.";

const CHECK_ABOUT: &str = "Print every key, its value and where it came from";

const CHECK_EPILOGUE: &str = "Exits 0 when all is good, and 2 when a value is bad, naming each.";

const TOKEN_ABOUT: &str = "Make a token for trying out, signed with the configured secret";

const TOKEN_EPILOGUE: &str = "\
Prints the token alone. Without --rooms it grants nothing; where identity is required, the rules of \
the file alone decide then.";

const HEALTH_ABOUT: &str = "Ask a running server whether it is well";

const HEALTH_EPILOGUE: &str = "\
Made for a container's health check: prints the answer, and exits 0 on a 200 within two seconds, \
otherwise 1. It asks the configured host and port, on the loopback if the server listens everywhere. An \
address may be written as for `connect`; without a scheme or a path it means /health. The \
certificate is checked where --url names the server, and not where the configuration does.";

const LOAD_ABOUT: &str =
    "Load any WebSocket server: storms of connections, round trips, fan-out, idle holding";

const CONNECT_ABOUT: &str = "Talk to a server from a terminal or a pipe";

const SHORT_EPILOGUE: &str = "All settings, exit codes and examples: rusty_socks --help";

const EPILOGUE: &str = "\
Where values come from (later ones win):
  defaults, the TOML file, RUSTY_SOCKS_* variables, flags. --max-conn is RUSTY_SOCKS_MAX_CONN in
  the environment and max_conn in the file. Times are in seconds and may have decimals; sizes are
  in bytes or in KiB, MiB, GiB. An unknown name is an error, and so is a value out of range.

Exit codes:
  0  a clean end
  1  anything else, such as a port in use
  2  bad configuration or flags
  3, 4, 5  connect, load: nobody there, refused, closed with an error or lost
  6  load: an expectation (--expect-…) was not met

Examples:
  rusty_socks                                    serve on 0.0.0.0:3030
  rusty_socks --port 4000 --max-conn 5000        the same elsewhere, with room for more
  RUSTY_SOCKS_BUFFER_BYTES=4MiB rusty_socks      by environment
  rusty_socks check-config --config server.toml  what would hold, and why
  rusty_socks health                             is it well?
  rusty_socks connect localhost:3030             say hello
  echo hi | rusty_socks connect localhost:3030   the same from a script";

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return answer_usage(&error).into(),
    };
    // Flags may stand before a command as well as after it; after it they count more.
    match matches.subcommand() {
        None => serve(&[&matches]).into(),
        Some(("serve", own)) => serve(&[&matches, own]).into(),
        Some(("check-config", own)) => {
            let run = |loaded| check_config::run(loaded, own);
            exit::report(loaded(&[&matches, own]).and_then(run)).into()
        }
        Some(("health", own)) => {
            let url = own.get_one::<String>("url").map(String::as_str);
            let tls = TlsArgs::from_arg_matches(own).unwrap_or_else(|error| error.exit());
            exit::report(health::run(url, &tls, || loaded(&[&matches, own]))).into()
        }
        Some(("token", own)) => {
            let run = |loaded| token::run(own, &loaded);
            exit::report(loaded(&[&matches, own]).and_then(run)).into()
        }
        Some(("completions", own)) => generate::completions(command(), own).into(),
        Some(("man", own)) => generate::man(command(), own).into(),
        Some(("load", own)) => run_foreign(&matches, own, "load", load::run),
        Some(("connect", own)) => run_foreign(&matches, own, "connect", connect::run),
        // Only the commands above are known to the parser.
        Some(_) => Exit::Failure.into(),
    }
}

/// Serves by the settings of file, environment and flags, which may be read again later.
fn serve(matches: &[&ArgMatches]) -> Exit {
    let kept: Vec<ArgMatches> = matches.iter().copied().cloned().collect();
    let read = move || {
        let kept: Vec<_> = kept.iter().collect();
        let (file, flags) = given(&kept);
        Config::load_again(file, env::vars_os(), flags)
    };
    exit::report(loaded(matches).and_then(|loaded| serve::run(loaded, Box::new(read))))
}

/// A command that is no server takes its own flags and none of the server's.
fn run_foreign<A: FromArgMatches, E: Into<ExitCode>>(
    outer: &ArgMatches,
    own: &ArgMatches,
    name: &str,
    run: impl FnOnce(A) -> E,
) -> ExitCode {
    if let Some((key, _)) = flags_of(outer).first() {
        let problem = format!("{} is a flag of the server, not of `{name}`", key.flag());
        return exit::report(Err(Error::config(problem))).into();
    }
    match A::from_arg_matches(own) {
        Ok(args) => run(args).into(),
        Err(error) => answer_usage(&error).into(),
    }
}

/// The configuration by file, environment and the flags in `matches`, of which later ones win.
fn loaded(matches: &[&ArgMatches]) -> Result<Loaded, Error> {
    let (file, flags) = given(matches);
    Config::load_from(file, env::vars_os(), flags)
}

/// The file and the flags in `matches`.
fn given<'m>(matches: &[&'m ArgMatches]) -> (Option<&'m Path>, Vec<(OsString, OsString)>) {
    let file = matches.iter().rev().find_map(|matches| matches.get_one::<PathBuf>("config"));
    let flags = matches.iter().flat_map(|matches| flags_of(matches));
    let flags = flags.map(|(key, value)| (OsString::from(key.flag()), value));
    (file.map(PathBuf::as_path), flags.collect())
}

/// The server's flags that were typed. A command that takes none of them has none.
fn flags_of(matches: &ArgMatches) -> Vec<(&'static Key, OsString)> {
    let typed = |key: &'static Key| {
        let value = matches.try_get_one::<OsString>(key.name()).ok()??;
        Some((key, value.clone()))
    };
    Config::keys().iter().filter_map(typed).collect()
}

fn command() -> Command {
    let serve = Command::new("serve").about(SERVE_ABOUT).after_help(SERVE_EPILOGUE);
    let check = Command::new("check-config")
        .about(CHECK_ABOUT)
        .after_help(CHECK_EPILOGUE)
        .args(check_config::args());
    let of_tokens = ["token_hmac_secret", "token_audience", "token_issuer"];
    let of_tokens = Config::keys().iter().filter(move |key| of_tokens.contains(&key.name()));
    let token = Command::new("token")
        .about(TOKEN_ABOUT)
        .after_help(TOKEN_EPILOGUE)
        .args(token::args())
        .arg(config_flag())
        .args(of_tokens.map(server_flag));
    let where_to_ask = Config::keys().iter().filter(|key| ["host", "port"].contains(&key.name()));
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .help("What to ask instead: localhost, localhost:4000 or http://localhost:4000/health");
    let health = TlsArgs::augment_args(Command::new("health"))
        .about(HEALTH_ABOUT)
        .after_help(HEALTH_EPILOGUE)
        .args([url, config_flag()])
        .args(where_to_ask.map(server_flag));
    let load = LoadArgs::augment_args(Command::new("load")).about(LOAD_ABOUT);
    let connect = ConnectArgs::augment_args(Command::new("connect")).about(CONNECT_ABOUT);
    let completions = Command::new("completions")
        .about(generate::COMPLETIONS_ABOUT)
        .after_help(generate::COMPLETIONS_EPILOGUE)
        .args(generate::completions_args());
    let man = Command::new("man")
        .about(generate::MAN_ABOUT)
        .after_help(generate::MAN_EPILOGUE)
        .args(generate::man_args());
    with_server_flags(Command::new("rusty_socks"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT.lines().next().unwrap_or(ABOUT))
        .long_about(ABOUT)
        .after_help(SHORT_EPILOGUE)
        .after_long_help(EPILOGUE)
        .max_term_width(110)
        .subcommands([
            with_server_flags(serve),
            with_server_flags(check),
            token,
            health,
            load,
            connect,
            completions,
            man,
        ])
}

fn with_server_flags(command: Command) -> Command {
    command.arg(config_flag()).args(Config::keys().iter().map(server_flag))
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file to read [RUSTY_SOCKS_CONFIG=]")
}

/// The flag of one key. Its value stays as typed: the library judges all sources alike.
fn server_flag(key: &'static Key) -> Arg {
    let default = match key.default().as_str() {
        "empty" => String::new(),
        default => default.to_string(),
    };
    let variable = key.file_variable().unwrap_or_else(|| key.variable());
    let help = format!("{} [{variable}={default}]", key.help());
    // The parser wants names that live as long as the program, and these do: a few bytes, made
    // once.
    let long: &'static str = key.flag().trim_start_matches('-').to_owned().leak();
    let arg = Arg::new(key.name())
        .long(long)
        .value_parser(value_parser!(OsString))
        .action(ArgAction::Set)
        .allow_negative_numbers(true)
        .help_heading(key.group().heading())
        // `-h` is for those who look for the one flag that most need; `--help` has all.
        .hide_short_help(key.group() != Group::First)
        .help(help);
    if key.is_switch() {
        // Only with an equals sign, or else `--echo serve` would ask to echo "serve".
        arg.value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        arg.value_name(value_name(key))
    }
}

/// What stands for the value in help.
fn value_name(key: &Key) -> &'static str {
    match key.unit() {
        _ if key.is_secret() => "FILE",
        "" => "VALUE",
        "seconds" => "SECONDS",
        unit if unit.starts_with("bytes") => "SIZE",
        _ => "N",
    }
}

/// Help and version go to standard output; a wrong command line gets the one error prefix.
fn answer_usage(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::printed(error.print()),
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            exit::say(&format!("{}{text}", exit::PREFIX));
            Exit::BadConfig
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ContextKind;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_told_with_the_nearest() {
        let error = command().try_get_matches_from(["rusty_socks", "--max-con", "1"]).unwrap_err();
        let near = error.get(ContextKind::SuggestedArg).map(ToString::to_string);
        assert_eq!(near.as_deref(), Some("--max-conn"));
    }
}
