//! What a session knows, and what calls and connections change of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ask::{Ask, Request},
    error::{Error, ErrorKind},
    event::{Event, RoomMessage},
    order::Reorderer,
    pace::Pace,
    room_queue::Subscriber,
    room_state::RoomStates,
};

use super::{
    in_flight::{InFlight, InternalCommand, QueuedCommand},
    membership::Membership,
    wanted::Wanted,
};

/// How often a request that the server puts off is tried in all.
pub(super) const ATTEMPTS_MAX: u32 = 10;

/// Messages asked for at once to close a gap.
pub(super) const PAGE_MESSAGES: u64 = 100;

/// Own messages published with echo whose ids are remembered, so that a replay yields them.
pub(super) const ECHOES_MAX: usize = 1000;

/// Former client ids of one's own that are remembered.
pub(super) const FORMER_MAX: usize = 16;

/// What concerns the session as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) default_room: DefaultRoom,
    /// Commands on the wire at once.
    pub(crate) in_flight_max: usize,
    /// Rooms that a server may put the session in.
    pub(crate) rooms_max: usize,
    /// What may have been carried out in a session that is lost is not sent again in the next.
    pub(crate) is_never_twice: bool,
}

/// Whether one stays in the room that the server puts newcomers in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DefaultRoom {
    Stay,
    Leave,
    /// Stay if it has this name.
    StayIf(String),
}

impl DefaultRoom {
    pub(super) fn stays_in(&self, room: &str) -> bool {
        match self {
            DefaultRoom::Stay => true,
            DefaultRoom::Leave => false,
            DefaultRoom::StayIf(name) => name == room,
        }
    }
}

/// What a welcome says about the newcomer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Who {
    pub(crate) client_id: String,
    /// The server's default room.
    pub(crate) room: Option<String>,
}

#[derive(Debug)]
pub(super) struct Identity {
    pub(crate) client_id: String,
    /// What to resume with; older servers give none.
    pub(crate) session: Option<String>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Offline,
    /// `welcome` is to come.
    Greeting,
    /// The answer to `resume` is to come; meanwhile the welcome is kept, and nothing else counts.
    Resuming {
        welcome: Option<String>,
    },
    /// Rooms are joined again; requests wait.
    Rejoining,
    Ready,
}

/// The state of a session, over all its connections. Used by one thread.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(super) rules: Rules,
    pub(super) me: Option<Identity>,
    pub(super) former: VecDeque<String>,
    pub(super) phase: Phase,
    pub(super) rooms: BTreeMap<String, Membership>,
    /// Those that the server has joined.
    pub(super) patterns: BTreeSet<String>,
    pub(super) wanted: Wanted,
    /// Who gets what comes of a room, beside the session.
    pub(super) subscribers: BTreeMap<String, Vec<Subscriber>>,
    /// Where handles see which rooms the session is in.
    pub(super) states: Arc<RoomStates>,
    pub(super) reorderer: Reorderer<RoomMessage>,
    pub(super) direct_seq: u64,
    pub(super) echoes: VecDeque<String>,
    /// The server takes nothing larger, and closes for it.
    pub(super) message_bytes_max: usize,
    pub(super) references: u64,
    pub(super) numbers: u64,
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) internal: VecDeque<QueuedCommand>,
    pub(super) waiting: VecDeque<Request>,
    /// Commands on the wire at once: one after the server has put one off, then ever more.
    pub(super) window: usize,
    pub(super) pace: Pace,
    /// Nothing is sent before: the server said so, or its limits do.
    pub(super) not_before: Option<Instant>,
    /// Frames to send, in order.
    pub(crate) frames: VecDeque<String>,
    pub(crate) events: VecDeque<Event>,
    /// Calls of `leave`, until they are taken: what waits to be taken of their rooms is
    /// [void](Conversation::is_void).
    pub(crate) left: Vec<u64>,
    /// What `welcome` said about pings, until it is taken.
    pub(crate) ping: Option<Duration>,
    /// Our id and the room we were put in, until it is taken.
    pub(crate) who: Option<Who>,
    /// What `closing` said, until it is taken.
    pub(crate) closing: Option<Duration>,
    /// Whether the server has said that the token is about to end, until that is taken.
    pub(crate) needs_token: bool,
    /// Why one has had enough of this server.
    pub(crate) fault: Option<Error>,
}

impl Conversation {
    pub(crate) fn new(rules: Rules, states: Arc<RoomStates>) -> Conversation {
        let window = rules.in_flight_max;
        Conversation {
            rules,
            me: None,
            former: VecDeque::new(),
            phase: Phase::Offline,
            rooms: BTreeMap::new(),
            patterns: BTreeSet::new(),
            wanted: Wanted::default(),
            subscribers: BTreeMap::new(),
            states,
            reorderer: Reorderer::default(),
            direct_seq: 0,
            echoes: VecDeque::new(),
            message_bytes_max: usize::MAX,
            references: 0,
            numbers: 0,
            in_flight: BTreeMap::new(),
            internal: VecDeque::new(),
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
            needs_token: false,
            fault: None,
        }
    }

