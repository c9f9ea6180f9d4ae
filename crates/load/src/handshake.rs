//! A connection from its dial to the server's answer.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rusty_socks_client::Stream;
use rusty_socks_ws::client_handshake::{Answer, ClientHandshake, ClientRequest, Reply};

use super::{
    dial,
    failure::{Cause, Failure},
};

/// A socket being connected, or connected and waiting for its answer. Used by one thread.
pub struct Handshake {
    /// The socket, which never blocks.
    pub stream: Stream<TcpStream>,
    /// Whether TCP stands: before it, a timeout is the network's or the backlog's; after it, the
    /// server's.
    connected: bool,
    request: Vec<u8>,
    request_bytes_sent: usize,
    /// An error met before there was anything to read. A full server may have answered and closed
    /// before it read a byte of ours, and that answer is still to be read; so this is told only if
    /// none comes.
    fault: Option<io::Error>,
    answer: ClientHandshake,
}

impl Handshake {
    /// Asks for the upgrade on a socket that is being connected.
    pub fn new(stream: impl Into<Stream<TcpStream>>, request: &ClientRequest) -> Handshake {
        let mut bytes = Vec::new();
        let answer = request.begin(&mut bytes);
        Handshake {
            stream: stream.into(),
            connected: false,
            request: bytes,
            request_bytes_sent: 0,
            fault: None,
            answer,
        }
    }

    /// Goes as far as the socket allows; the answer, once it is there: a 101 has proved itself.
    /// `scratch` is lent for reading.
    pub fn step(&mut self, scratch: &mut [u8]) -> Result<Option<Answer>, Failure> {
        if !self.connected && !self.connect()? {
            return Ok(None);
        }
        self.send_request();
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(self.hung_up()),
                Ok(count) => match self.answer.feed(&scratch[..count]) {
                    Ok(None) => {}
                    Ok(Some(Reply::Accepted { answer, .. } | Reply::Refused(answer))) => {
                        return Ok(Some(answer));
                    }
                    Err(why) => return Err(Failure::new(Cause::BadAnswer, &why.to_string())),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::of_socket(&error)),
            }
        }
    }

    /// What it means that the time for an answer is up.
    pub fn timed_out(&self) -> Failure {
        let cause = if self.connected { Cause::AnswerTimeout } else { Cause::ConnectTimeout };
        Failure::new(cause, cause.meaning())
    }

    /// Whether the connection stands by now. [`step`](Self::step) asks this too.
    pub fn connect(&mut self) -> Result<bool, Failure> {
        match self.stream.socket().take_error() {
            Ok(None) => {}
            Ok(Some(error)) if error.kind() == ErrorKind::ConnectionReset => {
                self.connected = true;
                self.fault = Some(error);
                return Ok(true);
            }
            Ok(Some(error)) | Err(error) => return Err(Failure::of_dial(&error)),
        }
        match self.stream.socket().peer_addr() {
            Ok(_) => self.connected = true,
            Err(error) if dial::is_in_progress(&error) => return Ok(false),
            Err(error) => return Err(Failure::of_dial(&error)),
        }
        // Small messages shall leave at once; a socket that cannot do it is still a socket.
        let _ = self.stream.socket().set_nodelay(true);
        Ok(true)
    }

    /// Sends what remains of the request, unless the socket has shown a fault.
    fn send_request(&mut self) {
        while self.fault.is_none() && self.request_bytes_sent < self.request.len() {
            match self.stream.write(&self.request[self.request_bytes_sent..]) {
                Ok(count) => self.request_bytes_sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.fault = Some(error),
            }
        }
    }

    /// The server closed before its answer was whole.
    fn hung_up(&self) -> Failure {
        if let Some(fault) = &self.fault {
            Failure::of_socket(fault)
        } else if self.answer.has_begun() {
            Failure::new(Cause::BadAnswer, "closed in the middle of the answer")
        } else {
            Failure::new(Cause::ClosedBeforeAnswer, Cause::ClosedBeforeAnswer.meaning())
        }
    }
}
