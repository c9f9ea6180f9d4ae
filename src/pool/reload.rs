//! New settings for a server that runs: all of a configuration is taken, or nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
};

use crossbeam_channel::Receiver;

use super::shared::Shared;
use crate::{
    config::{Config, Reloaded},
    error::{Error, ErrorKind},
    hub::mailbox::Letter,
};

/// The keys under which changed files are reported, though their names have not changed.
const TLS_CERT: &str = "tls_cert";
const TLS_CLIENT_CA: &str = "tls_client_ca";

impl Shared {
    /// Takes the settings of `new` that a running server can change. Waits for the disk where there
    /// are certificates.
    pub(crate) fn reload(&self, new: &Config) -> Result<Reloaded, Error> {
        let _one = self.reloading.lock()?;
        let outcome = self.take(new);
        self.note(outcome.as_ref());
        outcome
    }

    /// Reads the settings from where they came from at the start, and takes those that a running
    /// server can change.
    pub(crate) fn reload_from_source(&self) -> Result<Reloaded, Error> {
        let _one = self.reloading.lock()?;
        let Some(source) = self.source.get() else {
            let message = "the server does not know where its settings came from";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        // A panic of the embedder's code must not end the thread that hears of signals.
        let read = catch_unwind(AssertUnwindSafe(|| source.load())).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::System, "the source of the settings panicked"))
        });
        let outcome = read.and_then(|new| self.take(&new));
        self.note(outcome.as_ref());
        if catch_unwind(AssertUnwindSafe(|| source.loaded(outcome.as_ref()))).is_err() {
            log::error!("the source of the settings panicked when it was told of a reload");
        }
        outcome
    }

    /// Begins a [reload from the source](Shared::reload_from_source) on a thread of its own.
    /// Returns where the outcome comes, or `None` if such a thread runs already.
    pub(crate) fn begin_reload(self: &Arc<Shared>) -> Option<Receiver<Result<Reloaded, Error>>> {
        if self.is_reloading.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (tell, told) = crossbeam_channel::bounded(1);
        let running = Running(Arc::clone(self));
        let failed = tell.clone();
        let run = move || {
            let outcome = running.0.reload_from_source();
            // Whoever hears of it may ask for the next one.
            drop(running);
            let _ = tell.send(outcome);
        };
        let spawned = thread::Builder::new().name("rusty-socks-reload".to_owned()).spawn(run);
        if let Err(error) = spawned {
            let _ = failed.send(Err(Error::io("cannot start a thread for the reload", error)));
        }
        Some(told)
    }

    /// Checks all of `new`, and then takes it. Nothing can fail once something has changed.
    fn take(&self, new: &Config) -> Result<Reloaded, Error> {
        let (config, mut told) = self.config().reloaded(new)?;
        let tls = self.tls.as_ref().map(|tls| Ok((tls, tls.prepare(Some(&config))?)));
        let tls = tls.transpose()?;
        let keys = self.hub.authenticator.prepare(&config)?;

        if let Some((tls, new)) = tls {
            if new.is_other() {
                self.metrics.server.tls_reloads.add_shared();
            }
            for (name, is_other) in
                [(TLS_CERT, new.has_other_pairs()), (TLS_CLIENT_CA, new.has_other_client_ca())]
            {
                if is_other && !told.changed.contains(&name) {
                    told.changed.push(name);
                }
            }
            tls.take(new);
        }
        if told.changed.is_empty() {
            return Ok(told);
        }
        let config = Arc::new(config);
        // Before the settings have another generation: whoever is let in after that has a key of
        // the new ones.
        if let Some(admin) = &self.admin.handler
            && catch_unwind(AssertUnwindSafe(|| admin.on_reload(&config))).is_err()
        {
            log::error!("the handler of the admin listener panicked when told of new settings");
        }
        self.settings.replace(Arc::clone(&config));
        self.hub.authenticator.take(keys);
        self.hub.reload(&config);
        self.pending_heads.set_max(config.max_pending_heads);
        self.admin_conns.set_max(config.max_admin_conn);
        self.api_bodies.set_max(config.max_api_bodies);
        self.live_viewers.set_max(config.max_live_viewers);
        self.lingering.set_max(config.max_lingering);
        let mut rechecks = false;
        for route in &self.routes {
            rechecks |= route.handler.reload(&config);
        }
        self.settings.handlers_know();
        // Those who wait in line come in by the new settings.
        self.admission.set_bounds(config.max_conn, config.max_queued_tasks);
        if rechecks {
            for worker in 0..self.sockets.len() {
                self.hub.mailboxes.send_control(worker, Letter::RecheckPermissions);
            }
        }
        Ok(told)
    }

    /// Counts and logs an outcome.
    fn note(&self, outcome: Result<&Reloaded, &Error>) {
        let metrics = &self.metrics.server;
        match outcome {
            Ok(Reloaded { changed, needs_restart }) => {
                metrics.config_reloads.add_shared();
                match (changed.is_empty(), needs_restart.is_empty()) {
                    (true, true) => log::info!("reloaded: nothing has changed"),
                    (true, false) => log::info!("reloaded: no change takes effect now"),
                    (false, _) => log::info!("reloaded: {} changed", changed.join(", ")),
                }
                if !needs_restart.is_empty() {
                    log::warn!(
                        "changed, but holds only after a restart: {}",
                        needs_restart.join(", ")
                    );
                }
            }
            Err(error) => {
                metrics.config_reloads_failed.add_shared();
                for line in error.to_string().lines() {
                    log::error!("not reloaded, everything stays as it is: {line}");
                }
            }
        }
    }
}

/// A reload on a thread of its own, until this is dropped.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_reloading.store(false, Ordering::Release);
    }
}
