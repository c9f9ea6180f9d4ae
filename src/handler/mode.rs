//! Where a handler's calls run, and so what its code may do.

/// Where a handler's calls run: [`OnWorker`] or [`MayBlock`]. No other type can be one.
pub trait Mode: sealed::Sealed + Send + Sync + 'static {}

/// On the worker that owns the connection. Such code must not block, so no reply can be waited for.
#[derive(Debug)]
pub enum OnWorker {}

/// On threads of the handler's own ([`Handler::blocking`](crate::Handler::blocking)). Such code may
/// block, and may [`wait`](crate::Reply::wait) for replies.
#[derive(Debug)]
pub enum MayBlock {}

impl Mode for OnWorker {}
impl Mode for MayBlock {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for OnWorker {}
impl sealed::Sealed for MayBlock {}
