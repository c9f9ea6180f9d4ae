//! The types an embedder works with: the handler, the context of a call, and the peer that can be
//! kept.

mod mode;
mod node;
mod refusal;
mod peer;
mod context;
mod reply;
mod verbs;
mod defer;
mod admission;
mod callbacks;
pub(crate) mod erased;
pub(crate) mod instance;
mod service;
pub(crate) mod admin;

pub(crate) use admin::ServerState;
pub use admin::{
    AdminAnswer, AdminContext, AdminHandler, AdminStep, BodyCall, KeyCall, LaterCall, Pending,
    PendingReload,
};
pub use callbacks::{Blocking, Handler, TaskThreads};
pub use context::Context;
pub use defer::Waiter;
pub use mode::{MayBlock, Mode, OnWorker};
pub use node::NodeSummary;
pub use peer::Peer;
pub use refusal::Refusal;
pub use reply::Reply;
pub use service::IntoService;
