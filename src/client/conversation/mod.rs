//! The session's rules without clock, socket or thread: frames and requests in, frames and events out.
//!
//! This file has what is said and asked, `answers.rs` what comes of it, `notices.rs` what the server says by
//! itself.

mod answers;
mod notices;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    ask::{Answer, Ask, Request},
    error::{Error, ErrorKind},
    event::{Entered, Event, Position, RoomMessage},
    frames::{Command, Inbound, Known, MessageFrame, Rooms, Since},
    order::{Item, Orders, Step},
};

/// How often a request that the server puts off is tried in all.
const ATTEMPTS_MAX: u32 = 10;

/// Messages asked for at once to close a gap.
const PAGE_MESSAGES: u64 = 100;

/// Own messages published with echo whose ids are remembered, so that a replay yields them.
const ECHOES_MAX: usize = 1000;

/// Rooms left one by one, though they fit a pattern, that are remembered.
const DECLINED_MAX: usize = 1000;

/// Former client ids of one's own that are remembered.
const FORMER_MAX: usize = 16;

/// What concerns the session as a whole.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Stay in the server's default room.
    pub(super) default_room: bool,
    /// Requests on the wire at once.
    pub(super) in_flight_max: usize,
    /// Rooms that a server may put the session in.
    pub(super) rooms_max: usize,
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

/// A room one is in, or wants to be in again.
#[derive(Debug, Default)]
struct Membership {
    /// In on this connection. Messages of a room one is not in yet come with the answer to the join.
    is_in: bool,
    pattern: Option<String>,
    watches: bool,
    /// Its members have been asked for, and the answer is to come.
    is_recounted: bool,
    sender: Option<String>,
}

