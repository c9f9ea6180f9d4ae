//! Messages that go past the rooms: to one session, wherever it is, and to everyone who is connected.

use std::{cmp::Ordering, time::Duration};

use parking_lot::MutexGuard;
use uuid::Uuid;

use super::{
    Hub, RoomError,
    mailbox::{Deferred, Letter},
    publish::{Publication, Published},
    sessions::{Mail, Recipient, Session, SessionState, Speaker, Standing},
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

/// Who sends a direct message and who gets it, both locked.
struct Parties<'a> {
    from: MutexGuard<'a, SessionState>,
    to: Receiver<'a>,
}

enum Receiver<'a> {
    Other(MutexGuard<'a, SessionState>),
    /// The sender, whose lock is taken once.
    Itself,
    Nobody,
}

impl<'a> Parties<'a> {
    /// Everyone who locks two sessions does so in the order of their client ids.
    fn lock(from: &'a Session, to: Option<&'a Session>) -> Parties<'a> {
        match to.map(|to| (to, from.client_id.cmp(&to.client_id))) {
            Some((to, Ordering::Less)) => {
                let from = from.state.lock();
                Parties { from, to: Receiver::Other(to.state.lock()) }
            }
            Some((to, Ordering::Greater)) => {
                let to = Receiver::Other(to.state.lock());
                Parties { from: from.state.lock(), to }
            }
            Some((_, Ordering::Equal)) => Parties { from: from.state.lock(), to: Receiver::Itself },
            None => Parties { from: from.state.lock(), to: Receiver::Nobody },
        }
    }

    fn receiver(&mut self) -> Option<&mut SessionState> {
        match &mut self.to {
            Receiver::Other(to) => Some(to),
            Receiver::Itself => Some(&mut self.from),
            Receiver::Nobody => None,
        }
    }
}

impl Hub {
    /// Sends a message to one session. It is kept for a while, so that a session that is away, or loses it
    /// on the way, has it when it is resumed.
    pub(crate) fn direct(
        &self,
        by: Speaker<'_>,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        let receiver = self.sessions.find(to);
        let mut deferred = Deferred::default();
        let mut parties = Parties::lock(by.session, receiver.as_deref());
        let result = self.direct_between(by, &mut parties, to, publication, &mut deferred);
        drop(parties);
        self.post.finish(&deferred);
        result
    }

