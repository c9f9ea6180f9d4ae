//! Messages that go past the rooms: to one session, wherever it is, and to everyone who is connected.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Hub, HubError,
    mailbox::{ConnId, Deferred, Letter},
    publish::{Publication, Published},
    sessions::{Counts, Mail, Recipient, Session, Standing},
};
use crate::{
    store::{History, HistoryBounds},
    ws::frame::PreparedFrame,
};

/// What an inbox may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct InboxBounds {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

impl Hub {
    /// Sends a message to one session. It is kept for a while, so that a session that is away, or loses it
    /// on the way, has it when it is resumed.
    pub(crate) fn direct(
        &self,
        from: &Session,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Result<Published, HubError> {
        if let Some(id) = publication.once
            && let Some(seq) = from.state.lock().told_client(id, to)
        {
            Counts::add(&self.sessions.counts.repeats);
            return Ok(Published { seq, behind: false, repeated: true });
        }
        let session = self.sessions.find(to).ok_or(HubError::NoSuchClient)?;
        let published = self.deliver_to(&session, publication)?;
        Counts::add(&self.sessions.counts.directs);
        if let Some(id) = publication.once {
            from.state.lock().tell(id, Recipient::Client(*to, published.seq));
        }
        Ok(published)
    }

    fn deliver_to(
        &self,
        session: &Session,
        publication: &Publication<'_>,
    ) -> Result<Published, HubError> {
        let mut deferred = Deferred::default();
        let mut state = session.state.lock();
        let standing = state.standing;
        let mail = state
            .inbox
            .get_or_insert_with(|| Box::new(Mail { history: History::new(), delivered_seq: 0 }));
        let seq = mail.history.position().seq + 1;
        let frame = publication.encode(&[seq]);
        match standing {
            Standing::Ended => return Err(HubError::NoSuchClient),
            Standing::On(conn) => {
                let worker = usize::from(conn.worker);
                let place = std::iter::once((worker, frame.len()));
                if let Err(error) = self.post.reserve_all(place, &mut deferred) {
                    drop(state);
                    self.post.finish(&deferred);
                    return Err(error);
                }
                self.post.put(worker, Letter::Send { conn, frame: frame.clone() });
                deferred.ring.insert(worker);
                mail.delivered_seq = seq;
            }
            Standing::Away(_) => {
                let waiting = mail.history.kept_since(mail.delivered_seq);
                let bytes: usize = waiting.iter().map(PreparedFrame::len).sum();
                let is_full = waiting.len() >= self.inbox.messages_max
                    || bytes + frame.len() > self.inbox.bytes_max;
                if is_full {
                    return Err(HubError::InboxFull);
                }
            }
        }
        let bounds = HistoryBounds {
            messages_max: self.inbox.messages_max,
            bytes_max: self.inbox.bytes_max,
            // It goes with its session, and sooner only for want of space.
            age_max: Duration::MAX,
        };
        mail.history.append(frame, 0, &bounds);
        drop(state);
        self.post.finish(&deferred);
        Ok(Published { seq, behind: deferred.behind, repeated: false })
    }

    /// Sends a message to every connection of `route`, or of all routes, but one. It is not kept. All of
    /// them get it or, where a mailbox is full, none.
    pub(crate) fn announce_to_all(
        &self,
        route: Option<u16>,
        publication: &Publication<'_>,
        except: Option<ConnId>,
    ) -> Result<(), HubError> {
        let frame = self.compressible(publication.encode(&[0]));
        let mut deferred = Deferred::default();
        let everyone = (0..self.post.workers()).map(|worker| (worker, frame.len()));
        let result = self.post.reserve_all(everyone, &mut deferred);
        if result.is_ok() {
            for worker in 0..self.post.workers() {
                let frame = frame.clone();
                self.post.put(worker, Letter::Announce { route, frame, except });
                deferred.ring.insert(worker);
            }
        }
        self.post.finish(&deferred);
        result
    }
}
