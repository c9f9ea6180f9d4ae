//! The types an embedder works with: the handler, the context of a call, and the peer that can be
//! kept.

mod mode;
mod refusal;
mod peer;
mod context;
mod defer;
mod admission;
mod callbacks;
pub(crate) mod erased;
pub(crate) mod instance;
mod service;
pub(crate) mod admin;

pub(crate) use admin::ServerState;
pub use admin::{
    AdminAnswer, AdminContext, AdminHandler, AdminStep, BodyCall, LaterCall, PendingReload,
};
pub use callbacks::{Blocking, Handler, TaskThreads};
pub use context::{Context, Reply};
pub use defer::Waiter;
pub use mode::{MayBlock, Mode, OnWorker};
pub use peer::Peer;
pub use refusal::Refusal;
pub use service::IntoService;
