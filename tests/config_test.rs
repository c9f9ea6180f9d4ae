//! The configuration as an operator meets it: the real binary, its output and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use program::{PROGRAM, command};
use rusty_socks::Config;
use tempfile::TempDir;

/// The binary with none of the caller's own settings.
fn rusty_socks(arguments: &[&str]) -> Command {
    let mut command = command(PROGRAM);
    command.args(arguments);
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The value, unit and source that `check-config` printed for `key`, with single spaces.
fn told(output: &Output, key: &str) -> String {
    let text = stdout(output);
    let line = text.lines().find(|line| line.split(' ').next() == Some(key));
    let words: Vec<&str> = line.expect("the key is printed").split_whitespace().skip(1).collect();
    words.join(" ")
}

/// Runs what must be refused as bad configuration, and returns its complaints without the prefix.
fn refused(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    text.lines().map(|line| line.strip_prefix("rusty_socks: ").unwrap().to_string()).collect()
}

fn file(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("server.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn check_config_prints_every_key_with_its_default() {
    let output = rusty_socks(&["check-config"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    for key in Config::keys() {
        let expected = [key.default().as_str(), key.unit(), "default"].join(" ");
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(told(&output, key.name()), expected.join(" "));
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "host = '127.0.0.1'\nport = 1\nmax_conn = 1\n");
    let shown = path.display().to_string();
    let output = rusty_socks(&["check-config", "--max-conn", "3", "--config", &shown])
        .env("RUSTY_SOCKS_PORT", "2")
        .env("RUSTY_SOCKS_MAX_CONN", "2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(told(&output, "host"), format!("127.0.0.1 {shown}"));
    assert_eq!(told(&output, "port"), "2 RUSTY_SOCKS_PORT");
    assert_eq!(told(&output, "max_conn"), "3 sessions --max-conn");
    assert_eq!(told(&output, "ping"), "30 seconds default");
}

#[test]
fn a_variable_may_name_the_file() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "buffer_bytes = '4MiB'");
    let output = rusty_socks(&["check-config"]).env("RUSTY_SOCKS_CONFIG", &path).output().unwrap();
    assert_eq!(told(&output, "buffer_bytes"), format!("4MiB bytes {}", path.display()));
}

#[test]
fn flags_may_stand_before_the_command_and_count_more_after_it() {
    let arguments = ["--port", "1", "--echo", "check-config", "--port=2", "--default-room="];
    let output = rusty_socks(&arguments).output().unwrap();
    assert_eq!(told(&output, "port"), "2 --port");
    assert_eq!(told(&output, "echo"), "true --echo");
    assert_eq!(told(&output, "default_room"), "empty --default-room");
}

#[test]
fn every_problem_is_told_with_key_value_source_and_range() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "port = '3030'\nmax_con = 5\n");
    let shown = path.display();
    let complaints = refused(
        rusty_socks(&["check-config", "--buffer-bytes", "64KB", "--config"])
            .arg(&path)
            .env("RUSTY_SOCKS_TIMEOUT", "soon")
            .env("RUSTY_SOCKS_TIMEOUTS", "1"),
    );
    assert_eq!(
        complaints,
        [
            format!("unknown key \"max_con\" in {shown}: did you mean max_conn?"),
            format!(
                "port = \"3030\" from {shown}: must be an integer, not a string; allowed is 0 to 65535"
            ),
            "timeout = \"soon\" from RUSTY_SOCKS_TIMEOUT: must be seconds, 0.001 to 86400".into(),
            "unknown variable \"RUSTY_SOCKS_TIMEOUTS\": did you mean RUSTY_SOCKS_TIMEOUT?".into(),
            "buffer_bytes = \"64KB\" from --buffer-bytes: must be a size in bytes or with KiB, MiB \
             or GiB, 256 to 1GiB"
                .into(),
        ]
    );
}

#[test]
fn check_config_prints_the_rules_for_rooms() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "[rooms.'prices.*']\noverflow = 'latest'\nhistory = 1\n");
    let output = rusty_socks(&["check-config", "--config"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let from = path.display();
    assert_eq!(told(&output, "rooms.\"prices.*\".overflow"), format!("latest {from}"));
    assert_eq!(told(&output, "rooms.\"prices.*\".history"), format!("1 messages {from}"));
    let path = file(&directory, "[rooms.'prices.*']\noverflow = 'lates'\n");
    let complaints = refused(rusty_socks(&["check-config", "--config"]).arg(&path));
    let demand = "must be close or gap or latest; did you mean latest?";
    let told = format!("rooms.\"prices.*\".overflow = \"lates\" from {from}, line 2: {demand}");
    assert_eq!(complaints, [told]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let complaints = refused(&mut rusty_socks(&["check-config", "--buffer-bytes=64KiB"]));
    assert_eq!(complaints.len(), 1);
    let start = "buffer_bytes = 64KiB from --buffer-bytes: must be at least twice \
                 max_message_bytes = 64KiB by default";
    assert!(complaints[0].starts_with(start), "{complaints:?}");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_refused() {
    let complaints = refused(&mut rusty_socks(&["check-config", "--config", "no/such.toml"]));
    let start = "cannot read the configuration file \"no/such.toml\" from --config: ";
    assert!(complaints[0].starts_with(start), "{complaints:?}");

    let directory = TempDir::new().unwrap();
    let path = file(&directory, "port = 1\n}\n");
    let complaints = refused(rusty_socks(&["check-config"]).env("RUSTY_SOCKS_CONFIG", &path));
    assert!(complaints[0].starts_with(&format!("{}: line 2: ", path.display())), "{complaints:?}");
}

#[test]
fn a_bad_configuration_stops_the_server_as_well() {
    for arguments in [&["--port", "x"][..], &["serve", "--port", "-1"]] {
        let complaints = refused(&mut rusty_socks(arguments));
        assert!(complaints[0].ends_with("must be a whole number, 0 to 65535"), "{complaints:?}");
    }
}

#[test]
fn an_unknown_flag_or_command_is_bad_configuration() {
    for (argument, near) in [("--max-con=1", "--max-conn"), ("check-confg", "check-config")] {
        let output = rusty_socks(&[argument]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(text.starts_with("rusty_socks: ") && text.contains(near), "{text}");
    }
}

#[test]
fn doubtful_values_are_warned_about_and_accepted() {
    let output = rusty_socks(&["check-config", "--timeout", "10"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).starts_with("rusty_socks: warning: timeout (10 s)"));

    let mut in_a_pod = rusty_socks(&["check-config"]);
    let output = in_a_pod.env("RUSTY_SOCKS_PORT", "tcp://10.96.0.11:3030").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).starts_with("rusty_socks: warning: no settings, but set by Kubernetes")
    );
}

#[test]
fn help_tells_every_flag_and_variable_and_the_exit_codes() {
    for arguments in [&["--help"][..], &["-h"], &["serve", "--help"]] {
        let output = rusty_socks(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = stdout(&output);
        // The short help has the first eight, and says where the others are.
        let is_short = arguments == ["-h"];
        assert_eq!(text.contains("All settings, exit codes and examples"), is_short, "{text}");
        for (index, key) in Config::keys().iter().enumerate() {
            let is_told = !is_short || index < 8;
            let is_named = |end| text.contains(&format!("{}{end}", key.flag()));
            assert_eq!(is_named(" ") || is_named("["), is_told, "{}", key.flag());
            assert_eq!(
                text.contains(&format!("[{}", key.variable())),
                is_told,
                "{}",
                key.variable()
            );
        }
        assert!(text.contains("--config <FILE>"));
    }
    let text = stdout(&rusty_socks(&["--help"]).output().unwrap());
    for promise in ["Exit codes:", "Examples:", "check-config", "health", "load"] {
        assert!(text.contains(promise), "{promise}");
    }
    let version = stdout(&rusty_socks(&["--version"]).output().unwrap());
    assert_eq!(version.trim_end(), concat!("rusty_socks ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn shells_and_manuals_know_every_flag() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = rusty_socks(&["completions", shell]).output().unwrap();
        let text = stdout(&output);
        for key in Config::keys() {
            // Of fish and the others the flag stands without its hyphens.
            assert!(text.contains(key.flag().trim_start_matches('-')), "{shell}: {}", key.flag());
        }
        assert!(text.contains("check-config") && text.contains("fanout"), "{shell}");
    }
    assert_eq!(rusty_socks(&["completions", "sh"]).output().unwrap().status.code(), Some(2));
    let directory = TempDir::new().unwrap();
    let dir = directory.path().to_str().unwrap();
    assert_eq!(rusty_socks(&["man", "--dir", dir]).output().unwrap().status.code(), Some(0));
    let of_health = fs::read_to_string(directory.path().join("rusty_socks-health.1")).unwrap();
    assert!(of_health.contains("Ask a running server"), "{of_health}");
    let page = stdout(&rusty_socks(&["man"]).output().unwrap());
    assert_eq!(page, fs::read_to_string(directory.path().join("rusty_socks.1")).unwrap());
    for key in Config::keys() {
        assert!(page.contains(&key.flag().replace('-', "\\-")), "{}", key.flag());
    }
    assert!(page.contains("Exit codes:"), "{page}");
    let of_serve = fs::read_to_string(directory.path().join("rusty_socks-serve.1")).unwrap();
    // Of each flag it says what it is for.
    for page in [page, of_serve] {
        assert!(!page.contains("fR\n\n.TP"), "{page}");
    }
    let output = rusty_socks(&["man", "--dir", "/dev/null/x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_is_one_line_and_code_one() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let arguments = ["--host", "127.0.0.1", "--port", &port, "--log", "off"];
    let output = rusty_socks(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let start = format!("rusty_socks: cannot listen on 127.0.0.1:{port}: ");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.ends_with(": end what listens there, or set another port\n"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[cfg(unix)]
#[test]
fn a_signal_drains_and_ends_with_code_zero() {
    use std::{io::BufRead, io::BufReader};

    // A drain with nobody inside should be quick; the bound is for the day when it is not.
    let arguments = ["--host", "127.0.0.1", "--port", "0", "--drain-timeout", "2"];
    let mut server = rusty_socks(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = log.find_map(|line| line.ok().filter(|line| line.contains("listens on")));
    assert!(line.unwrap().contains("127.0.0.1:"));
    let pid = server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    let rest: Vec<String> = log.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("draining for up to 2 s")), "{rest:?}");
}

/// Answers one request with `answer`, and returns the port where it does.
fn stub(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        assert!(request.starts_with(b"GET /health HTTP/1.1\r\n"));
        stream.write_all(answer.as_bytes()).unwrap();
    });
    port
}

#[test]
fn health_asks_the_configured_port_and_prints_the_body() {
    let port = stub("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}");
    let output =
        rusty_socks(&["health"]).env("RUSTY_SOCKS_PORT", port.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).trim_end(), "{\"status\":\"ok\"}");
}

#[test]
fn health_asks_its_own_route_where_the_address_names_none() {
    for end in ["", "/", "/health"] {
        let port = stub("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let url = format!("http://127.0.0.1:{port}{end}");
        let output = rusty_socks(&["health", "--url", &url]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{url}: {}", stderr(&output));
    }
}

#[test]
fn health_speaks_the_proxy_protocol_where_the_server_expects_it() {
    let config =
        Config { host: "127.0.0.1".into(), port: 0, proxy_protocol: true, ..Config::default() };
    let server = rusty_socks::chat::server(config).unwrap();
    let port = server.local_addr().port();
    let handle = server.spawn().unwrap();
    let mut command = rusty_socks(&["health"]);
    command.env("RUSTY_SOCKS_PORT", port.to_string());
    let refused = command.output().unwrap();
    assert!(stderr(&refused).contains("answers 400"), "{}", stderr(&refused));
    let output = command.env("RUSTY_SOCKS_PROXY_PROTOCOL", "true").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    handle.shutdown(std::time::Duration::ZERO);
    handle.join();
}

#[test]
fn health_fails_when_the_server_is_unwell_or_absent() {
    let port = stub("HTTP/1.1 503 Draining\r\nConnection: close\r\n\r\n{\"status\":\"draining\"}");
    let url = format!("http://127.0.0.1:{port}/health");
    let output = rusty_socks(&["health", "--url", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).trim_end(), "{\"status\":\"draining\"}");

    // The stub has answered its one request and closed its port.
    let output = rusty_socks(&["health", "--url", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let tried = format!("rusty_socks: cannot ask {url}: nobody listens on 127.0.0.1:{port}\n");
    assert_eq!(stderr(&output), tried);

    let output = rusty_socks(&["health", "--url", "ftp://x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("ws:// or http://"), "{}", stderr(&output));
}

#[test]
fn health_takes_every_address_that_connect_takes() {
    for (typed, url) in [
        ("127.0.0.1:PORT", "http://127.0.0.1:PORT/health"),
        ("ws://127.0.0.1:PORT/health", "http://127.0.0.1:PORT/health"),
        ("http://127.0.0.1:PORT/health", "http://127.0.0.1:PORT/health"),
    ] {
        let port = stub("HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\n\r\n{}").to_string();
        let typed = typed.replace("PORT", &port);
        let output = rusty_socks(&["health", "--url", &typed]).output().unwrap();
        let told = format!("rusty_socks: {} answers 418\n", url.replace("PORT", &port));
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), told), "{typed}");
    }
}

/// The device on which there is never any room.
#[cfg(target_os = "linux")]
#[test]
fn health_that_cannot_be_told_is_a_failure() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let ask = |out: Stdio, err: Stdio| {
        let port = stub("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let url = format!("127.0.0.1:{port}");
        rusty_socks(&["health", "--url", &url]).stdout(out).stderr(err).output().unwrap()
    };
    let output = ask(full().into(), Stdio::piped());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
    assert_eq!(ask(full().into(), full().into()).status.code(), Some(1), "and no panic");
}

#[test]
fn the_load_test_takes_no_flags_of_the_server() {
    let complaints = refused(&mut rusty_socks(&["--port", "1", "load"]));
    assert_eq!(complaints, ["--port is a flag of the server, not of `load`"]);
}
