//! A socket that never blocks, and the protocol on it: frames in, frames out.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    ops::Range,
    time::Instant,
};

use rusty_socks_ws::{
    Control, Role,
    decoder::{Event, ProtocolConfig},
    encode::encode_control,
    endpoint::Endpoint,
};

use crate::{CloseReason, received::Received, stream::Stream};

/// Read at once from the socket. A message may be larger.
const INPUT_BYTES: usize = 16 << 10;

/// Frames are taken over from the queue until this many bytes wait for the socket.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Pongs that may wait for a peer that pings and does not read, in bytes. Beyond it nothing is
/// read.
const PONG_BYTES_MAX: usize = 16 << 10;

/// A connection after its handshake. Used by one thread.
pub(crate) struct Wire {
    pub(crate) stream: Stream<mio::net::TcpStream>,
    /// What the poll said of the socket, until it would block.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    endpoint: Endpoint,
    config: ProtocolConfig,
    input: Vec<u8>,
    /// The part of `input` that is read and not decoded.
    unread: Range<usize>,
    /// Encoded, and to be written from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Nothing of it will be written any more.
    is_lost: bool,
    /// How many bytes of `output` are pongs.
    pong_bytes: usize,
    /// When the peer was last heard.
    pub(crate) heard: Instant,
    /// When the socket last took something of what waits, or it began to wait.
    pub(crate) moved: Instant,
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Received),
    /// The peer's Close. It is answered, unless it was the answer to ours.
    Close(CloseReason),
    /// The peer broke the protocol. A Close that says so waits to be written, unless ours was sent.
    Fault(CloseReason),
    /// A ping, which is answered, or a pong.
    Control,
    /// A part of something.
    Partial,
    /// The peer ended the connection.
    End,
    /// Nothing, for now.
    Nothing,
}

impl Wire {
    /// Takes over a socket, and what came on it behind the head of the answer.
    pub(crate) fn new(
        stream: Stream<mio::net::TcpStream>,
        mut rest: Vec<u8>,
        message_bytes_max: usize,
    ) -> Wire {
        let now = Instant::now();
        let unread = 0..rest.len();
        rest.resize(INPUT_BYTES.max(rest.len()), 0);
        Wire {
            stream,
            readable: true,
            writable: true,
            endpoint: Endpoint::default(),
            config: ProtocolConfig { role: Role::Client, message_bytes_max },
            input: rest,
            unread,
            output: Vec::new(),
            written: 0,
            is_lost: false,
            pong_bytes: 0,
            heard: now,
            moved: now,
        }
    }

    /// Whether [`next`](Self::next) may find something.
    pub(crate) fn has_input(&self) -> bool {
        (self.readable || !self.unread.is_empty()) && self.pong_bytes <= PONG_BYTES_MAX
    }

    /// Advances by at most one message or control frame. Reads at most once.
    pub(crate) fn next(&mut self) -> io::Result<Incoming> {
        let mut has_read = false;
        loop {
            let waiting = self.waiting();
            let mut rest = &mut self.input[self.unread.clone()];
            let event = self.endpoint.next(&mut rest, &mut self.output, &self.config, None);
            self.unread.start = self.unread.end - rest.len();
            let incoming = match event {
                Event::Message(message) => Incoming::Message(message.into()),
                Event::Close(reason) => Incoming::Close(reason),
                Event::Failed(reason) => Incoming::Fault(reason),
                Event::Ping(_) | Event::Pong(_) => Incoming::Control,
                Event::NeedMore if has_read => return Ok(Incoming::Partial),
                Event::NeedMore if !self.readable => return Ok(Incoming::Nothing),
                Event::NeedMore => match self.fill()? {
                    Some(0) => return Ok(Incoming::End),
                    Some(_) => {
                        has_read = true;
                        continue;
                    }
                    None => return Ok(Incoming::Nothing),
                },
            };
            let answered = self.waiting() - waiting;
            if answered > 0 {
                self.note_waiting(waiting);
                self.pong_bytes += answered;
            }
            return Ok(incoming);
        }
    }

