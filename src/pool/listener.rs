//! What an acceptor accepts from: a TCP port, or a socket in the file system.

#[cfg(unix)]
use std::sync::Arc;
use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

#[cfg(unix)]
use mio::Waker;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

#[cfg(unix)]
use super::{accept_poll::AcceptPoll, socket_file::SocketFile};
use super::{
    platform::{self, REUSES_ADDRESS},
    socket::Accepted,
};
use crate::{config::UNIX_PREFIX, error::Error, http::proxies::UNIX_PEER};

/// Connections the kernel may queue until the acceptor accepts them.
const BACKLOG: i32 = 4096;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    /// On a TCP port.
    Tcp(SocketAddr),
    /// On the Unix socket of this path.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The address of a TCP port; `0.0.0.0:0` for a Unix socket.
    pub(crate) fn socket_addr(&self) -> SocketAddr {
        match self {
            ListenAddr::Tcp(addr) => *addr,
            ListenAddr::Unix(_) => UNIX_PEER,
        }
    }

    /// A socket of its kind.
    fn socket(&self) -> io::Result<Socket> {
        match self {
            ListenAddr::Tcp(addr) => tcp_socket(*addr),
            ListenAddr::Unix(_) => Socket::new(Domain::UNIX, Type::STREAM, None),
        }
    }

    fn sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            ListenAddr::Tcp(addr) => Ok((*addr).into()),
            ListenAddr::Unix(path) => SockAddr::unix(path),
        }
    }
}

