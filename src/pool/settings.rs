//! The settings of a server that runs, which a reload replaces.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::config::Config;

/// The present settings. A worker looks at the generation once a turn, and at the lock only if that
/// is another one.
pub(crate) struct Settings {
    generation: AtomicU64,
    config: Mutex<Arc<Config>>,
}

impl Settings {
    pub(super) fn new(config: Config) -> Settings {
        Settings { generation: AtomicU64::new(0), config: Mutex::new(Arc::new(config)) }
    }

    /// How often they have changed.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn get(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock())
    }

    pub(super) fn replace(&self, config: Arc<Config>) {
        *self.config.lock() = config;
        self.generation.fetch_add(1, Ordering::Release);
    }
}
