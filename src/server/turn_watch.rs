//! The thread that watches the turns of the workers: it sees what a turn is doing that takes long,
//! and tells of one that may never end.

use std::{sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{
    error::Error,
    pool::{describe::describe, shared::Shared},
};

/// How often the workers are looked at: twice at least in a turn that is late.
const INTERVAL: Duration = Duration::from_millis(40);

/// Starts the thread. It ends when the sender is dropped.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Sender<()>, Error> {
    let (running, stopped) = crossbeam_channel::bounded(0);
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name("rusty-socks-watch".to_owned())
        .spawn(move || watch(&shared, &stopped))
        .map_err(|error| Error::io("cannot start the thread that watches turns", error))?;
    Ok(running)
}

fn watch(shared: &Shared, stopped: &Receiver<()>) {
    let mut last_told = vec![0; shared.progress.len()];
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let now_ms = shared.uptime_ms();
        for (worker, progress) in shared.progress.iter().enumerate() {
            let Some((took_ms, turn, doing)) = progress.look(now_ms) else { continue };
            if std::mem::replace(&mut last_told[worker], turn) != turn {
                let doing = describe(doing, shared);
                log::warn!("worker {worker} is in one turn for {took_ms} ms already: {doing}");
            }
        }
    }
}
