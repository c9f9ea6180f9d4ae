//! A connection that was served, until it ends.

use std::{
    io::{self, ErrorKind, Read, Write},
    mem,
    time::Instant,
};

use mio::net::TcpStream;
use tungstenite::{
    Error, Message,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use super::tally::Ending;

/// What tungstenite keeps for reading, per connection: its default of 128 KiB would be gigabytes
/// for ten thousand.
///
/// It grows by itself for a larger frame.
const READ_BUFFER_BYTES: usize = 512;

/// The same where messages come all the time, and memory is not the matter.
const READ_BUFFER_BYTES_BUSY: usize = 4 * 1024;

/// A server that sends more than this in one message is stopped: a load test shall not be its
/// memory.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An outbox that has grown past this gives its memory back once it is empty.
const OUTBOX_BYTES_KEPT: usize = 4 * 1024;

/// An open WebSocket: answers pings and the Close by itself, counts messages and forgets them.
pub(crate) struct Held {
    pub(crate) stream: TcpStream,
    machine: WebSocketContext,
    /// Bytes the socket would not take yet.
    outbox: Vec<u8>,
    /// How the conversation ended: set once, by the first Close, end or error seen.
    ending: Option<Ending>,
    /// Whether the ending has been told by [`take_news`](Self::take_news).
    told: bool,
    /// Nothing more will come from the socket.
    over: bool,
}

/// The machine's view of the network: what came in, and where to put what goes out. Neither ever
/// blocks for long.
struct Wire<'a> {
    incoming: &'a [u8],
    outgoing: &'a mut Vec<u8>,
}

impl Held {
    /// Takes over after the 101; `early` are frames that came in one piece with it.
    /// `busy` connections read in larger pieces than those that mostly rest.
    pub(crate) fn new(stream: TcpStream, early: Vec<u8>, busy: bool) -> Held {
        let config = WebSocketConfig::default()
            .read_buffer_size(if busy { READ_BUFFER_BYTES_BUSY } else { READ_BUFFER_BYTES })
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let machine = if early.is_empty() {
            WebSocketContext::new(Role::Client, Some(config))
        } else {
            WebSocketContext::from_partially_read(early, Role::Client, Some(config))
        };
        Held { stream, machine, outbox: Vec::new(), ending: None, told: false, over: false }
    }

    /// Reads and writes as far as the socket allows, and hands over each message and pong with the
    /// time it was read. `scratch` is lent for reading.
    pub(crate) fn step(&mut self, scratch: &mut [u8], on: &mut dyn FnMut(Message, Instant)) {
        // Early frames lie in the machine already, so it is asked once before the socket is.
        self.digest(&[], on);
        while !self.over {
            match self.stream.read(scratch) {
                Ok(0) => self.end(Ending::NoClose),
                Ok(count) => self.digest(&scratch[..count], on),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end(Ending::Reset),
            }
        }
        self.flush();
    }

    /// Sends a message, unless the one before has not left yet: then it tells so and sends nothing.
    pub(crate) fn say(&mut self, message: Message) -> bool {
        let said = self.outbox.is_empty() && self.queue(message);
        self.flush();
        said
    }

    /// Puts a message into the outbox, whatever lies there already; [`flush`](Self::flush) sends
    /// it. `false` when the conversation is over.
    pub(crate) fn queue(&mut self, message: Message) -> bool {
        if self.ending.is_some() {
            return false;
        }
        let mut wire = Wire { incoming: &[], outgoing: &mut self.outbox };
        self.machine.write(&mut wire, message).and_then(|()| self.machine.flush(&mut wire)).is_ok()
    }

