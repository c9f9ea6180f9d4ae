//! What a client that keeps the protocol asks for.

use std::{borrow::Cow, collections::BTreeMap};

use rusty_socks_protocol::{self as protocol, Position, Request, RoomPosition};
use serde_json::value::RawValue;

use super::tokens::Token;

/// A command, as its client remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named as in the protocol")]
pub enum Asked {
    /// A room, perhaps with the position that was reached earlier.
    Join { room: String, since: Option<(String, u64)>, watch: bool },
    /// A pattern.
    JoinPattern { pattern: String },
    /// A room.
    Leave { room: String },
    /// A pattern.
    LeavePattern { pattern: String },
    /// A message to one room or to several.
    Publish { rooms: Vec<String>, echo: bool, id: Option<String>, content: String },
    /// A page.
    History { room: String, before: Option<u64>, after: Option<u64>, limit: u64 },
    /// Who is there; with `watch`, from now on or no longer.
    Presence { room: String, watch: Option<bool> },
    /// A message to one client.
    Direct { to: String, content: String },
    /// A message to everyone.
    Broadcast { content: String },
    /// An earlier session.
    Resume { token: String, positions: BTreeMap<String, (String, u64)>, direct: u64 },
    /// A new token.
    Auth { token: Box<Token>, is_first: bool },
    /// A pong, by a command with so many bytes of space in it.
    Ping { padding: usize },
}

impl Asked {
    /// Whether it may change which rooms the client is in.
    pub fn changes_rooms(&self) -> bool {
        matches!(
            self,
            Asked::Join { .. }
                | Asked::JoinPattern { .. }
                | Asked::Leave { .. }
                | Asked::LeavePattern { .. }
                | Asked::Auth { .. }
                | Asked::Presence { watch: Some(_), .. }
        )
    }

    /// Whether it has an id by which a repeat is known.
    pub fn may_be_repeated(&self) -> bool {
        matches!(self, Asked::Publish { id: Some(_), .. })
    }

    /// The command in words that are the same in each run.
    pub fn words(&self) -> String {
        match self {
            Asked::Join { room, since, watch } => {
                let since =
                    since.as_ref().map_or(String::new(), |(_, seq)| format!(" since {seq}"));
                format!("join {room}{since}{}", if *watch { " and watch" } else { "" })
            }
            Asked::JoinPattern { pattern } => format!("join {pattern}"),
            Asked::Leave { room: name } | Asked::LeavePattern { pattern: name } => {
                format!("leave {name}")
            }
            Asked::Publish { rooms, echo, id, content } => {
                let id = if id.is_some() { " with an id" } else { "" };
                format!("publish {content:.12}… to {rooms:?}, echo {echo}{id}")
            }
            Asked::History { room, before, after, limit } => {
                format!("history of {room}, before {before:?}, after {after:?}, limit {limit}")
            }
            Asked::Presence { room, watch } => format!("presence of {room}, watch {watch:?}"),
            Asked::Direct { content, .. } => format!("direct {content}"),
            Asked::Broadcast { content } => format!("broadcast {content}"),
            Asked::Resume { positions, direct, .. } => {
                let rooms: Vec<String> =
                    positions.iter().map(|(room, (_, seq))| format!("{room} {seq}")).collect();
                format!("resume from {rooms:?}, direct {direct}")
            }
            Asked::Auth { token, is_first } => {
                let which = if *is_first { "first" } else { "another" };
                format!("auth with the {which}, {}", token.words())
            }
            Asked::Ping { padding } => format!("ping with {padding} spaces"),
        }
    }
}

/// Writes a command.
pub(crate) struct Command<'a>(pub(crate) &'a Asked);

impl Command<'_> {
    /// The frame, with its `ref`.
    ///
    /// # Panics
    /// Never: these types have a form as JSON.
    pub(crate) fn text(&self, reference: u64) -> String {
        let text = match self.0 {
            Asked::Publish { content, .. }
            | Asked::Direct { content, .. }
            | Asked::Broadcast { content } => content.as_str(),
            _ => "",
        };
        let content = RawValue::from_string(format!("\"{text}\"")).expect("no quotes in it");
        let said = |id: &Option<String>| protocol::Content {
            content: &content,
            id: id.clone().map(Cow::Owned),
            sender: None,
            timestamp: None,
        };
        let command = match self.0 {
            Asked::Join { room, since, watch } => protocol::Command::Join {
                room: room.into(),
                since: since
                    .as_ref()
                    .map(|(epoch, seq)| Position { epoch: epoch.into(), seq: *seq }),
                presence: *watch,
                sender: None,
            },
            Asked::JoinPattern { pattern } => protocol::Command::Join {
                room: pattern.into(),
                since: None,
                presence: false,
                sender: None,
            },
            Asked::Leave { room: name } | Asked::LeavePattern { pattern: name } => {
                protocol::Command::Leave { room: name.into() }
            }
            Asked::Publish { rooms, echo, id, .. } => {
                let one = (rooms.len() == 1).then(|| Cow::from(&rooms[0]));
                let many = (rooms.len() > 1).then(|| rooms.iter().map(Cow::from).collect());
                protocol::Command::Publish {
                    room: one,
                    rooms: many,
                    content: said(id),
                    echo: *echo,
                }
            }
            Asked::History { room, before, after, limit } => protocol::Command::History {
                room: room.into(),
                before: *before,
                after: *after,
                limit: Some(*limit),
            },
            Asked::Presence { room, watch } => {
                protocol::Command::Presence { room: room.into(), watch: *watch }
            }
            Asked::Direct { to, .. } => {
                protocol::Command::Direct { to: to.into(), content: said(&None) }
            }
            Asked::Broadcast { .. } => protocol::Command::Broadcast { content: said(&None) },
            Asked::Resume { token, positions, direct } => protocol::Command::Resume {
                session: token.into(),
                rooms: positions
                    .iter()
                    .map(|(room, (epoch, seq))| RoomPosition {
                        room: room.into(),
                        epoch: epoch.into(),
                        seq: *seq,
                    })
                    .collect(),
                direct: Some(*direct),
            },
            Asked::Auth { token, .. } => protocol::Command::Auth { token: (&token.text).into() },
            Asked::Ping { .. } => protocol::Command::Ping,
        };
        let request = Request { command, reference: Some(reference) };
        let mut text = serde_json::to_string(&request).expect("it has a form as JSON");
        if let Asked::Ping { padding } = self.0 {
            text.extend(std::iter::repeat_n(' ', *padding));
        }
        text
    }
}
