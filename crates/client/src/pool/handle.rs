//! The handles of a pool.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use serde::Serialize;

use crate::{
    ask::{Answer, PublishOptions, Ticket},
    error::{Error, ErrorKind},
    event::Receipt,
    session::draft,
};

use super::{bounds::Bounds, note::Note, outcome::Outcome, pending::Pending, stats::PoolStats};

/// Sessions with one or several servers, for a program that publishes much.
///
/// Each message is given to one of the sessions, and is answered in one of three ways: it has its
/// number; it was surely not published, and never will be; or it is
/// [`Unknown`](ErrorKind::Unknown), because the session was lost after it was sent. A connection
/// that is lost is none of these: the session resumes, and sends again what was not answered, with
/// the same id, so it is published once.
///
/// - **Which session.** A room is given to the connected session with the fewest unanswered
///   publishes, and among equals to the one that the hash of its name prefers. It stays there while
///   that session is connected.
/// - **Order.** Messages to one room have the order of their calls, as long as they go by one
///   session. While a room has unanswered messages in a session that has lost its connection, those
///   that follow wait for it, at most for [`PoolBuilder::move_after`]. After that they go by
///   another session, and what was sent before and not answered may come later, or not at all. A
///   server that is overloaded may also change the order of messages that are on the wire at once;
///   see [`SessionBuilder::in_flight_max`](crate::SessionBuilder::in_flight_max).
/// - **Membership.** A session publishes to rooms that it is in, so it joins them by itself, is
///   shown as a member, and is sent what others publish there, which it drops. Of more rooms than
///   [`PoolBuilder::rooms_max`] it leaves the one not used for longest.
/// - **Sessions that end** for good, such as after a 401, are replaced after
///   [`PoolBuilder::replace_after`]. While all have ended, publishes fail at once with the reason.
///
/// Handles are cheap to clone, and work from several threads. When the last one goes, what is
/// unanswered is answered still, or fails at its deadline; then the sessions end.
///
/// ```no_run
/// use rusty_socks_client::{Error, ErrorKind, Pool};
///
/// fn main() -> Result<(), Error> {
///     let pool = Pool::builder()
///         .server("ws://10.0.0.1:3030/ws")
///         .server("ws://10.0.0.2:3030/ws")
///         .servers_share_redis(true)
///         .sessions(4)
///         .connect()?;
///     match pool.publish("prices.eur", &1.09) {
///         Ok(receipt) => println!("number {}", receipt.seq),
///         Err(error) if error.kind() == ErrorKind::Unknown => println!("ask a reader: {error}"),
///         Err(error) => println!("not published: {error}"),
///     }
///     let prices = [("prices.usd", 1.0), ("prices.gbp", 0.86)];
///     let failed = pool.publish_all(prices).into_iter().filter(Result::is_err).count();
///     println!("{failed} failed: {:?}", pool.stats());
///     pool.close(std::time::Duration::from_secs(5))
/// }
/// ```
///
/// [`PoolBuilder::move_after`]: super::PoolBuilder::move_after
/// [`PoolBuilder::replace_after`]: super::PoolBuilder::replace_after
/// [`PoolBuilder::rooms_max`]: super::PoolBuilder::rooms_max
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) ends: Arc<PoolEnds>,
}

/// What the handles hold.
#[derive(Debug)]
pub(super) struct PoolEnds {
    pub(super) notes: Sender<Note>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) outcome: Arc<Outcome>,
    pub(super) publish_timeout: Duration,
}

impl Drop for PoolEnds {
    fn drop(&mut self) {
        let _ = self.notes.send(Note::HandlesGone);
    }
}

impl Pool {
    /// Publishes anything that is JSON to a room, and waits until it has its number there, at most
    /// for [`PoolBuilder::publish_timeout`]. The error
    /// [`Unknown`](ErrorKind::Unknown) says that it may have been published, now or a little later;
    /// any other that it was not and never will be: [`Full`](ErrorKind::Full) if too many were
    /// unanswered all the time, [`Timeout`](ErrorKind::Timeout) if no session could send it,
    /// [`Rejected`](ErrorKind::Rejected) if the server refused it.
    ///
    /// [`PoolBuilder::publish_timeout`]: super::PoolBuilder::publish_timeout
    pub fn publish<C: Serialize + ?Sized>(
        &self,
        room: &str,
        content: &C,
    ) -> Result<Receipt, Error> {
        self.publish_with(room, content, PublishOptions::default())
    }

