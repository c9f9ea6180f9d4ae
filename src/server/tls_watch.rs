//! The thread that takes new certificates into use: it reads their files every few seconds.

use std::{sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::{error::Error, pool::shared::Shared};

/// How often the files are read. By their content, because a volume of secrets swaps links and
/// keeps times.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads the certificates and keys again. Returns whether new ones are in use. A failure changes
/// nothing.
pub(super) fn reload(shared: &Shared) -> Result<bool, Error> {
    let Some(tls) = &shared.tls else { return Ok(false) };
    // Or else certificates of a file that is no longer configured could come back.
    let _one = shared.reloading.lock()?;
    match tls.prepare(None) {
        Ok(new) if !new.is_other() => Ok(false),
        Ok(new) => {
            tls.take(new);
            shared.metrics.server.tls_reloads.add_shared();
            log::info!("new connections get the certificates that were changed");
            Ok(true)
        }
        Err(error) => {
            shared.metrics.server.tls_reloads_failed.add_shared();
            Err(error)
        }
    }
}

/// Starts the thread, if there are certificates to watch. It ends when the sender is dropped, and
/// is not waited for: a disk may not answer.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Option<Sender<()>>, Error> {
    if shared.tls.is_none() {
        return Ok(None);
    }
    let (running, stopped) = crossbeam_channel::bounded(0);
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name("rusty-socks-tls".to_owned())
        .spawn(move || watch(&shared, &stopped))
        .map_err(|error| Error::io("cannot start the thread that watches certificates", error))?;
    Ok(Some(running))
}

fn watch(shared: &Shared, stopped: &Receiver<()>) {
    // The files stay as bad as they are until someone mends them: one log line is enough.
    let mut told = None;
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        match reload(shared) {
            Ok(_) => told = None,
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    log::error!("the certificates stay as they are: {error}");
                    told = Some(error);
                }
            }
        }
    }
}
