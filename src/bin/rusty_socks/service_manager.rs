//! What a service manager such as systemd passes on to the program, and what it is told: sockets
//! that listen already (sd_listen_fds(3)), whether the server is ready (sd_notify(3)), and that it
//! is alive (sd_watchdog_enabled(3)).

use std::thread::JoinHandle;
#[cfg(unix)]
use std::{
    env, io,
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

#[cfg(unix)]
use log::warn;
use rusty_socks::{BoundListener, Error, ServerHandle};
#[cfg(unix)]
use sd_notify::NotifyState;

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
    let mut take = |index| {
        let taken = match passed.take_tcp_listener(index) {
            Ok(listener) => listener.map(BoundListener::Tcp),
            Err(_) => match passed.take_unix_listener(index) {
                Ok(listener) => listener.map(BoundListener::Unix),
                Err(error) => {
                    return Err(refuse(index, &format!("is neither TCP nor Unix: {error}")));
                }
            },
        };
        match taken {
            Some(socket) if !listens(&socket) => Err(refuse(index, "does not listen")),
            taken => Ok(taken),
        }
    };
    Ok(Sockets { public: take(0)?, admin: take(1)? })
}

/// An error about the socket of this index.
#[cfg(unix)]
fn refuse(index: usize, why: &str) -> Error {
    Error::config(format!("socket {} of LISTEN_FDS {why}", index + 1))
}

/// Whether `listen` was called for the socket: an accept on any other one fails for good. A system
/// that cannot say so leaves it to the accept.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn listens(socket: &BoundListener) -> bool {
    let listens = match socket {
        BoundListener::Tcp(listener) => socket2::SockRef::from(listener).is_listener(),
        BoundListener::Unix(listener) => socket2::SockRef::from(listener).is_listener(),
    };
    listens.unwrap_or(true)
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android", target_os = "freebsd"))))]
fn listens(_: &BoundListener) -> bool {
    true
}

#[cfg(not(unix))]
pub(crate) fn sockets() -> Result<Sockets, Error> {
    Ok(Sockets::default())
}

/// The variable that says where the service manager listens.
#[cfg(unix)]
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

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

/// How long a state may wait for space in the queue of the service manager, which may hang.
#[cfg(unix)]
const NOTIFY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Tells the service manager, if there is one that wants to know (`NOTIFY_SOCKET`). Blocks for half
/// a second at most.
#[cfg(unix)]
pub(crate) fn notify(state: State) {
    let text = match state {
        State::Ready => Ok(NotifyState::Ready.to_string()),
        // `Type=notify-reload` wants to know when.
        State::Reloading => NotifyState::monotonic_usec_now()
            .map(|now| format!("{}\n{now}", NotifyState::Reloading)),
        State::Alive => Ok(NotifyState::Watchdog.to_string()),
        State::Stopping => Ok(NotifyState::Stopping.to_string()),
    };
    if let Err(error) = text.and_then(|text| send(&text)) {
        warn!("cannot tell the service manager {state:?}: {error}");
    }
}

/// Sends one datagram. The crate's own function would block for as long as the queue is full.
#[cfg(unix)]
fn send(text: &str) -> io::Result<()> {
    let Some(path) = env::var_os(NOTIFY_SOCKET) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_WAIT_MAX))?;
    socket.send_to(text.as_bytes(), path).map(drop)
}

#[cfg(not(unix))]
pub(crate) fn notify(_: State) {}

/// Tells the service manager that the server stops, once its drain has begun, whoever asked for it:
/// on a thread that ends then, and is to be joined before the process ends.
#[cfg(unix)]
pub(crate) fn tell_stopping(handle: ServerHandle) -> Option<JoinHandle<()>> {
    env::var_os(NOTIFY_SOCKET)?;
    let run = move || {
        handle.await_drain();
        notify(State::Stopping);
    };
    let spawned = thread::Builder::new().name("rusty-socks-stopping".to_owned()).spawn(run);
    let cannot = |error: &io::Error| {
        warn!("cannot start the thread that tells the service manager of the end: {error}");
    };
    spawned.inspect_err(cannot).ok()
}

#[cfg(not(unix))]
pub(crate) fn tell_stopping(_: ServerHandle) -> Option<JoinHandle<()>> {
    None
}

/// Tells the service manager at intervals that the server is alive, if it wants to know
/// (`WATCHDOG_USEC`): only when every worker has answered, or has ended after a drain. One that
/// hangs ends the process in this way, and a new one is started.
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
