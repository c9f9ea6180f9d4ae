//! The acceptor: a thread for each listener that blocks in `accept` and hands each socket to a
//! worker.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{
    access,
    file_reserve::FileReserve,
    listener::Listener,
    shared::Shared,
    socket::Accepted,
    worker::{Arrival, Disposition},
};
use crate::{
    http::response::{Response, Status, date_now, error_body, retry_after_s},
    metrics::Refused,
    tls,
};

/// Sockets on their way to one worker. Reached only when a worker is stuck; the bound on pending
/// heads comes first otherwise.
pub(crate) const HANDOFF_MAX: usize = 1024;

/// The pause after an `accept` that failed for want of something, and what it grows to.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Which listener an acceptor accepts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The one that everybody connects to.
    Public,
    /// The admin listener. It has a bound of its own, so that neither side can lock the other out.
    Admin,
}

/// What an acceptor thread owns.
pub(crate) struct Acceptor {
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
    pub(crate) arrivals: Vec<Sender<Arrival>>,
    pub(crate) door: Door,
    /// Set before the wake-up connection comes.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Ends a pause early when its other side is dropped.
    pub(crate) stop: Receiver<()>,
}

impl Acceptor {
    /// Accepts until the server stops.
    pub(crate) fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut reserve = match self.door {
            Door::Public => FileReserve::new(),
            Door::Admin => FileReserve::none(),
        };
        while !self.stopping.load(Ordering::SeqCst) {
            match reserve.accept(&mut self.listener) {
                // What wakes a listener of its own is a connection.
                Ok(_) if self.listener.is_own() && self.stopping.load(Ordering::SeqCst) => return,
                Ok((stream, remote)) => {
                    if backoff > BACKOFF_MIN {
                        log::info!("accepting again");
                        backoff = BACKOFF_MIN;
                    }
                    self.shared.metrics.server.sockets_total.add(1);
                    if let Err(error) = self.take(stream, remote) {
                        log::debug!("{remote}: lost before it was served: {error}");
                    }
                }
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    // Usually EMFILE or ENFILE, or only reserved files are left: the socket stays
                    // in the backlog, and trying again at once would only spin. It is logged once,
                    // not at each try.
                    if backoff == BACKOFF_MIN {
                        log::error!("cannot accept, will keep trying: {error}");
                    }
                    self.shared.metrics.server.accept_backoffs_total.add(1);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    let _ = self.stop.recv_timeout(backoff);
                }
            }
        }
    }

    fn take(&self, stream: Accepted, remote: SocketAddr) -> io::Result<()> {
        stream.set_up()?;
        if self.door == Door::Admin {
            let Some(token) = self.shared.admin_conns.take() else {
                return self.refuse(Refused::AdminFull, stream, remote);
            };
            let disposition = Disposition::Admin(token);
            let arrival = Arrival { stream, remote, owner_token: None, disposition };
            return self
                .hand_off(arrival)
                .or_else(|arrival| self.refuse(Refused::AdminFull, arrival.stream, remote));
        }
        // A proxy has no limit; whose connection its is shows in what it sends.
        let hub = &self.shared.hub;
        let owner_token = match hub.owners.admit(remote.ip(), hub.now_ms()) {
            Ok(token) => token,
            Err(too_many) => return self.refuse(too_many.refused(), stream, remote),
        };
        let Some(token) = self.shared.pending_heads.take() else {
            return self.refuse(Refused::PendingHeads, stream, remote);
        };
        let arrival =
            Arrival { stream, remote, owner_token, disposition: Disposition::Serve(token) };
        match self.hand_off(arrival) {
            Ok(()) => Ok(()),
            Err(arrival) => self.refuse(Refused::PendingHeads, arrival.stream, remote),
        }
    }

    /// Gives a socket to the worker with the fewest, or to the next one that has room for it.
    fn hand_off(&self, mut arrival: Arrival) -> Result<(), Arrival> {
        let sockets = &self.shared.sockets;
        let load = |worker: &usize| sockets[*worker].load(Ordering::Relaxed);
        let first = (0..sockets.len()).min_by_key(load).unwrap_or(0);
        for offset in 0..sockets.len() {
            let worker = (first + offset) % sockets.len();
            sockets[worker].fetch_add(1, Ordering::Relaxed);
            match self.arrivals[worker].try_send(arrival) {
                Ok(()) => {
                    self.shared.hub.mailboxes.wake(worker);
                    return Ok(());
                }
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                    sockets[worker].fetch_sub(1, Ordering::Relaxed);
                    arrival = back;
                }
            }
        }
        Err(arrival)
    }

    /// Answers with the canned 503. Where the bound on lingering allows it, a worker keeps the
    /// socket until the client has read it.
    fn refuse(&self, why: Refused, mut stream: Accepted, remote: SocketAddr) -> io::Result<()> {
        self.shared.metrics.refuse(why);
        access::log_refused(&self.shared.config(), remote, Status::Unavailable, why);
        if self.door == Door::Public && self.shared.tls.is_some() {
            stream.write_all(&tls::REFUSAL)?;
            self.linger(stream, remote);
            return Ok(());
        }
        let message = match why {
            Refused::PerIp => "too many connections from this address",
            Refused::AcceptRate => "too many connections a second from this address",
            Refused::AdminFull => "too many connections to the admin listener",
            _ => "too many connections are being set up",
        };
        let retry_after = retry_after_s(self.shared.config().handshake_timeout);
        let body = error_body(why.name(), message, Some(retry_after));
        let response = Response {
            status: Status::Unavailable,
            body: &body,
            headers: &[&format!("Retry-After: {retry_after}")],
            closes: true,
            head_only: false,
        };
        let mut answer = Vec::new();
        response.write(&mut answer, &date_now());
        // A fresh socket takes this much without blocking.
        stream.write_all(&answer)?;
        self.linger(stream, remote);
        Ok(())
    }

    fn linger(&self, stream: Accepted, remote: SocketAddr) {
        if let Some(token) = self.shared.lingering.take() {
            let disposition = Disposition::Linger(token);
            let _ = self.hand_off(Arrival { stream, remote, owner_token: None, disposition });
        }
    }
}

/// Whether `accept` failed because of that one peer, and the next may be well.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
