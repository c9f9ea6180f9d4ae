//! `rusty_socks serve`: the server from bind to drain.

use std::sync::Arc;

use log::{info, warn};
use parking_lot::Mutex;
use rusty_socks::{
    Config, Error, chat,
    config::{ConfigSource, Dashboard, FirstPage, Loaded, Reloaded},
};

use crate::{
    dashboard,
    exit::{self, Exit},
    first_page,
    logging::{self, LogFilter, LogQueue},
    service_manager::{self, Sockets, State},
    signals::SignalThread,
};

/// Reads the settings from where they came from.
pub(crate) type Read = Box<dyn Fn() -> Result<Loaded, Error> + Send + Sync>;

/// Serves until a signal and a drain end it. `read` reads the settings anew.
pub(crate) fn run(loaded: Loaded, read: Read) -> Result<Exit, Error> {
    let sockets = service_manager::sockets()?;
    let (log, filter) = match logging::start(&loaded) {
        Ok(log) => log,
        Err(error) => {
            exit::say(&format!("{}cannot start the thread of the log: {error}", exit::PREFIX));
            return Ok(Exit::Failure);
        }
    };
    for warning in loaded.warnings() {
        warn!("{warning}");
    }
    let config = loaded.config.clone();
    let taken = Mutex::new(Arc::new(loaded));
    let source = Source { read, filter, read_last: Mutex::default(), taken };
    let outcome = serve(config, source, sockets, &log);
    log.flush();
    outcome
}

/// Where a running server reads its settings from: the file, the environment and the flags.
struct Source {
    read: Read,
    filter: LogFilter,
    /// What was read last, until it is known what became of it.
    read_last: Mutex<Option<Loaded>>,
    /// What was read last and was good.
    taken: Mutex<Arc<Loaded>>,
}

impl ConfigSource for Source {
    fn load(&self) -> Result<Config, Error> {
        service_manager::notify(State::Reloading);
        let loaded = (self.read)()?;
        let config = loaded.config.clone();
        *self.read_last.lock() = Some(loaded);
        Ok(config)
    }

    fn last(&self) -> Option<Arc<Loaded>> {
        Some(Arc::clone(&self.taken.lock()))
    }

    fn loaded(&self, outcome: Result<&Reloaded, &Error>) {
        let loaded = self.read_last.lock().take();
        if let (Some(loaded), Ok(_)) = (loaded, outcome) {
            self.filter.set(&loaded);
            for warning in loaded.warnings() {
                warn!("{warning}");
            }
            *self.taken.lock() = Arc::new(loaded);
        }
        service_manager::notify(State::Ready);
    }
}

fn serve(config: Config, source: Source, sockets: Sockets, log: &LogQueue) -> Result<Exit, Error> {
    raise_open_file_limit(&config);

    let (max_conn, max_queued_tasks, threads) =
        (config.max_conn, config.max_queued_tasks, config.thread_pool_size);
    let has_page = config.page == FirstPage::On;
    let has_dashboard = config.dashboard == Dashboard::On;
    let has_api_key = !config.api_key.is_empty() || !config.api_keys.is_empty();
    let mut builder = chat::builder(config)?.source(source);
    if has_page {
        builder = first_page::add_to(builder);
    }
    if has_dashboard {
        builder = dashboard::add_to(builder);
    }
    if let Some(listener) = sockets.public {
        builder = builder.listener(listener);
    }
    if let Some(listener) = sockets.admin {
        builder = builder.admin_listener(listener);
    }
    let signals = SignalThread::start(log);
    let server = builder.bind()?;
    // Whoever reads of the address below may send a signal at once.
    if !signals.serve(server.handle()) {
        service_manager::notify(State::Stopping);
        info!("signal: leaving before anybody was served");
        return Ok(Exit::Clean);
    }
    info!(
        "rusty_socks {} listens on {}: {max_conn} sessions at once, {max_queued_tasks} in line, {threads} workers",
        env!("CARGO_PKG_VERSION"),
        server.listen_addr(),
    );
    if let Some(admin_addr) = server.admin_listen_addr() {
        info!("the admin listener is on {admin_addr}");
    } else if has_api_key {
        warn!(
            "there is a key for the server API, but admin_port is not set: nothing listens for it"
        );
    }
    // Whoever connects from now on is served, though the workers may not run yet.
    service_manager::notify(State::Ready);
    let stopping = service_manager::tell_stopping(server.handle());
    service_manager::keep_alive(server.handle());
    let outcome = server.run();
    if let Some(stopping) = stopping {
        let _ = stopping.join();
    }
    outcome?;
    info!("drained, good-bye");
    Ok(Exit::Clean)
}

/// A connection is an open file, and the usual limit of 1024 is meant for other programs.
#[cfg(unix)]
fn raise_open_file_limit(config: &Config) {
    /// The listener, the wakers, the log, what libraries keep open, and what clients leave to the
    /// rest.
    const FILES_BESIDES_CONNECTIONS: u64 = 96;

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
    let held = [
        config.max_conn,
        config.max_queued_tasks,
        config.max_pending_heads,
        config.max_lingering,
        config.max_admin_conn,
    ];
    let wanted =
        held.iter().fold(FILES_BESIDES_CONNECTIONS, |sum, count| sum.saturating_add(*count as u64));
    if limit < wanted {
        warn!(
            "the limit of open files ({limit}) is below the {wanted} that max_conn, \
             max_queued_tasks, max_pending_heads, max_lingering and max_admin_conn allow: \
             connections beyond it wait unaccepted; raise it with `ulimit -n` or a service setting"
        );
    }
}

/// Elsewhere a socket is no open file, and there is no limit to raise.
#[cfg(not(unix))]
fn raise_open_file_limit(_config: &Config) {}
