//! One connection to the server under load, from `connect` to the last byte.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

use crate::frame::{Control, FrameReader, OpCode, Reader, Seen, client_frame};
use crate::http::{STEP_TIMEOUT, read_upgrade, upgrade_request};
use crate::meter::Stopwatch;
use crate::target::Target;

/// Handshakes under way at once. Below any server's backlog, and enough to keep it busy.
const OPENING_MAX: usize = 64;
/// How long the opening of all connections may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(120);

/// What is spoken on a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    /// Starts with a handshake. `keep_start` as in [`FrameReader::new`].
    WebSocket { keep_start: bool },
    /// Bytes alone; `size` of them are a message.
    Tcp { size: u64 },
}

/// One message as it goes over the wire, many times in a row, so that any number of messages from
/// any point in the middle of one is a slice.
pub(crate) struct Repeated {
    bytes: Vec<u8>,
    one: usize,
}

impl Repeated {
    pub(crate) fn new(message: &[u8], times: usize) -> Self {
        Self { bytes: message.repeat(times), one: message.len() }
    }

    pub(crate) fn one(&self) -> &[u8] {
        &self.bytes[..self.one]
    }
}

pub(crate) struct Link {
    stream: TcpStream,
    reader: Reader,
    /// Bytes due to the socket, which was full.
    owed: usize,
    /// Where in a message the next byte stands.
    phase: usize,
}

/// What became of a link in one read.
pub(crate) struct Drained {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
    /// Whether the server ended the connection, with the close code if it gave one.
    pub(crate) ended: Option<Option<u16>>,
}

/// Opens `count` connections besides the `open` that there are, so many at a time: once the oldest
/// is answered, the next one asks. How long each took, from `connect` to the answer, goes to
/// `watch`; without a handshake that says nothing.
pub(crate) fn open_all(
    target: &Target,
    wire: Wire,
    open: usize,
    count: usize,
    watch: &mut Stopwatch,
) -> anyhow::Result<Vec<Link>> {
    let deadline = Instant::now() + OPENING_TIMEOUT;
    let request = upgrade_request(target);
    let mut links = Vec::with_capacity(count);
    let mut opening = VecDeque::with_capacity(OPENING_MAX);
    while links.len() < count {
        ensure!(
            Instant::now() < deadline,
            "only {} of {count} connections are open after {OPENING_TIMEOUT:?}",
            links.len()
        );
        while opening.len() < OPENING_MAX && links.len() + opening.len() < count {
            let asked_at = Instant::now();
            let mut socket = connect(target, open + links.len() + opening.len(), open + count)?;
            if let Wire::WebSocket { .. } = wire {
                socket.write_all(request.as_bytes()).context("cannot send the upgrade")?;
            }
            opening.push_back((asked_at, socket));
        }
        let Some((asked_at, socket)) = opening.pop_front() else {
            break;
        };
        let link = Link::begin(socket, wire)
            .with_context(|| format!("connection {} of {count}", links.len() + 1))?;
        watch.record(asked_at.elapsed());
        links.push(link);
    }
    Ok(links)
}

pub(crate) fn connect(target: &Target, index: usize, count: usize) -> anyhow::Result<Socket> {
    let attempt = || {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
        if let Some(source) = target.source(index) {
            socket.bind(&source.into())?;
        }
        socket.connect_timeout(&target.address.into(), STEP_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(STEP_TIMEOUT))?;
        socket.set_write_timeout(Some(STEP_TIMEOUT))?;
        Ok(socket)
    };
    attempt().map_err(|error: std::io::Error| {
        let address = target.address;
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::ConnectionRefused, _) => anyhow!("nothing listens on {address}"),
            (ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse, _) => {
                anyhow!("no local port is left for connection {} of {count}: {error}", index + 1)
            }
            // EMFILE and ENFILE, which std has no kinds for.
            (_, Some(24 | 23)) => anyhow!(
                "no file descriptor is left for connection {} of {count}; raise `ulimit -n` to more than {count}",
                index + 1
            ),
            _ => anyhow!("cannot connect to {address} ({} of {count}): {error}", index + 1),
        }
    })
}

