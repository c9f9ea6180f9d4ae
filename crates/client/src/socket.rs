//! The raw client: one WebSocket connection, messages in and out, nothing known of their meaning.

use std::{
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusty_socks_ws::{
    Control, Role,
    encode::{encode_control, encode_message},
};

use crate::{
    CloseReason, Message,
    error::{Error, ErrorKind},
    handshake::{self, RequestOptions},
    reactor::{self, Reactor},
    received::Received,
    shared::{End, Shared, Times},
    stream::Stream,
    target::Target,
    wire::Wire,
};

#[cfg(feature = "tls")]
use crate::tls::{TlsConnector, TlsOptions};

/// Defaults of [`ClientBuilder`], in the order of its methods.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES_MAX: usize = 16 << 20;
const OUTGOING_BYTES_MAX: usize = 1 << 20;

/// What a connection should be like. Made by [`Client::builder`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    request: RequestOptions,
    #[cfg(feature = "tls")]
    tls: TlsOptions,
    /// Made with the first connection, and shared by clones: it has the server's tickets.
    #[cfg(feature = "tls")]
    connector: Arc<std::sync::OnceLock<TlsConnector>>,
    connect_timeout: Duration,
    message_bytes_max: usize,
    incoming_max: usize,
    incoming_bytes_max: usize,
    outgoing_bytes_max: usize,
    times: Times,
}

impl Default for ClientBuilder {
    fn default() -> ClientBuilder {
        ClientBuilder {
            request: RequestOptions::default(),
            #[cfg(feature = "tls")]
            tls: TlsOptions::default(),
            #[cfg(feature = "tls")]
            connector: Arc::default(),
            connect_timeout: CONNECT_TIMEOUT,
            message_bytes_max: MESSAGE_BYTES_MAX,
            incoming_max: INCOMING_MAX,
            incoming_bytes_max: INCOMING_BYTES_MAX,
            outgoing_bytes_max: OUTGOING_BYTES_MAX,
            times: Times {
                write: WRITE_TIMEOUT,
                close: CLOSE_TIMEOUT,
                silence_max: None,
                ping: None,
            },
        }
    }
}

impl ClientBuilder {
    /// A header of the upgrade request. Those that make the upgrade cannot be set.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.headers.push((name.into(), value.into()));
        self
    }

    /// Sets whom to trust behind `wss://`. Default: the authorities that browsers trust.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        (self.tls, self.connector) = (options, Arc::default());
        self
    }

    /// A subprotocol to offer, the most wanted first. See [`Client::subprotocol`].
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.request.subprotocols.push(name.into());
        self
    }

    /// Time for connecting and for the server's answer, waiting in its line included. 30 s.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// How long the server may take nothing of what is to be sent, and how long [`Client::send`]
    /// waits for room. 30 s.
    pub fn write_timeout(mut self, time: Duration) -> Self {
        self.times.write = time;
        self
    }

    /// How long the server has to answer a close. 3 s.
    pub fn close_timeout(mut self, time: Duration) -> Self {
        self.times.close = time;
        self
    }

    /// Silence of the server after which the connection counts as lost. Any byte is heard, a pong
    /// too. Without limit unless set.
    pub fn silence_max(mut self, time: Duration) -> Self {
        self.times.silence_max = Some(time);
        self
    }

    /// Ping the server when nothing was heard for this long. Never unless set.
    pub fn ping_after(mut self, time: Duration) -> Self {
        self.times.ping = Some(time.max(Duration::from_millis(1)));
        self
    }

    /// The largest message to receive. A larger one ends the connection with 1009. 16 MiB.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Messages, and bytes of them, that may wait to be received. Beyond either the socket is not
    /// read, and so pings are not answered. 1024 and 16 MiB; one message always fits.
    pub fn incoming_max(mut self, messages: usize, bytes: usize) -> Self {
        self.incoming_max = messages.max(1);
        self.incoming_bytes_max = bytes.max(1);
        self
    }

    /// Bytes that may wait to be sent, the headers of frames included. Beyond it [`Client::send`]
    /// waits. 1 MiB; one message always fits.
    pub fn outgoing_bytes_max(mut self, bytes: usize) -> Self {
        self.outgoing_bytes_max = bytes;
        self
    }

    /// Connects to a `ws://` URL and returns once the server has upgraded.
    pub fn connect(&self, url: &str) -> Result<Client, Error> {
        self.connect_to(&Target::parse(url)?)
    }

    /// What can be told without a network: whether the headers and subprotocols may be sent.
    pub(crate) fn check(&self, target: &Target) -> Result<(), Error> {
        self.request.request(target).map(drop)
    }

    /// Makes the TLS handshake, where the address asks for it.
    #[cfg(feature = "tls")]
    fn secured(
        &self,
        socket: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> Result<Stream<TcpStream>, Error> {
        if !target.is_secure() {
            return Ok(Stream::Plain(socket));
        }
        let connector = match self.connector.get() {
            Some(connector) => connector.clone(),
            None => {
                let made = self.tls.connector()?;
                self.connector.get_or_init(|| made).clone()
            }
        };
        Ok(Stream::Tls(Box::new(connector.connect(socket, target, deadline)?)))
    }

    #[cfg(not(feature = "tls"))]
    fn secured(
        &self,
        socket: TcpStream,
        _: &Target,
        _: Instant,
    ) -> Result<Stream<TcpStream>, Error> {
        Ok(Stream::Plain(socket))
    }

    pub(crate) fn connect_to(&self, target: &Target) -> Result<Client, Error> {
        let request = self.request.request(target)?;
        let deadline = Instant::now() + self.connect_timeout;
        let mut stream = self.secured(target.dial(deadline)?, target, deadline)?;
        let accepted = handshake::shake(&mut stream, target, &request, deadline)?;
        let system = |error| Error::caused(ErrorKind::System, "cannot begin the connection", error);
        // Best effort: an answer in one piece is only faster without it.
        let _ = stream.socket().set_nodelay(true);
        stream.socket().set_nonblocking(true).map_err(system)?;

        let stream = stream.into_other(mio::net::TcpStream::from_std);
        let wire = Wire::new(stream, accepted.rest, self.message_bytes_max);
        let (poll, waker) = reactor::poll().map_err(system)?;
        let shared = Arc::new(Shared::new(waker, self.times));
        let (sender, incoming) = crossbeam_channel::bounded(self.incoming_max);
        let reactor =
            Reactor::new(poll, wire, Arc::clone(&shared), sender, self.incoming_bytes_max)
                .map_err(system)?;
        thread::Builder::new()
            .name("rusty-socks-client".into())
            .spawn(move || reactor.run())
            .map_err(system)?;
        let handle = Handle {
            shared,
            incoming,
            outgoing_bytes_max: self.outgoing_bytes_max,
            subprotocol: accepted.subprotocol,
        };
        Ok(Client { handle: Arc::new(handle) })
    }
}

