//! `rusty_socks serve`: the server from bind to drain.

use std::time::Duration;

use log::{info, warn};
use rusty_socks::{Config, Error, ServerHandle, chat, config::Loaded};

use crate::{
    exit::{self, Exit},
    logging::{self, LogQueue},
    service_manager::{self, Sockets, State},
};

/// Serves until a signal and a drain end it.
pub(crate) fn run(loaded: Loaded) -> Result<Exit, Error> {
    let sockets = service_manager::sockets()?;
    let log = match logging::start(&loaded) {
        Ok(log) => log,
        Err(error) => {
            exit::say(&format!("{}cannot start the thread of the log: {error}", exit::PREFIX));
            return Ok(Exit::Failure);
        }
    };
    for warning in loaded.warnings() {
        warn!("{warning}");
    }
    let outcome = serve(loaded.config, sockets, &log);
    log.flush();
    outcome
}

fn serve(config: Config, sockets: Sockets, log: &LogQueue) -> Result<Exit, Error> {
    raise_open_file_limit(&config);

    let drain_timeout = config.drain_timeout;
    let (max_conn, max_queued_tasks, threads) =
        (config.max_conn, config.max_queued_tasks, config.thread_pool_size);
    let mut builder = chat::builder(config)?;
    if let Some(listener) = sockets.public {
        builder = builder.listener(listener);
    }
    if let Some(listener) = sockets.admin {
        builder = builder.admin_listener(listener);
    }
    let server = builder.bind()?;
    // Whoever reads the next line may send a signal at once.
    drain_on_signal(server.handle(), drain_timeout, log.clone());
    info!(
        "rusty_socks {} listens on {}: {max_conn} sessions at once, {max_queued_tasks} in line, {threads} workers",
        env!("CARGO_PKG_VERSION"),
        server.listen_addr(),
    );
    if let Some(admin_addr) = server.admin_listen_addr() {
        info!("the admin listener is on {admin_addr}");
    }
    // Whoever connects from now on is served, though the workers may not run yet.
    service_manager::notify(State::Ready);
    service_manager::keep_alive(server.handle());
    server.run()?;
    info!("drained, good-bye");
    Ok(Exit::Clean)
}

/// The first signal drains, the second does not wait. A server that cannot be told is still a
/// server, so a refusal by the system is logged and no more.
fn drain_on_signal(handle: ServerHandle, drain_timeout: Duration, log: LogQueue) {
    let mut draining = false;
    let on_signal = move || {
        if draining {
            warn!("second signal: leaving at once");
            log.flush();
            std::process::exit(Exit::Failure as i32);
        }
        draining = true;
        service_manager::notify(State::Stopping);
        info!(
            "signal: draining for up to {} s; a second signal ends it at once",
            drain_timeout.as_secs_f64()
        );
        // This only asks: the thread must be free to hear the second signal.
        handle.shutdown(drain_timeout);
    };
    if let Err(error) = ctrlc::set_handler(on_signal) {
        warn!("cannot listen for signals, so a shutdown will not drain: {error}");
    }
}

/// A connection is an open file, and the usual limit of 1024 is meant for other programs.
#[cfg(unix)]
fn raise_open_file_limit(config: &Config) {
    /// The listener, the wakers, the log and what libraries keep open.
    const FILES_BESIDES_CONNECTIONS: u64 = 64;

    let before = rlimit::Resource::NOFILE.get_soft().unwrap_or(0);
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            warn!("cannot raise the limit of open files from {before}: {error}");
            before
        }
    };
    if limit > before {
        info!("raised the limit of open files from {before} to {limit}");
    }
    let wanted = [config.max_conn, config.max_queued_tasks]
        .iter()
        .fold(FILES_BESIDES_CONNECTIONS, |sum, count| sum.saturating_add(*count as u64));
    if limit < wanted {
        warn!(
            "the limit of open files ({limit}) is below max_conn + max_queued_tasks: \
             connections beyond it wait unaccepted; raise it with `ulimit -n` or a service setting"
        );
    }
}

/// Elsewhere a socket is no open file, and there is no limit to raise.
#[cfg(not(unix))]
fn raise_open_file_limit(_config: &Config) {}
