//! Where operating systems differ. Nothing outside this file assumes one of them.

/// Whether a read that filled less than its buffer has emptied the socket. With epoll and kqueue it has:
/// what comes later raises a new event. Elsewhere readiness comes back only after `WouldBlock`.
pub(super) const SHORT_READ_EMPTIES: bool = cfg!(unix);

/// Whether a listening socket may take an address that old connections still linger on. On Windows the
/// same option would let two servers share one port.
pub(crate) const REUSES_ADDRESS: bool = cfg!(unix);
