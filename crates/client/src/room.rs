//! A room of a session, as one part of a program sees it.

use std::{
    iter,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    ask::{Answer, Ask, JoinOptions, Pages, PublishOptions, Ticket},
    error::{Error, ErrorKind},
    event::{Entered, Members, Page, Receipt, RoomEvent},
    room_queue::{NoRoomEvent, RoomQueue},
    room_state::RoomState,
    session::Session,
};

impl Session {
    /// A room, whether or not this session is in it: this alone asks the server nothing.
    pub fn room(&self, name: impl Into<Arc<str>>) -> Room {
        Room { session: self.clone(), name: name.into() }
    }
}

/// A handle to one room of a [`Session`], for a part of a program that has to do with that room
/// alone. Cheap to clone; all handles to a room are the same.
///
/// A [`subscription`](Room::subscribe) is what one part of the program hears of the room. The
/// session joins for the first of them and leaves after the last, so however many there are, the
/// server sends each message once.
///
/// ```no_run
/// use rusty_socks_client::{Error, RoomEvent, Session};
///
/// fn main() -> Result<(), Error> {
///     // Nothing but subscriptions is read here.
///     let session = Session::builder().without_events().connect("ws://127.0.0.1:3030/ws")?;
///     let tea = session.room("tea");
///     let heard = tea.subscribe()?;
///     tea.publish(&"two cups")?;
///     for event in heard.iter() {
///         match event {
///             RoomEvent::Message(message) => println!("{}", message.content),
///             RoomEvent::Missed { events, .. } => println!("{events} were too many for us"),
///             _ => {}
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Room {
    session: Session,
    name: Arc<str>,
}

impl Room {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the session is in this room, by whatever means.
    pub fn state(&self) -> RoomState {
        self.session.inner.shared.rooms.of(&self.name)
    }

    /// Publishes to this room; see [`Session::publish`]. The session has to be in it: with a
    /// subscription, or with [`Session::join`].
    pub fn publish<C: Serialize + ?Sized>(&self, content: &C) -> Result<Receipt, Error> {
        self.session.publish(&self.name, content)
    }

    /// Publishes like [`publish`](Room::publish), with an id, a name or a time, or echoed.
    pub fn publish_with<C: Serialize + ?Sized>(
        &self,
        content: &C,
        options: PublishOptions,
    ) -> Result<Receipt, Error> {
        self.session.publish_with(&self.name, content, options)
    }

    /// Publishes without waiting; see [`Session::publish_later`].
    pub fn publish_later<C: Serialize + ?Sized>(
        &self,
        content: &C,
        options: PublishOptions,
    ) -> Result<Ticket<Receipt>, Error> {
        self.session.publish_later(&[&self.name], content, options)
    }

    /// A page of what the server keeps of this room; see [`Session::history`].
    pub fn history(&self, pages: Pages, limit: Option<u64>) -> Result<Page, Error> {
        self.session.history(&self.name, pages, limit)
    }

    /// Tells who is in this room; see [`Session::presence`].
    pub fn presence(&self) -> Result<Members, Error> {
        self.session.presence(&self.name)
    }

    /// Hears what comes of this room from now on, and waits until the server has let the session
    /// in, unless it is there already.
    ///
    /// A room that is joined for subscriptions alone is theirs: [`Session::recv`] yields nothing of
    /// it. Where the session is by other means too ([`Session::join`], a pattern, the default
    /// room), both yield each message, and the room is not left after the last subscription. But
    /// [`Session::leave`] ends them all.
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        self.subscribe_with(JoinOptions::default())
    }

    /// Subscribes like [`subscribe`](Room::subscribe), with a name, a position to start from, or
    /// presence. Where the session is already, only presence counts: it is told to the
    /// subscriptions that asked for it.
    pub fn subscribe_with(&self, options: JoinOptions) -> Result<Subscription, Error> {
        if self.name.ends_with(".*") {
            let text = "a subscription is to one room: join a pattern with the session";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let max = self.session.inner.subscription_events_max;
        let queue = Arc::new(RoomQueue::new(max, options.presence));
        let ask = Ask::Join {
            room: self.name.to_string(),
            options,
            subscriber: Some(Arc::clone(&queue)),
        };
        // Made before the answer: if that is not waited for any more, the room is left again.
        let entered = Entered::empty(&self.name);
        let mut subscription = Subscription { room: self.clone(), queue, entered };
        subscription.entered = self.session.answer(ask, Answer::entered)?;
        Ok(subscription)
    }
}

/// What one part of a program hears of a [`Room`]. Events wait in a queue of its own, which is
/// bounded by [`SessionBuilder::subscription_events_max`](super::SessionBuilder). Dropping it ends
/// it, and leaves the room if it was the last one.
#[derive(Debug)]
pub struct Subscription {
    room: Room,
    queue: Arc<RoomQueue>,
    entered: Entered,
}

impl Subscription {
    /// The room.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Where it began, and who was there if presence was asked for.
    pub fn entered(&self) -> &Entered {
        &self.entered
    }

    /// The next event of the room. `None` once the session has left the room or was closed from
    /// here; the error says why it is over otherwise: this client may not be there any more, or the
    /// session has ended.
    pub fn recv(&self) -> Result<Option<RoomEvent>, Error> {
        self.take(None)
    }

    /// Waits for the next event for at most `timeout`. When nothing came, the error
    /// [is a timeout](Error::is_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<RoomEvent>, Error> {
        // What is beyond the clock's reach is for ever.
        self.take(Instant::now().checked_add(timeout))
    }

    /// Waits for the next event until `deadline`, like
    /// [`recv_timeout`](Subscription::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<Option<RoomEvent>, Error> {
        self.take(Some(deadline))
    }

    /// The events until it is over. Why it is, [`recv`](Subscription::recv) says then.
    pub fn iter(&self) -> impl Iterator<Item = RoomEvent> + '_ {
        iter::from_fn(|| self.recv().ok().flatten())
    }

    fn take(&self, deadline: Option<Instant>) -> Result<Option<RoomEvent>, Error> {
        match self.queue.take(deadline) {
            Ok(event) => Ok(Some(event)),
            Err(NoRoomEvent::Late) => Err(Error::new(ErrorKind::Timeout, "nothing came in time")),
            Err(NoRoomEvent::Over(end)) => end.map(|()| None),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.abandon();
        let ends = &self.room.session.inner;
        ends.shared.has_dropped_subscriptions.store(true, Ordering::SeqCst);
        // One ring is enough.
        let _ = ends.wake.try_send(());
    }
}