    /// Whether the server knows us on this connection.
    pub(crate) fn is_welcome(&self) -> bool {
        matches!(self.phase, Phase::Rejoining | Phase::Ready)
    }

    /// A connection is there.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.frames.clear();
        self.pace.begin_anew();
        self.phase = Phase::Greeting;
        self.needs_token = false;
        if self.me.as_ref().is_some_and(|me| me.session.is_some()) {
            self.phase = Phase::Resuming { welcome: None };
            let number = self.next_number();
            // The first message always passes.
            self.dispatch(
                InFlight::Internal(QueuedCommand {
                    command: InternalCommand::Resume,
                    number,
                    attempts: 0,
                }),
                now,
            );
        }
    }

    /// The connection is gone. What was not answered will be asked again.
    pub(crate) fn lost(&mut self) {
        self.phase = Phase::Offline;
        self.not_before = None;
        self.frames.clear();
        self.internal.clear();
        self.rooms.values_mut().for_each(|membership| membership.is_recounted = false);
        self.reorderer.suspend();
        for (_, in_flight) in mem::take(&mut self.in_flight) {
            match in_flight {
                InFlight::Internal(_) => {}
                InFlight::Request(request) if matches!(request.ask, Ask::Broadcast { .. }) => {
                    let text = "the connection was lost before the answer; it may have been sent";
                    request.answer(Err(Error::new(ErrorKind::Lost, text)));
                }
                InFlight::Request(request) if request.fate.is_withdrawn() => {}
                InFlight::Request(request) => self.wait_again(request),
            }
        }
    }

    /// Sends a new token in place of the one that is about to end.
    pub(crate) fn renew(&mut self, token: String) {
        let number = self.next_number();
        let command = InternalCommand::Renew { token };
        self.internal.push_front(QueuedCommand { command, number, attempts: 0 });
    }

    /// The session is over.
    pub(crate) fn end(&mut self, error: &Error) {
        self.lost();
        for request in self.waiting.drain(..) {
            let is_unknown = self.rules.is_never_twice && request.is_sent_message();
            let error = error.clone();
            request.answer(Err(if is_unknown { Error::unknown(error) } else { error }));
        }
    }

    /// The session is lost: what was sent in it may have been carried out.
    pub(super) fn orphan(&mut self) {
        if self.rules.is_never_twice {
            for request in self.waiting.iter_mut().filter(|request| request.is_sent_message()) {
                request.is_orphan = true;
            }
        }
    }

    /// Rooms are joined again. What was sent in a session that is lost and was not found in them
    /// stays unknown.
    pub(super) fn give_up_orphans(&mut self) {
        let (orphans, waiting): (VecDeque<_>, _) =
            mem::take(&mut self.waiting).into_iter().partition(|request| request.is_orphan);
        self.waiting = waiting;
        for request in orphans {
            let text = "the session was lost before the answer";
            request.answer(Err(Error::unknown(Error::new(ErrorKind::Lost, text))));
        }
    }

    /// Takes a request. What it means for what is yielded holds from now on.
    pub(crate) fn submit(&mut self, mut request: Request) {
        request.number = self.next_number();
        self.wanted.call(request.number, &request.ask);
        if matches!(request.ask, Ask::Leave { .. }) {
            self.end_left_subscribers(request.number);
            let events = mem::take(&mut self.events);
            let stays = |event: &Event| !self.is_void(event, request.number);
            self.events = events.into_iter().filter(stays).collect();
            self.left.push(request.number);
        }
        if request.ask.moves() {
            request.ask.rooms().iter().for_each(|name| self.note_states(name));
        }
        self.waiting.push_back(request);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Back among those that wait, in the order in which they were asked.
    pub(super) fn wait_again(&mut self, request: Request) {
        let at = self.waiting.partition_point(|other| other.number < request.number);
        self.waiting.insert(at, request);
    }

    pub(super) fn add_internal(&mut self, command: InternalCommand) {
        let number = self.next_number();
        self.internal.push_back(QueuedCommand { command, number, attempts: 0 });
    }

    /// Back among those that wait, in their order: a leave comes before the join that follows it.
    pub(super) fn try_again(&mut self, task: QueuedCommand) {
        let at = self.internal.partition_point(|other| other.number < task.number);
        self.internal.insert(at, task);
    }

    /// When something that was put off is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.waiting.is_empty() || !self.internal.is_empty())
    }
}
