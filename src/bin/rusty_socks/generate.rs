//! `rusty_socks completions` and `rusty_socks man`: what packages install beside the program, made
//! of the same description of the command line that parses it.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::exit::{self, Exit, PREFIX};

pub(crate) const COMPLETIONS_ABOUT: &str =
    "Print what a shell needs to complete commands and flags";

pub(crate) const COMPLETIONS_EPILOGUE: &str = "\
For bash:
  rusty_socks completions bash > ~/.local/share/bash-completion/completions/rusty_socks";

pub(crate) const MAN_ABOUT: &str = "Print the manual page";

pub(crate) const MAN_EPILOGUE: &str = "\
To read it: rusty_socks man | man -l -. With --dir the pages of all commands are written there.";

pub(crate) fn completions_args() -> [Arg; 1] {
    let shell = Arg::new("shell").value_name("SHELL").required(true);
    [shell.value_parser(value_parser!(Shell)).help("The shell")]
}

pub(crate) fn man_args() -> [Arg; 1] {
    let dir = Arg::new("dir").long("dir").value_name("DIR").value_parser(value_parser!(PathBuf));
    [dir.help("Write a page for each command to this directory, which must exist")]
}

pub(crate) fn completions(mut command: Command, own: &ArgMatches) -> Exit {
    let Some(shell) = own.get_one::<Shell>("shell") else { return Exit::BadConfig };
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut command, "rusty_socks", &mut text);
    exit::printed(io::stdout().write_all(&text))
}

pub(crate) fn man(command: Command, own: &ArgMatches) -> Exit {
    // A page has what `--help` has; of a flag that `-h` hides it would have the name alone.
    let show = |arg: Arg| arg.hide_short_help(false);
    let command = command.disable_help_subcommand(true).mut_args(show);
    let command = command.mut_subcommands(|own| own.mut_args(show));
    let Some(dir) = own.get_one::<PathBuf>("dir") else {
        return match page(command) {
            Ok(text) => exit::printed(io::stdout().write_all(&text)),
            Err(error) => exit::printed(Err(error)),
        };
    };
    // `rusty_socks.1`, `rusty_socks-health.1` and so on.
    match clap_mangen::generate_to(command, dir) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            exit::say(&format!("{PREFIX}cannot write to {}: {error}", dir.display()));
            Exit::Failure
        }
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(text)
}