impl fmt::Display for ListenAddr {
    /// Writes it as the setting `host` names it: `127.0.0.1:3030`, or `unix:/run/rusty_socks.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => addr.fmt(f),
            ListenAddr::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// A socket that listens already: from a service manager, or from whoever embeds the server. Other
/// processes may accept from it too, before, after and at the same time.
#[derive(Debug)]
pub enum BoundListener {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file is left to whoever made it.
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for BoundListener {
    fn from(listener: std::net::TcpListener) -> BoundListener {
        BoundListener::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixListener> for BoundListener {
    fn from(listener: std::os::unix::net::UnixListener) -> BoundListener {
        BoundListener::Unix(listener)
    }
}

/// A socket that listens. Removes the file of a Unix socket when it is dropped, unless somebody
/// else bound it.
pub(crate) struct Listener {
    socket: Socket,
    addr: ListenAddr,
    #[cfg(unix)]
    _file: Option<SocketFile>,
    /// How a socket is waited for that others accept from too.
    #[cfg(unix)]
    poll: Option<AcceptPoll>,
}

impl Listener {
    /// Listens on the first address of `host` that works, or on the Unix socket that it names.
    pub(crate) fn bind(host: &str, port: u16) -> Result<Listener, Error> {
        if let Some(path) = host.strip_prefix(UNIX_PREFIX) {
            let cannot = |error| Error::io(format!("cannot listen on {host}"), error);
            return Listener::bind_unix(path.into()).map_err(cannot);
        }
        let shown = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let cannot = |error| Error::io(format!("cannot listen on {shown}"), error);
        let addresses = (host, port).to_socket_addrs().map_err(cannot)?;
        let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match Listener::bind_tcp(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => refused = error,
            }
        }
        Err(cannot(refused))
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
        let socket = tcp_socket(address)?;
        if address.is_ipv6() {
            // `::` includes IPv4.
            socket.set_only_v6(false)?;
        }
        if REUSES_ADDRESS {
            socket.set_reuse_address(true)?;
        }
        // Its connections inherit it, where the system has them do so.
        socket.set_tcp_nodelay(true)?;
        platform::limit_unsent(&socket);
        platform::bound_buffers(&socket);
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let addr = ListenAddr::Tcp(socket.local_addr()?.as_socket().unwrap_or(address));
        Ok(Listener {
            socket,
            addr,
            #[cfg(unix)]
            _file: None,
            #[cfg(unix)]
            poll: None,
        })
    }

    /// Takes a socket that listens already.
    pub(crate) fn take_over(bound: BoundListener) -> Result<Listener, Error> {
        let cannot = |error| Error::io("cannot use the socket that was passed on", error);
        let (socket, is_tcp) = match bound {
            BoundListener::Tcp(listener) => (Socket::from(listener), true),
            #[cfg(unix)]
            BoundListener::Unix(listener) => (Socket::from(listener), false),
        };
        let local = socket.local_addr().map_err(cannot)?;
        let addr = match local.as_socket().filter(|_| is_tcp) {
            Some(addr) => ListenAddr::Tcp(addr),
            // One in the abstract namespace has no path.
            None => ListenAddr::Unix(local.as_pathname().map(PathBuf::from).unwrap_or_default()),
        };
        if is_tcp {
            socket.set_tcp_nodelay(true).map_err(cannot)?;
            platform::limit_unsent(&socket);
        }
        Ok(Listener {
            #[cfg(unix)]
            _file: None,
            #[cfg(unix)]
            poll: Some(AcceptPoll::new(&socket).map_err(cannot)?),
            socket,
            addr,
        })
    }

    #[cfg(unix)]
    fn bind_unix(path: PathBuf) -> io::Result<Listener> {
        let addr = ListenAddr::Unix(path.clone());
        let socket = addr.socket()?;
        let file = SocketFile::listen(&socket, path, BACKLOG)?;
        Ok(Listener { socket, addr, _file: Some(file), poll: None })
    }

    #[cfg(not(unix))]
    fn bind_unix(_: PathBuf) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether nobody else accepts from it.
    pub(super) fn is_own(&self) -> bool {
        #[cfg(unix)]
        return self.poll.is_none();
        #[cfg(not(unix))]
        true
    }

    pub(crate) fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// Waits for the next connection, and returns it with the address of its peer.
    pub(super) fn accept(&mut self) -> io::Result<(Accepted, SocketAddr)> {
        #[cfg(unix)]
        let (socket, remote) = match &mut self.poll {
            Some(poll) => poll.accept(&self.socket)?,
            None => platform::accept(&self.socket)?,
        };
        #[cfg(not(unix))]
        let (socket, remote) = platform::accept(&self.socket)?;
        Ok(match &self.addr {
            #[cfg(unix)]
            ListenAddr::Unix(_) => (Accepted::Unix(socket.into()), UNIX_PEER),
            _ => (Accepted::Tcp(socket.into()), remote.unwrap_or(UNIX_PEER)),
        })
    }

    /// Makes what ends a wait in [`accept`](Listener::accept). Made at the start, because when the
    /// server stops no file descriptor may be left.
    pub(crate) fn waker(&self) -> io::Result<AcceptWaker> {
        #[cfg(unix)]
        if let Some(poll) = &self.poll {
            return Ok(AcceptWaker::Poll(poll.waker()));
        }
        let mut addr = self.addr.clone();
        if let ListenAddr::Tcp(addr) = &mut addr
            && addr.ip().is_unspecified()
        {
            addr.set_ip(match addr {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let (listener, socket) = (self.socket.try_clone()?, Some(addr.socket()?));
        Ok(AcceptWaker::Connect(AcceptConnect { listener, socket, addr }))
    }
}

/// Ends a wait in [`Listener::accept`].
pub(crate) enum AcceptWaker {
    /// By a connection to a listener that nobody else accepts from.
    Connect(AcceptConnect),
    #[cfg(unix)]
    Poll(Arc<Waker>),
}

impl AcceptWaker {
    /// Tries to end the wait. Returns whether it ends.
    pub(crate) fn wake(&mut self) -> bool {
        match self {
            AcceptWaker::Connect(connect) => connect.wake(),
            #[cfg(unix)]
            AcceptWaker::Poll(waker) => waker.wake().is_ok(),
        }
    }
}

/// What ends the wait of a listener by a connection to it.
pub(crate) struct AcceptConnect {
    listener: Socket,
    /// For the first connection to the listener.
    socket: Option<Socket>,
    addr: ListenAddr,
}

impl AcceptConnect {
    fn wake(&mut self) -> bool {
        const PATIENCE: Duration = Duration::from_millis(100);
        // The file of a Unix socket may be gone, or be another server's. Where this does not end
        // the wait it fails.
        if matches!(self.addr, ListenAddr::Unix(_))
            && self.listener.shutdown(Shutdown::Both).is_ok()
        {
            return true;
        }
        // A connection to the listener ends it on every platform.
        let socket = self.socket.take().map_or_else(|| self.addr.socket(), Ok);
        let connected = socket.and_then(|socket| {
            let addr = self.addr.sock_addr()?;
            socket.connect_timeout(&addr, PATIENCE)
        });
        connected.is_ok()
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_is_accepted_never_blocks_and_never_waits_to_fill_a_packet() {
        let own = Listener::bind("127.0.0.1", 0).unwrap();
        let passed_on = TcpListener::bind("127.0.0.1:0").unwrap();
        let passed_on = Listener::take_over(passed_on.into()).unwrap();
        for mut listener in [own, passed_on] {
            let client = TcpStream::connect(listener.addr().socket_addr()).unwrap();
            let (accepted, remote) = listener.accept().unwrap();
            assert_eq!(remote, client.local_addr().unwrap());
            accepted.set_up().unwrap();
            let Accepted::Tcp(mut stream) = accepted else { panic!("it is a TCP port") };
            assert!(stream.nodelay().unwrap());
            let error = stream.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
