//! What the handles of a [`Session`](crate::Session) and its thread share.

use std::sync::{OnceLock, atomic::AtomicBool};

use parking_lot::{Condvar, Mutex};

use crate::{conversation::Who, error::Error};

/// What the handles and the thread share.
#[derive(Debug, Default)]
pub(crate) struct SessionShared {
    pub(crate) close: AtomicBool,
    pub(crate) who: Mutex<Who>,
    /// `Ok` if it was closed from here.
    pub(crate) end: OnceLock<Result<(), Error>>,
    pub(crate) is_over: Mutex<bool>,
    pub(crate) over: Condvar,
}
