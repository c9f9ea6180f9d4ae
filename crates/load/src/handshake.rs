//! A connection from its dial to the server's answer.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::{
    answer::{Answer, AnswerReader},
    dialer,
    request::Request,
    tally::{Cause, Failure},
};

/// A socket being connected, or connected and waiting for its answer.
pub(crate) struct Handshake {
    pub(crate) stream: TcpStream,
    /// Whether TCP stands: before it, a timeout is the network's or the backlog's; after it, the
    /// server's.
    connected: bool,
    request: Request,
    request_bytes_sent: usize,
    /// An error met before there was anything to read. A full server may have answered and closed
    /// before it read a byte of ours, and that answer is still to be read; so this is told only if
    /// none comes.
    fault: Option<io::Error>,
    answer: AnswerReader,
}

/// Where a handshake stands after a step.
pub(crate) enum Progress {
    Pending,
    Answered(Answer),
    Failed(Failure),
}

impl Handshake {
    pub(crate) fn new(stream: TcpStream, request: Request) -> Handshake {
        Handshake {
            stream,
            connected: false,
            request,
            request_bytes_sent: 0,
            fault: None,
            answer: AnswerReader::default(),
        }
    }

    /// Goes as far as the socket allows. `scratch` is lent for reading.
    pub(crate) fn step(&mut self, scratch: &mut [u8]) -> Progress {
        match self.advance(scratch) {
            Ok(Some(answer)) => match self.check(answer) {
                Ok(answer) => Progress::Answered(answer),
                Err(failure) => Progress::Failed(failure),
            },
            Ok(None) => Progress::Pending,
            Err(failure) => Progress::Failed(failure),
        }
    }

    /// What it means that the time for an answer is up.
    pub(crate) fn timed_out(&self) -> Failure {
        let cause = if self.connected { Cause::AnswerTimeout } else { Cause::ConnectTimeout };
        Failure::new(cause, cause.meaning())
    }

    fn advance(&mut self, scratch: &mut [u8]) -> Result<Option<Answer>, Failure> {
        if !self.connected && !self.connect()? {
            return Ok(None);
        }
        self.send_request();
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(self.hung_up()),
                Ok(count) => {
                    let answer = self
                        .answer
                        .feed(&scratch[..count])
                        .map_err(|why| Failure::new(Cause::BadAnswer, &why))?;
                    if answer.is_some() {
                        return Ok(answer);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::of_socket(&error)),
            }
        }
    }

    /// Whether the connection stands by now.
    fn connect(&mut self) -> Result<bool, Failure> {
        match self.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) if error.kind() == ErrorKind::ConnectionReset => {
                self.connected = true;
                self.fault = Some(error);
                return Ok(true);
            }
            Ok(Some(error)) | Err(error) => return Err(Failure::of_dial(&error)),
        }
        match self.stream.peer_addr() {
            Ok(_) => self.connected = true,
            Err(error) if dialer::in_progress(&error) => return Ok(false),
            Err(error) => return Err(Failure::of_dial(&error)),
        }
        // Small messages shall leave at once; a socket that cannot do it is still a socket.
        let _ = self.stream.set_nodelay(true);
        Ok(true)
    }

    /// Sends what remains of the request, unless the socket has shown a fault.
    fn send_request(&mut self) {
        while self.fault.is_none() && self.request_bytes_sent < self.request.bytes.len() {
            match self.stream.write(&self.request.bytes[self.request_bytes_sent..]) {
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
        } else if self.answer.is_empty() {
            Failure::new(Cause::ClosedBeforeAnswer, Cause::ClosedBeforeAnswer.meaning())
        } else {
            Failure::new(Cause::BadAnswer, "closed in the middle of the answer")
        }
    }

    /// Only a 101 has something to prove.
    fn check(&self, answer: Answer) -> Result<Answer, Failure> {
        if answer.status == 101 {
            answer
                .check_upgrade(&self.request.accept)
                .map_err(|why| Failure::new(Cause::BadAnswer, why))?;
        }
        Ok(answer)
    }
}
