//! The session's rules without clock, socket or thread: frames and requests in, frames and events
//! out.
//!
//! This file has what is asked and what comes, `outgoing.rs` what is sent, `answers.rs` what comes
//! of it, `notices.rs` what the server says by itself; `wanted.rs` where one wants to be, and
//! `rooms.rs` where one is.

mod answers;
mod notices;
mod outgoing;
mod wanted;
mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    time::{Duration, Instant},
};

use super::{
    ask::{Ask, Request},
    error::{Error, ErrorKind},
    event::{Event, RoomMessage},
    frames::{Inbound, MessageFrame},
    order::{Item, Orders, Step},
    pace::Pace,
};

use self::{rooms::Membership, wanted::Wanted};

/// How often a request that the server puts off is tried in all.
const ATTEMPTS_MAX: u32 = 10;

/// Messages asked for at once to close a gap.
const PAGE_MESSAGES: u64 = 100;

/// Own messages published with echo whose ids are remembered, so that a replay yields them.
const ECHOES_MAX: usize = 1000;

/// Former client ids of one's own that are remembered.
const FORMER_MAX: usize = 16;

/// What concerns the session as a whole.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) default_room: DefaultRoom,
    /// Commands on the wire at once.
    pub(super) in_flight_max: usize,
    /// Rooms that a server may put the session in.
    pub(super) rooms_max: usize,
}

/// Whether one stays in the room that the server puts newcomers in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DefaultRoom {
    Stay,
    Leave,
    /// Stay if it has this name.
    StayIf(String),
}

impl DefaultRoom {
    fn stays_in(&self, room: &str) -> bool {
        match self {
            DefaultRoom::Stay => true,
            DefaultRoom::Leave => false,
            DefaultRoom::StayIf(name) => name == room,
        }
    }
}

/// What a welcome says about the newcomer.
#[derive(Debug, Clone, Default)]
pub(super) struct Who {
    pub(super) client_id: String,
    /// The server's default room.
    pub(super) room: Option<String>,
}

#[derive(Debug)]
struct Identity {
    client_id: String,
    /// What to resume with; older servers give none.
    session: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Offline,
    /// `welcome` is to come.
    Greeting,
    /// The answer to `resume` is to come; meanwhile the welcome is kept, and nothing else counts.
    Resuming {
        welcome: Option<Box<Inbound>>,
    },
    /// Rooms are joined again; requests wait.
    Rejoining,
    Ready,
}

/// A command of the session's own.
#[derive(Debug)]
enum Errand {
    Resume,
    /// Out of a room or pattern that is not wanted, or to be joined again.
    Unjoin {
        room: String,
    },
    Rejoin {
        room: String,
    },
    RejoinPattern {
        pattern: String,
    },
    Fetch {
        room: String,
        after: u64,
    },
    Recount {
        room: String,
    },
}

/// An errand in its order among the others.
#[derive(Debug)]
struct Task {
    errand: Errand,
    number: u64,
    /// How often the server put it off.
    attempts: u32,
}

impl Errand {
    /// The room or pattern that it joins or leaves.
    fn moves(&self) -> Option<&str> {
        match self {
            Errand::Unjoin { room }
            | Errand::Rejoin { room }
            | Errand::RejoinPattern { pattern: room } => Some(room),
            Errand::Resume | Errand::Fetch { .. } | Errand::Recount { .. } => None,
        }
    }
}

