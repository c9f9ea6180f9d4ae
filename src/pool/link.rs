//! A handler's way to its connection when it runs on the worker: direct, without a letter.

use std::{net::SocketAddr, sync::Arc};

use uuid::Uuid;

use super::{core::Core, desk::Desk};
use crate::{
    handler::{Link, Peer, SendStatus},
    hub::{HubError, Joined, Page, Publication, Published, Replay, rooms::RoomName},
    store::Range,
    ws::{
        close::CloseReason,
        frame::{Message, PreparedFrame},
    },
};

/// One connection and its worker's desk, for the length of one handler call.
pub(super) struct WorkerLink<'a> {
    pub(super) core: &'a mut Core,
    pub(super) desk: &'a mut Desk,
    pub(super) client_id: Uuid,
}

impl Link for WorkerLink<'_> {
    fn client_id(&self) -> Uuid {
        self.client_id
    }

    fn remote_addr(&self) -> SocketAddr {
        self.core.remote
    }

    fn send(&mut self, message: Message<'_>) -> SendStatus {
        if !self.core.may_queue(message.as_bytes().len(), self.desk) {
            return SendStatus::Dropped;
        }
        self.core.queue(message, self.desk);
        self.core.sent(self.desk)
    }

    fn send_prepared(&mut self, frame: &PreparedFrame) -> SendStatus {
        if !self.core.may_queue(frame.len(), self.desk) {
            return SendStatus::Dropped;
        }
        self.core.queue_prepared(frame, self.desk);
        self.core.sent(self.desk)
    }

    fn join(&mut self, name: &RoomName, replay: Replay) -> Result<Joined, HubError> {
        let slot = self.core.slot();
        if self.is_member(name.as_str()) {
            return Err(HubError::AlreadyMember);
        }
        if self.desk.members.count(slot) >= self.desk.shared.hub.memberships_max {
            return Err(HubError::TooManyMemberships);
        }
        let hub = &self.desk.shared.hub;
        let (room, joined) = hub.join(name, self.desk.worker, replay, |_, _| ())?;
        self.desk.members.add(slot, room, joined.position.seq);
        Ok(joined)
    }

    fn leave(&mut self, name: &str) -> Result<(), HubError> {
        let slot = self.core.slot();
        let left = self.desk.members.remove(slot, |room| room.name.as_str() == name);
        let room = left.ok_or(HubError::NotMember)?;
        self.desk.shared.hub.leave(&room, self.desk.worker);
        Ok(())
    }

    fn is_member(&self, room: &str) -> bool {
        self.desk.members.find(self.core.slot(), room).is_some()
    }

    fn publish(
        &mut self,
        name: &str,
        publication: &Publication<'_>,
        skip_self: bool,
    ) -> Result<Published, HubError> {
        let hub = &self.desk.shared.hub;
        let except = skip_self.then_some(self.core.id);
        // A member finds its room without the directory, which everyone shares.
        let published = match self.desk.members.find(self.core.slot(), name) {
            Some(room) => hub.publish(room, publication, except)?,
            None => {
                let room = hub.rooms.find(name).ok_or(HubError::NoSuchRoom)?;
                hub.publish(&room, publication, except)?
            }
        };
        if published.behind {
            self.desk.feel_pressure();
        }
        Ok(published)
    }

    fn history(&mut self, name: &str, range: Range, limit: usize) -> Result<Page, HubError> {
        let hub = &self.desk.shared.hub;
        let found = self.desk.members.find(self.core.slot(), name).map(Arc::clone);
        let room = found.or_else(|| hub.rooms.find(name)).ok_or(HubError::NoSuchRoom)?;
        Ok(hub.history(&room, range, limit))
    }

    fn close(&mut self, reason: CloseReason) {
        self.core.ask_close(reason, self.desk);
    }

    fn peer(&self) -> Peer {
        Peer {
            conn: self.core.id,
            client_id: self.client_id,
            post: self.desk.shared.hub.post.clone(),
        }
    }
}
