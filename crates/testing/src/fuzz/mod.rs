//! Properties that hold for any input: one entry point for each parser that untrusted bytes reach.
//!
//! Each takes bytes and panics if a property is violated. `fuzz/` runs them with coverage guidance,
//! `tests/promises.rs` with seeded random cases on a stable compiler.

mod head;
mod bodies;
mod extensions;
mod config;
mod chat;
mod proxies;
mod records;
mod snapshots;
mod token;
pub mod streams;

pub use {
    bodies::bodies, chat::chat, config::config, extensions::extensions, head::head,
    proxies::proxies, records::records, snapshots::snapshots, streams::frames, token::token,
};
