//! A real Redis on a free port, which can be killed, frozen, started again and made a replica, and
//! a Sentinel.
//!
//! Where there is none, tests say that they are skipped, unless `NEED_REDIS` is set, as
//! `scripts/test.sh` does once it has one.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{DEADLINE, eventually};

/// Set where tests must not be skipped.
const NEEDED: &str = "NEED_REDIS";

/// How often another port is tried: between choosing one and listening on it, somebody else may.
const PORTS_TRIED_MAX: usize = 10;

/// How Sentinel names the primary.
const PRIMARY: &str = "main";

/// Whether a Redis keeps what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: started again, it is empty.
    Nothing,
    /// Each write, on disk before it is answered.
    All,
}

/// A process of Redis, killed when the test lets go of it.
pub struct Redis {
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    port: u16,
    dir: TempDir,
}

/// The program, or `None` with a word on the test that is skipped.
fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let named = ["redis-server", "valkey-server"];
    let found = env::split_paths(&path)
        .flat_map(|dir| named.map(|name| dir.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        assert!(env::var_os(NEEDED).is_none(), "there is no redis-server, and {NEEDED} is set");
        println!("skipped: there is no redis-server");
    }
    found
}

impl Redis {
    /// Starts one that keeps nothing. `None` if there is no program for it.
    pub fn start() -> Option<Redis> {
        Redis::start_that_keeps(Keeps::Nothing)
    }

    pub fn start_that_keeps(keeps: Keeps) -> Option<Redis> {
        let appends = if keeps == Keeps::All { "yes" } else { "no" };
        let arguments = ["--save", "", "--appendonly", appends, "--appendfsync", "always"];
        Some(Redis::run(program()?, &arguments.map(String::from), |_, _| ()))
    }

    /// Starts one that follows this one, and waits until it has all of it.
    pub fn replica(&self) -> Redis {
        let port = self.port.to_string();
        let arguments = ["--save", "", "--appendonly", "no", "--replicaof", "127.0.0.1", &port];
        let replica = Redis::run(self.program.clone(), &arguments.map(String::from), |_, _| ());
        eventually("the replica follows", || {
            let info = replica.cli(&["INFO", "replication"]);
            if info.contains("master_link_status:up") { Ok(()) } else { Err(info) }
        });
        replica
    }

    /// Starts a Sentinel that fails over by itself when this Redis is silent for `silence`.
    pub fn sentinel(&self, silence: Duration) -> Redis {
        let rules = format!(
            "sentinel monitor {PRIMARY} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {PRIMARY} {}\n\
             sentinel failover-timeout {PRIMARY} 5000\n",
            self.port,
            silence.as_millis()
        );
        let sentinel = Redis::run(self.program.clone(), &[], |dir, port| {
            // It writes to its file what it has learnt.
            let head = format!("port {port}\nbind 127.0.0.1\ndir {}\n", dir.path().display());
            fs::write(dir.path().join("sentinel.conf"), head + &rules).unwrap();
        });
        // A failover needs a replica that the Sentinel has heard of.
        eventually("the Sentinel knows a replica", || {
            match sentinel.cli(&["SENTINEL", "REPLICAS", PRIMARY]) {
                replicas if replicas.is_empty() => Err("none".into()),
                _ => Ok(()),
            }
        });
        sentinel
    }

    /// Starts `program` on a free port. `prepare` may write a `sentinel.conf` for it, which then
    /// says everything.
    fn run(program: PathBuf, arguments: &[String], prepare: impl Fn(&TempDir, u16)) -> Redis {
        let dir = TempDir::new().unwrap();
        let conf = dir.path().join("sentinel.conf");
        let mut redis = Redis { program, arguments: Vec::new(), child: None, port: 0, dir };
        for _ in 0..PORTS_TRIED_MAX {
            redis.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            prepare(&redis.dir, redis.port);
            redis.arguments = match conf.exists() {
                true => vec![conf.display().to_string(), "--sentinel".to_owned()],
                false => {
                    let (port, dir) = (redis.port.to_string(), redis.dir.path().to_str().unwrap());
                    let place = ["--port", &port, "--bind", "127.0.0.1", "--dir", dir];
                    place.map(String::from).into_iter().chain(arguments.iter().cloned()).collect()
                }
            };
            if redis.spawn() {
                return redis;
            }
        }
        panic!("redis-server does not run on any of {PORTS_TRIED_MAX} ports");
    }

    /// Starts the process, and waits until it answers; `false` if it ended instead.
    fn spawn(&mut self) -> bool {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = self.port;
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| println!("redis {port}: {line}"));
        });
        self.child = Some(child);
        let end = Instant::now() + DEADLINE;
        while self.try_cli(&["PING"]).as_deref() != Some("PONG") {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < end, "redis-server does not answer");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its address for `redis_url`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The address for `redis_url` of what this Sentinel watches.
    pub fn watched_url(&self) -> String {
        format!("redis+sentinel://{}/{PRIMARY}", self.addr())
    }

    /// Ends it at once, as a power cut does.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with what it has kept.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.spawn(), "redis-server does not start again on port {}", self.port);
    }

    /// Freezes it: its connections stay open and say nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Makes a primary of a replica.
    pub fn promote(&self) {
        assert_eq!(self.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    }

    /// Waits until `replica` has all that this one has now.
    pub fn await_copy(&self, replica: &Redis) {
        let wanted = self.offset();
        eventually("the replica has it", || match replica.offset() {
            offset if offset >= wanted => Ok(()),
            offset => Err(format!("{offset} of {wanted}")),
        });
    }

    /// How much it has written, or taken from its primary.
    fn offset(&self) -> u64 {
        let info = self.cli(&["INFO", "replication"]);
        let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
        line.and_then(|offset| offset.trim().parse().ok()).unwrap_or_else(|| panic!("{info}"))
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Runs one command. The items of a list stand one a line, and an error begins with `-`.
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|| panic!("no answer to {command:?}"))
    }

    fn try_cli(&self, command: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(self.addr()).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut texts = Vec::new();
        read_reply(&mut BufReader::new(stream), &mut texts)?;
        Some(texts.join("\n"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads one reply (RESP2) and appends the texts in it.
fn read_reply(from: &mut impl BufRead, texts: &mut Vec<String>) -> Option<()> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let line = line.trim_end();
    let rest = line.get(1..)?;
    match line.as_bytes().first()? {
        b'+' | b':' => texts.push(rest.to_owned()),
        b'-' => texts.push(line.to_owned()),
        b'$' => {
            // Without a length there is no value.
            let Ok(length) = rest.parse::<usize>() else { return Some(()) };
            let mut value = vec![0; length + 2];
            from.read_exact(&mut value).ok()?;
            texts.push(String::from_utf8_lossy(&value[..length]).into_owned());
        }
        b'*' => {
            for _ in 0..rest.parse::<usize>().unwrap_or(0) {
                read_reply(from, texts)?;
            }
        }
        _ => return None,
    }
    Some(())
}
