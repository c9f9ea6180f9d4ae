//! Where operating systems differ. Nothing outside this file assumes one of them.

use std::{io, net::SocketAddr, time::Duration};

use socket2::Socket;

use crate::memory::account::{SOCKET_RECEIVE_BUFFER, SOCKET_SEND_BUFFER, SOCKET_UNSENT_MAX};

/// Limits what the kernel holds unsent for each client of `listener`, whose sockets inherit the
/// limit. Without it the kernel takes megabytes for a client that reads slowly: they are stale when
/// they arrive, and a ping behind them is answered so late that the client is taken for dead. Bytes
/// on the wire do not count, so a fast client far away is not slowed.
pub(crate) fn limit_unsent(listener: &Socket) {
    // A kernel without the option serves as well, but slow clients hear pings later.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = listener.set_tcp_notsent_lowat(SOCKET_UNSENT_MAX as u32);
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = (listener, SOCKET_UNSENT_MAX);
}

/// Bounds what the kernel keeps for each client of `listener`, whose sockets inherit the bounds. By
/// itself the kernel lets the buffers grow to megabytes, also for a client that does not read, or
/// that is not read. The bounds are also the most that is on the way: at a round trip of 100 ms a
/// client gets two megabytes a second, and sends one.
pub(crate) fn bound_buffers(listener: &Socket) {
    // A system that refuses serves as well; the account of memory takes the bounds for granted.
    let _ = listener.set_send_buffer_size(SOCKET_SEND_BUFFER);
    let _ = listener.set_recv_buffer_size(SOCKET_RECEIVE_BUFFER);
}

/// Whether what [`accept`] returns never blocks, and never waits to fill a packet if its listener
/// does not.
pub(super) const ACCEPTED_ARE_SET_UP: bool = cfg!(any(target_os = "android", target_os = "linux"));

/// Waits for the next connection, and returns it with the address of its peer, which a Unix socket
/// has none of.
pub(super) fn accept(listener: &Socket) -> io::Result<(Socket, Option<SocketAddr>)> {
    // One call instead of two.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        use rustix::net::{SocketFlags, acceptfrom_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, remote) = acceptfrom_with(listener, flags)?;
        Ok((socket.into(), remote.and_then(|remote| remote.try_into().ok())))
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    listener.accept().map(|(socket, remote)| (socket, remote.as_socket()))
}

/// The CPU time of all threads of this process since it began, user and system. `None` where the
/// system does not say.
pub(super) fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(spent).ok()
    }
    #[cfg(not(unix))]
    None
}

/// How many files the process has open. `None` where the system does not say without listing them.
pub(super) fn open_files() -> Option<u64> {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    {
        // Linux tells their number as the size of the folder, since 6.2; before, it is 0.
        let folder = std::fs::metadata("/proc/self/fd").ok()?;
        Some(folder.len()).filter(|count| *count > 0)
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    None
}

/// How many files the process may have open. `None` if there is no limit, or the system does not
/// say.
pub(super) fn open_files_max() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// Whether a read that filled less than its buffer has emptied the socket. With epoll and kqueue it
/// has: what comes later raises a new event. Elsewhere readiness comes back only after
/// `WouldBlock`.
pub(super) const SHORT_READ_EMPTIES: bool = cfg!(unix);

/// Whether a listening socket may take an address that old connections still linger on. On Windows
/// the same option would let two servers share one port.
pub(crate) const REUSES_ADDRESS: bool = cfg!(unix);
