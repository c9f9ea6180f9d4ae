//! What is sent, when, and in which words.

use std::time::Instant;

use crate::{
    ask::Ask,
    error::{Error, ErrorKind},
    frames::{Command, Known, Rooms, Since},
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
                self.reorderer.give_up_waiting();
                self.take_steps();
                continue;
            }
            let Some(request) = self.waiting.pop_front() else { return };
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
        let text = match &in_flight {
            InFlight::Request(request) => request.ask.text(reference),
            InFlight::Internal(task) => self.internal_text(&task.command, reference),
        };
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

    fn internal_text(&self, internal: &InternalCommand, reference: u64) -> String {
        let command =
            |kind, room| Command { kind, room: Some(room), reference, ..Command::default() };
        match internal {
            InternalCommand::Resume => {
                let known = |room: &'_ String| {
                    let (epoch, seq) = self.reorderer.position(room)?;
                    Some((room.clone(), epoch.to_owned(), seq))
                };
                // One that is not there any more would be made, and one that was left joined again.
                let by_name = self.wanted.by_name();
                let is_known = |(room, of): &(&String, &Membership)| {
                    (of.is_in || by_name.contains(*room)) && self.wanted.hears(room)
                };
                let known: Vec<_> = self
                    .rooms
                    .iter()
                    .filter(is_known)
                    .filter_map(|(room, _)| known(room))
                    .collect();
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
            InternalCommand::Unjoin { room } => command("leave", room).text(),
            InternalCommand::Rejoin { room } => {
                let membership = self.rooms.get(room);
                let position = self.reorderer.position(room);
                Command {
                    since: position.map(|(epoch, seq)| Since { epoch, seq }),
                    presence: membership.is_some_and(|of| of.watches).then_some(true),
                    sender: membership.and_then(|of| of.sender.as_deref()),
                    ..command("join", room)
                }
                .text()
            }
            InternalCommand::RejoinPattern { pattern } => command("join", pattern).text(),
            InternalCommand::Fetch { room, after } => Command {
                after: Some(*after),
                limit: Some(PAGE_MESSAGES),
                ..command("history", room)
            }
            .text(),
            InternalCommand::Recount { room } => {
                Command { watch: Some(true), ..command("presence", room) }.text()
            }
        }
    }
}
