//! What the handles of a [`Client`](super::Client) and its thread share.

use std::{
    collections::VecDeque,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use mio::Waker;
use parking_lot::{Condvar, Mutex};
use tungstenite::{Message as Frame, protocol::CloseFrame};

use crate::CloseReason;

use super::error::Error;

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// With the peer's Close frame.
    Closed(CloseReason),
    /// Without one.
    Failed(Error),
}

/// What the handles and the thread share. All of it may be used from any thread.
pub(crate) struct Shared {
    pub(crate) outgoing: Mutex<Outgoing>,
    /// There is room in `outgoing`, or the connection has ended.
    pub(crate) moved: Condvar,
    pub(crate) waker: Waker,
    /// The thread reads no more until somebody receives.
    pub(crate) stalled: AtomicBool,
    /// Bytes in the queue of received messages.
    pub(crate) incoming_bytes: AtomicUsize,
    /// Set before the thread lets go of the queue of received messages.
    pub(crate) end: OnceLock<End>,
}

/// What waits to be sent.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) queue: VecDeque<Frame>,
    pub(crate) bytes: usize,
    /// Close with this when the queue is empty.
    pub(crate) close: Option<CloseReason>,
    pub(crate) ended: bool,
    pub(crate) times: Times,
}

/// How long what may take. The first two may change while the connection lives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Nothing is heard for this long: the connection is lost.
    pub(crate) silence_max: Option<Duration>,
    /// Nothing is heard for this long: a ping.
    pub(crate) ping: Option<Duration>,
    pub(crate) write: Duration,
    pub(crate) close: Duration,
}

impl Shared {
    pub(crate) fn new(waker: Waker, times: Times) -> Shared {
        Shared {
            outgoing: Mutex::new(Outgoing { times, ..Outgoing::default() }),
            moved: Condvar::new(),
            waker,
            stalled: AtomicBool::new(false),
            incoming_bytes: AtomicUsize::new(0),
            end: OnceLock::new(),
        }
    }

    /// Rings the thread. A waker that fails has no thread to ring.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Asks for the close; the first reason counts.
    pub(crate) fn ask_to_close(&self, reason: CloseReason) {
        self.outgoing.lock().close.get_or_insert(reason);
        self.wake();
    }
}

/// As a frame to send: the codes that must not appear on the wire give an empty Close.
pub(crate) fn close_frame(reason: &CloseReason) -> Option<CloseFrame> {
    if matches!(reason.code(), 1005 | 1006 | 1015) {
        return None;
    }
    // What fits beside the code into a control frame (RFC 6455, 5.5).
    let mut end = reason.reason().len().min(123);
    while !reason.reason().is_char_boundary(end) {
        end -= 1;
    }
    let reason_text = reason.reason()[..end].into();
    Some(CloseFrame { code: reason.code().into(), reason: reason_text })
}
