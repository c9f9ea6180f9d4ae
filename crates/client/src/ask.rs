//! What a session can be asked, how it goes onto the wire, and how its answer finds the one who
//! asked.

use std::{
    fmt, slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rusty_socks_protocol::{Command, Content};
use serde_json::value::RawValue;

use super::{
    error::{Error, ErrorKind},
    event::{Entered, Members, Page, Position, Receipt, Sent},
    fate::Fate,
    frames,
    room_queue::RoomQueue,
};

/// What goes with a message.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PublishOptions {
    /// The name that the sender goes by.
    pub sender: Option<String>,
    /// RFC 3339; the server's time if there is none.
    pub timestamp: Option<String>,
    /// Get the message back too, in its place among the others. Rooms only.
    pub echo: bool,
    /// A UUID of the caller's; else a fresh one.
    pub id: Option<String>,
}

/// How to join a room.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JoinOptions {
    /// Get what was missed since then.
    pub since: Option<Position>,
    /// Be told who comes and goes, and who is there.
    pub presence: bool,
    /// The name shown to those who watch.
    pub sender: Option<String>,
}

macro_rules! setters {
    ($options:ident: $($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty)?) = $value:expr;)*) => {
        impl $options {
            $($(#[$doc])* #[must_use] pub fn $name(mut self $(, $argument: $kind)?) -> Self {
                self.$name = $value;
                self
            })*
        }
    };
}

setters! { PublishOptions:
    /// Sets [`sender`](PublishOptions#structfield.sender).
    sender(name: impl Into<String>) = Some(name.into());
    /// Sets [`timestamp`](PublishOptions#structfield.timestamp).
    timestamp(time: impl Into<String>) = Some(time.into());
    /// Sets [`echo`](PublishOptions#structfield.echo).
    echo() = true;
    /// Sets [`id`](PublishOptions#structfield.id).
    id(id: impl Into<String>) = Some(id.into());
}

setters! { JoinOptions:
    /// Sets [`since`](JoinOptions#structfield.since).
    since(position: Position) = Some(position);
    /// Sets [`presence`](JoinOptions#structfield.presence).
    presence() = true;
    /// Sets [`sender`](JoinOptions#structfield.sender).
    sender(name: impl Into<String>) = Some(name.into());
}

/// Which page of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// The newest messages.
    Latest,
    /// The newest below this number.
    Before(u64),
    /// The oldest above this number.
    After(u64),
}

/// What a user asks for, kept until it is answered.
#[derive(Debug)]
pub(crate) enum Ask {
    Publish { rooms: Vec<String>, message: Draft },
    Direct { to: String, message: Draft },
    Broadcast { message: Draft },
    Join { room: String, options: JoinOptions, subscriber: Option<Arc<RoomQueue>> },
    Leave { room: String },
    History { room: String, pages: Pages, limit: Option<u64> },
    Presence { room: String, watch: Option<bool> },
}

/// A message to be sent. Its id stays the same however often it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) content: Arc<RawValue>,
    pub(crate) id: String,
    pub(crate) options: PublishOptions,
}

impl Draft {
    fn content(&self) -> Content<'_> {
        let PublishOptions { sender, timestamp, .. } = &self.options;
        Content {
            content: &self.content,
            id: Some((&self.id).into()),
            sender: sender.as_ref().map(Into::into),
            timestamp: timestamp.as_ref().map(Into::into),
        }
    }
}

impl Ask {
    /// The rooms and patterns that it is about.
    pub(crate) fn rooms(&self) -> &[String] {
        match self {
            Ask::Publish { rooms, .. } => rooms,
            Ask::Join { room, .. }
            | Ask::Leave { room }
            | Ask::History { room, .. }
            | Ask::Presence { room, .. } => slice::from_ref(room),
            Ask::Direct { .. } | Ask::Broadcast { .. } => &[],
        }
    }

    /// Whether it is a message that a session sends again by its id.
    pub(crate) fn has_id(&self) -> bool {
        matches!(self, Ask::Publish { .. } | Ask::Direct { .. })
    }

    /// Whether it changes which rooms one is in.
    pub(crate) fn moves(&self) -> bool {
        matches!(self, Ask::Join { .. } | Ask::Leave { .. })
    }

    /// What is said to the server.
    pub(crate) fn command(&self) -> Command<'_> {
        match self {
            Ask::Publish { rooms, message } => {
                let (room, rooms) = match rooms.as_slice() {
                    [room] => (Some(room.into()), None),
                    rooms => (None, Some(rooms.iter().map(Into::into).collect())),
                };
                let echo = message.options.echo;
                Command::Publish { room, rooms, content: message.content(), echo }
            }
            Ask::Direct { to, message } => {
                Command::Direct { to: to.into(), content: message.content() }
            }
            Ask::Broadcast { message } => Command::Broadcast { content: message.content() },
            Ask::Join { room, options: JoinOptions { since, presence, sender }, .. } => {
                Command::Join {
                    room: room.into(),
                    since: since.as_ref().map(frames::since),
                    presence: *presence,
                    sender: sender.as_ref().map(Into::into),
                }
            }
            Ask::Leave { room } => Command::Leave { room: room.into() },
            Ask::History { room, pages, limit } => {
                let (before, after) = match pages {
                    Pages::Latest => (None, None),
                    Pages::Before(seq) => (Some(*seq), None),
                    Pages::After(seq) => (None, Some(*seq)),
                };
                Command::History { room: room.into(), before, after, limit: *limit }
            }
            Ask::Presence { room, watch } => Command::Presence { room: room.into(), watch: *watch },
        }
    }
}

