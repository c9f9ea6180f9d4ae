//! The program, run as an operator runs it.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::Value;

use crate::support::{DEADLINE, RawClient, eventually, upgrade_head};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rusty_socks");

/// A command with none of the caller's own settings.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("RUSTY_SOCKS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program with `settings` to its end. Returns its exit code, and what it wrote to both
/// outputs.
pub fn outcome(
    arguments: &[&str],
    settings: &[(&str, &str)],
    input: &str,
) -> (Option<i32>, String) {
    let mut command = command(PROGRAM);
    command.args(arguments).envs(variables(settings));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who has read enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), format!("{out}{err}"))
}

/// Settings as variables, of which the `RUSTY_SOCKS_` is left out.
fn variables<'a>(settings: &[(&str, &'a str)]) -> impl Iterator<Item = (String, &'a str)> {
    settings.iter().map(|(name, value)| (format!("RUSTY_SOCKS_{name}"), *value))
}

/// A process with a log, killed when the test lets go of it.
pub struct Process {
    pub child: Child,
    /// Its log, line by line.
    pub log: mpsc::Receiver<String>,
}

impl Process {
    /// Runs `command`. Its log is shown when the test fails.
    pub fn run(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = mpsc::channel();
        thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| {
                println!("log: {line}");
                tell.send(line)
            })
        });
        Process { child, log }
    }

    /// The next line that contains `with`; others are passed over.
    pub fn log_line(&self, with: &str) -> String {
        loop {
            let line =
                self.log.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line with {with}"));
            if line.contains(with) {
                return line;
            }
        }
    }

    /// Sends a signal by its name, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Its exit code, once it has ended of itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the process has ended", || match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                Ok(())
            }
            None => Err("it runs".into()),
        });
        code
    }

    /// Resident memory in bytes: `VmRSS` as it is now, `VmHWM` at its peak. Linux alone tells it.
    pub fn memory(&self, which: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that listens on TCP.
pub struct Program {
    pub process: Process,
    pub addr: SocketAddr,
}

impl Program {
    /// Starts the program on a free port with `arguments` and `settings`.
    pub fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Program {
        let mut command = command(PROGRAM);
        command.args(["--host", "127.0.0.1", "--port", "0"]).args(arguments);
        command.envs(variables(settings));
        Program::run(&mut command)
    }

    /// Runs `command`, and returns once it listens.
    pub fn run(command: &mut Command) -> Program {
        let process = Process::run(command);
        let line = process.log_line("listens on ");
        Program { process, addr: listens_on(&line) }
    }

    /// A plain socket to it, with a deadline on reads.
    pub fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A raw client that is served at `path`.
    pub fn upgrade(&self, path: &str) -> RawClient {
        let mut client = RawClient::new(self.socket());
        client.send(upgrade_head(path).as_bytes());
        assert_eq!(client.answer().status, 101);
        client
    }

    pub fn stats(&self) -> Value {
        let mut stream = self.socket();
        let request = b"GET /stats HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

impl Deref for Program {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The address in the line of the log that says where the program listens.
pub fn listens_on(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("listens on ").unwrap();
    rest.split_once(": ").unwrap().0.parse().unwrap()
}
