//! The machine a run was made on, as far as it tells.

use std::{env::consts, fs};

use super::plan;

/// What a figure needs beside it to be compared with another.
pub(crate) struct Machine {
    pub(crate) system: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let system = format!("{} {} {}", consts::OS, kernel.trim(), consts::ARCH);
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == "model name")
            .map_or_else(|| "unknown CPU".to_owned(), |(_, model)| model.trim().to_owned());
        let system = system.split_whitespace().collect::<Vec<_>>().join(" ");
        Machine { system, cpu, cores: plan::cores() }
    }
}

/// The command by which this run can be repeated, without its secrets: of a header only the name is
/// shown, because a page is passed on.
pub(crate) fn command_line() -> String {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    shown(args)
}

fn shown(args: impl Iterator<Item = String>) -> String {
    let hidden = |header: &str| {
        let name = header.split(':').next().unwrap_or_default();
        format!("{name}: …")
    };
    let mut line = "rusty_socks".to_owned();
    let mut is_header = false;
    for arg in args {
        let text = if is_header {
            hidden(&arg)
        } else if let Some(header) = arg.strip_prefix("--header=") {
            format!("--header={}", hidden(header))
        } else if let Some(header) = arg.strip_prefix("-H").filter(|header| !header.is_empty()) {
            format!("-H{}", hidden(header))
        } else {
            arg.clone()
        };
        is_header = !is_header && (arg == "-H" || arg == "--header");
        let is_plain =
            text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+?&[]".contains(c));
        line.push(' ');
        if is_plain && !text.is_empty() {
            line += &text;
        } else {
            line += &format!("'{}'", text.replace('\'', "'\\''"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_its_secrets() {
        let typed =
            ["load", "-H", "Authorization: Bearer s3cret", "--header=Cookie: s3cret", "-HX:s3cret"];
        let line = shown(typed.into_iter().map(str::to_owned));
        assert_eq!(line, "rusty_socks load -H 'Authorization: …' '--header=Cookie: …' '-HX: …'");
    }
}
