//! Posts on their way to event streams: by letter, and to another node through the engine.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    Hub,
    conn_id::ConnId,
    engine::Asker,
    mailbox::Letter,
    posted::{PostName, PostOutcome, Posted, Poster},
    question::Question,
    stream_key::StreamKey,
};

/// A post as one node tells it another, before its frames.
#[derive(Serialize, Deserialize)]
struct Told {
    key: String,
    nth: u64,
    from: Poster,
}

/// The answer to a post as one node tells it another.
#[derive(Serialize, Deserialize)]
struct Answered {
    conn: ConnId,
    name: PostName,
    outcome: PostOutcome,
}

impl Hub {
    /// Gives a post to its stream, which answers it. `Err` if that is known at once.
    pub(crate) fn hand_in(&self, posted: Posted) -> Result<(), PostOutcome> {
        if posted.key.node != self.node {
            return self.hand_on(&posted);
        }
        let worker = posted.key.conn.worker();
        if worker >= self.mailboxes.workers() {
            return Err(PostOutcome::Unknown);
        }
        match self.mailboxes.post(worker, Letter::Posted(Box::new(posted))) {
            true => Ok(()),
            false => Err(PostOutcome::Busy),
        }
    }

    /// Gives a post to the node that has its stream.
    fn hand_on(&self, posted: &Posted) -> Result<(), PostOutcome> {
        if self.engine.is_none() {
            return Err(PostOutcome::Unknown);
        }
        let told = Told { key: posted.key.to_string(), nth: posted.nth, from: posted.from };
        let asker = Asker::Poster { conn: posted.from.conn, name: posted.name() };
        match self.tell_node(posted.key.node, (b'P', &told, &posted.frames), asker) {
            true => Ok(()),
            false => Err(PostOutcome::Busy),
        }
    }

    /// Answers a post. Whoever waits for that may be on another node, or gone.
    pub(crate) fn answer_post(&self, poster: Poster, name: PostName, outcome: PostOutcome) {
        let Poster { node, conn } = poster;
        if node != self.node {
            // An answer that is lost is asked for again.
            let answered = Answered { conn, name, outcome };
            self.tell_node(node, (b'R', &answered, &[]), Asker::Nobody);
        } else if conn.worker() < self.mailboxes.workers() {
            let letter = Letter::PostAnswered { conn, name, outcome };
            self.mailboxes.send_control(conn.worker(), letter);
        }
    }

    /// Takes a post that another node has told. `None` if it makes no sense.
    pub(crate) fn take_post(&self, told: &str, frames: &[u8]) -> Option<()> {
        let Told { key, nth, from } = read(told)?;
        let key: StreamKey = key.parse().ok()?;
        if key.node != self.node {
            return None;
        }
        let posted = Posted { key, nth, frames: frames.to_vec(), from };
        let name = posted.name();
        if let Err(outcome) = self.hand_in(posted) {
            self.answer_post(from, name, outcome);
        }
        Some(())
    }

    /// Takes the answer to a post that was handed on. `None` if it makes no sense.
    pub(crate) fn take_post_answer(&self, answered: &str) -> Option<()> {
        let Answered { conn, name, outcome } = read(answered)?;
        self.answer_post(Poster { node: self.node, conn }, name, outcome);
        Some(())
    }

    /// Tells one node something: a letter for its kind, a line of JSON, and what follows. Returns
    /// whether there is space for it.
    fn tell_node(
        &self,
        node: Uuid,
        (kind, head, body): (u8, &impl Serialize, &[u8]),
        asker: Asker,
    ) -> bool {
        let mut message = vec![kind];
        if serde_json::to_writer(&mut message, head).is_err() {
            return false;
        }
        message.push(b'\n');
        message.extend_from_slice(body);
        self.ask(Question::Tell { node, message: message.into() }, asker).is_ok()
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
