//! Begins TCP connections without waiting for them, from one source address after another.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// The code of "the connection is being made", for which the standard library has no stable name.
const IN_PROGRESS: i32 = if cfg!(windows) {
    10035
} else if cfg!(any(target_os = "linux", target_os = "android")) {
    115
} else {
    36
};

/// Where connections go to, and come from.
pub struct Dialer {
    address: SocketAddr,
    /// Empty when the system shall choose.
    sources: Vec<IpAddr>,
}

impl Dialer {
    /// Dials `address` from each of `sources` in turn, which are of its family. Where there are
    /// none, the system chooses.
    pub fn new(address: SocketAddr, sources: &[IpAddr]) -> Dialer {
        Dialer { address, sources: sources.to_vec() }
    }

    /// Begins the connection with this number; the socket becomes writable once it stands or has
    /// failed.
    pub fn dial(&self, number: usize) -> io::Result<TcpStream> {
        if self.sources.is_empty() {
            return TcpStream::connect(self.address);
        }
        let source = self.sources[number % self.sources.len()];
        let socket =
            Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

/// Whether an error only says that the connection is not made yet.
pub(crate) fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(IN_PROGRESS)
}
