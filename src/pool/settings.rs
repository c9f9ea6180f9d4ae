//! The settings of a server that runs, which a reload replaces.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use crate::config::Config;

/// The present settings. A worker looks at the generation once a turn, and at the lock only if that
/// is another one.
pub(crate) struct Settings {
    generation: AtomicU64,
    config: Mutex<Arc<Config>>,
    /// The largest `max_message_bytes` that a handler may tell a client whose connection opens now.
    message_bytes_promised: AtomicUsize,
}

impl Settings {
    pub(super) fn new(config: Config) -> Settings {
        Settings {
            generation: AtomicU64::new(0),
            message_bytes_promised: AtomicUsize::new(config.max_message_bytes),
            config: Mutex::new(Arc::new(config)),
        }
    }

    /// How often they have changed.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn get(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock())
    }

    /// Takes new settings. Handlers do not know of them yet.
    pub(super) fn replace(&self, config: Arc<Config>) {
        self.message_bytes_promised.fetch_max(config.max_message_bytes, Ordering::AcqRel);
        *self.config.lock() = config;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Notes that every handler knows the present settings.
    pub(super) fn handlers_know(&self) {
        self.message_bytes_promised.store(self.get().max_message_bytes, Ordering::Release);
    }

    /// Returns the largest message that a client may hear of when its connection opens. It may send
    /// such a message for as long as it is connected, because it cannot be told of another bound.
    pub(super) fn message_bytes_promised(&self) -> usize {
        self.message_bytes_promised.load(Ordering::Acquire)
    }
}