/// An answer of whatever kind.
#[derive(Debug)]
pub(crate) enum Answer {
    Receipt(Receipt),
    Sent(Sent),
    Entered(Entered),
    Left,
    Page(Page),
    Members(Members),
}

macro_rules! readers {
    ($($name:ident: $kind:ty = $pattern:pat => $value:expr;)*) => {
        impl Answer {
            $(pub(crate) fn $name(self) -> Option<$kind> {
                match self { $pattern => Some($value), _ => None }
            })*
        }
    };
}

readers! {
    receipt: Receipt = Answer::Receipt(receipt) => receipt;
    sent: Sent = Answer::Sent(sent) => sent;
    entered: Entered = Answer::Entered(entered) => entered;
    left: () = Answer::Left => ();
    page: Page = Answer::Page(page) => page;
    members: Members = Answer::Members(members) => members;
}

/// A place among the requests that may be under way; given back when dropped.
#[derive(Debug)]
pub(crate) struct RequestSlot(Arc<AtomicUsize>);

impl RequestSlot {
    pub(crate) fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<RequestSlot> {
        let more = |taken| (taken < max).then_some(taken + 1);
        taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(RequestSlot(Arc::clone(taken)))
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where an answer goes.
enum Reply {
    Ticket(Sender<Result<Answer, Error>>),
    Call(Option<Callback>),
}

/// Called once, on the session's thread: it must not block.
pub(crate) type Callback = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

impl Drop for Reply {
    /// Every callback is called, whatever becomes of the session.
    fn drop(&mut self) {
        if let Reply::Call(callback) = self
            && let Some(callback) = callback.take()
        {
            callback(Err(Error::new(ErrorKind::Closed, "the request was given up")));
        }
    }
}

/// An ask on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) fate: Arc<Fate>,
    reply: Reply,
    _place: RequestSlot,
    /// In the order in which they were asked; set by the session.
    pub(crate) number: u64,
    /// How often the server put it off.
    pub(crate) attempts: u32,
    /// It publishes, and was sent before a new epoch of one of its rooms: the numbers in its answer
    /// may be of the earlier one, and do not count.
    pub(crate) is_doubtful: bool,
    /// It was sent in a session that is lost, which may have carried it out or not.
    pub(crate) is_orphan: bool,
}

impl Request {
    /// The other end of it, where `read` finds its kind of answer.
    pub(crate) fn new<T>(ask: Ask, place: RequestSlot, read: Read<T>) -> (Request, Ticket<T>) {
        let (reply, ticket) = Ticket::new(read);
        let request = Request::with_reply(ask, Arc::default(), place, Reply::Ticket(reply));
        (request, ticket)
    }

    /// A request whose answer goes to `callback`.
    pub(crate) fn with_callback(
        ask: Ask,
        fate: Arc<Fate>,
        place: RequestSlot,
        callback: Callback,
    ) -> Request {
        Request::with_reply(ask, fate, place, Reply::Call(Some(callback)))
    }

    fn with_reply(ask: Ask, fate: Arc<Fate>, place: RequestSlot, reply: Reply) -> Request {
        Request {
            ask,
            fate,
            reply,
            _place: place,
            number: 0,
            attempts: 0,
            is_doubtful: false,
            is_orphan: false,
        }
    }

    /// Whether it is a message that may have been carried out.
    pub(crate) fn is_sent_message(&self) -> bool {
        self.ask.has_id() && self.fate.was_sent()
    }

    pub(crate) fn answer(mut self, answer: Result<Answer, Error>) {
        match &mut self.reply {
            // There is room for one, and who does not wait any more does not mind.
            Reply::Ticket(reply) => drop(reply.try_send(answer)),
            Reply::Call(callback) => {
                if let Some(callback) = callback.take() {
                    callback(answer);
                }
            }
        }
    }
}

/// Takes one kind of answer.
pub(crate) type Read<T> = fn(Answer) -> Option<T>;

/// An answer that is still to come. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "the answer, which may be a refusal, is found here"]
pub struct Ticket<T> {
    receiver: Receiver<Result<Answer, Error>>,
    read: Read<T>,
}

impl<T> Ticket<T> {
    /// A ticket, and where its answer is to be put.
    pub(crate) fn new(read: Read<T>) -> (Sender<Result<Answer, Error>>, Ticket<T>) {
        let (reply, receiver) = crossbeam_channel::bounded(1);
        (reply, Ticket { receiver, read })
    }

    /// Waits for as long as it takes.
    pub(crate) fn outcome(&self) -> Result<T, Error> {
        self.wait(Duration::MAX)
    }

    /// Waits for the answer. After a timeout the request is still under way; wait again, or let it
    /// be.
    pub fn wait(&self, timeout: Duration) -> Result<T, Error> {
        let answer = match self.receiver.recv_timeout(timeout) {
            Ok(answer) => answer?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::new(ErrorKind::Timeout, "no answer in time"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(ErrorKind::Closed, "the session is over"));
            }
        };
        (self.read)(answer)
            .ok_or_else(|| Error::new(ErrorKind::Misbehaved, "the answer is one to something else"))
    }
}
