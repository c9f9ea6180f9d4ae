//! What the kernel keeps for sockets, which no process's RSS has in it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// Growth that is not worth a name, in bytes for each connection.
const NOISE_BYTES: i64 = 16;

/// The kernel's books at one moment.
pub(crate) struct Kernel {
    /// Slabs that cannot be given back, in KiB: sockets, files, epoll entries, and all else that
    /// it needs.
    unreclaimable_kib: Option<i64>,
    /// Bytes of live objects by cache; only the superuser may read them.
    caches: BTreeMap<String, i64>,
    /// Pages of data that waits in TCP sockets, as `net.ipv4.tcp_mem` counts them.
    tcp_pages: Option<i64>,
}

impl Kernel {
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            unreclaimable_kib: number_after(&read("/proc/meminfo"), "SUnreclaim:"),
            caches: live_bytes(&read("/proc/slabinfo")),
            tcp_pages: read("/proc/net/sockstat")
                .lines()
                .find(|line| line.starts_with("TCP:"))
                .and_then(|line| number_after(line, " mem")),
        }
    }

    /// What changed since `before`, with `connections` that are to be seen in it. It is the whole
    /// machine's: both ends of each connection, and whatever else ran.
    pub(crate) fn since(&self, before: &Self, connections: usize) -> Value {
        let between = |now: Option<i64>, then: Option<i64>| Some(now? - then?);
        let caches = self.caches.iter().filter_map(|(name, bytes)| {
            let grown = bytes - before.caches.get(name).unwrap_or(&0);
            (grown >= NOISE_BYTES * connections as i64).then(|| (name.clone(), grown))
        });
        json!({
            "unreclaimable_kib": between(self.unreclaimable_kib, before.unreclaimable_kib),
            // In bytes, where it is not noise.
            "caches": caches.collect::<BTreeMap<_, _>>(),
            "tcp_pages": between(self.tcp_pages, before.tcp_pages),
        })
    }
}

/// The number that follows `name` in a text of names and numbers.
fn number_after(text: &str, name: &str) -> Option<i64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

/// From /proc/slabinfo: name, live objects, objects, bytes of each, and more.
fn live_bytes(slabinfo: &str) -> BTreeMap<String, i64> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let live: i64 = fields.next()?.parse().ok()?;
        let each: i64 = fields.nth(1)?.parse().ok()?;
        Some((name, live * each))
    };
    slabinfo.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_read() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> …\n\
                    TCP 66 117 2368 13 8 : tunables 0 0 0 : slabdata 9 9 0\n";
        assert_eq!(live_bytes(text), BTreeMap::from([("TCP".to_owned(), 66 * 2368)]));
        let books = "Slab: 5 kB\nSUnreclaim:        71624 kB\n";
        assert_eq!(number_after(books, "SUnreclaim:"), Some(71_624));
        assert_eq!(number_after("TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 87", " mem"), Some(87));
        assert_eq!(number_after(books, "Nothing:"), None);
    }

    #[test]
    fn growth_below_the_noise_has_no_name() {
        let books = |bytes| Kernel {
            unreclaimable_kib: Some(bytes),
            caches: BTreeMap::from([("TCP".to_owned(), bytes)]),
            tcp_pages: None,
        };
        let growth = books(100 * NOISE_BYTES).since(&books(0), 100);
        assert_eq!(growth["caches"], json!({ "TCP": 1600 }));
        assert_eq!(growth["tcp_pages"], Value::Null);
        assert_eq!(books(100 * NOISE_BYTES).since(&books(0), 101)["caches"], json!({}));
    }
}