    /// How many bytes the socket has not taken yet.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Sends Close 1000; the answer comes, or does not, in later steps.
    pub(crate) fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "load test done".into() };
        let mut wire = Wire { incoming: &[], outgoing: &mut self.outbox };
        // The wire cannot fail, and a machine that has closed already has nothing to say.
        let _ = self.machine.close(&mut wire, Some(frame));
        self.flush();
    }

    /// Whether nothing more will be said on either side.
    pub(crate) fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// How it ended, once: an ending may show in reading, in writing or in closing, and
    /// counts but once.
    pub(crate) fn take_news(&mut self) -> Option<Ending> {
        if mem::replace(&mut self.told, self.ending.is_some()) { None } else { self.ending.clone() }
    }

    /// Whether the socket is of no more use. After a Close it still is, until the server hangs up:
    /// whoever hangs up first keeps the port busy for a minute, and the load test needs its ports
    /// more than the server does.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Puts bytes through the machine, and hands over what is in them.
    fn digest(&mut self, bytes: &[u8], on: &mut dyn FnMut(Message, Instant)) {
        let now = Instant::now();
        let mut wire = Wire { incoming: bytes, outgoing: &mut self.outbox };
        // After the Close nothing that comes means anything; it is read only to see the end.
        while self.ending.is_none() {
            match self.machine.read(&mut wire) {
                Ok(message @ (Message::Text(_) | Message::Binary(_) | Message::Pong(_))) => {
                    on(message, now);
                }
                Ok(Message::Ping(_) | Message::Frame(_)) => {}
                Ok(Message::Close(frame)) => {
                    self.ending =
                        Some(frame.map_or(Ending::NoCode, |frame| Ending::Code(frame.code.into())));
                    // The reply lies ready in the machine; the wire cannot refuse it.
                    let _ = self.machine.flush(&mut wire);
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.ending = Some(Ending::BrokeProtocol(error.to_string()));
                    self.over = true;
                }
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.outbox.len() && !self.over {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end(Ending::Reset),
            }
        }
        self.outbox.drain(..sent);
        if self.outbox.is_empty() && self.outbox.capacity() > OUTBOX_BYTES_KEPT {
            self.outbox = Vec::new();
        }
    }

    /// The socket is done with; how the conversation ended stays what it was, if it had.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.over = true;
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream as Peer};
    use std::time::Duration;

    /// A held connection and the server's end of it.
    fn pair(early: &[u8]) -> (Held, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = Peer::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (Held::new(TcpStream::from_std(ours), early.to_vec(), false), peer)
    }

    /// Steps until `done` or the deadline; tells how many messages came meanwhile.
    fn step_until(held: &mut Held, done: impl Fn(&Held, u64) -> bool) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut messages = 0;
        let mut scratch = vec![0; 1024];
        while !done(held, messages) {
            assert!(Instant::now() < deadline, "the condition never came");
            held.step(&mut scratch, &mut |_, _| messages += 1);
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
        let (mut held, mut peer) = pair(b"\x81\x02hi\x82\x01");
        peer.write_all(b"x\x01\x01a\x80\x01b").unwrap();
        assert_eq!(step_until(&mut held, |_, messages| messages >= 3), 3);
        assert!(!held.has_ended());
    }

    #[test]
    fn a_ping_is_answered() {
        let (mut held, mut peer) = pair(b"\x89\x02yo");
        held.step(&mut [0; 64], &mut |_, _| {});
        assert_eq!(frame_from(&mut peer), (0xA, b"yo".to_vec()));
    }

    #[test]
    fn a_close_by_the_server_is_answered_and_its_code_kept() {
        let (mut held, mut peer) = pair(&[]);
        peer.write_all(b"\x88\x02\x10\x06").unwrap();
        step_until(&mut held, |held, _| held.has_ended());
        assert_eq!(frame_from(&mut peer), (0x8, b"\x10\x06".to_vec()));
        assert!(!held.is_over(), "the server shall hang up first");
        drop(peer);
        step_until(&mut held, |held, _| held.is_over());
        assert_eq!(held.take_news(), Some(Ending::Code(4102)));
        assert_eq!(held.take_news(), None, "news is told once");
    }

    #[test]
    fn an_end_without_close_is_told_apart() {
        let (mut held, peer) = pair(&[]);
        drop(peer);
        step_until(&mut held, |held, _| held.is_over());
        assert_eq!(held.take_news(), Some(Ending::NoClose));
    }

    #[test]
    fn a_masked_frame_breaks_the_protocol() {
        let (mut held, _peer) = pair(b"\x81\x81\0\0\0\0x");
        held.step(&mut [0; 64], &mut |_, _| {});
        assert!(matches!(held.take_news(), Some(Ending::BrokeProtocol(_))));
    }

    #[test]
    fn closing_sends_1000() {
        let (mut held, mut peer) = pair(&[]);
        held.close();
        let (opcode, payload) = frame_from(&mut peer);
        assert_eq!((opcode, &payload[..2]), (0x8, &b"\x03\xe8"[..]));
        assert!(!held.say(Message::text("too late")));
    }

    #[test]
    fn a_message_is_held_back_while_the_last_one_has_not_left() {
        let (mut held, _peer) = pair(&[]);
        let text = "x".repeat(1024 * 1024);
        let said = (0..64).take_while(|_| held.say(Message::text(text.as_str()))).count();
        assert!(said < 64, "loopback buffers hold less than 64 MiB");
    }
}
