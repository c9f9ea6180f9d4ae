//! The program, started on a socket that a service manager passes on.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    ops::Deref,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
};

use tempfile::TempDir;

use crate::{
    program::{PROGRAM, Process, command},
    support::DEADLINE,
};

/// The program with a socket as its third descriptor, as systemd passes it on.
pub struct Activated {
    process: Process,
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
        let mut command = command("sh");
        command
            .args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\"", PROGRAM])
            .env("LISTEN_FDS", "1")
            .env("NOTIFY_SOCKET", &notify)
            .env("RUSTY_SOCKS_PORT", "1")
            .envs(settings.iter().copied())
            .stdin(socket);
        Activated { process: Process::run(&mut command), told, dir }
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

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn ends(self) {
        self.ends_with(0);
    }

    /// Waits for its end, and returns the lines of its log that nobody looked at.
    pub fn ends_with(mut self, code: i32) -> Vec<String> {
        assert_eq!(self.process.exit_code(), Some(code));
        self.process.log.iter().collect()
    }
}

impl Deref for Activated {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
