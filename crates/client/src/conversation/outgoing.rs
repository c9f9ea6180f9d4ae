//! What is sent, when, and in which words.

use std::time::Instant;

use crate::{
    ask::Ask,
    error::{Error, ErrorKind},
    frames::{Command, Known, Rooms, Since},
};

use super::{Conversation, ECHOES_MAX, Errand, Flying, PAGE_MESSAGES, Phase, rooms::Membership};

impl Conversation {
    /// Sends what may be sent.
    pub(in super::super) fn pump(&mut self, now: Instant) {
        self.carry_out_steps();
        if self.not_before.is_some_and(|at| at > now) || !self.is_welcome() {
            return;
        }
        self.not_before = None;
        while self.flying.len() < self.window {
            if let Some(task) = self.errands.pop_front() {
                if self.is_moot(&task.errand) {
                    continue;
                }
                if let Some(Flying::Errand(task)) = self.fly(Flying::Errand(task), now) {
                    return self.errands.push_front(task);
                }
                continue;
            }
            if matches!(self.phase, Phase::Rejoining) {
                if !self.flying.is_empty() {
                    return;
                }
                self.phase = Phase::Ready;
                self.orders.give_up_waiting();
                self.carry_out_steps();
                continue;
            }
            let Some(request) = self.waiting.pop_front() else { return };
            if self.must_wait(&request.ask) {
                return self.waiting.push_front(request);
            }
            if let Some(request) = self.answered_from_memory(request)
                && let Some(Flying::Request(request)) = self.fly(Flying::Request(request), now)
            {
                return self.waiting.push_front(request);
            }
        }
    }

    /// Sends a command; gives it back if it is not due yet.
    pub(super) fn fly(&mut self, flying: Flying, now: Instant) -> Option<Flying> {
        let reference = self.references + 1;
        let text = match &flying {
            Flying::Request(request) => request.ask.text(reference),
            Flying::Errand(task) => self.errand_text(&task.errand, reference),
        };
        if let Flying::Request(request) = flying {
            if text.len() > self.message_bytes_max {
                let (bytes, max) = (text.len(), self.message_bytes_max);
                let text = format!("{bytes} bytes are too large: the server takes {max}");
                self.conclude(request, Err(Error::new(ErrorKind::InvalidInput, text)));
                return None;
            }
            self.send(Flying::Request(request), text, now)
        } else {
            self.send(flying, text, now)
        }
    }

    fn send(&mut self, flying: Flying, text: String, now: Instant) -> Option<Flying> {
        if let Some(at) = self.pace.due(text.len(), now) {
            self.not_before = Some(at);
            return Some(flying);
        }
        self.pace.spend(text.len(), now);
        if let Flying::Request(request) = &flying {
            self.remember_echo(&request.ask);
        }
        self.references += 1;
        self.flying.insert(self.references, flying);
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

    fn errand_text(&self, errand: &Errand, reference: u64) -> String {
        let command =
            |kind, room| Command { kind, room: Some(room), reference, ..Command::default() };
        match errand {
            Errand::Resume => {
                let known = |room: &'_ String| {
                    let (epoch, seq) = self.orders.position(room)?;
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
}
