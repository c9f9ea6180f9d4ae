//! A WebSocket after its handshake, until it ends.

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    time::Instant,
};

use mio::net::TcpStream;
use rusty_socks_client::Stream;
use rusty_socks_ws::{
    close::CloseReason,
    decoder::{Event, ProtocolConfig},
    encode::{Kind, encode_control, encode_message},
    endpoint::Endpoint,
    frame::Message,
};
use tungstenite::protocol::{Role, frame::coding::Control};

use super::raw::RawMessages;

/// A server that sends more than this in one message is stopped: a load test shall not be its
/// memory.
const CONFIG: ProtocolConfig =
    ProtocolConfig { role: Role::Client, message_bytes_max: 16 * 1024 * 1024 };

/// An outbox that has grown past this gives its memory back once it is empty.
const OUTBOX_BYTES_KEPT: usize = 4 * 1024;

/// An open WebSocket on a socket that never blocks: answers pings and the Close by itself, and
/// hands over messages without keeping them. Used by one thread.
pub struct WebSocket {
    stream: Stream<TcpStream>,
    endpoint: Endpoint,
    /// Frames that came in one piece with the answer to the handshake.
    early: Vec<u8>,
    /// Bytes that the socket has not taken yet, behind the `outbox_sent` that it has.
    outbox: Vec<u8>,
    outbox_sent: usize,
    /// How the conversation ended: set once, by the first Close, end or error seen.
    ending: Option<Ending>,
    /// Whether [`take_ending`](Self::take_ending) has returned the ending.
    told: bool,
    /// Nothing more will come from the socket.
    over: bool,
    /// What cuts the stream into messages where no WebSocket is spoken.
    raw: Option<RawMessages>,
}

/// Something that a server sends and that is not answered by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// The payload of a pong.
    Pong(&'a [u8]),
}

/// How an open WebSocket ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// A Close frame with this code.
    Code(u16),
    /// A Close frame without a code.
    NoCode,
    /// The end of the stream, without a Close frame.
    NoClose,
    /// The socket was reset.
    Reset,
    /// The server sent what no WebSocket server may.
    BrokeProtocol(String),
}

impl WebSocket {
    /// Takes over after the 101; `early` are the bytes that came behind it.
    pub fn new(stream: impl Into<Stream<TcpStream>>, early: Vec<u8>) -> WebSocket {
        WebSocket {
            stream: stream.into(),
            endpoint: Endpoint::default(),
            early,
            outbox: Vec::new(),
            outbox_sent: 0,
            ending: None,
            told: false,
            over: false,
            raw: None,
        }
    }

    /// Speaks no WebSocket on a connected socket: every `size` bytes are a message, and nothing is
    /// answered or closed by itself. What a server costs beside that is its protocol.
    pub fn raw(stream: impl Into<Stream<TcpStream>>, size: usize) -> WebSocket {
        WebSocket { raw: Some(RawMessages::new(size)), ..WebSocket::new(stream, Vec::new()) }
    }

