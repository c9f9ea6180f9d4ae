//! All connections of one piece of work, under one poll.

use std::io::ErrorKind;
use std::mem;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};
use rusty_socks_load::{Ending, Incoming, ReadBuffer, Times, WebSocket};
use rusty_socks_ws::client_handshake::ClientRequest;
use serde_json::Value;

use crate::link::{Link, Wire};
use crate::meter::report;
use crate::target::Target;

/// The most that one look at the links waits for.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Handshakes under way at once. Below any server's backlog, and enough to keep it busy.
const OPENING_MAX: usize = 64;
/// How long the opening of all connections may take.
const OPENING_TIMEOUT: Duration = Duration::from_secs(120);
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Quiet enough after the welcome and the replay.
pub(crate) const QUIET: Duration = Duration::from_millis(500);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(10);

/// Pauses between two looks of a crowd that does not sleep, so that it does not fight the server
/// for the locks of its poll.
const PAUSES: usize = 64;

pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    target: Target,
    wire: Wire,
    /// By token.
    links: Vec<Link>,
    /// How many of them are not open yet.
    opening: usize,
    buffer: ReadBuffer,
    /// Connections that the server ended, and how the first of them did.
    ended: usize,
    first_end: Option<Ending>,
    opening_times: Times,
    sleeps: bool,
    /// Whether an end is no fault, and only counted.
    pub(crate) may_end: bool,
    /// Time in which it was awake and found nothing.
    idle: Duration,
}

