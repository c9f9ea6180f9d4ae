//! The thread that accepts from a listener, while the server runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::Sender;

use crate::{
    error::Error,
    pool::{
        acceptor::{Acceptor, Door},
        listener::{AcceptWaker, Listener},
        shared::Shared,
        worker::Arrival,
    },
};

/// Attempts to end the acceptor's wait at a shutdown, before it is left behind.
const WAKE_TRIES_MAX: usize = 100;

/// The acceptor's thread, and the means to end its blocking `accept`.
pub(super) struct Accepting {
    thread: thread::JoinHandle<()>,
    stopping: Arc<AtomicBool>,
    pause: Sender<()>,
    waker: AcceptWaker,
}

impl Accepting {
    pub(super) fn start(
        listener: Listener,
        door: Door,
        shared: &Arc<Shared>,
        arrivals: &[Sender<Arrival>],
    ) -> Result<Accepting, Error> {
        let waker = listener
            .waker()
            .map_err(|error| Error::io("cannot make the socket that ends the accepting", error))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (pause, stop) = crossbeam_channel::bounded(0);
        let acceptor = Acceptor {
            listener,
            shared: Arc::clone(shared),
            arrivals: arrivals.to_vec(),
            door,
            stopping: Arc::clone(&stopping),
            stop,
        };
        let name = match door {
            Door::Public => "rusty-socks-acceptor",
            Door::Admin => "rusty-socks-admin",
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || acceptor.run())
            .map_err(|error| Error::io("cannot start the acceptor thread", error))?;
        Ok(Accepting { thread, stopping, pause, waker })
    }

    /// Stops accepting and closes the listener.
    pub(super) fn stop(mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(self.pause);
        for _ in 0..WAKE_TRIES_MAX {
            if self.waker.wake() || self.thread.is_finished() {
                let _ = self.thread.join();
                return;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        log::warn!("the acceptor cannot be woken, and is left behind");
    }
}
