//! The program, started on a socket that a service manager passes on.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    io::{BufRead, BufReader},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use tempfile::TempDir;

use crate::support::{DEADLINE, eventually};

/// The program with a socket as its third descriptor, as systemd passes it on.
pub struct Activated {
    child: Child,
    /// Its log, line by line.
    lines: mpsc::Receiver<String>,
    /// Where it tells how it does.
    told: UnixDatagram,
    dir: TempDir,
}

impl Activated {
    pub fn start(socket: impl AsFd, settings: &[(&str, &str)]) -> Activated {
        let dir = TempDir::new().unwrap();
        let notify = dir.path().join("notify");
        let told = UnixDatagram::bind(&notify).unwrap();
        told.set_read_timeout(Some(DEADLINE)).unwrap();
        let socket: OwnedFd = socket.as_fd().try_clone_to_owned().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\""])
            .arg(env!("CARGO_BIN_EXE_rusty_socks"))
            .env("LISTEN_FDS", "1")
            .env("NOTIFY_SOCKET", &notify)
            .env("RUSTY_SOCKS_PORT", "1")
            .envs(settings.iter().copied())
            .stdin(socket)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            log.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Activated { child, lines, told, dir }
    }

    /// Fills the queue of what it tells, as a service manager that hangs.
    pub fn hang(&self) {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", self.dir.path().join("notify")).is_ok() {}
    }

    pub fn is_told(&self) -> String {
        let mut buffer = [0; 256];
        let read = self.told.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).trim().to_owned()
    }

    pub fn log_line(&self, with: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap();
            if line.contains(with) {
                return line;
            }
        }
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    pub fn ends(self) {
        self.ends_with(0);
    }

    /// Waits for its end, and returns the lines of its log that nobody looked at.
    pub fn ends_with(mut self, code: i32) -> Vec<String> {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.map(|_| ()).ok_or_else(|| "it runs".into())
        });
        assert_eq!(status.and_then(|status| status.code()), Some(code));
        self.lines.iter().collect()
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