/// A WebSocket connection to any server.
///
/// Clones are handles to the same connection, and all of it works from several threads: what
/// several send goes out in some order, each message whole, and what comes is received by one of
/// them. A thread behind it reads, writes and answers pings. When the last clone goes, the
/// connection is closed in the background; call [`close`](Client::close) to see it through.
///
/// ```no_run
/// use rusty_socks_client::{Client, Error};
///
/// fn main() -> Result<(), Error> {
///     let client = Client::connect("ws://127.0.0.1:3030/ws")?;
///     client.send(r#"{"content":"hi"}"#)?;
///     for message in &client {
///         println!("{:?}", message?);
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all clones share; when it goes, so does the connection.
struct Handle {
    shared: Arc<Shared>,
    incoming: Receiver<Received>,
    outgoing_bytes_max: usize,
    subprotocol: Option<String>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.ask_to_close(CloseReason::NORMAL);
    }
}

impl Client {
    /// Connects to a `ws://` URL, with every setting at its default.
    pub fn connect(url: &str) -> Result<Client, Error> {
        Client::builder().connect(url)
    }

    /// Settings, such as headers and timeouts, for a connection.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The subprotocol that the server chose from those offered.
    pub fn subprotocol(&self) -> Option<&str> {
        self.handle.subprotocol.as_deref()
    }

