//! Code shared by the tests, benches and fuzzers of Rusty Socks. Never part of a server.

pub mod certificates;
pub mod frames;
pub mod tls_client;
pub mod random;
pub mod fuzz;
pub mod replay;
pub mod simulator;
pub mod redis;
pub mod cluster;