/// What is on the wire.
#[derive(Debug)]
enum Flying {
    Request(Request),
    Errand(Task),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conversation {
    rules: Rules,
    me: Option<Identity>,
    former: VecDeque<String>,
    phase: Phase,
    rooms: BTreeMap<String, Membership>,
    /// Those that the server has joined.
    patterns: BTreeSet<String>,
    wanted: Wanted,
    orders: Orders<RoomMessage>,
    direct_seq: u64,
    echoes: VecDeque<String>,
    /// The server takes nothing larger, and closes for it.
    message_bytes_max: usize,
    references: u64,
    numbers: u64,
    flying: BTreeMap<u64, Flying>,
    errands: VecDeque<Task>,
    waiting: VecDeque<Request>,
    /// Commands on the wire at once: one after the server has put one off, then ever more.
    window: usize,
    pace: Pace,
    /// Nothing is sent before: the server said so, or its limits do.
    not_before: Option<Instant>,
    /// Frames to send, in order.
    pub(super) frames: VecDeque<String>,
    pub(super) events: VecDeque<Event>,
    /// Calls of `leave`, until they are taken: what waits to be taken of their rooms is
    /// [void](Conversation::is_void).
    pub(super) left: Vec<u64>,
    /// What `welcome` said about pings, until it is taken.
    pub(super) ping: Option<Duration>,
    /// Who we are and the room we were put in, until it is taken.
    pub(super) who: Option<Who>,
    /// What `closing` said, until it is taken.
    pub(super) closing: Option<Duration>,
    /// Why one has had enough of this server.
    pub(super) fault: Option<Error>,
}

impl Conversation {
    pub(super) fn new(rules: Rules) -> Conversation {
        let window = rules.in_flight_max;
        Conversation {
            rules,
            me: None,
            former: VecDeque::new(),
            phase: Phase::Offline,
            rooms: BTreeMap::new(),
            patterns: BTreeSet::new(),
            wanted: Wanted::default(),
            orders: Orders::default(),
            direct_seq: 0,
            echoes: VecDeque::new(),
            message_bytes_max: usize::MAX,
            references: 0,
            numbers: 0,
            flying: BTreeMap::new(),
            errands: VecDeque::new(),
            waiting: VecDeque::new(),
            window,
            pace: Pace::default(),
            not_before: None,
            frames: VecDeque::new(),
            events: VecDeque::new(),
            left: Vec::new(),
            ping: None,
            who: None,
            closing: None,
            fault: None,
        }
    }

    /// Whether the server knows us on this connection.
    pub(super) fn is_welcome(&self) -> bool {
        matches!(self.phase, Phase::Rejoining | Phase::Ready)
    }

    /// A connection is there.
    pub(super) fn opened(&mut self, now: Instant) {
        self.frames.clear();
        self.pace.begin_anew();
        self.phase = Phase::Greeting;
        if self.me.as_ref().is_some_and(|me| me.session.is_some()) {
            self.phase = Phase::Resuming { welcome: None };
            let number = self.next_number();
            // The first message always passes.
            self.fly(Flying::Errand(Task { errand: Errand::Resume, number, attempts: 0 }), now);
        }
    }

    /// The connection is gone. What was not answered will be asked again.
    pub(super) fn lost(&mut self) {
        self.phase = Phase::Offline;
        self.not_before = None;
        self.frames.clear();
        self.errands.clear();
        self.rooms.values_mut().for_each(|membership| membership.is_recounted = false);
        self.orders.suspend();
        for (_, flying) in mem::take(&mut self.flying) {
            match flying {
                Flying::Errand(_) => {}
                Flying::Request(request) if matches!(request.ask, Ask::Broadcast { .. }) => {
                    let text = "the connection was lost before the answer; it may have been sent";
                    request.answer(Err(Error::new(ErrorKind::Lost, text)));
                }
                Flying::Request(request) => self.wait_again(request),
            }
        }
    }

    /// The session is over.
    pub(super) fn end(&mut self, error: &Error) {
        self.lost();
        for request in self.waiting.drain(..) {
            request.answer(Err(error.clone()));
        }
    }

    /// Takes a request. What it means for what is yielded holds from now on.
    pub(super) fn submit(&mut self, mut request: Request) {
        request.number = self.next_number();
        self.wanted.call(request.number, &request.ask);
        if matches!(request.ask, Ask::Leave { .. }) {
            let events = mem::take(&mut self.events);
            let stays = |event: &Event| !self.is_void(event, request.number);
            self.events = events.into_iter().filter(stays).collect();
            self.left.push(request.number);
        }
        self.waiting.push_back(request);
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Back among those that wait, in the order in which they were asked.
    fn wait_again(&mut self, request: Request) {
        let at = self.waiting.partition_point(|other| other.number < request.number);
        self.waiting.insert(at, request);
    }

    fn add_errand(&mut self, errand: Errand) {
        let number = self.next_number();
        self.errands.push_back(Task { errand, number, attempts: 0 });
    }

    /// Back among those that wait, in their order: a leave comes before the join that follows it.
    fn try_again(&mut self, task: Task) {
        let at = self.errands.partition_point(|other| other.number < task.number);
        self.errands.insert(at, task);
    }

    /// When something that was put off is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.waiting.is_empty() || !self.errands.is_empty())
    }

