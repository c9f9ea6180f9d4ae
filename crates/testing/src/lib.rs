//! What the tests, benches and fuzzers of Rusty Socks share. Never part of a server.

pub mod frames;
pub mod random;
pub mod fuzz;
pub mod replay;
pub mod simulator;
