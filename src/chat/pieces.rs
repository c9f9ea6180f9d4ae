//! The JSON of a message by itself, in and out, without what a command does: for `replay` alone.

use uuid::Uuid;

use super::{
    command::{self, Command, Content},
    message,
};

/// Whether `text` is a command; it is read as one that is carried out.
pub(crate) fn is_command(text: &str) -> bool {
    command::parse(text).1.is_ok()
}

/// What a client has said and its room is to be told.
pub(crate) struct Said<'a>(Content<'a>);

impl<'a> Said<'a> {
    /// The content of the publish command `text`.
    pub(crate) fn new(text: &'a str) -> Option<Said<'a>> {
        match command::parse(text).1 {
            Ok(Command::Publish { content, .. }) => Some(Said(content)),
            _ => None,
        }
    }

    /// The frame for the room's members, around the number that only the room can give it.
    pub(crate) fn write(&self, room: &str, client_id: Uuid) -> [String; 2] {
        [message::room_head(room), message::tail(client_id, &self.0)]
    }
}
