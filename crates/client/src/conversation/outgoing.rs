//! What is sent, when, and in which words.

use std::time::Instant;

use rusty_socks_protocol::{Command, Position, RoomPosition};

use crate::{
    ask::Ask,
    error::{Error, ErrorKind},
    frames,
};

use super::{
    in_flight::{InFlight, InternalCommand},
    membership::Membership,
    state::{Conversation, ECHOES_MAX, PAGE_MESSAGES, Phase},
};

impl Conversation {
    /// Sends what may be sent.
    pub(crate) fn pump(&mut self, now: Instant) {
        self.take_steps();
        if self.not_before.is_some_and(|at| at > now) || !self.is_welcome() {
            return;
        }
        self.not_before = None;
        while self.in_flight.len() < self.window {
            if let Some(task) = self.internal.pop_front() {
                if self.is_obsolete(&task.command) {
                    continue;
                }
                if let Some(InFlight::Internal(task)) = self.dispatch(InFlight::Internal(task), now)
                {
                    return self.internal.push_front(task);
                }
                continue;
            }
            if matches!(self.phase, Phase::Rejoining) {
                if !self.in_flight.is_empty() {
                    return;
                }
                self.phase = Phase::Ready;
                self.give_up_orphans();
                self.reorderer.give_up_waiting();
                self.take_steps();
                continue;
            }
            let Some(request) = self.waiting.pop_front() else { return };
            if request.fate.is_withdrawn() {
                continue;
            }
            if self.must_wait(&request.ask) {
                return self.waiting.push_front(request);
            }
            if let Some(request) = self.answered_from_memory(request)
                && let Some(InFlight::Request(request)) =
                    self.dispatch(InFlight::Request(request), now)
            {
                return self.waiting.push_front(request);
            }
        }
    }

    /// Sends a command; gives it back if it is not due yet.
    pub(crate) fn dispatch(&mut self, in_flight: InFlight, now: Instant) -> Option<InFlight> {
        let reference = self.references + 1;
        let command = match &in_flight {
            InFlight::Request(request) => request.ask.command(),
            InFlight::Internal(task) => self.internal_command(&task.command),
        };
        let text = frames::write(command, reference);
        if let InFlight::Request(request) = in_flight {
            if text.len() > self.message_bytes_max {
                let (bytes, max) = (text.len(), self.message_bytes_max);
                let text = format!("{bytes} bytes are too large: the server takes {max}");
                self.conclude(request, Err(Error::new(ErrorKind::InvalidInput, text)));
                return None;
            }
            self.send(InFlight::Request(request), text, now)
        } else {
            self.send(in_flight, text, now)
        }
    }

    fn send(&mut self, in_flight: InFlight, text: String, now: Instant) -> Option<InFlight> {
        if let Some(at) = self.pace.due(text.len(), now) {
            self.not_before = Some(at);
            return Some(in_flight);
        }
        if let InFlight::Request(request) = &in_flight
            && !request.fate.send()
        {
            return None;
        }
        self.pace.spend(text.len(), now);
        if let InFlight::Request(request) = &in_flight {
            self.remember_echo(&request.ask);
        }
        self.references += 1;
        self.in_flight.insert(self.references, in_flight);
        self.frames.push_back(text);
        None
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

    fn internal_command<'a>(&'a self, internal: &'a InternalCommand) -> Command<'a> {
        match internal {
            InternalCommand::Resume => {
                let session = self.me.as_ref().and_then(|me| me.session.as_deref());
                let direct = Some(self.direct_seq);
                let session = session.unwrap_or_default().into();
                Command::Resume { session, rooms: self.known_positions(), direct }
            }
            InternalCommand::Unjoin { room } => Command::Leave { room: room.into() },
            InternalCommand::Rejoin { room } => {
                let membership = self.rooms.get(room);
                let position = self.reorderer.position(room);
                let sender = membership.and_then(|of| of.sender.as_deref());
                Command::Join {
                    room: room.into(),
                    since: position.map(|(epoch, seq)| Position { epoch: epoch.into(), seq }),
                    presence: membership.is_some_and(|of| of.watches),
                    sender: sender.map(Into::into),
                }
            }
            InternalCommand::RejoinPattern { pattern } => {
                Command::Join { room: pattern.into(), since: None, presence: false, sender: None }
            }
            InternalCommand::Fetch { room, after, .. } => {
                let (room, after, limit) = (room.into(), Some(*after), Some(PAGE_MESSAGES));
                Command::History { room, before: None, after, limit }
            }
            InternalCommand::Renew { token } => Command::Auth { token: token.into() },
            InternalCommand::Recount { room } => {
                Command::Presence { room: room.into(), watch: Some(true) }
            }
        }
    }

    /// The positions to resume from. A room that is not there any more would be made, and one that
    /// was left joined again.
    fn known_positions(&self) -> Vec<RoomPosition<'_>> {
        let by_name = self.wanted.by_name();
        let is_known = |(room, of): &(&String, &Membership)| {
            (of.is_in || by_name.contains(*room)) && self.wanted.hears(room)
        };
        let position = |room| {
            let (epoch, seq) = self.reorderer.position(room)?;
            Some(frames::room_position(room, epoch, seq))
        };
        let rooms = self.rooms.iter().filter(is_known).map(|(room, _)| room.as_str());
        rooms.filter_map(position).collect()
    }
}
