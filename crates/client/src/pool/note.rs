//! What the dispatcher of a pool is told, by handles and by sessions.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Sender;

use crate::{
    ask::{Answer, Callback},
    error::Error,
    session_shared::{Health, Watch},
};

use super::{pending::Pending, stats::PoolStats};

/// Their queue needs no bound of its own: each publish has a share of the pool's, each answer is
/// owed to one of these, and of the others there are few.
#[derive(Debug)]
pub(super) enum Note {
    Publish(Pending),
    Stats(Sender<PoolStats>),
    /// No more publishes; it ends with the last of them, or then.
    Close {
        deadline: Option<Instant>,
    },
    /// Nobody can publish any more.
    HandlesGone,
    /// Of a session.
    Health {
        member: usize,
        life: u64,
        health: Health,
    },
    /// The answer to a join.
    Joined {
        member: usize,
        life: u64,
        room: Arc<str>,
        result: Result<(), Error>,
    },
    /// The answer to a publish.
    Answered {
        member: usize,
        life: u64,
        number: u64,
        attempt: u64,
        result: Result<Answer, Error>,
    },
}

impl Note {
    /// Has the health of a session noted.
    pub(super) fn watch(notes: &Sender<Note>, member: usize, life: u64) -> Watch {
        let notes = notes.clone();
        Box::new(move |health| drop(notes.send(Note::Health { member, life, health })))
    }

    /// Has an answer noted.
    pub(super) fn callback(
        notes: &Sender<Note>,
        note: impl FnOnce(Result<Answer, Error>) -> Note + Send + 'static,
    ) -> Callback {
        let notes = notes.clone();
        // When the pool is over, nobody minds.
        Box::new(move |result| drop(notes.send(note(result))))
    }
}