    /// The socket, to be registered and deregistered.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.stream.socket_mut()
    }

    /// Reads and writes as far as the socket allows, and hands over each message and pong with the
    /// time it was read. Returns the number of bytes read. `scratch` is lent for reading.
    ///
    /// `to_the_end` is whether the end of the stream may already be there. Where it is not, a read
    /// that does not fill `scratch` has emptied the socket, which saves the read that says so.
    pub fn step(
        &mut self,
        scratch: &mut [u8],
        to_the_end: bool,
        mut on: impl FnMut(Incoming<'_>, Instant),
    ) -> usize {
        if !self.early.is_empty() {
            let mut early = mem::take(&mut self.early);
            self.digest(&mut early, &mut on);
        }
        let mut bytes = 0;
        while !self.over {
            match self.stream.read(scratch) {
                Ok(0) => self.end(Ending::NoClose),
                Ok(count) => {
                    bytes += count;
                    self.digest(&mut scratch[..count], &mut on);
                    // Elsewhere only a read that would block has the next byte announced.
                    if cfg!(unix) && count < scratch.len() && !to_the_end && !self.stream.is_tls() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end(Ending::Reset),
            }
        }
        self.flush();
        bytes
    }

    /// Sends a message, unless the one before has not left yet; then returns `false`.
    pub fn send_alone(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let sent = self.outbox.is_empty() && self.queue(kind, payload);
        self.flush();
        sent
    }

    /// Sends a ping under the same condition.
    pub fn ping(&mut self, payload: &[u8]) -> bool {
        let may = self.outbox.is_empty() && self.may_send();
        if may {
            encode_control(&mut self.outbox, Control::Ping, payload, Role::Client);
        }
        self.flush();
        may
    }

    /// Puts a message into the outbox, whatever lies there already; [`flush`](Self::flush) sends
    /// it. `false` when the conversation is over.
    pub fn queue(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let may = self.may_send();
        if may {
            encode_message(&mut self.outbox, kind, payload, Role::Client);
        }
        may
    }

    /// Sends whole frames that are encoded already; only what the socket does not take is copied.
    pub fn send_encoded(&mut self, frames: &[u8]) {
        let mut sent = 0;
        if self.outbox.is_empty() {
            sent = self.write(frames);
        }
        self.outbox.extend_from_slice(&frames[sent..]);
    }

    /// How many bytes the socket has not taken yet.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.len() - self.outbox_sent
    }

    /// Sends Close 1000; the answer comes, or does not, in later steps.
    pub fn close(&mut self) {
        let reason = CloseReason::NORMAL.because("load test done");
        self.endpoint.close(&reason, &mut self.outbox, Role::Client);
        self.flush();
    }

    /// Whether nothing more will be said on either side.
    pub fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// How the conversation ended, once: an end may show in reading, in writing or in closing, and
    /// counts but once.
    pub fn take_ending(&mut self) -> Option<Ending> {
        if mem::replace(&mut self.told, self.ending.is_some()) { None } else { self.ending.clone() }
    }

    /// Whether the socket is of no more use. After a Close it still is, until the server hangs up:
    /// whoever hangs up first keeps the port busy for a minute, and a load test needs its ports
    /// more than the server does.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        let outbox = mem::take(&mut self.outbox);
        self.outbox_sent += self.write(&outbox[self.outbox_sent..]);
        self.outbox = outbox;
        if self.stream.has_unsent() {
            // Whatever is wrong with the socket shows when it is read.
            let _ = self.stream.flush();
        }
        if self.outbox_bytes() == 0 {
            self.outbox_sent = 0;
            self.outbox.clear();
            if self.outbox.capacity() > OUTBOX_BYTES_KEPT {
                self.outbox = Vec::new();
            }
        }
    }

    fn may_send(&self) -> bool {
        self.ending.is_none() && !self.endpoint.has_sent_close()
    }

    /// Writes `bytes` as far as the socket takes them; how many it took.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() && !self.over {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end(Ending::Reset),
            }
        }
        sent
    }

    /// Puts bytes through the endpoint, and hands over what is in them.
    fn digest(&mut self, mut bytes: &mut [u8], on: &mut impl FnMut(Incoming<'_>, Instant)) {
        let now = Instant::now();
        if let Some(raw) = &mut self.raw {
            return raw.cut(bytes, |message| on(Incoming::Message(Message::Binary(message)), now));
        }
        // After the Close nothing that comes means anything; it is read only to see the end.
        while self.ending.is_none() {
            match self.endpoint.next(&mut bytes, &mut self.outbox, &CONFIG, None) {
                Event::Message(received) => on(Incoming::Message(received.message()), now),
                Event::Pong(payload) => on(Incoming::Pong(&payload), now),
                Event::Ping(_) => {}
                Event::Close(reason) if reason == CloseReason::NO_STATUS => {
                    self.ending = Some(Ending::NoCode);
                }
                Event::Close(reason) => self.ending = Some(Ending::Code(reason.code())),
                Event::Failed(reason) => {
                    self.flush();
                    self.end(Ending::BrokeProtocol(reason.reason().to_owned()));
                }
                Event::NeedMore => break,
            }
        }
    }

    /// Ends the use of the socket; how the conversation ended stays what it was, if it had.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.over = true;
    }
}

impl Ending {
    /// The stable name in JSON: the close code where there is one.
    pub(crate) fn key(&self) -> String {
        match self {
            Ending::Code(code) => code.to_string(),
            Ending::NoCode => "no_code".to_owned(),
            Ending::NoClose => "no_close_frame".to_owned(),
            Ending::Reset => "reset".to_owned(),
            Ending::BrokeProtocol(_) => "broke_protocol".to_owned(),
        }
    }

