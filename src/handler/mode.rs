//! Modes of a handler: where its calls run, and so whether they may block.

/// Where a handler's calls run: [`OnWorker`] or [`MayBlock`]. Sealed.
pub trait Mode: sealed::Sealed + Send + Sync + 'static {}

/// Calls run on the worker that owns the connection. They must not block, so they cannot wait for a
/// reply.
#[derive(Debug)]
pub enum OnWorker {}

/// Calls run on threads of the handler's own ([`Handler::blocking`](crate::Handler::blocking)).
/// They may block, and may [`wait`](crate::Reply::wait) for replies.
#[derive(Debug)]
pub enum MayBlock {}

impl Mode for OnWorker {}
impl Mode for MayBlock {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for OnWorker {}
impl sealed::Sealed for MayBlock {}
