//! What a signal does to the server: SIGHUP reloads the settings, SIGTERM and SIGINT drain, and a
//! second one of these ends the program.

#[cfg(unix)]
use std::io;
use std::{process, sync::Arc, thread};

use crossbeam_channel::Sender;
use log::{info, warn};
use parking_lot::Mutex;
use rusty_socks::ServerHandle;
#[cfg(unix)]
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{exit::Exit, logging::LogQueue};

/// The thread that hears signals, from before the server is bound: that may read a large snapshot.
pub(crate) struct SignalThread(Arc<Mutex<Heard>>);

/// What was heard, and what it is for.
struct Heard {
    log: LogQueue,
    /// `None` until the server is bound.
    server: Option<ServerHandle>,
    /// Asks for a reload once the server is bound.
    reload: Option<Sender<()>>,
    /// A signal to stop has come.
    is_to_stop: bool,
    /// SIGHUP has come before the server was bound.
    is_to_reload: bool,
}

impl SignalThread {
    /// Starts it. A server that cannot be told is still a server, so a refusal by the system is
    /// logged and no more.
    pub(crate) fn start(log: &LogQueue) -> SignalThread {
        let heard = Heard {
            log: log.clone(),
            server: None,
            reload: None,
            is_to_stop: false,
            is_to_reload: false,
        };
        let heard = Arc::new(Mutex::new(heard));
        if let Err(error) = listen(Arc::clone(&heard)) {
            warn!("cannot listen for signals, so a shutdown will not drain: {error}");
        }
        SignalThread(heard)
    }

    /// Lets signals reach the server. Returns `false` if one to stop has come already.
    pub(crate) fn serve(&self, server: ServerHandle) -> bool {
        let mut heard = self.0.lock();
        if heard.is_to_stop {
            return false;
        }
        // A reload waits for the disk, and meanwhile a signal to stop must be heard. One more may
        // wait: it reads the file as it is when its turn comes.
        let (ask, asked) = crossbeam_channel::bounded(1);
        let reloaded = server.clone();
        let reload = move || {
            for () in asked {
                // The outcome is logged by the server.
                let _ = reloaded.reload_from_source();
            }
        };
        match thread::Builder::new().name("rusty-socks-hup".to_owned()).spawn(reload) {
            Ok(_) => heard.reload = Some(ask),
            Err(error) => warn!("no thread for reloads, so SIGHUP does nothing: {error}"),
        }
        heard.server = Some(server);
        if heard.is_to_reload {
            heard.reload();
        }
        true
    }
}

impl Heard {
    fn reload(&mut self) {
        match &self.reload {
            Some(ask) => drop(ask.try_send(())),
            None => self.is_to_reload = true,
        }
    }

    fn stop(&mut self) {
        if self.is_to_stop {
            warn!("second signal: leaving at once");
            self.log.flush();
            process::exit(Exit::Failure as i32);
        }
        self.is_to_stop = true;
        let Some(server) = &self.server else {
            info!("signal: leaving once the start is over; a second signal ends it at once");
            return;
        };
        let config = server.config();
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
        server.shutdown(drain_timeout);
    }
}

#[cfg(unix)]
fn listen(heard: Arc<Mutex<Heard>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let listen = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => heard.lock().reload(),
                _ => heard.lock().stop(),
            }
        }
    };
    thread::Builder::new().name("rusty-socks-signals".to_owned()).spawn(listen).map(drop)
}

/// Elsewhere there is no signal that reloads.
#[cfg(not(unix))]
fn listen(heard: Arc<Mutex<Heard>>) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || heard.lock().stop())
}
