//! What a signal does to the server: SIGHUP reloads the settings, SIGTERM and SIGINT drain, and a
//! second one of these ends the program.

use std::process;
#[cfg(unix)]
use std::thread;

use log::{info, warn};
use rusty_socks::ServerHandle;
#[cfg(unix)]
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{exit::Exit, logging::LogQueue};

/// Signals that no longer end the program by themselves.
#[cfg(unix)]
pub(crate) struct Caught {
    /// `None` if the system refuses.
    signals: Option<Signals>,
    /// SIGHUP has come already.
    is_to_reload: bool,
}

#[cfg(unix)]
impl Caught {
    /// Catches them from now on. A server that cannot be told is still a server, so a refusal by
    /// the system is logged and no more.
    pub(crate) fn new() -> Caught {
        let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).inspect_err(cannot_listen).ok();
        Caught { signals, is_to_reload: false }
    }

    /// Whether a signal to stop has come before anybody [listens](Caught::listen).
    pub(crate) fn is_told_to_stop(&mut self) -> bool {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(Signals::pending).collect();
        self.is_to_reload |= pending.contains(&SIGHUP);
        pending.contains(&SIGINT) || pending.contains(&SIGTERM)
    }

    /// Listens on a thread of its own.
    pub(crate) fn listen(self, handle: &ServerHandle, log: &LogQueue) {
        let Some(mut signals) = self.signals else { return };
        // A reload waits for the disk, and meanwhile a signal to stop must be heard. One more may
        // wait: it reads the file as it is when its turn comes.
        let (ask, asked) = crossbeam_channel::bounded(1);
        if self.is_to_reload {
            let _ = ask.try_send(());
        }
        let reloaded = handle.clone();
        let reload = move || {
            for () in asked {
                // The outcome is logged by the server.
                let _ = reloaded.reload_from_source();
            }
        };
        let mut stop = Stop::new(handle, log);
        let listen = move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => drop(ask.try_send(())),
                    _ => stop.on_signal(),
                }
            }
        };
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let started = named("rusty-socks-hup")
            .spawn(reload)
            .and_then(|_| named("rusty-socks-signals").spawn(listen));
        if let Err(error) = started {
            cannot_listen(&error);
        }
    }
}

/// Elsewhere there is no signal that reloads, and they are caught when somebody listens.
#[cfg(not(unix))]
pub(crate) struct Caught;

#[cfg(not(unix))]
impl Caught {
    pub(crate) fn new() -> Caught {
        Caught
    }

    pub(crate) fn is_told_to_stop(&mut self) -> bool {
        false
    }

    pub(crate) fn listen(self, handle: &ServerHandle, log: &LogQueue) {
        let mut stop = Stop::new(handle, log);
        if let Err(error) = ctrlc::set_handler(move || stop.on_signal()) {
            cannot_listen(&error);
        }
    }
}

fn cannot_listen(error: &impl std::fmt::Display) {
    warn!("cannot listen for signals, so a shutdown will not drain: {error}");
}

/// The end of the server: the first signal drains, the second does not wait.
struct Stop {
    handle: ServerHandle,
    log: LogQueue,
    draining: bool,
}

impl Stop {
    fn new(handle: &ServerHandle, log: &LogQueue) -> Stop {
        Stop { handle: handle.clone(), log: log.clone(), draining: false }
    }

    fn on_signal(&mut self) {
        if self.draining {
            warn!("second signal: leaving at once");
            self.log.flush();
            process::exit(Exit::Failure as i32);
        }
        self.draining = true;
        let config = self.handle.config();
        let (delay, drain_timeout) = (config.drain_delay, config.drain_timeout);
        let first = match delay.is_zero() {
            true => String::new(),
            false => format!("accepting for {} s more, then ", delay.as_secs_f64()),
        };
        info!(
            "signal: {first}draining for up to {} s; a second signal ends it at once",
            drain_timeout.as_secs_f64()
        );
        // This only asks: the thread must be free to hear the second signal.
        self.handle.shutdown(drain_timeout);
    }
}
