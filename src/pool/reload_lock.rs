//! The lock of reloads, which one thread holds at a time.

use std::cell::Cell;

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

use crate::error::{Error, ErrorKind};

/// Lets one thread at a time take new settings or certificates. Held across reads of files and
/// calls of the embedder's code, but by no worker.
#[derive(Default)]
pub(crate) struct ReloadLock {
    /// Whether the thread that has the lock is in a reload already.
    lock: ReentrantMutex<Cell<bool>>,
}

/// A [`ReloadLock`] that is held.
pub(crate) struct Reloading<'a>(ReentrantMutexGuard<'a, Cell<bool>>);

impl ReloadLock {
    /// Waits until no other thread holds it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: this thread holds it. A handler or a source has asked for a
    /// reload when it was told of one, and would wait for itself.
    pub(crate) fn lock(&self) -> Result<Reloading<'_>, Error> {
        let held = self.lock.lock();
        if held.replace(true) {
            let message = "a reload cannot be asked for by what a reload calls";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Reloading(held))
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
