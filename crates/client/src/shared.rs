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
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    CloseReason,
    error::{Error, ErrorKind},
};

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// With the peer's Close frame.
    Closed(CloseReason),
    /// Without one.
    Failed(Error),
}

impl End {
    /// The end as an error.
    pub(crate) fn error(&self) -> Error {
        match self {
            End::Closed(reason) => Error::closed(reason.clone()),
            End::Failed(error) => error.clone(),
        }
    }
}

/// What the handles and the thread share. All of it may be used from any thread.
pub(crate) struct Shared {
    pub(crate) outgoing: Mutex<Outgoing>,
    /// There is room in `outgoing`, or the connection has ended.
    pub(crate) moved: Condvar,
    waker: Waker,
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
    /// Whole frames, masked by whoever sends them.
    pub(crate) frames: VecDeque<Vec<u8>>,
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

    /// Wakes the thread. A waker that fails has no thread to wake.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// Queues a frame behind the others. Refused once the connection has ended or a close was asked
    /// for.
    pub(crate) fn push(
        &self,
        mut outgoing: MutexGuard<'_, Outgoing>,
        frame: Vec<u8>,
    ) -> Result<(), Error> {
        if outgoing.ended {
            drop(outgoing);
            return Err(self.ended());
        }
        if let Some(reason) = &outgoing.close {
            return Err(Error::closed(reason.clone()));
        }
        // While others wait, whoever queued the first of them has woken the thread.
        let is_first = outgoing.frames.is_empty();
        outgoing.bytes += frame.len();
        outgoing.frames.push_back(frame);
        drop(outgoing);
        if is_first {
            self.wake();
        }
        Ok(())
    }

    /// Asks for the close; the first reason counts.
    pub(crate) fn ask_to_close(&self, reason: CloseReason) {
        self.outgoing.lock().close.get_or_insert(reason);
        self.wake();
    }

    /// Why the connection has ended, as an error.
    pub(crate) fn ended(&self) -> Error {
        let gone = || Error::new(ErrorKind::Lost, "the connection is gone");
        self.end.get().map_or_else(gone, End::error)
    }
}
