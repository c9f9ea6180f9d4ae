//! Whole clusters with all their clients, in one thread, from one seed: servers that share their
//! rooms and sessions by a Redis or several, and everything that may go wrong between them.
//!
//! [`Cluster`] drives several [`SteppedServer`]s, their links to [`Redis`]es of memory that run the
//! server's own scripts, and [`Member`]s that move from node to node. What every client hears
//! is held against the [`Truth`]: what Redis has ever numbered. At each rest everything is mended,
//! time passes until nobody is away any more, and then every member must be at the head of its
//! rooms, and presence and sessions must be exact.
//!
//! [`SteppedServer`]: rusty_socks::stepped::SteppedServer
//! [`Redis`]: crate::redis::Redis

mod plan;
mod truth;
mod cloud;
mod link;
mod member;
mod hear;
mod answers;
mod world;
mod fault;
mod rest;

pub use member::Member;
pub use plan::Plan;
pub use truth::Truth;
pub use world::Cluster;

pub use crate::simulator::{Broken, Report, Verdict};
