//! Questions and answers on a connection that is being made. It blocks, until a deadline.

#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};

use super::{
    order::{Refused, Value},
    stream::{Blocking, Stream},
    trust::Trust,
    wire::{self, Replies},
};

/// How long a connection is silent before the system asks whether the other side is there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

/// How long the system waits before it asks again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What a connection is made to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// Any of the addresses of a host.
    Tcp { host: String, addresses: Vec<SocketAddr> },
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such sockets"))]
    Unix(PathBuf),
}

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Talk {
    stream: Stream<Blocking>,
    replies: Replies,
    deadline: Instant,
    /// What it reached, if that was one of several.
    pub(super) reached: Option<SocketAddr>,
}

impl Talk {
    /// Connects, with TLS if somebody is to be trusted.
    pub(super) fn open(
        target: &Target,
        trust: Option<&Trust>,
        deadline: Instant,
    ) -> Result<Talk, String> {
        let (socket, reached, host) = match target {
            Target::Tcp { host, addresses } => {
                let (socket, address) = connect(addresses, deadline)?;
                (Blocking::Tcp(socket), Some(address), host.as_str())
            }
            #[cfg(unix)]
            Target::Unix(path) => {
                let socket = UnixStream::connect(path).map_err(|error| explained(&error))?;
                (Blocking::Unix(socket), None, "")
            }
            #[cfg(not(unix))]
            Target::Unix(_) => return Err("this system has no Unix sockets".to_owned()),
        };
        let session = trust.map(|trust| trust.begin(host)).transpose()?;
        let mut talk = Talk {
            stream: Stream::new(socket, session),
            replies: Replies::default(),
            deadline,
            reached,
        };
        talk.shake()?;
        Ok(talk)
    }

    /// Makes the handshake of TLS.
    fn shake(&mut self) -> Result<(), String> {
        while self.stream.is_handshaking() {
            self.wait_at_most()?;
            match self.stream.shake() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(explained(&error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends commands in one go, and returns the answer to each.
    pub(super) fn ask(
        &mut self,
        commands: Vec<Vec<Bytes>>,
    ) -> Result<Vec<Result<Value, Refused>>, String> {
        let expected = commands.len();
        let mut out = BytesMut::new();
        commands.into_iter().for_each(|command| wire::encode(&mut out, command));
        while !out.is_empty() {
            self.wait_at_most()?;
            match self.stream.write(&out) {
                Ok(taken) => _ = out.split_to(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(explained(&error)),
            }
        }
        let (mut answers, mut read) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            while let Some(answer) = self.replies.next()? {
                answers.push(answer);
            }
            if answers.len() >= expected {
                break;
            }
            self.wait_at_most()?;
            self.stream.flush().map_err(|error| explained(&error))?;
            match self.stream.read(&mut read) {
                // What it said before it hung up is why.
                Ok(0) => {
                    let refused = answers.into_iter().find_map(Result::err);
                    return Err(refused.map_or(ENDED.to_owned(), |refused| refused.text));
                }
                Ok(count) => self.replies.push(&read[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(explained(&error)),
            }
        }
        match answers.len() == expected && self.replies.is_empty() {
            true => Ok(answers),
            false => Err("it says more than it was asked".to_owned()),
        }
    }

    /// Returns the connection; everything asked is answered.
    pub(super) fn into_stream(self) -> Stream<Blocking> {
        self.stream
    }

    fn wait_at_most(&self) -> Result<(), String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(TIMED_OUT.to_owned()),
            false => self.stream.set_timeout(left).map_err(|error| explained(&error)),
        }
    }
}

const ENDED: &str = "it has closed the connection";
const TIMED_OUT: &str = "it does not answer in time";

fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TIMED_OUT.to_owned(),
        io::ErrorKind::UnexpectedEof => ENDED.to_owned(),
        _ => error.to_string(),
    }
}

/// Connects to the first address that answers. Each has its share of the time that is left.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), String> {
    let mut why = "the host has no address".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let behind = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = (left / behind).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share).and_then(prepared) {
            Ok(socket) => return Ok((socket, *address)),
            Err(error) => why = explained(&error),
        }
    }
    Err(why)
}

fn prepared(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}
