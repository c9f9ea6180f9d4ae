//! The session client: the chat protocol over connections that come and go.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ask::{
        Answer, Ask, Callback, Draft, JoinOptions, Pages, PublishOptions, Read, Request,
        RequestSlot, Ticket,
    },
    error::{Error, ErrorKind},
    event::{Entered, Event, Members, Page, Receipt, Sent},
    fate::Fate,
    queue::{EventQueue, Nothing},
    session_shared::SessionShared,
};

/// How long [`Session::close`] waits at most for a connection attempt or a close that is under way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A session with a Rusty Socks server, which survives its connections.
///
/// It reconnects by itself, with exponential backoff and full jitter, and as the server asks;
/// resumes; and yields each message once and those of a room in order, or says which are lost.
/// Clones are handles to the same session and work from several threads. When the last one goes, it
/// ends.
///
/// ```no_run
/// use rusty_socks_client::{Error, Event, Session};
///
/// fn main() -> Result<(), Error> {
///     let session = Session::connect("ws://127.0.0.1:3030/ws")?;
///     session.join("tea")?;
///     let receipt = session.publish("tea", &"two cups")?;
///     println!("number {} in {}", receipt.seq, receipt.room);
///     while let Some(event) = session.recv()? {
///         if let Event::Message(message) = event {
///             println!("{}: {}", message.room, message.content);
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) inner: Arc<SessionEnds>,
}

/// What the handles hold.
#[derive(Debug)]
pub(crate) struct SessionEnds {
    pub(crate) shared: Arc<SessionShared>,
    pub(crate) requests: Sender<Request>,
    pub(crate) wake: Sender<()>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) under_way: Arc<AtomicUsize>,
    pub(crate) requests_max: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) subscription_events_max: usize,
}

impl Drop for SessionEnds {
    fn drop(&mut self) {
        self.shared.close.store(true, Ordering::SeqCst);
        let _ = self.wake.try_send(());
    }
}

impl Session {
    pub(crate) fn ask<T>(&self, ask: Ask, read: Read<T>) -> Result<Ticket<T>, Error> {
        let (request, ticket) = Request::new(ask, self.place()?, read);
        self.inner.requests.send(request).map_err(|_| self.over())?;
        Ok(ticket)
    }

    fn place(&self) -> Result<RequestSlot, Error> {
        if self.inner.shared.end.get().is_some() {
            return Err(self.over());
        }
        let full = || {
            let text = format!("{} requests are unanswered", self.inner.requests_max);
            Error::new(ErrorKind::Full, text)
        };
        RequestSlot::take(&self.inner.under_way, self.inner.requests_max).ok_or_else(full)
    }

    /// Asks, and has the answer go to `callback`, at once if it is refused here.
    pub(crate) fn call(&self, ask: Ask, fate: Arc<Fate>, callback: Callback) {
        match self.place() {
            Ok(place) => {
                let request = Request::with_callback(ask, fate, place, callback);
                if let Err(refused) = self.inner.requests.send(request) {
                    refused.into_inner().answer(Err(self.over()));
                }
            }
            Err(error) => callback(Err(error)),
        }
    }

    pub(crate) fn answer<T>(&self, ask: Ask, read: Read<T>) -> Result<T, Error> {
        self.ask(ask, read)?.wait(self.inner.request_timeout)
    }

    /// Joins a room, or with a name that ends in `.*` all rooms that begin so, those made later
    /// too.
    pub fn join(&self, room: &str) -> Result<Entered, Error> {
        self.join_with(room, JoinOptions::default())
    }

    /// Joins a room like [`join`](Session::join), with a name, a position to start from, or
    /// presence.
    pub fn join_with(&self, room: &str, options: JoinOptions) -> Result<Entered, Error> {
        self.answer(Ask::Join { room: room.to_owned(), options, subscriber: None }, Answer::entered)
    }

    /// Leaves a room, or all rooms of a pattern. From this call on nothing of them is yielded,
    /// whatever is on its way or waits to be taken, until they are joined again. A room that
    /// was left by its name does not come back through a pattern either, before it or that
    /// pattern is joined again.
    pub fn leave(&self, room: &str) -> Result<(), Error> {
        self.answer(Ask::Leave { room: room.to_owned() }, Answer::left)
    }

    /// Publishes anything that is JSON to a room one is in, and waits until it has its number
    /// there. A connection that is lost meanwhile makes no difference: it is published once.
    pub fn publish<C: Serialize + ?Sized>(
        &self,
        room: &str,
        content: &C,
    ) -> Result<Receipt, Error> {
        let ticket = self.publish_later(&[room], content, PublishOptions::default())?;
        ticket.wait(self.inner.request_timeout)
    }