    /// A frame of the server.
    pub(super) fn frame(&mut self, text: &str, now: Instant) {
        let frame: Inbound = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                log::debug!("a frame that is none of the protocol: {error}");
                return;
            }
        };
        match (&mut self.phase, frame.kind.as_str()) {
            (Phase::Offline, _) => {}
            (Phase::Greeting, "welcome") => self.begin_anew(frame),
            (Phase::Resuming { welcome }, "welcome") => *welcome = Some(Box::new(frame)),
            (Phase::Resuming { .. }, "ok" | "error") => self.answered(frame, now),
            (_, "closing") => self.is_closing(frame),
            (Phase::Greeting | Phase::Resuming { .. }, _) => {}
            (Phase::Rejoining | Phase::Ready, kind) => match kind {
                "message" => self.message(frame),
                "ok" | "error" => self.answered(frame, now),
                "direct" => self.direct(frame),
                "broadcast" => self.events.extend(frame.private_message().map(Event::Broadcast)),
                "joined" | "left" | "gap" | "matched" | "unmatched" => self.notice(frame),
                _ => {}
            },
        }
        self.bound_rooms(self.rooms.len());
        self.pump(now);
    }

    fn message(&mut self, frame: Inbound) {
        let Some(message) = frame.room_message() else { return };
        self.orders.arrive(self.item_of(message, true));
    }

    /// What counts of a message: its places in rooms one is in or comes back to. One's own is
    /// yielded when it is live, for then it was asked for, or when it was published with echo.
    fn item_of(&self, message: RoomMessage, is_live: bool) -> Item<RoomMessage> {
        let mut places = match message.rooms.is_empty() {
            true => vec![(message.room.clone(), message.seq)],
            false => message.rooms.clone(),
        };
        places.retain(|(room, _)| self.rooms.contains_key(room));
        let hidden =
            !is_live && self.is_mine(&message.client_id) && !self.echoes.contains(&message.id);
        let mut hasher = DefaultHasher::new();
        message.id.hash(&mut hasher);
        Item { places, id: hasher.finish(), payload: (!hidden).then_some(message) }
    }

    fn is_mine(&self, client_id: &str) -> bool {
        self.me.as_ref().is_some_and(|me| me.client_id == client_id)
            || self.former.iter().any(|former| former == client_id)
    }

    /// Replayed messages; a publish of one's own whose answer was lost finds it here.
    fn items_of(&mut self, messages: Vec<MessageFrame>) -> Vec<Item<RoomMessage>> {
        let mut items = Vec::with_capacity(messages.len());
        for message in messages {
            let message = RoomMessage::from(message);
            if self.is_mine(&message.client_id) {
                self.settle(&message);
            }
            items.push(self.item_of(message, false));
        }
        items
    }

    fn carry_out_steps(&mut self) {
        let mut steps = Vec::new();
        self.orders.pump(&mut steps);
        for step in steps {
            match step {
                // What is counted and not heard is of a room that was left.
                Step::Yield(message) => {
                    let is_heard = match message.rooms.is_empty() {
                        true => self.wanted.hears(&message.room),
                        false => message.rooms.iter().any(|(room, _)| self.wanted.hears(room)),
                    };
                    self.events.extend(is_heard.then_some(Event::Message(message)));
                }
                Step::Lost { room, range } => {
                    let is_heard = self.wanted.hears(&room);
                    self.events.extend(is_heard.then_some(Event::Lost { room, range }));
                }
                Step::Fetch { room, after } => {
                    self.add_errand(Errand::Fetch { room, after });
                }
            }
        }
    }
}

#[cfg(test)]
mod model;
