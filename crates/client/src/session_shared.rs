//! What the handles of a [`Session`](crate::Session) and its thread share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize},
};

use parking_lot::{Condvar, Mutex};

use crate::{conversation::Who, error::Error, room_state::RoomStates};

/// Whether a session is of use.
#[derive(Debug)]
pub(crate) enum Health {
    /// The server knows it.
    Up,
    /// It has no connection, for this reason, and tries to get one.
    Down(Error),
    /// It has ended.
    Over(Error),
}

/// Called on the session's thread with each change: it must not block.
pub(crate) type Watch = Box<dyn Fn(Health) + Send>;

/// What the handles and the thread share.
#[derive(Debug, Default)]
pub(crate) struct SessionShared {
    pub(crate) close: AtomicBool,
    pub(crate) who: Mutex<Who>,
    /// Which of its nodes it is at, or tries.
    pub(crate) node: AtomicUsize,
    pub(crate) rooms: Arc<RoomStates>,
    /// Some subscription is gone; the thread is rung.
    pub(crate) has_dropped_subscriptions: AtomicBool,
    /// `Ok` if it was closed from here.
    pub(crate) end: OnceLock<Result<(), Error>>,
    pub(crate) is_over: Mutex<bool>,
    pub(crate) over: Condvar,
}
