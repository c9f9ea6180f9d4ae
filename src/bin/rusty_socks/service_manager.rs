//! What a service manager such as systemd passes on to the program, and what it is told: sockets
//! that listen already (sd_listen_fds(3)), whether the server is ready (sd_notify(3)), and that it
//! is alive (sd_watchdog_enabled(3)).

#[cfg(unix)]
use std::{thread, time::Instant};

#[cfg(unix)]
use log::warn;
use rusty_socks::{BoundListener, Error, ServerHandle};

/// The sockets that were passed on.
#[derive(Default)]
pub(crate) struct Sockets {
    /// The first one, that clients connect to.
    pub(crate) public: Option<BoundListener>,
    /// The second one, for the admin listener.
    pub(crate) admin: Option<BoundListener>,
}

/// Takes the sockets that `LISTEN_FDS` tells of. Call it before any thread is started, because it
/// removes the variables, so that no child takes the sockets for its own.
#[cfg(unix)]
pub(crate) fn sockets() -> Result<Sockets, Error> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() > 2 {
        return Err(Error::config(format!(
            "LISTEN_FDS has {} sockets; there are at most two: for clients, and the admin listener",
            passed.len(),
        )));
    }
    let mut take = |index| match passed.take_tcp_listener(index) {
        Ok(listener) => Ok(listener.map(BoundListener::Tcp)),
        Err(_) => match passed.take_unix_listener(index) {
            Ok(listener) => Ok(listener.map(BoundListener::Unix)),
            Err(error) => {
                let number = index + 1;
                let why = format!("socket {number} of LISTEN_FDS is neither TCP nor Unix: {error}");
                Err(Error::config(why))
            }
        },
    };
    Ok(Sockets { public: take(0)?, admin: take(1)? })
}

#[cfg(not(unix))]
pub(crate) fn sockets() -> Result<Sockets, Error> {
    Ok(Sockets::default())
}

/// What the service manager is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    /// Clients are served, by settings that are all taken.
    Ready,
    /// Settings are read anew. [`State::Ready`] follows, whatever the outcome.
    Reloading,
    /// Every worker makes turns.
    Alive,
    /// The drain has begun.
    Stopping,
}

/// Tells the service manager, if there is one that wants to know (`NOTIFY_SOCKET`).
#[cfg(unix)]
pub(crate) fn notify(state: State) {
    use sd_notify::NotifyState;
    let told = match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        // `Type=notify-reload` wants to know when.
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
        State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = told {
        warn!("cannot tell the service manager {state:?}: {error}");
    }
}

#[cfg(not(unix))]
pub(crate) fn notify(_: State) {}

/// Tells the service manager at intervals that the server is alive, if it wants to know
/// (`WATCHDOG_USEC`): only when every worker has answered. One that hangs ends the process in this
/// way, and a new one is started.
#[cfg(unix)]
pub(crate) fn keep_alive(handle: ServerHandle) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // Half of the limit, as its manual says.
    let interval = limit / 2;
    let run = move || {
        loop {
            let next = Instant::now() + interval;
            match handle.await_workers(interval) {
                true => notify(State::Alive),
                false => warn!("a worker hangs, so the service manager is not told all is well"),
            }
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    };
    if let Err(error) = thread::Builder::new().name("rusty-socks-watchdog".to_owned()).spawn(run) {
        warn!("cannot start the thread that tells the service manager all is well: {error}");
    }
}

#[cfg(not(unix))]
pub(crate) fn keep_alive(_: ServerHandle) {}
