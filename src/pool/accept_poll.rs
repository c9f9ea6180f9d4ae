//! Accepting from a socket that other processes accept from too.

use std::{io, net::SocketAddr, os::fd::AsRawFd, sync::Arc};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use socket2::Socket;

use super::platform;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);

/// Waits for connections, and can be told to stop. A wait in `accept` itself could not: what wakes
/// it is a connection, which another process may get, or a shutdown, which would end the socket for
/// all.
pub(super) struct AcceptPoll {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

impl AcceptPoll {
    pub(super) fn new(listener: &Socket) -> io::Result<AcceptPoll> {
        // Another process may be quicker to accept what this one was told of.
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&listener.as_raw_fd()),
            LISTENER,
            Interest::READABLE,
        )?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(AcceptPoll { poll, events: Events::with_capacity(2), waker })
    }

    /// Waits for the next connection. Fails with `Interrupted` once it is woken.
    pub(super) fn accept(&mut self, listener: &Socket) -> io::Result<(Socket, Option<SocketAddr>)> {
        loop {
            match platform::accept(listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            self.poll.poll(&mut self.events, None)?;
            if self.events.iter().any(|event| event.token() == WAKER) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }
}
