//! What was said, as a hash of all of it and the last of it in words.

use std::collections::{BTreeMap, VecDeque};

/// Lines that are kept for a report.
const LINES_MAX: usize = 20_000;

/// Everything that clients did and were told, in order.
///
/// Lines name rooms, numbers and contents, never what is random in a server (ids, epochs, tokens,
/// times), so that a seed has one hash.
pub struct Transcript {
    hash: u64,
    lines: VecDeque<(u64, Option<usize>, String)>,
    heard: BTreeMap<String, u64>,
    /// The step that lines belong to from now on.
    pub step: u64,
}

impl Default for Transcript {
    fn default() -> Transcript {
        Transcript {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
            heard: BTreeMap::new(),
            step: 0,
        }
    }
}

impl Transcript {
    /// Adds a line about a client, or about the server.
    pub fn add(&mut self, client: Option<usize>, line: String) {
        let of_client = client.map_or(u64::MAX, |client| client as u64).to_be_bytes();
        for byte in of_client.iter().chain(line.as_bytes()) {
            // FNV-1a, which is the same everywhere.
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(rest) = line.strip_prefix("hears ") {
            let mut words = rest.split([' ', ',']);
            let kind = match (words.next().unwrap_or_default(), words.next()) {
                (kind @ ("close" | "status" | "presence"), Some(more)) => format!("{kind} {more}"),
                (kind, _) => kind.to_owned(),
            };
            *self.heard.entry(kind).or_default() += 1;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back((self.step, client, line));
    }

    /// How often clients heard what.
    pub fn heard(&self) -> &BTreeMap<String, u64> {
        &self.heard
    }

    /// The hash of all lines so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last `max` lines about a client and the server, or about everyone, oldest first.
    pub fn last(&self, client: Option<usize>, max: usize) -> String {
        let concerns = |of: Option<usize>| client.is_none() || of.is_none() || of == client;
        let lines = self.lines.iter().rev().filter(|(_, of, _)| concerns(*of)).take(max);
        let mut shown: Vec<String> = lines
            .map(|(step, of, line)| {
                let who = of.map_or("server".to_owned(), |of| format!("client {of}"));
                format!("  step {step}, {who}: {line}\n")
            })
            .collect();
        shown.reverse();
        shown.concat()
    }
}
