//! A connection's life, one step for each readiness: Head, Waiting, Open, Closing, gone.

use std::io;

use super::{
    admin::Admin,
    closing::{Closing, Fate, Stage},
    conn_io::{ConnIo, Listed, Readiness},
    head::{Head, refuse_plain_http},
    open::{Ended, Open},
    outbox::Flushed,
    platform,
    post::Post,
    socket::{Failure, Received},
    timers::Millis,
    upgrade::{Asking, Waiting},
    worker_cx::WorkerCtx,
};
use crate::{
    hub::posted::PostOutcome,
    memory::account::Level,
    metrics::{Refused, names},
    ws::close::CloseReason,
};

mod posts;
mod requests;

/// One socket, from the hand-off until it is reaped. Owned by one worker.
pub(crate) struct Connection {
    pub(super) io: ConnIo,
    pub(super) phase: Phase,
}

pub(crate) enum Phase {
    /// HTTP: a request head is due.
    Head(Box<Head>),
    /// HTTP on the admin listener.
    Admin(Box<Admin>),
    /// HTTP: a post to an event stream is on its way.
    Posting(Box<Post>),
    /// An upgrade that a job thread asks the handler about.
    Asking(Box<Asking>),
    /// An upgrade in the line of those that wait for a permit.
    Waiting(Box<Waiting>),
    /// A WebSocket connection being served.
    Open(Box<Open>),
    /// The last bytes are on their way; nothing new begins.
    Closing(Box<Closing>),
    Gone,
}

names!(Phase { Head, Admin, Posting, Asking, Waiting, Open, Closing, Gone });

