//! `rusty_socks load` against several servers: what one loses, doubles or turns round on its way to
//! another, it finds.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/load.rs"]
mod load;

use cluster::Cluster;
use load::{Outcome, outcome_of, start};
use program::Program;
use redis::Redis;

/// Two publishers and four subscribers in each of two rooms, of which each server has half.
const FLAGS: &str =
    "--publishers 4 --subscribers 8 --rooms 2 --rate 200 --duration 1s --warmup 200ms";

/// A fan-out over these servers.
fn fan_out(servers: &[&Program]) -> Outcome {
    let urls: Vec<String> =
        servers.iter().map(|server| format!("ws://{}/ws", server.addr)).collect();
    outcome_of(start(&format!("fanout {} {FLAGS}", urls.join(" "))))
}

#[test]
fn rooms_are_whole_across_nodes() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::at(&redis.url(), 2, &[]);
    let outcome = fan_out(&[&cluster.nodes[0].program, &cluster.nodes[1].program]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/served/total"), 12);
    assert_eq!(outcome.count("/traffic/missing"), 0);
    assert_eq!(outcome.count("/traffic/repeated"), 0);
    assert_eq!(outcome.count("/traffic/expected"), 800);
    // The figures are those of both.
    assert_eq!(outcome.count("/server_after/active_connections"), 12);
    for node in &cluster.nodes {
        let (_, stats) = node.get("/stats");
        assert_eq!(stats["accepted_total"], 6, "{stats}");
    }
}

#[test]
fn servers_that_are_not_one_lose_half() {
    let servers = [Program::start(&[], &[]), Program::start(&[], &[])];
    let outcome = fan_out(&[&servers[0], &servers[1]]);
    assert_eq!(outcome.code, Some(5), "{}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/missing"), 400);
}
