//! The workers and their threads.

use std::{sync::Arc, thread};

use crossbeam_channel::Sender;
use mio::Poll;

use crate::{
    error::{Error, ErrorKind},
    hub::mailbox::MailboxReceiver,
    pool::{
        acceptor::HANDOFF_MAX,
        shared::Shared,
        worker::{Arrival, Worker},
    },
};

/// Makes a worker for each poll, and the acceptor's channel to it.
pub(super) fn staff(
    shared: &Arc<Shared>,
    polls: Vec<Poll>,
    inboxes: Vec<MailboxReceiver>,
) -> (Vec<Sender<Arrival>>, Vec<Worker>) {
    polls
        .into_iter()
        .zip(inboxes)
        .enumerate()
        .map(|(index, (poll, inbox))| {
            let (arrivals, receiver) = crossbeam_channel::bounded(HANDOFF_MAX);
            (arrivals, Worker::new(poll, inbox, receiver, Arc::clone(shared), index))
        })
        .unzip()
}

/// Starts a worker's thread. The thread reports a failure to `report`.
pub(super) fn start_worker(
    index: usize,
    worker: Worker,
    drained: Sender<()>,
    report: Sender<Error>,
) -> Result<thread::JoinHandle<()>, Error> {
    let run = move || {
        let run = std::panic::AssertUnwindSafe(|| worker.run(&drained));
        let failure = match std::panic::catch_unwind(run) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Error::io(format!("worker {index} cannot poll"), error),
            Err(_) => Error::new(ErrorKind::System, format!("worker {index} panicked")),
        };
        log::error!("{failure}; shutting down");
        let _ = report.send(failure);
    };
    thread::Builder::new()
        .name(format!("rusty-socks-worker-{index}"))
        .spawn(run)
        .map_err(|error| Error::io("cannot start a worker thread", error))
}
