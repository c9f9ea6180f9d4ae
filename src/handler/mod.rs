//! What an embedder writes and is given: a handler, the context of a call, and what may be kept of
//! it.

mod mode;
mod refusal;
mod peer;
mod context;
mod callbacks;
pub(crate) mod erased;
pub(crate) mod instance;
mod service;

pub use callbacks::{Blocking, Handler};
pub use context::{Context, Reply};
pub use mode::{MayBlock, Mode, OnWorker};
pub use peer::Peer;
pub use refusal::Refusal;
pub use service::IntoService;