impl Connection {
    /// Notes what the poll reported.
    pub(super) fn on_event(&mut self, event: &mio::event::Event, cx: &mut WorkerCtx) {
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READABLE, event.is_readable());
        readiness.set(Readiness::WRITABLE, event.is_writable());
        readiness.set(Readiness::READ_CLOSED, event.is_read_closed() || event.is_error());
        self.on_readiness(readiness, cx);
    }

    /// Notes what is new about the socket. `WRITABLE` only asks for a write, which then shows
    /// whether the kernel takes all.
    #[inline(always)]
    pub(super) fn on_readiness(&mut self, mut new: Readiness, cx: &mut WorkerCtx) {
        let io = &mut self.io;
        if new.contains(Readiness::WRITABLE) && io.has_unsent() {
            io.list_dirty(&mut cx.work);
        }
        new.remove(Readiness::WRITABLE);
        if new.contains(Readiness::READ_CLOSED) {
            new.insert(Readiness::READABLE);
            if matches!(self.phase, Phase::Asking(_) | Phase::Waiting(_)) {
                // A client that hangs up leaves the line. Its socket is not read while it waits.
                self.phase = Phase::Gone;
                io.list_dirty(&mut cx.work);
            }
        }
        if !new.is_empty() {
            io.readiness.insert(new);
            io.list_ready(&mut cx.work);
        }
        if new.contains(Readiness::READ_CLOSED)
            && let Phase::Open(open) = &self.phase
            && open.is_given_up(&self.io)
        {
            self.io.ask_close(CloseReason::LOST, &mut cx.work);
        }
    }

    /// The connection while its handler is served.
    #[inline]
    pub(super) fn open_mut(&mut self) -> Option<(&mut Open, &mut ConnIo)> {
        match &mut self.phase {
            Phase::Open(open) => Some((open, &mut self.io)),
            Phase::Head(_)
            | Phase::Admin(_)
            | Phase::Posting(_)
            | Phase::Asking(_)
            | Phase::Waiting(_)
            | Phase::Closing(_)
            | Phase::Gone => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether a drain need not wait for it: it is in the HTTP phase, and no request is to be
    /// expected.
    pub(super) fn is_drained(&self, now: Millis) -> bool {
        let is_http = match &self.phase {
            Phase::Head(head) => !head.is_expected(&self.io, now),
            // A viewer sees the drain to its end, and one that does not read holds nothing up.
            Phase::Admin(admin) if admin.is_live() => return true,
            Phase::Admin(admin) => !admin.is_busy(),
            Phase::Posting(post) => !post.is_expected(&self.io, now),
            Phase::Asking(_)
            | Phase::Waiting(_)
            | Phase::Open(_)
            | Phase::Closing(_)
            | Phase::Gone => false,
        };
        is_http && !self.io.has_unsent()
    }

    /// Reads once and handles what came. `buffer` is the worker's, lent for this call.
    pub(super) fn on_ready(&mut self, cx: &mut WorkerCtx, buffer: &mut [u8]) {
        self.io.listed.remove(Listed::READY);
        let (spent, was_http) = (cx.spent, self.io.is_http);
        match &mut self.phase {
            Phase::Open(_) if self.io.pauses.is_paused() => return,
            Phase::Open(_) if cx.work.has_backpressure => return self.io.park(&mut cx.work),
            Phase::Open(_) => {}
            Phase::Asking(_) | Phase::Waiting(_) | Phase::Gone => return,
            Phase::Admin(admin) if admin.is_busy() => return admin.go_on(&mut self.io, cx),
            Phase::Posting(post) if post.is_sent() => return,
            Phase::Head(_) | Phase::Admin(_) | Phase::Posting(_) | Phase::Closing(_) => {
                if self.io.pauses.is_paused() {
                    return;
                }
            }
        }
        if std::mem::take(&mut self.io.has_backlog) {
            let stash = std::mem::take(&mut self.io.stash);
            self.advance_stash(stash, cx);
            // One round of messages a turn, whether they were read now or before.
            self.io.list_ready(&mut cx.work);
        } else if self.io.readiness.contains(Readiness::READABLE) {
            let Some(len) = self.readable_bytes(buffer.len(), cx) else {
                return self.io.starve(&mut cx.work);
            };
            self.read(cx, &mut buffer[..len]);
        }
        let partial = self.partial_bytes();
        self.io.count_input(partial, cx);
        // What it cost to let a client in says nothing of what it will ask for.
        if self.io.is_http == was_http {
            self.io.note_cost(cx.spent - spent, &mut cx.work);
        }
    }

    fn read(&mut self, cx: &mut WorkerCtx, buffer: &mut [u8]) {
        match self.io.stream.read(buffer, &mut cx.tls) {
            Ok(Received::Bytes { bytes: n, was_short }) => {
                self.on_received(was_short, cx);
                cx.metrics().bytes_in.add(n as u64);
                if let Some(access) = &mut self.io.access {
                    access.bytes_in += n as u64;
                }
                if self.io.stash.is_empty() {
                    let used = self.advance(&mut buffer[..n], cx);
                    self.io.stash.extend_from_slice(&buffer[used..n]);
                } else {
                    let mut stash = std::mem::take(&mut self.io.stash);
                    stash.extend_from_slice(&buffer[..n]);
                    self.advance_stash(stash, cx);
                }
                if self.io.readiness.contains(Readiness::READABLE) {
                    self.io.list_ready(&mut cx.work);
                }
            }
            Ok(Received::End) => self.on_end(cx),
            Ok(Received::Nothing { was_short, cost }) => {
                cx.spent += cost;
                self.on_received(was_short, cx);
                if self.io.readiness.contains(Readiness::READABLE) {
                    self.io.list_ready(&mut cx.work);
                }
            }
            Ok(Received::Later) => self.io.list_ready(&mut cx.work),
            Ok(Received::NoSession(failure)) => self.on_no_session(&failure, cx),
            Ok(Received::Broken(failure)) => {
                self.on_lost(&io::Error::other(format!("TLS: {failure}")), cx);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.readiness.remove(Readiness::READABLE);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.io.list_ready(&mut cx.work);
            }
            Err(error) => self.on_lost(&error, cx),
        }
    }

    /// Notes that something came, and whether there may be more.
    #[inline]
    fn on_received(&mut self, was_short: bool, cx: &mut WorkerCtx) {
        self.io.last_rx = cx.now;
        let is_emptied = was_short && platform::SHORT_READ_EMPTIES;
        let is_closed = self.io.readiness.contains(Readiness::READ_CLOSED);
        self.io.readiness.set(Readiness::READABLE, !is_emptied || is_closed);
        if self.io.stream.has_unsent() {
            // What a handshake answers goes out at once; the kernel did not take all of it.
            self.io.list_dirty(&mut cx.work);
        }
    }

    /// The peer's handshake failed. It is told why as far as it can be.
    fn on_no_session(&mut self, failure: &Failure, cx: &mut WorkerCtx) {
        match failure {
            Failure::PlainHttp => refuse_plain_http(&mut self.io, cx),
            Failure::Tls(reason) => log::debug!("{}: no TLS: {reason}", self.io.remote),
        }
        self.close(Stage::FlushThenLinger, cx);
    }

    fn advance_stash(&mut self, mut stash: Vec<u8>, cx: &mut WorkerCtx) {
        let used = self.advance(&mut stash, cx);
        if used < stash.len() {
            stash.drain(..used);
            self.io.stash = stash;
            if self.io.stream.is_of_events() {
                self.dismiss_poster(cx);
            }
        } else if self.io.stream.is_of_events() {
            self.answer_poster(PostOutcome::Handled, cx);
        }
    }

    /// Handles input as far as it goes now. Returns how many bytes of it were used.
    fn advance(&mut self, input: &mut [u8], cx: &mut WorkerCtx) -> usize {
        let len = input.len();
        let mut rest = input;
        loop {
            let Phase::Open(open) = &mut self.phase else {
                rest = self.advance_unserved(rest, cx);
                if matches!(self.phase, Phase::Open(_)) {
                    continue;
                }
                break;
            };
            match open.read(&mut rest, &mut self.io, cx) {
                Ok(None) => break,
                Ok(Some(ended)) => {
                    self.end(ended, cx);
                    if !rest.is_empty() {
                        self.drop_posted(cx);
                    }
                }
                Err(error) => self.on_lost(&error, cx),
            }
        }
        len - rest.len()
    }

    /// Ends a connection that is not served.
    fn close(&mut self, stage: Stage, cx: &mut WorkerCtx) {
        self.phase = Phase::Closing(Closing::begin(stage, None, &mut self.io, cx));
    }

    /// Ends the service of a connection, if it is served.
    #[inline(never)]
    fn end(&mut self, ended: Ended, cx: &mut WorkerCtx) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Open(open) => Phase::Closing(open.end(ended, &mut self.io, cx)),
            other => other,
        };
    }

    /// Begins a close that was asked for.
    fn begin_close(&mut self, reason: CloseReason, cx: &mut WorkerCtx) {
        let Phase::Open(open) = &mut self.phase else { return };
        if reason == CloseReason::LOST {
            return self.end_at_once(reason, cx);
        }
        let endpoint = open.send_close(&reason, &mut self.io, cx);
        // In the middle of a message the peer's Close is far, and memory may be short for the rest.
        let is_short = cx.shared.hub.account.level() >= Level::Shed;
        // The client of an event stream hears of it, and has nothing to send.
        let is_last_word = is_short && endpoint.held_bytes() > 0 || self.io.stream.is_of_events();
        let stage = match is_last_word {
            true => Stage::FlushThenLinger,
            false => Stage::AwaitClose(endpoint),
        };
        self.end((reason, stage), cx);
        // What was read and not handled may hold the peer's Close.
        let stash = std::mem::take(&mut self.io.stash);
        if !stash.is_empty() {
            self.drop_posted(cx);
        }
        self.advance_stash(stash, cx);
    }

    /// Ends a connection of which nothing more can be written.
    fn end_at_once(&mut self, reason: CloseReason, cx: &mut WorkerCtx) {
        self.end((reason, Stage::Flush), cx);
        self.drop_posted(cx);
        self.phase = Phase::Gone;
        self.io.list_dirty(&mut cx.work);
    }

    /// The peer has ended its direction.
    fn on_end(&mut self, cx: &mut WorkerCtx) {
        self.io.readiness.remove(Readiness::READABLE);
        match &mut self.phase {
            Phase::Open(_) => self.end((CloseReason::LOST, Stage::Flush), cx),
            Phase::Head(_) | Phase::Admin(_) | Phase::Posting(_) => self.close(Stage::Flush, cx),
            Phase::Closing(closing) => {
                let fate = closing.on_end();
                self.apply(fate);
            }
            Phase::Asking(_) | Phase::Waiting(_) | Phase::Gone => self.phase = Phase::Gone,
        }
        self.io.list_dirty(&mut cx.work);
    }

    fn apply(&mut self, fate: Fate) {
        if fate == Fate::Gone {
            self.phase = Phase::Gone;
        }
    }

    /// The socket failed: nothing can be read or written any more.
    #[cold]
    fn on_lost(&mut self, error: &io::Error, cx: &mut WorkerCtx) {
        self.io.stream.count_failed(&cx.tls);
        log::debug!("{}: {error}", self.io.remote);
        self.end_at_once(CloseReason::LOST, cx);
    }

    /// The server drains.
    pub(super) fn on_drain(&mut self, cx: &mut WorkerCtx) {
        match &mut self.phase {
            // A health check on a connection of its own sees the server drain.
            Phase::Head(_)
            | Phase::Admin(_)
            | Phase::Posting(_)
            | Phase::Closing(_)
            | Phase::Gone => {}
            Phase::Asking(_) | Phase::Waiting(_) => self.refuse(Refused::Draining, cx),
            Phase::Open(open) => open.drain(&mut self.io, cx),
        }
        self.io.list_dirty(&mut cx.work);
    }

    /// The grace is over: whatever is not written is lost.
    pub(super) fn stop(&mut self, cx: &mut WorkerCtx) {
        let has_no_close = matches!(self.phase, Phase::Open(_)) || self.io.has_unsent();
        self.end_at_once(cx.shared.hub.drain_reason(), cx);
        if has_no_close && let Some(access) = &mut self.io.access {
            access.cut_off();
        }
    }

    /// The deadline has passed. Sets the next one, or ends the phase.
    pub(super) fn on_deadline(&mut self, cx: &mut WorkerCtx) {
        let io = &mut self.io;
        match &mut self.phase {
            Phase::Head(head) => {
                if let Some(stage) = head.on_deadline(io, cx) {
                    self.close(stage, cx);
                }
            }
            Phase::Admin(admin) => {
                if let Some(stage) = admin.on_deadline(io, cx) {
                    self.close(stage, cx);
                }
            }
            Phase::Posting(post) => {
                let answer = post.on_deadline();
                self.answer_sent_post(&answer, cx);
            }
            Phase::Asking(_) => self.refuse(Refused::HandlerBusy, cx),
            Phase::Waiting(_) => {
                let is_held = cx.shared.admission.is_held();
                self.refuse(if is_held { Refused::Memory } else { Refused::QueueTimeout }, cx);
            }
            Phase::Open(open) => {
                if let Err(error) = open.on_deadline(io, cx) {
                    self.on_lost(&error, cx);
                }
            }
            Phase::Closing(closing) => {
                let fate = closing.on_deadline(io, cx);
                self.apply(fate);
            }
            Phase::Gone => {}
        }
        if matches!(self.phase, Phase::Gone) {
            cx.timers.clear(self.io.slot(), &mut self.io.deadline);
        }
        self.io.list_dirty(&mut cx.work);
    }

    /// The end of the turn: begins a close that was asked for, writes, and moves a closing
    /// connection on.
    pub(super) fn flush(&mut self, cx: &mut WorkerCtx) {
        self.io.listed.remove(Listed::DIRTY);
        if let Some(reason) = self.io.close_asked.take() {
            self.begin_close(*reason, cx);
        }
        let written = match &mut self.phase {
            Phase::Gone => Ok(Flushed::Blocked),
            Phase::Open(open) => {
                open.catch_up(&mut self.io, cx);
                open.write(&mut self.io, cx)
            }
            Phase::Head(_)
            | Phase::Admin(_)
            | Phase::Posting(_)
            | Phase::Asking(_)
            | Phase::Waiting(_)
            | Phase::Closing(_) => self.io.write(cx),
        };
        match written {
            Ok(Flushed::Empty) if !matches!(self.phase, Phase::Open(_)) => self.on_flushed(cx),
            Ok(Flushed::Empty | Flushed::Blocked) => {}
            Err(error) => self.on_lost(&error, cx),
        }
        if self.io.has_backlog {
            // What could not be answered before earlier answers were written.
            self.io.list_ready(&mut cx.work);
        }
        if matches!(self.phase, Phase::Gone) {
            cx.work.gone.push(self.io.slot());
        }
    }

    /// Moves a connection that is not served on, now that all is written.
    #[inline(never)]
    fn on_flushed(&mut self, cx: &mut WorkerCtx) {
        match &mut self.phase {
            Phase::Head(head) if head.is_last() => self.close(Stage::FlushThenLinger, cx),
            Phase::Admin(admin) if admin.is_last() => self.close(Stage::FlushThenLinger, cx),
            Phase::Closing(closing) => {
                let fate = closing.on_flushed(&mut self.io, cx);
                self.apply(fate);
            }
            Phase::Head(_)
            | Phase::Admin(_)
            | Phase::Posting(_)
            | Phase::Asking(_)
            | Phase::Waiting(_)
            | Phase::Open(_)
            | Phase::Gone => {}
        }
    }
}

// Sockets and pointers have other sizes elsewhere.
#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use super::{Connection, Open};
    use crate::hub::session::Session;

    #[test]
    fn an_idle_connection_takes_so_many_bytes_and_no_more() {
        // What every connection has, however quiet it is. What few of them need belongs in a box.
        let bytes = [size_of::<Connection>(), size_of::<Open>(), size_of::<Session>()];
        let bytes_max = [248, 112, 208];
        let is_within = bytes.iter().zip(bytes_max).all(|(bytes, max)| *bytes <= max);
        assert!(is_within, "{bytes:?} of {bytes_max:?} bytes");
    }
}