    /// Publishes like [`publish`](Session::publish), with an id, a name or a time, or echoed.
    pub fn publish_with<C: Serialize + ?Sized>(
        &self,
        room: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Receipt, Error> {
        self.publish_later(&[room], content, options)?.wait(self.inner.request_timeout)
    }

    /// Publishes to one or several rooms at one instant without waiting: the ticket has the answer,
    /// if anybody wants it. The message is sent even if nobody does.
    pub fn publish_later<C: Serialize + ?Sized>(
        &self,
        rooms: &[&str],
        content: &C,
        options: PublishOptions,
    ) -> Result<Ticket<Receipt>, Error> {
        let rooms: Vec<String> = rooms.iter().map(|&room| room.to_owned()).collect();
        if rooms.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "a message is published to some room"));
        }
        self.ask(Ask::Publish { rooms, message: draft(content, options)? }, Answer::receipt)
    }

    /// Sends a message to one client alone.
    pub fn direct<C: Serialize + ?Sized>(&self, to: &str, content: &C) -> Result<Sent, Error> {
        self.direct_with(to, content, PublishOptions::default())
    }

    /// Sends a message like [`direct`](Session::direct), with an id, a name or a time.
    pub fn direct_with<C: Serialize + ?Sized>(
        &self,
        to: &str,
        content: &C,
        options: PublishOptions,
    ) -> Result<Sent, Error> {
        self.answer(
            Ask::Direct { to: to.to_owned(), message: draft(content, options)? },
            Answer::sent,
        )
    }

    /// Sends a message to everyone who is connected, if the server allows it. The one request that
    /// is not repeated when its answer is lost.
    pub fn broadcast<C: Serialize + ?Sized>(&self, content: &C) -> Result<Sent, Error> {
        self.answer(
            Ask::Broadcast { message: draft(content, PublishOptions::default())? },
            Answer::sent,
        )
    }

    /// A page of what the server keeps of a room one is in. Nothing of it is yielded as an event.
    pub fn history(&self, room: &str, pages: Pages, limit: Option<u64>) -> Result<Page, Error> {
        self.answer(Ask::History { room: room.to_owned(), pages, limit }, Answer::page)
    }

    /// Tells who is in a room one is in.
    pub fn presence(&self, room: &str) -> Result<Members, Error> {
        self.answer(Ask::Presence { room: room.to_owned(), watch: None }, Answer::members)
    }

    /// Tells who is in a room one is in, and begins or ends to tell who comes and goes.
    pub fn watch_presence(&self, room: &str, watch: bool) -> Result<Members, Error> {
        self.answer(Ask::Presence { room: room.to_owned(), watch: Some(watch) }, Answer::members)
    }

    /// The id of this client to others. Empty before the first welcome; another one after a
    /// [`SessionLost`](Event::SessionLost).
    pub fn client_id(&self) -> String {
        self.inner.shared.who.lock().client_id.clone()
    }

    /// The room that the server puts newcomers in, if there is one.
    pub fn default_room(&self) -> Option<String> {
        self.inner.shared.who.lock().room.clone()
    }

    /// The next event. `None` once the session was [closed](Session::close) from here and all is
    /// taken; the error says why it is over otherwise, such as a server that does not want this
    /// client back.
    pub fn recv(&self) -> Result<Option<Event>, Error> {
        self.take(None)
    }

    /// Waits for the next event for at most `timeout`. When nothing came, the error
    /// [is a timeout](Error::is_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        // What is beyond the clock's reach is for ever.
        self.take(Instant::now().checked_add(timeout))
    }

    fn take(&self, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        match self.inner.events.take(deadline) {
            Ok((event, was_full)) => {
                if was_full {
                    // One ring is enough.
                    let _ = self.inner.wake.try_send(());
                }
                Ok(Some(event))
            }
            Err(Nothing::Late) => Err(Error::new(ErrorKind::Timeout, "nothing came in time")),
            Err(Nothing::Over) => self.outcome(),
        }
    }

    /// The events until the session is over. Why it is, [`recv`](Session::recv) says then.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        iter::from_fn(|| self.recv().ok().flatten())
    }

    /// Whether the session is over: closed from here, or ended for a reason that
    /// [`recv`](Session::recv) tells. Every request is answered by that reason then.
    pub fn is_over(&self) -> bool {
        self.inner.shared.end.get().is_some()
    }

    fn outcome(&self) -> Result<Option<Event>, Error> {
        match self.inner.shared.end.get() {
            Some(Ok(())) => Ok(None),
            Some(Err(error)) => Err(error.clone()),
            None => Err(self.over()),
        }
    }

    pub(crate) fn over(&self) -> Error {
        match self.inner.shared.end.get() {
            Some(Err(error)) => error.clone(),
            _ => Error::new(ErrorKind::Closed, "the session is over"),
        }
    }

    /// Ends the session, so that it cannot be resumed, and waits for that. What is unanswered is
    /// given up.
    pub fn close(&self) -> Result<(), Error> {
        self.begin_close();
        self.await_end(Instant::now() + CLOSE_TIMEOUT)
    }

    pub(crate) fn begin_close(&self) {
        self.inner.shared.close.store(true, Ordering::SeqCst);
        // One ring is enough.
        let _ = self.inner.wake.try_send(());
    }

    pub(crate) fn await_end(&self, deadline: Instant) -> Result<(), Error> {
        let shared = &self.inner.shared;
        let mut is_over = shared.is_over.lock();
        while !*is_over {
            if shared.over.wait_until(&mut is_over, deadline).timed_out() {
                return Err(Error::new(ErrorKind::Timeout, "the session did not end in time"));
            }
        }
        Ok(())
    }
}

pub(crate) fn draft<C: Serialize + ?Sized>(
    content: &C,
    options: PublishOptions,
) -> Result<Draft, Error> {
    let invalid = |error| Error::caused(ErrorKind::InvalidInput, "the content is no JSON", error);
    let json = serde_json::to_string(content).map_err(invalid)?;
    let content = Arc::from(RawValue::from_string(json).map_err(invalid)?);
    let id = match &options.id {
        Some(id) => match Uuid::parse_str(id) {
            Ok(uuid) if !uuid.is_nil() => id.clone(),
            _ => return Err(Error::new(ErrorKind::InvalidInput, format!("{id:?} is no id"))),
        },
        None => Uuid::new_v4().to_string(),
    };
    Ok(Draft { content, id, options })
}
