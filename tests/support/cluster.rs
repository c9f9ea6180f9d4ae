//! Nodes: several servers that share a Redis, each the shipped program.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    program::Program,
    support::{DEADLINE, Listens, eventually},
};

/// How long the session of a node that is killed can be resumed, beside the lease of the node.
pub const RESUME_WINDOW_S: &str = "60";

/// The key of the server API.
pub const KEY: &str = "key-of-the-tests-with-many-nodes-0123456789";

/// Servers that are to their clients as one.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// What the names of keys begin with.
    pub prefix: String,
    dir: TempDir,
}

/// One of them.
pub struct Node {
    pub program: Program,
    admin: PathBuf,
}

impl Cluster {
    /// Starts `count` nodes at the Redis of that address, which may have other clusters.
    pub fn at(url: &str, count: usize, settings: &[(&str, &str)]) -> Cluster {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
        let index = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("test:{}:{index}", std::process::id());
        let dir = TempDir::new().unwrap();
        let mut cluster = Cluster { nodes: Vec::new(), prefix, dir };
        for _ in 0..count {
            cluster.add(url, settings);
        }
        cluster
    }

    /// Starts one more node, which reaches Redis at `url`, and waits until it is ready.
    pub fn add(&mut self, url: &str, settings: &[(&str, &str)]) -> usize {
        let index = self.nodes.len();
        let admin = self.dir.path().join(format!("{index}.sock"));
        let admin_host = format!("unix:{}", admin.display());
        let own = [
            ("ENGINE", "redis"),
            ("REDIS_URL", url),
            ("REDIS_PREFIX", &self.prefix),
            ("ADMIN_HOST", &admin_host),
            ("API_KEY", KEY),
            ("THREAD_POOL_SIZE", "2"),
            ("RESUME_WINDOW", RESUME_WINDOW_S),
            // Tests say as much as they like.
            ("RATE_MESSAGES", "0"),
            ("RATE_BYTES", "0"),
            ("RATE_ROOMS", "0"),
        ];
        let settings: Vec<(&str, &str)> = own.iter().chain(settings).copied().collect();
        let node = Node { program: Program::start(&[], &settings), admin };
        node.await_ready(true);
        self.nodes.push(node);
        index
    }

    /// Ends a node as a power cut does. The others keep their places.
    pub fn kill(&mut self, index: usize) {
        let child = &mut self.nodes[index].program.process.child;
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Node {
    /// The status and the body that `GET path` on the admin listener has.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, "")
    }

    /// The status and the body that a request with this body has. JSON is of the key `KEY`.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// Waits until new clients should, or should not, be sent here.
    pub fn await_ready(&self, ready: bool) {
        eventually("the node is or is not ready", || match self.get("/ready") {
            (status, _) if (status == 200) == ready => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        });
    }
}

impl Listens for Node {
    fn addr(&self) -> SocketAddr {
        self.program.addr
    }
}