/// A command of the session's own.
#[derive(Debug)]
enum Errand {
    Resume,
    /// Out of the default room, to be joined again or not.
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

#[derive(Debug)]
enum Flying {
    Request(Request),
    Errand { errand: Errand, attempts: u32 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conversation {
    rules: Rules,
    me: Option<Identity>,
    former: VecDeque<String>,
    phase: Phase,
    rooms: BTreeMap<String, Membership>,
    patterns: BTreeSet<String>,
    /// Left one by one, though they fit a pattern; a pattern that is joined again does not bring them back.
    declined: BTreeSet<String>,
    orders: Orders<RoomMessage>,
    direct_seq: u64,
    echoes: VecDeque<String>,
    /// The server takes nothing larger, and closes for it.
    message_bytes_max: usize,
    references: u64,
    numbers: u64,
    flying: BTreeMap<u64, Flying>,
    errands: VecDeque<(Errand, u32)>,
    waiting: VecDeque<Request>,
    /// Requests on the wire at once: one after the server has put one off, then ever more.
    window: usize,
    /// The server said so.
    not_before: Option<Instant>,
    /// Frames to send, in order.
    pub(super) frames: VecDeque<String>,
    pub(super) events: VecDeque<Event>,
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
            declined: BTreeSet::new(),
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
            not_before: None,
            frames: VecDeque::new(),
            events: VecDeque::new(),
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
    pub(super) fn opened(&mut self) {
        self.frames.clear();
        self.phase = Phase::Greeting;
        if self.me.as_ref().is_some_and(|me| me.session.is_some()) {
            self.phase = Phase::Resuming { welcome: None };
            self.fly(Flying::Errand { errand: Errand::Resume, attempts: 0 });
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
        for (_, flying) in std::mem::take(&mut self.flying) {
            match flying {
                Flying::Errand { .. } => {}
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

    pub(super) fn submit(&mut self, mut request: Request) {
        self.numbers += 1;
        request.number = self.numbers;
        self.waiting.push_back(request);
    }

    /// Back among those that wait, in the order in which they were asked.
    fn wait_again(&mut self, request: Request) {
        let at = self.waiting.partition_point(|other| other.number < request.number);
        self.waiting.insert(at, request);
    }

    /// When something that was put off is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.waiting.is_empty() || !self.errands.is_empty())
    }

    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: Instant) {
        self.carry_out_steps();
        if self.not_before.is_some_and(|at| at > now) || !self.is_welcome() {
            return;
        }
        self.not_before = None;
        while let Some((errand, attempts)) = self.errands.pop_front() {
            self.fly(Flying::Errand { errand, attempts });
        }
        if matches!(self.phase, Phase::Rejoining) {
            if !self.flying.is_empty() {
                return;
            }
            self.phase = Phase::Ready;
        }
        let is_request = |flying: &&Flying| matches!(flying, Flying::Request(_));
        let mut under_way = self.flying.values().filter(is_request).count();
        while under_way < self.window
            && let Some(request) = self.waiting.pop_front()
        {
            if let Some(request) = self.answered_from_memory(request) {
                self.fly(Flying::Request(request));
                under_way += 1;
            }
        }
    }

    /// A join of a room one is in already, by a pattern, as the default room or by a resume.
    fn answered_from_memory(&mut self, request: Request) -> Option<Request> {
        let Ask::Join { room, options } = &request.ask else { return Some(request) };
        let Some(membership) = self.rooms.get_mut(room).filter(|room| room.is_in) else {
            return Some(request);
        };
        membership.pattern = None;
        if options.presence {
            membership.watches = true;
            self.recount(room);
        }
        let position = self.orders.position(room);
        let position = position.map(|(epoch, seq)| Position { epoch: epoch.into(), seq });
        let entered = Entered {
            room: room.clone(),
            position,
            recovered: false,
            members: None,
            rooms: Vec::new(),
        };
        request.answer(Ok(Answer::Entered(entered)));
        None
    }

    fn fly(&mut self, flying: Flying) {
        self.references += 1;
        let reference = self.references;
        let text = match &flying {
            Flying::Request(request) => request.ask.text(reference),
            Flying::Errand { errand, .. } => self.errand_text(errand, reference),
        };
        if let Flying::Request(request) = flying {
            if text.len() > self.message_bytes_max {
                let (bytes, max) = (text.len(), self.message_bytes_max);
                let text = format!("{bytes} bytes are too large: the server takes {max}");
                request.answer(Err(Error::new(ErrorKind::InvalidInput, text)));
                return;
            }
            self.remember_echo(&request.ask);
            self.flying.insert(reference, Flying::Request(request));
        } else {
            self.flying.insert(reference, flying);
        }
        self.frames.push_back(text);
    }

    fn remember_echo(&mut self, ask: &Ask) {
        if let Ask::Publish { message, .. } = ask
            && message.options.echo
            && !self.echoes.contains(&message.id)
        {
            self.echoes.push_back(message.id.clone());
            if self.echoes.len() > ECHOES_MAX {
                self.echoes.pop_front();
            }
        }
    }

    fn errand_text(&self, errand: &Errand, reference: u64) -> String {
        let command =
            |kind, room| Command { kind, room: Some(room), reference, ..Command::default() };
        match errand {
            Errand::Resume => {
                let known = |room: &'_ String| {
                    let (epoch, seq) = self.orders.position(room)?;
                    Some((room.clone(), epoch.to_owned(), seq))
                };
                let known: Vec<_> = self.rooms.keys().filter_map(known).collect();
                let rooms = known.iter();
                let rooms = rooms.map(|(room, epoch, seq)| Known { room, epoch, seq: *seq });
                Command {
                    kind: "resume",
                    session: self.me.as_ref().and_then(|me| me.session.as_deref()),
                    rooms: Some(Rooms::Positions(rooms.collect())),
                    direct: Some(self.direct_seq),
                    reference,
                    ..Command::default()
                }
                .text()
            }
            Errand::Unjoin { room } => command("leave", room).text(),
            Errand::Rejoin { room } => {
                let membership = self.rooms.get(room);
                let position = self.orders.position(room);
                Command {
                    since: position.map(|(epoch, seq)| Since { epoch, seq }),
                    presence: membership.is_some_and(|of| of.watches).then_some(true),
                    sender: membership.and_then(|of| of.sender.as_deref()),
                    ..command("join", room)
                }
                .text()
            }
            Errand::RejoinPattern { pattern } => command("join", pattern).text(),
            Errand::Fetch { room, after } => Command {
                after: Some(*after),
                limit: Some(PAGE_MESSAGES),
                ..command("history", room)
            }
            .text(),
            Errand::Recount { room } => {
                Command { watch: Some(true), ..command("presence", room) }.text()
            }
        }
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
        self.count_rooms();
        self.pump(now);
    }

    fn message(&mut self, frame: Inbound) {
        let Some(message) = frame.room_message() else { return };
        self.orders.arrive(self.item_of(message, true));
    }

    /// What counts of a message: its places in rooms one is in. One's own is yielded when it is live, for
    /// then it was asked for, or when it was published with echo.
    fn item_of(&self, message: RoomMessage, is_live: bool) -> Item<RoomMessage> {
        let mut places = match message.rooms.is_empty() {
            true => vec![(message.room.clone(), message.seq)],
            false => message.rooms.clone(),
        };
        let is_in = |room: &String| self.rooms.get(room).is_some_and(|of| of.is_in || !is_live);
        places.retain(|(room, _)| is_in(room));
        let hidden =
            !is_live && self.is_mine(&message.client_id) && !self.echoes.contains(&message.id);
        Item { places, payload: (!hidden).then_some(message) }
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
                Step::Yield(message) => self.events.push_back(Event::Message(message)),
                Step::Lost { room, range } => self.events.push_back(Event::Lost { room, range }),
                Step::Fetch { room, after } => {
                    self.errands.push_back((Errand::Fetch { room, after }, 0));
                }
            }
        }
    }
}
