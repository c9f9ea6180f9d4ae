//! How much memory there is for this process: its cgroup's limit, or the machine's memory.

use std::{fs, path::Path};

use crate::config::MemoryMax;

/// What a limit of cgroup v1 is rounded down from when there is none: the largest whole page.
const UNLIMITED_MIN: u64 = 1 << 60;

impl MemoryMax {
    /// Returns the ceiling if it is a number of bytes and no share.
    pub(crate) fn bytes_alone(self) -> Option<usize> {
        match self {
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Off | MemoryMax::Share(_) => None,
        }
    }

    /// Returns the ceiling in bytes; `None` if there is none, or if it is a share of what the
    /// system does not tell.
    pub(crate) fn bytes(self) -> Option<usize> {
        match self {
            MemoryMax::Off => None,
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Share(percent) => {
                let share = u128::from(bytes(Path::new("/"))?) * u128::from(percent) / 100;
                Some(usize::try_from(share).unwrap_or(usize::MAX))
            }
        }
    }
}

/// Bytes that this process can use: the smallest of the machine's memory and of the limits of its
/// cgroup and of those around it. `root` is where `proc` and `sys` are. `None` where the system
/// does not say: anywhere but on Linux and Android.
fn bytes(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| machine_bytes(&text));
    let cgroups = read("proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&cgroups).into_iter().filter_map(|file| limit_bytes(&read(&file)?));
    machine.into_iter().chain(limits).min()
}

/// Reads the memory of the machine from the text of `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Reads a limit from the text of `memory.max` or `memory.limit_in_bytes`.
fn limit_bytes(text: &str) -> Option<u64> {
    // `max` is no number.
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED_MIN)
}

/// Lists the files that may hold a limit for a process whose `/proc/self/cgroup` is `cgroups`: of
/// its own cgroup and of those around it, in both versions. Inside a container, whose own cgroup is
/// the root of what it sees, only the last of each exists.
fn limit_files(cgroups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        // `hierarchy:controllers:path`; version 2 has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, name) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == "..") {
            // A cgroup outside of what this process sees.
            files.push(format!("{mount}/{name}"));
            continue;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut of_path: Vec<String> = ends
            .filter(|end| *end > 0)
            .map(|end| format!("{mount}/{}/{name}", &path[..end]))
            .collect();
        of_path.reverse();
        files.extend(of_path);
        files.push(format!("{mount}/{name}"));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:        8000000 kB\nMemFree:          100000 kB\n";
    const MACHINE: u64 = 8_000_000 * 1024;

    /// A directory with these files in it.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, text).expect("the file");
        }
        root
    }

    #[test]
    fn without_a_cgroup_it_is_the_machines() {
        let root = system(&[("proc/meminfo", MEMINFO)]);
        assert_eq!(bytes(root.path()), Some(MACHINE));
        assert_eq!(bytes(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn in_a_container_it_is_the_limit_at_the_root() {
        let root = system(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(bytes(root.path()), Some(512 << 20));
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_holds() {
        let limits = |own, around| {
            let root = system(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "0::/system.slice/chat.service\n"),
                ("sys/fs/cgroup/system.slice/chat.service/memory.max", own),
                ("sys/fs/cgroup/system.slice/memory.max", around),
            ]);
            bytes(root.path())
        };
        assert_eq!(limits("1000000000\n", "max\n"), Some(1_000_000_000));
        assert_eq!(limits("max\n", "2000000000\n"), Some(2_000_000_000));
        assert_eq!(limits("max\n", "max\n"), Some(MACHINE));
        assert_eq!(limits("9000000000000\n", "max\n"), Some(MACHINE), "more than there is");
    }

    #[test]
    fn version_1_has_a_mount_of_its_own() {
        let cgroup = "9:cpu,cpuacct:/docker/a\n5:memory:/docker/a\n1:name=systemd:/docker/a\n";
        let limits = |path, text| {
            let root =
                system(&[("proc/meminfo", MEMINFO), ("proc/self/cgroup", cgroup), (path, text)]);
            bytes(root.path())
        };
        let inside = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let outside = "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes";
        assert_eq!(limits(inside, "268435456\n"), Some(256 << 20));
        assert_eq!(limits(outside, "268435456\n"), Some(256 << 20));
        assert_eq!(limits(outside, "9223372036854771712\n"), Some(MACHINE), "no limit");
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        assert_eq!(MemoryMax::Off.bytes(), None);
        assert_eq!(MemoryMax::Bytes(7).bytes(), Some(7));
        if let Some(all) = MemoryMax::Share(100).bytes() {
            let half = MemoryMax::Share(50).bytes().expect("it is known");
            assert!(half.abs_diff(all / 2) <= 1);
        }
    }
}
