//! What the handles of a [`Session`](crate::Session) and its thread share.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use parking_lot::{Condvar, Mutex};

use crate::{conversation::Who, error::Error, room_state::RoomStates};

/// What the handles and the thread share.
#[derive(Debug, Default)]
pub(crate) struct SessionShared {
    pub(crate) close: AtomicBool,
    pub(crate) who: Mutex<Who>,
    pub(crate) rooms: Arc<RoomStates>,
    /// Some subscription is gone; the thread is rung.
    pub(crate) has_dropped_subscriptions: AtomicBool,
    /// `Ok` if it was closed from here.
    pub(crate) end: OnceLock<Result<(), Error>>,
    pub(crate) is_over: Mutex<bool>,
    pub(crate) over: Condvar,
}
