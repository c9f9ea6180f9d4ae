//! Begins TCP connections without waiting for them.

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

/// Begins a connection to `address` from `source`, which is of its family; without one the system
/// chooses. The socket becomes writable once the connection stands or has failed.
pub fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address) };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Whether an error only says that the connection is not made yet.
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(IN_PROGRESS)
}
