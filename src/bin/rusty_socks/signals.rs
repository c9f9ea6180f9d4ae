//! What a signal does to the server: SIGHUP reloads the settings, SIGTERM and SIGINT drain, and a
//! second one of these ends the program.

use std::process;

use log::{info, warn};
use rusty_socks::ServerHandle;

use crate::{exit::Exit, logging::LogQueue};

/// Listens on a thread of its own. A server that cannot be told is still a server, so a refusal by
/// the system is logged and no more.
#[cfg(unix)]
pub(crate) fn listen(handle: &ServerHandle, log: &LogQueue) {
    use std::{io, thread};

    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };

    // A reload waits for the disk, and meanwhile a signal to stop must be heard. One more may wait:
    // it reads the file as it is when its turn comes.
    let (ask, asked) = crossbeam_channel::bounded(1);
    let reloaded = handle.clone();
    let reload = move || {
        for () in asked {
            // The outcome is logged by the server.
            let _ = reloaded.reload_from_source();
        }
    };
    let mut stop = Stop::new(handle, log);
    let listen = |mut signals: Signals| {
        let listen = move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => drop(ask.try_send(())),
                    _ => stop.on_signal(),
                }
            }
        };
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("rusty-socks-hup").spawn(reload)?;
        named("rusty-socks-signals").spawn(listen)
    };
    let started: io::Result<_> = Signals::new([SIGHUP, SIGINT, SIGTERM]).and_then(listen);
    if let Err(error) = started {
        warn!("cannot listen for signals, so a shutdown will not drain: {error}");
    }
}

/// Elsewhere there is no signal that reloads.
#[cfg(not(unix))]
pub(crate) fn listen(handle: &ServerHandle, log: &LogQueue) {
    let mut stop = Stop::new(handle, log);
    if let Err(error) = ctrlc::set_handler(move || stop.on_signal()) {
        warn!("cannot listen for signals, so a shutdown will not drain: {error}");
    }
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
