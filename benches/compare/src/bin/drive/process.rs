//! What a process has used so far, by the kernel's own books.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks per second of `/proc/PID/stat`: `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS_PER_S: u64 = 100;

#[derive(Clone, Debug)]
pub(crate) struct Process {
    root: PathBuf,
}

impl Process {
    pub(crate) fn with_pid(pid: u32) -> Self {
        Self { root: PathBuf::from(format!("/proc/{pid}")) }
    }

    pub(crate) fn this() -> Self {
        Self { root: PathBuf::from("/proc/self") }
    }

    /// User and kernel time of all threads. In nanoseconds from the scheduler where it keeps them,
    /// else in ticks of 10 ms. A thread that ended takes its nanoseconds along, so ask of servers
    /// whose threads stay.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.scheduled(|_| true).map_or_else(|| self.cpu_by_ticks(), Ok)
    }

    /// CPU time of the threads whose name, which the kernel cuts off after 15 bytes, is `name`.
    /// Nothing where the scheduler keeps no books, or where there is no such thread.
    pub(crate) fn cpu_of_threads(&self, name: &str) -> Option<Duration> {
        self.scheduled(|thread| thread == name)
    }

    fn scheduled(&self, counts: impl Fn(&str) -> bool) -> Option<Duration> {
        let mut sum = None;
        for task in fs::read_dir(self.root.join("task")).ok()? {
            let task = task.ok()?.path();
            if counts(fs::read_to_string(task.join("comm")).ok()?.trim_end()) {
                let text = fs::read_to_string(task.join("schedstat")).ok()?;
                let time = Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
                sum = Some(sum.unwrap_or(Duration::ZERO) + time);
            }
        }
        sum
    }

    fn cpu_by_ticks(&self) -> Result<Duration> {
        let text = self.read("stat")?;
        // The second field is the program's name in brackets, and a name may have spaces.
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let (user, kernel) = ticks(11).zip(ticks(12)).context("/proc/PID/stat is too short")?;
        Ok(Duration::from_millis((user + kernel) * 1000 / TICKS_PER_S))
    }

    /// Resident memory in KiB. What the kernel holds for sockets is not in it.
    pub(crate) fn rss_kib(&self) -> Result<u64> {
        let text = self.read("status")?;
        let rss = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
        let kib = rss.context("/proc/PID/status has no VmRSS")?.trim();
        kib.parse().with_context(|| format!("VmRSS is '{kib}'"))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.root.join(name);
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; is the server still there?", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let this = Process::this();
        let before = this.cpu().unwrap();
        let mut sum = 0u64;
        while this.cpu().unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(this.rss_kib().unwrap() > 100);
        assert!(this.cpu_by_ticks().is_ok());
        assert_eq!(this.cpu_of_threads("nobody"), None);
        let spin = std::thread::Builder::new().name("spin".to_owned());
        let named = spin.spawn(|| Process::this().cpu_of_threads("spin").is_some()).unwrap();
        assert!(named.join().unwrap());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let gone = Process::with_pid(u32::MAX);
        assert!(gone.cpu().is_err());
        assert!(gone.rss_kib().is_err());
    }
}
