//! Where operating systems differ. Nothing outside this file assumes one of them.

use std::time::Duration;

use mio::net::TcpStream;

/// Bytes that the kernel takes for a socket beyond what is on the wire, where that is limited.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Keeps what a client has not taken in its outbox, where an overflow policy holds. Otherwise the kernel may
/// take megabytes of it, which are stale when they arrive, and behind which a ping comes late. What is on
/// the wire does not count, so a fast client far away is not slowed.
pub(super) fn limit_unsent(stream: &TcpStream) {
    // Without it all is the same, but later.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = stream;
}

/// The CPU time of all threads of this process since it began, user and system. `None` where it is not told.
pub(super) fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(spent).ok()
    }
    #[cfg(not(unix))]
    None
}

/// Whether a read that filled less than its buffer has emptied the socket. With epoll and kqueue it has:
/// what comes later raises a new event. Elsewhere readiness comes back only after `WouldBlock`.
pub(super) const SHORT_READ_EMPTIES: bool = cfg!(unix);

/// Whether a listening socket may take an address that old connections still linger on. On Windows the
/// same option would let two servers share one port.
pub(crate) const REUSES_ADDRESS: bool = cfg!(unix);