impl Crowd {
    pub(crate) fn open(target: &Target, wire: Wire, count: usize) -> Result<Self> {
        let mut crowd = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            target: target.clone(),
            wire,
            links: Vec::new(),
            opening: 0,
            buffer: ReadBuffer::new(READ_BUFFER_BYTES),
            ended: 0,
            first_end: None,
            opening_times: Times::new(),
            sleeps: true,
            may_end: false,
            idle: Duration::ZERO,
        };
        crowd.grow(count)?;
        Ok(crowd)
    }

    /// Opens `more` connections besides those that are there, so many at a time.
    pub(crate) fn grow(&mut self, more: usize) -> Result<()> {
        let deadline = Instant::now() + OPENING_TIMEOUT;
        let address = self.target.address;
        let request = ClientRequest::new(&address.to_string(), &self.target.path)?;
        let (all, sleeps) = (self.links.len() + more, mem::replace(&mut self.sleeps, true));
        while self.links.len() < all || self.opening > 0 {
            let open = self.links.len() - self.opening;
            let asked = || format!("connection {} of {all} to {address}", open + 1);
            ensure!(
                Instant::now() < deadline,
                "only {open} of {all} connections are open after {OPENING_TIMEOUT:?}"
            );
            while self.opening < OPENING_MAX && self.links.len() < all {
                let index = self.links.len();
                let mut link = Link::dial(&self.target, &request, index).with_context(asked)?;
                // Edge-triggered, so asking for writability at all times costs nothing.
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Some(stream) = link.stream() {
                    self.poll.registry().register(stream, Token(index), interest)?;
                }
                self.links.push(link);
                self.opening += 1;
            }
            self.look(LOOK).with_context(asked)?;
        }
        self.sleeps = sleeps;
        Ok(())
    }

    /// From now on it looks and looks instead of sleeping. A server that writes to a sleeping
    /// client pays for waking it, and how often it must depends on how quick the client is, not on
    /// the server.
    pub(crate) fn stay_awake(&mut self) {
        self.sleeps = false;
    }

    /// How long it was awake in vain since this was last asked.
    pub(crate) fn take_idle(&mut self) -> Duration {
        mem::take(&mut self.idle)
    }

    /// Returns when something has happened, or after `timeout`.
    fn wait(&mut self, timeout: Duration) -> std::io::Result<()> {
        if self.sleeps {
            return self.poll.poll(&mut self.events, Some(timeout));
        }
        let began = Instant::now();
        let mut looked = began;
        loop {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                break;
            }
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            looked = Instant::now();
            if looked.duration_since(began) >= timeout {
                break;
            }
        }
        self.idle += looked.duration_since(began);
        Ok(())
    }

    pub(crate) fn link(&mut self, index: usize) -> Result<&mut WebSocket> {
        match self.links.get_mut(index) {
            Some(Link::Open(socket)) => Ok(socket),
            _ => bail!("connection {} has ended", index + 1),
        }
    }

    /// All links that were ever opened.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// How long each link took from `connect` to the answer of the upgrade.
    pub(crate) fn opening(&self) -> Value {
        report(&self.opening_times)
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended
    }

    /// Waits for something to happen and reads all there is: for each link that had an event, calls
    /// `on_message` for each of its messages, with its index and payload, and then `on_link` once,
    /// with their number, which may be none if the link only became writable. Returns the bytes
    /// read.
    ///
    /// Fails once the server has ended any connection, unless it may.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut on_message: impl FnMut(usize, &[u8]) -> Result<()>,
        mut on_link: impl FnMut(usize, &mut WebSocket, usize) -> Result<()>,
    ) -> Result<usize> {
        match self.wait(timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            waited => waited.context("cannot poll")?,
        }
        let mut bytes = 0;
        for event in &self.events {
            let index = event.token().0;
            let mut to_the_end = event.is_read_closed();
            let link = &mut self.links[index];
            if let Link::Opening(_, dialed_at) = *link {
                *link = mem::replace(link, Link::Ended).advance(self.wire, &mut self.buffer)?;
                if let Link::Open(_) = link {
                    self.opening_times.record(dialed_at.elapsed());
                    self.opening -= 1;
                    to_the_end = true;
                }
            }
            let Link::Open(socket) = link else { continue };
            let (mut messages, mut result) = (0, Ok(()));
            bytes += socket.step(&mut self.buffer, to_the_end, |incoming, _| {
                if let Incoming::Message(message) = incoming {
                    messages += 1;
                    if result.is_ok() {
                        result = on_message(index, message.as_bytes());
                    }
                }
            });
            result?;
            match socket.take_ending() {
                None => on_link(index, socket, messages)?,
                Some(ending) => {
                    *link = Link::Ended;
                    self.ended += 1;
                    self.first_end.get_or_insert(ending);
                }
            }
        }
        if let Some(ending) = self.first_end.as_ref().filter(|_| !self.may_end) {
            let (ended, all, how) = (self.ended, self.links.len(), ending.meaning());
            bail!("the server ended {ended} of {all} connections ({how})");
        }
        Ok(bytes)
    }

    /// Waits for something to happen and reads all there is. Returns the bytes read.
    pub(crate) fn look(&mut self, timeout: Duration) -> Result<usize> {
        self.turn(timeout, |_, _| Ok(()), |_, _, _| Ok(()))
    }

    /// Reads whatever comes for so long, and answers pings. Returns the bytes that came.
    pub(crate) fn listen(&mut self, time: Duration) -> Result<u64> {
        let until = Instant::now() + time;
        let mut bytes = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(bytes);
            }
            bytes += self.look(left)? as u64;
        }
    }

    /// Reads what the server has to say of itself, until it has been quiet for so long.
    pub(crate) fn settle(&mut self, quiet: Duration) -> Result<()> {
        let start = Instant::now();
        let mut last_byte = start;
        loop {
            let left = quiet.saturating_sub(last_byte.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            if start.elapsed() > quiet + SETTLE_TIMEOUT {
                bail!("the server was not quiet for {quiet:?} within {SETTLE_TIMEOUT:?}");
            }
            if self.look(left)? > 0 {
                last_byte = Instant::now();
            }
        }
    }
}

/// How long a server that owes something may say nothing before it counts as stuck.
pub(crate) struct Patience {
    last: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Takes note of a turn. `owed` is what is missing if that turn brought nothing.
    pub(crate) fn after(&mut self, progress: bool, owed: impl Fn() -> String) -> Result<()> {
        if progress {
            self.last = Instant::now();
        } else if self.last.elapsed() > STALL {
            bail!("nothing came for {STALL:?}: {}", owed());
        }
        Ok(())
    }
}