impl Link {
    fn begin(socket: Socket, wire: Wire) -> anyhow::Result<Self> {
        let (reader, early) = match wire {
            Wire::WebSocket { keep_start } => {
                (Reader::WebSocket(FrameReader::new(keep_start)), read_upgrade(&socket)?)
            }
            Wire::Tcp { size } => (Reader::Tcp { size, have: 0 }, Vec::new()),
        };
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket.into());
        let mut link = Self { stream, reader, owed: 0, phase: 0 };
        if let Some(code) = link.digest(&early, |_, _| Ok(()))? {
            bail!("the server closed at once (code {code:?})");
        }
        Ok(link)
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads until the socket is empty. Pings are answered here; messages go to `on_message`.
    pub(crate) fn drain(
        &mut self,
        buffer: &mut [u8],
        mut on_message: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Drained> {
        let mut drained = Drained { bytes: 0, messages: 0, ended: None };
        loop {
            let n = match self.stream.read(buffer) {
                Ok(n) if n > 0 => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                    return Err(error).context("cannot read from the server");
                }
                // The end of the stream, or a reset.
                Ok(_) | Err(_) => {
                    drained.ended = Some(None);
                    return Ok(drained);
                }
            };
            drained.bytes += n;
            drained.ended = self.digest(&buffer[..n], |len, start| {
                drained.messages += 1;
                on_message(len, start)
            })?;
            // On Linux a short read means an empty socket, and the next byte raises a new edge. It
            // spares a system call per turn, half of what a reader costs.
            if drained.ended.is_some() || n < buffer.len() {
                return Ok(drained);
            }
        }
    }

    /// Passes on the messages in `bytes` and answers the pings. Says whether a close was among
    /// them.
    fn digest(
        &mut self,
        bytes: &[u8],
        mut on_message: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Option<u16>>> {
        let mut ended = None;
        let mut pongs = Vec::new();
        let pong = OpCode::Control(Control::Pong);
        self.reader.feed(bytes, |seen| {
            match seen {
                Seen::Message { len, start } => return on_message(len, start),
                Seen::Ping(payload) => pongs.extend(client_frame(pong, payload)),
                Seen::Close(code) => ended = Some(code),
            }
            Ok(())
        })?;
        // In the middle of a message a pong would be taken for its payload. The server asks again.
        if !pongs.is_empty() && self.phase == 0 {
            // A socket too full for a pong has a server that is not starved of signs of life.
            let _ = self.stream.write(&pongs);
        }
        Ok(ended)
    }

    /// Sends one frame of its own kind, at a time when nothing else is owed. It must be small
    /// enough for the socket to take it whole.
    pub(crate) fn send_alone(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        ensure!(self.owed == 0 && self.phase == 0, "a frame in the middle of another");
        let n = self.stream.write(frame).context("cannot write to the server")?;
        ensure!(n == frame.len(), "the socket took only {n} of {} bytes", frame.len());
        Ok(())
    }

    /// Sends `messages` more, as far as the socket takes them.
    pub(crate) fn send(&mut self, repeated: &Repeated, messages: usize) -> anyhow::Result<()> {
        self.owed += messages * repeated.one;
        self.flush(repeated)
    }

    /// Sends what is owed, as far as the socket takes it.
    pub(crate) fn flush(&mut self, repeated: &Repeated) -> anyhow::Result<()> {
        while self.owed > 0 {
            let end = repeated.bytes.len().min(self.phase + self.owed);
            match self.stream.write(&repeated.bytes[self.phase..end]) {
                Ok(n) => {
                    self.owed -= n;
                    self.phase = (self.phase + n) % repeated.one;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot write to the server"),
            }
        }
        Ok(())
    }
}
