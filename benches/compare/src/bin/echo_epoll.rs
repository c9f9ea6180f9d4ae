//! The floor: a TCP echo on bare readiness, with no protocol at all.
//!
//! One thread, one shared read buffer, what was read is written back at once. A server that speaks
//! WebSocket cannot do with fewer system calls than this one, so its figure is what the kernel
//! charges. With `--mode broadcast` every chunk that arrives is written to every client, as the
//! floor of a fan-out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rusty_socks_load::ReadBuffer;
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// A client that leaves this much unread is cut off: the floor has no better policy to measure.
const LEFTOVER_BYTES_MAX: usize = 64 << 20;

#[derive(Parser)]
#[command(about = "A TCP echo without a protocol: the floor of every comparison")]
struct Args {
    /// Port on 127.0.0.1; 0 picks a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// What to do with the bytes of a client.
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Back to the client they came from.
    Echo,
    /// To all clients, the sender included.
    Broadcast,
}

struct Client {
    stream: TcpStream,
    /// What the socket would not take yet. Empty nearly always.
    leftover: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port);
    let mut listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);

    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut clients: Slab<Client> = Slab::new();
    let mut buffer = ReadBuffer::new(READ_BUFFER_BYTES);

    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut clients);
                continue;
            }
            let key = event.token().0;
            let Some(client) = clients.get_mut(key) else { continue };
            let flushed = client.flush();
            let alive = match args.mode {
                _ if flushed.is_err() => flushed,
                Mode::Echo => echo(client, &mut buffer),
                Mode::Broadcast => broadcast(&mut clients, key, &mut buffer),
            };
            if alive.is_err() {
                clients.try_remove(key);
            }
        }
    }
}

/// Takes every connection that waits. An error is told and not fatal: the listener is
/// edge-triggered, so after `EMFILE` the next arrival tries again.
fn accept_all(listener: &TcpListener, poll: &Poll, clients: &mut Slab<Client>) {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return eprintln!("cannot accept: {error}"),
        };
        let entry = clients.vacant_entry();
        let registered = stream.set_nodelay(true).and_then(|()| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(entry.key()), interest)
        });
        match registered {
            Ok(()) => drop(entry.insert(Client { stream, leftover: Vec::new() })),
            Err(error) => eprintln!("cannot register a client: {error}"),
        }
    }
}

/// Reads until the socket is empty and writes each chunk back. While the socket takes no more,
/// nothing is read.
fn echo(client: &mut Client, buffer: &mut [u8]) -> io::Result<()> {
    while client.leftover.is_empty() {
        let Some(n) = read(&mut client.stream, buffer)? else { return Ok(()) };
        client.write(&buffer[..n])?;
        if n < buffer.len() {
            // On Linux a short read means an empty socket, and the next byte raises a new edge.
            return Ok(());
        }
    }
    Ok(())
}

/// As [`echo`], but each chunk goes to everyone. Only the sender's own fate is the answer.
fn broadcast(clients: &mut Slab<Client>, sender: usize, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let Some(client) = clients.get_mut(sender) else { return Ok(()) };
        let Some(n) = read(&mut client.stream, buffer)? else { return Ok(()) };
        clients.retain(|_, client| client.write(&buffer[..n]).is_ok());
        if n < buffer.len() {
            return Ok(());
        }
    }
}

/// The bytes read, or `None` when there are none yet. The end of the stream is an error here.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.leftover.is_empty() {
            let written = write_some(&mut self.stream, bytes)?;
            self.leftover.extend_from_slice(&bytes[written..]);
        } else {
            self.leftover.extend_from_slice(bytes);
        }
        if self.leftover.len() > LEFTOVER_BYTES_MAX {
            return Err(io::Error::other("the client does not read"));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.leftover.is_empty() {
            let written = write_some(&mut self.stream, &self.leftover)?;
            self.leftover.drain(..written);
        }
        Ok(())
    }
}

/// Writes until the socket takes no more, and says how much it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