    /// Publishes like [`publish`](Pool::publish), with an id, a name or a time.
    pub fn publish_with<C: Serialize + ?Sized>(
        &self,
        room: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Receipt, Error> {
        self.publish_later(room, content, options)?.outcome()
    }

    /// Publishes like [`publish_with`](Pool::publish_with), and has the answer by `deadline`.
    pub fn publish_by<C: Serialize + ?Sized>(
        &self,
        deadline: Instant,
        room: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Receipt, Error> {
        self.submit(deadline, room, content, options)?.outcome()
    }

    /// Publishes without waiting for the answer, which is in the ticket within
    /// [`PoolBuilder::publish_timeout`], if anybody wants it. It does wait
    /// while too many are unanswered.
    ///
    /// [`PoolBuilder::publish_timeout`]: super::PoolBuilder::publish_timeout
    pub fn publish_later<C: Serialize + ?Sized>(
        &self,
        room: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Ticket<Receipt>, Error> {
        // What is beyond the clock's reach is far enough.
        let now = Instant::now();
        let far = || now + Duration::from_secs(365 * 24 * 3600);
        let deadline = now.checked_add(self.ends.publish_timeout).unwrap_or_else(far);
        self.submit(deadline, room, content, options)
    }

    /// Publishes many messages one behind the other, without waiting for the answer to one before
    /// the next is sent; and waits for all answers. They come in the order of the messages.
    pub fn publish_all<R: AsRef<str>, C: Serialize>(
        &self,
        messages: impl IntoIterator<Item = (R, C)>,
    ) -> Vec<Result<Receipt, Error>> {
        let tickets: Vec<_> = messages
            .into_iter()
            .map(|(room, content)| {
                self.publish_later(room.as_ref(), &content, PublishOptions::default())
            })
            .collect();
        tickets.into_iter().map(|ticket| ticket?.outcome()).collect()
    }

    fn submit<C: Serialize + ?Sized>(
        &self,
        deadline: Instant,
        room: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Ticket<Receipt>, Error> {
        if room.ends_with(".*") {
            let text = "a pool publishes to rooms, and not to patterns";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if deadline <= Instant::now() {
            // It would wait for no space, and the space of the one before may not be back yet.
            return Err(Error::new(ErrorKind::Timeout, "its deadline was over before it was sent"));
        }
        let message = draft(content, options)?;
        let share = self.ends.bounds.take(message.content.get().len(), deadline)?;
        let (reply, ticket) = Ticket::new(Answer::receipt);
        let pending = Pending {
            room: room.into(),
            message,
            deadline,
            reply,
            member: None,
            given: None,
            was_outside: false,
            _share: share,
        };
        let closed = |_| Error::new(ErrorKind::Closed, "the pool is closed");
        self.ends.notes.send(Note::Publish(pending)).map_err(closed)?;
        Ok(ticket)
    }

    /// What it is doing. Of a closed one, what it was doing last.
    pub fn stats(&self) -> PoolStats {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let answer = match self.ends.notes.send(Note::Stats(reply)) {
            // The thread drops what it does not answer.
            Ok(()) => answer.recv().ok(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| self.ends.outcome.stats())
    }

    /// Takes no more publishes, waits for those that are unanswered, at most for `timeout`, and
    /// ends the sessions. The error is a [timeout](Error::is_timeout) if some were unanswered
    /// still; their own errors say of each whether it may have been published. Closing it again
    /// waits for the same, and has the same result.
    pub fn close(&self, timeout: Duration) -> Result<(), Error> {
        self.ends.bounds.close();
        let deadline = Instant::now().checked_add(timeout);
        let _ = self.ends.notes.send(Note::Close { deadline });
        self.ends.outcome.wait()
    }
}