    /// With both sessions locked: neither a repeat nor a take-over slips in between.
    fn direct_between(
        &self,
        by: Speaker<'_>,
        parties: &mut Parties<'_>,
        to: &Uuid,
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<Published, RoomError> {
        by.must_speak()?;
        if let Some(id) = publication.dedup_id
            && let Some(seq) = parties.from.told_client(id, to)
        {
            self.sessions.metrics.repeats.add_shared();
            return Ok(Published { seq, behind: false, repeated: true });
        }
        let receiver = parties.receiver().ok_or(RoomError::NoSuchClient)?;
        let seq = self.deliver_to(receiver, publication, deferred)?;
        self.sessions.metrics.directs.add_shared();
        if let Some(id) = publication.dedup_id {
            parties.from.tell(id, Recipient::Client(*to, seq));
        }
        Ok(Published { seq, behind: deferred.behind, repeated: false })
    }

    /// Puts a message into a session's inbox, and sends it where there is a connection. Returns its number.
    fn deliver_to(
        &self,
        state: &mut SessionState,
        publication: &Publication<'_>,
        deferred: &mut Deferred,
    ) -> Result<u64, RoomError> {
        let standing = state.standing;
        let mail = state
            .inbox
            .get_or_insert_with(|| Box::new(Mail { history: History::new(), delivered_seq: 0 }));
        let seq = mail.history.position().seq + 1;
        let frame = publication.encode(&[seq]);
        match standing {
            Standing::Ended => return Err(RoomError::NoSuchClient),
            Standing::On(conn) => {
                let worker = usize::from(conn.worker);
                self.post.reserve_all(std::iter::once((worker, frame.len())), deferred)?;
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
                    return Err(RoomError::InboxFull);
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
        Ok(seq)
    }

    /// Sends a message to every connection of the speaker's route but its own. It is not kept. All of them
    /// get it or, where a mailbox is full, none.
    pub(crate) fn broadcast(
        &self,
        by: Speaker<'_>,
        publication: &Publication<'_>,
    ) -> Result<(), RoomError> {
        let frame = self.compressible(publication.encode(&[0]));
        let mut deferred = Deferred::default();
        // Held until it is posted, so that a connection that is taken over in between says nothing more.
        let state = by.session.state.lock();
        by.must_speak()?;
        let everyone = (0..self.post.workers()).map(|worker| (worker, frame.len()));
        let result = self.post.reserve_all(everyone, &mut deferred);
        if result.is_ok() {
            for worker in 0..self.post.workers() {
                let frame = frame.clone();
                self.post.put(
                    worker,
                    Letter::Broadcast { route: by.session.route, frame, except: by.conn },
                );
                deferred.ring.insert(worker);
            }
        }
        drop(state);
        self.post.finish(&deferred);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::{
        config::Config,
        hub::harness::{Bench, DEADLINE, STUCK},
    };

    #[test]
    fn a_repeat_at_the_same_moment_is_sent_once() {
        let mut bench = Bench::new(&Config::default(), 2, 1000);
        let (a, b) = (bench.client(0, true), bench.client(1, true));
        // Whichever has the smaller id, and whatever is locked first.
        for (from, to, worker) in [(&a, &b, 1), (&b, &a, 0), (&a, &a, 0)] {
            let id = Uuid::new_v4();
            let held = to.session.state.lock();
            let (tell, told) = crossbeam_channel::unbounded();
            for _ in 0..2 {
                let (hub, tell) = (Arc::clone(&bench.hub), tell.clone());
                let (from, conn) = (Arc::clone(&from.session), from.conn());
                let to = to.session.client_id;
                thread::spawn(move || {
                    let by = Speaker { session: &from, conn };
                    let _ = tell.send(hub.direct(by, &to, &Publication::from("x").dedup_id(id)));
                });
            }
            assert!(told.recv_timeout(STUCK).is_err(), "both wait for the receiver");
            drop(held);
            let repeated = [(); 2].map(|()| {
                let published = told.recv_timeout(DEADLINE).expect("it goes on");
                usize::from(published.expect("it is sent").repeated)
            });
            assert_eq!((repeated.iter().sum::<usize>(), bench.texts(worker).len()), (1, 1));
        }
    }

    #[test]
    fn two_that_send_to_each_other_do_not_wait_for_each_other() {
        const EACH: usize = 20_000;
        let mut bench = Bench::new(&Config::default(), 2, 4 * EACH);
        let (a, b) = (bench.client(0, true), bench.client(1, true));
        let (tell, told) = crossbeam_channel::unbounded();
        for (from, to) in [(&a, &b), (&b, &a)] {
            let (hub, tell) = (Arc::clone(&bench.hub), tell.clone());
            let (from, conn) = (Arc::clone(&from.session), from.conn());
            let to = to.session.client_id;
            thread::spawn(move || {
                let by = Speaker { session: &from, conn };
                let sent = (0..EACH).all(|_| hub.direct(by, &to, &"x".into()).is_ok());
                let _ = tell.send(sent);
            });
        }
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(DEADLINE), Ok(true));
        }
    }

    #[test]
    fn who_was_taken_over_says_nothing_more() {
        let mut bench = Bench::new(&Config::default(), 1, 1000);
        let (old, other) = (bench.client(0, true), bench.client(0, true));
        let mut new = bench.client(0, true);
        new.resume(&old.session).expect("it is there");
        bench.letters(0);
        let (hub, to) = (&bench.hub, other.session.client_id);
        let old = Speaker { session: &old.session, conn: old.conn() };
        assert_eq!(hub.direct(old, &to, &"x".into()).err(), Some(RoomError::TakenOver));
        let broadcast = hub.broadcast(old, &"x".into());
        assert_eq!(broadcast, Err(RoomError::TakenOver));
        assert!(bench.texts(0).is_empty());
        let new = Speaker { session: &new.session, conn: new.conn() };
        assert!(hub.direct(new, &to, &"x".into()).is_ok());
        let nobody = Uuid::new_v4();
        assert_eq!(hub.direct(new, &nobody, &"x".into()).err(), Some(RoomError::NoSuchClient));
    }
}
