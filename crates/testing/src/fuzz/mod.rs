//! What must hold for any bytes at all: one entry point for each parser that a stranger can reach.
//!
//! Each takes bytes and panics when a promise is broken. `fuzz/` drives them with coverage,
//! `tests/promises.rs` with seeded random cases on a stable compiler.

mod head;
mod extensions;
mod config;
mod chat;
pub mod streams;

pub use {chat::chat, config::config, extensions::extensions, head::head, streams::frames};
