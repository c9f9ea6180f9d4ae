//! Several sessions for a program that publishes much.
//!
//! `handle.rs` is what the program has, `builder.rs` its settings, `bounds.rs` how much may be
//! unanswered, `pending.rs` one publish on its way. `dispatcher.rs` is the thread that decides
//! which session takes it, `note.rs` what it is told, and `member.rs` one of these sessions as it
//! sees it;
//! `stats.rs` is what can be seen of all that, and `outcome.rs` how it has ended.

mod bounds;
mod pending;
mod stats;
mod note;
mod outcome;
mod member;
mod dispatcher;
mod placement;
mod handle;
mod builder;

pub use self::{
    builder::PoolBuilder,
    handle::Pool,
    stats::{PoolStats, SessionHealth, SessionStats},
};