    /// Queues a message to be sent. Waits for room where too much is queued already, and when there
    /// is none within the write timeout the message was not taken.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        let frame = encode(message.into());
        let shared = &self.handle.shared;
        let mut outgoing = shared.outgoing.lock();
        let deadline = Instant::now() + outgoing.times.write;
        while !outgoing.ended
            && outgoing.close.is_none()
            && outgoing.bytes > 0
            && outgoing.bytes + frame.len() > self.handle.outgoing_bytes_max
        {
            if shared.moved.wait_until(&mut outgoing, deadline).timed_out() {
                return Err(Error::new(ErrorKind::Timeout, "no room to send in time"));
            }
        }
        shared.push(outgoing, frame)
    }

    /// Sends a ping. Its pong is heard (see [`ClientBuilder::silence_max`]), and not told.
    pub fn ping(&self) -> Result<(), Error> {
        let mut frame = Vec::new();
        encode_control(&mut frame, Control::Ping, b"", Role::Client);
        self.handle.shared.push(self.handle.shared.outgoing.lock(), frame)
    }

    /// Queues a message beyond the bound, for callers with a bound of their own.
    pub(crate) fn queue(&self, message: Message<'_>) -> Result<(), Error> {
        let frame = encode(message);
        self.handle.shared.push(self.handle.shared.outgoing.lock(), frame)
    }

    /// Changes how long the server may be silent, and when to ping it.
    pub(crate) fn expect_signs(&self, silence_max: Duration, ping: Duration) {
        let mut outgoing = self.handle.shared.outgoing.lock();
        outgoing.times.silence_max = Some(silence_max);
        outgoing.times.ping = Some(ping);
        drop(outgoing);
        self.handle.shared.wake();
    }

    /// The next message. `None` when the connection was closed with a close frame, by either side,
    /// and everything before it has been received: [`close_reason`](Client::close_reason) tells
    /// why.
    pub fn recv(&self) -> Result<Option<Received>, Error> {
        match self.handle.incoming.recv() {
            Ok(received) => Ok(Some(self.taken(received))),
            Err(_) => self.outcome(),
        }
    }

    /// Waits for the next message for at most `timeout`. When nothing came, the error
    /// [is a timeout](Error::is_timeout), and nothing is lost: a message that has come in part is
    /// given whole by a later call.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Received>, Error> {
        match self.handle.incoming.recv_timeout(timeout) {
            Ok(received) => Ok(Some(self.taken(received))),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::new(ErrorKind::Timeout, "nothing came in time"))
            }
            Err(RecvTimeoutError::Disconnected) => self.outcome(),
        }
    }

    /// What [`recv`](Client::recv) gives, until it gives `None` or an error.
    pub fn iter(&self) -> Iter<'_> {
        Iter { client: self, is_over: false }
    }

    /// The queue itself, for a thread that waits for more than this.
    pub(crate) fn incoming(&self) -> &Receiver<Received> {
        &self.handle.incoming
    }

    /// Counts a message from [`incoming`](Client::incoming) as taken.
    pub(crate) fn taken(&self, received: Received) -> Received {
        let shared = &self.handle.shared;
        shared.incoming_bytes.fetch_sub(received.len(), Ordering::SeqCst);
        if shared.stalled.swap(false, Ordering::SeqCst) {
            shared.wake();
        }
        received
    }

    /// Why the connection was closed, once it is. A connection that was lost has no reason.
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.handle.shared.end.get()? {
            End::Closed(reason) => Some(reason.clone()),
            End::Failed(_) => None,
        }
    }

    fn outcome(&self) -> Result<Option<Received>, Error> {
        match self.handle.shared.end.get() {
            Some(End::Closed(_)) => Ok(None),
            _ => Err(self.ended()),
        }
    }

    /// The end as an error.
    pub(crate) fn ended(&self) -> Error {
        self.handle.shared.ended()
    }

    /// Sends what is queued and then a Close, and waits for the server's, within the write and the
    /// close timeout. Returns what the server's Close said. Messages that came before can still
    /// be received.
    pub fn close(&self, reason: CloseReason) -> Result<CloseReason, Error> {
        let shared = &self.handle.shared;
        shared.ask_to_close(reason);
        let mut outgoing = shared.outgoing.lock();
        // The thread keeps both timeouts by itself; this is for the case that it is not there.
        let times = outgoing.times;
        let deadline = Instant::now() + times.write + times.close + times.close;
        while !outgoing.ended {
            if shared.moved.wait_until(&mut outgoing, deadline).timed_out() {
                return Err(Error::new(ErrorKind::Timeout, "the connection did not close in time"));
            }
        }
        drop(outgoing);
        self.close_reason().ok_or_else(|| self.ended())
    }

    /// Asks for the close without waiting for it.
    pub(crate) fn begin_close(&self, reason: CloseReason) {
        self.handle.shared.ask_to_close(reason);
    }
}

/// One frame, masked here so that the thread need not do it for all who send.
fn encode(message: Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_message(&mut frame, message.kind(), message.as_bytes(), Role::Client);
    frame
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("end", &self.handle.shared.end).finish_non_exhaustive()
    }
}

/// The messages of a [`Client`], in order.
#[derive(Debug)]
pub struct Iter<'c> {
    client: &'c Client,
    is_over: bool,
}

impl Iterator for Iter<'_> {
    type Item = Result<Received, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.client.recv().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<'c> IntoIterator for &'c Client {
    type Item = Result<Received, Error>;
    type IntoIter = Iter<'c>;

    fn into_iter(self) -> Iter<'c> {
        self.iter()
    }
}