    /// Reads once. `None` where that would block.
    fn fill(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(&mut self.input) {
                Ok(len) => {
                    self.heard = Instant::now();
                    self.unread = 0..len;
                    return Ok(Some(len));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether frames may be added to those that wait for the socket: they are few, and our Close
    /// is not among them.
    pub(crate) fn has_room(&self) -> bool {
        !self.endpoint.has_sent_close() && self.waiting() < OUTPUT_BYTES_MAX
    }

    /// Adds an encoded frame.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        let waiting = self.waiting();
        self.output.extend_from_slice(frame);
        self.note_waiting(waiting);
    }

    /// Adds a ping.
    pub(crate) fn ping(&mut self) {
        let waiting = self.waiting();
        encode_control(&mut self.output, Control::Ping, b"", Role::Client);
        self.note_waiting(waiting);
    }

    /// Adds our Close, behind which nothing is sent.
    pub(crate) fn close(&mut self, reason: &CloseReason) {
        let waiting = self.waiting();
        self.endpoint.close(reason, &mut self.output, Role::Client);
        self.note_waiting(waiting);
    }

    fn note_waiting(&mut self, before: usize) {
        if before == 0 {
            self.moved = Instant::now();
        }
    }

    /// How many bytes wait for the socket.
    pub(crate) fn waiting(&self) -> usize {
        // What TLS has taken over waits as a whole.
        self.output.len() - self.written + usize::from(self.stream.has_unsent() && !self.is_lost)
    }

    /// Writes what the socket takes.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        while self.writable && self.waiting() > 0 {
            let sent = match &self.output[self.written..] {
                [] => self.stream.flush().map(|()| 0),
                rest => self.stream.write(rest),
            };
            // What TLS has taken over is not sent yet, and what it had before may be.
            let is_taken = !self.stream.is_tls() && matches!(sent, Ok(1..));
            if self.stream.take_progress() || is_taken {
                self.moved = Instant::now();
            }
            match sent {
                Ok(0) if self.written < self.output.len() => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        if self.output.len() == self.written {
            self.clear();
        }
        Ok(())
    }

    /// Lets go of what waits.
    pub(crate) fn discard(&mut self) {
        self.is_lost = true;
        self.clear();
    }

    fn clear(&mut self) {
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES_MAX);
        (self.written, self.pong_bytes) = (0, 0);
    }

    /// Tells the peer that nothing more comes. Best effort: it may be gone.
    pub(crate) fn end_output(&mut self) {
        self.stream.send_close_notify();
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        sync::Arc,
        thread,
        time::Duration,
    };

    use rustls::{
        ServerConfig, ServerConnection,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    use rusty_socks_testing::certificates::Authority;

    use super::*;
    use crate::{Target, tls::TlsOptions};

    const DEADLINE: Duration = Duration::from_secs(20);

    /// What the kernel is asked to keep in one direction at most.
    const KERNEL_BYTES: usize = 4096;

    /// Connects with TLS to a server that reads no more once that is done.
    fn connect() -> (Wire, TcpStream) {
        let pair = Authority::new("an authority").server(&["localhost"]);
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket2::SockRef::from(&listener).set_recv_buffer_size(KERNEL_BYTES).expect("a size");
        let addr = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut socket).expect("a handshake");
            }
            socket
        });
        let target = Target::parse(&format!("wss://localhost:{}", addr.port())).expect("legal");
        let connector = TlsOptions::default().insecure().connector().expect("no file");
        let socket = TcpStream::connect(addr).expect("it listens");
        socket2::SockRef::from(&socket).set_send_buffer_size(KERNEL_BYTES).expect("a size");
        let stream = connector.connect(socket, &target, Instant::now() + DEADLINE);
        let stream = stream.expect("a handshake").into_other(|socket| {
            socket.set_nonblocking(true).expect("a socket");
            mio::net::TcpStream::from_std(socket)
        });
        (Wire::new(Stream::Tls(Box::new(stream)), Vec::new(), 1 << 20), server.join().expect("it"))
    }

    #[test]
    fn a_part_of_what_tls_has_taken_over_counts_as_progress_and_nothing_does_not() {
        let (mut wire, mut server) = connect();
        wire.push(&vec![0; 1 << 20]);
        // Until the kernel takes no more.
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(200) {
            let before = wire.moved;
            wire.writable = true;
            wire.drain().expect("it is there");
            if wire.moved != before {
                since = Instant::now();
            }
        }
        let (written, moved) = (wire.written, wire.moved);
        assert!(written > 0 && wire.waiting() > 0);
        let end = Instant::now() + DEADLINE;
        let mut read = 0;
        while wire.moved == moved {
            assert!(Instant::now() < end, "{read} bytes were read");
            read += server.read(&mut [0; 1024]).expect("bytes");
            wire.writable = true;
            wire.drain().expect("it is there");
        }
        assert_eq!(wire.written, written, "TLS takes over no more meanwhile");
    }
}