    /// The ending in words.
    pub fn meaning(&self) -> String {
        match self {
            Ending::Code(code) => format!("close code {code}"),
            Ending::NoCode => "close without a code".to_owned(),
            Ending::NoClose => "hung up without a close".to_owned(),
            Ending::Reset => "reset".to_owned(),
            Ending::BrokeProtocol(why) => format!("broke the protocol: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream as Peer};
    use std::time::Duration;

    /// An open WebSocket and the server's end of it.
    fn pair(early: &[u8]) -> (WebSocket, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = Peer::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (WebSocket::new(TcpStream::from_std(ours), early.to_vec()), peer)
    }

    /// Steps until `done` or the deadline; tells how many messages came meanwhile.
    fn step_until(socket: &mut WebSocket, done: impl Fn(&WebSocket, u64) -> bool) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut messages = 0;
        let mut scratch = vec![0; 1024];
        while !done(socket, messages) {
            assert!(Instant::now() < deadline, "the condition never came");
            socket.step(&mut scratch, true, |_, _| messages += 1);
            std::thread::yield_now();
        }
        messages
    }

    /// Reads one masked frame of a client: its opcode and payload.
    fn frame_from(peer: &mut Peer) -> (u8, Vec<u8>) {
        let mut head = [0; 6];
        peer.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        peer.read_exact(&mut payload).unwrap();
        let mask = &head[2..];
        (head[0] & 0x0f, payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect())
    }

    #[test]
    fn messages_are_counted_also_those_that_came_with_the_answer() {
        let (mut socket, mut peer) = pair(b"\x81\x02hi\x82\x01");
        peer.write_all(b"x\x01\x01a\x80\x01b").unwrap();
        assert_eq!(step_until(&mut socket, |_, messages| messages >= 3), 3);
        assert!(!socket.has_ended());
    }

    #[test]
    fn a_ping_is_answered() {
        let (mut socket, mut peer) = pair(b"\x89\x02yo");
        socket.step(&mut [0; 64], true, |_, _| {});
        assert_eq!(frame_from(&mut peer), (0xA, b"yo".to_vec()));
    }

    #[test]
    fn a_close_by_the_server_is_answered_and_its_code_kept() {
        let (mut socket, mut peer) = pair(&[]);
        peer.write_all(b"\x88\x02\x10\x06").unwrap();
        step_until(&mut socket, |socket, _| socket.has_ended());
        assert_eq!(frame_from(&mut peer), (0x8, b"\x10\x06".to_vec()));
        assert!(!socket.is_over(), "the server shall hang up first");
        drop(peer);
        step_until(&mut socket, |socket, _| socket.is_over());
        assert_eq!(socket.take_ending(), Some(Ending::Code(4102)));
        assert_eq!(socket.take_ending(), None, "an ending is told once");
    }

    #[test]
    fn an_end_without_close_is_told_apart() {
        let (mut socket, peer) = pair(&[]);
        drop(peer);
        step_until(&mut socket, |socket, _| socket.is_over());
        assert_eq!(socket.take_ending(), Some(Ending::NoClose));
    }

    #[test]
    fn a_masked_frame_breaks_the_protocol() {
        let (mut socket, _peer) = pair(b"\x81\x81\0\0\0\0x");
        socket.step(&mut [0; 64], true, |_, _| {});
        assert!(matches!(socket.take_ending(), Some(Ending::BrokeProtocol(_))));
    }

    #[test]
    fn closing_sends_1000() {
        let (mut socket, mut peer) = pair(&[]);
        socket.close();
        let (opcode, payload) = frame_from(&mut peer);
        assert_eq!((opcode, &payload[..2]), (0x8, &b"\x03\xe8"[..]));
        assert!(!socket.send_alone(Kind::Text, b"too late"));
    }

    #[test]
    fn a_message_is_held_back_while_the_last_one_has_not_left() {
        let (mut socket, _peer) = pair(&[]);
        let text = "x".repeat(1024 * 1024);
        let said = (0..64).take_while(|_| socket.send_alone(Kind::Text, text.as_bytes())).count();
        assert!(said < 64, "loopback buffers hold less than 64 MiB");
    }

    #[test]
    fn encoded_frames_leave_in_their_order_also_through_a_full_socket() {
        let (mut socket, mut peer) = pair(&[]);
        let frames: Vec<u8> = (0..8 * 1024 * 1024).map(|at| (at / 7) as u8).collect();
        frames.chunks(1024 * 1024).for_each(|chunk| socket.send_encoded(chunk));
        assert!(socket.outbox_bytes() > 0, "loopback buffers hold less than 8 MiB");
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; 8 * 1024 * 1024];
            peer.read_exact(&mut read).map(|()| read)
        });
        step_until(&mut socket, |socket, _| socket.outbox_bytes() == 0);
        assert!(reader.join().unwrap().unwrap() == frames);
    }

    #[test]
    fn a_read_that_does_not_fill_the_buffer_is_the_last_unless_the_end_is_there() {
        let (mut socket, mut peer) = pair(&[]);
        peer.write_all(b"\x81\x02hi").unwrap();
        drop(peer);
        let deadline = Instant::now() + Duration::from_secs(5);
        while socket.step(&mut [0; 64], false, |_, _| {}) == 0 {
            assert!(Instant::now() < deadline, "nothing came");
        }
        assert_eq!(socket.is_over(), cfg!(not(unix)));
        step_until(&mut socket, |socket, _| socket.is_over());
    }
}
