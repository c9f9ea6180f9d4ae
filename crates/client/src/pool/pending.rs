//! One publish of a pool, from the call to the answer.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Sender;

use crate::{
    ask::{Answer, Draft},
    error::Error,
    fate::Fate,
};

use super::bounds::Share;

/// A publish that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) room: Arc<str>,
    pub(super) message: Draft,
    /// It is answered by then, with an error if need be.
    pub(super) deadline: Instant,
    pub(super) reply: Sender<Result<Answer, Error>>,
    /// Which session it is for. `None` before it is given to one.
    pub(super) member: Option<usize>,
    /// What has become of it there; `None` while it waits here.
    pub(super) given: Option<Given>,
    /// A server has said that the session is not in the room, and so the room is joined again.
    pub(super) was_outside: bool,
    pub(super) _share: Share,
}

/// A publish that a session has.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) fate: Arc<Fate>,
    /// Tells this from an earlier time that it was given to a session.
    pub(super) attempt: u64,
}
