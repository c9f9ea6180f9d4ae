//! A publisher outside of any connection, such as a program that uses the server API.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Hub,
    conn_id::ConnId,
    error::RoomError,
    mailbox::Deferred,
    names::RoomName,
    notice::{Notice, NoticeFormatter},
    publish::{Publication, Published, PublishedToRooms},
    room::Room,
    session::{Sender, Session},
};
use crate::ws::frame::PreparedFrame;

/// A route that does not exist.
const NO_ROUTE: u16 = u16::MAX;

/// Tries to publish to rooms of which a sweep takes one away between two locks.
const TRIES_MAX: usize = 3;

/// A publisher outside of any connection. Remembers the ids of its last 2,048 publishes, so that a
/// repeat is not published again, and is charged for its deliveries as a client is. Usable from any
/// thread.
pub struct Publisher {
    session: Arc<Session>,
    /// What other servers know it by.
    name: Box<str>,
}

impl Default for Publisher {
    fn default() -> Publisher {
        Publisher::new()
    }
}

impl Publisher {
    /// The `client_id` of a publisher's messages: the nil UUID, which no client has.
    pub const CLIENT_ID: Uuid = Uuid::nil();

    /// Makes a publisher that has published nothing.
    pub fn new() -> Publisher {
        let session = Session::new(
            Publisher::CLIENT_ID,
            ConnId::NONE,
            NO_ROUTE,
            false,
            Arc::new(Unheard),
            (0, 0),
        );
        session.state.lock().set_publisher();
        Publisher { session: Arc::new(session), name: Box::default() }
    }

    /// Makes a publisher of this name. Where rooms are shared with other servers
    /// ([`Config::engine`](crate::Config::engine)), publishers of one name are one: a message with
    /// an id that one of them has published is known to the others.
    pub fn named(name: &str) -> Publisher {
        Publisher { name: name.into(), ..Publisher::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether so many deliveries of its messages are still to be made that it should wait.
    pub(crate) fn is_behind(&self) -> bool {
        self.session.has_too_much_in_flight()
    }

    fn sender(&self) -> Sender<'_> {
        Sender { session: &self.session, conn: ConnId::NONE }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Words notices for a publisher, which gets none.
struct Unheard;

impl NoticeFormatter for Unheard {
    fn notice(&self, _: &Notice<'_>) -> Option<PreparedFrame> {
        None
    }
}

impl Hub {
    /// Publishes to one room or several, and makes those that do not exist. The connection of
    /// `without` does not get the message.
    pub(crate) fn publish_from_outside(
        &self,
        publisher: &Publisher,
        names: &[RoomName],
        publication: Publication<'_>,
        without: Option<&Uuid>,
    ) -> Result<PublishedToRooms, RoomError> {
        // Before rooms are made for it.
        self.check_memory()?;
        let without = without.and_then(|id| self.sessions.find(id)?.conn());
        let publication = publication.without(without);
        let mut result = Err(RoomError::NoSuchRoom);
        for _ in 0..TRIES_MAX {
            let rooms = self.open_rooms(names)?;
            let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
            result = self.publish_to_rooms(publisher.sender(), &rooms, &publication);
            if result != Err(RoomError::NoSuchRoom) {
                break;
            }
        }
        result
    }

    fn open_rooms(&self, names: &[RoomName]) -> Result<Vec<Arc<Room>>, RoomError> {
        let mut deferred = Deferred::default();
        let open = |name| self.rooms.enter(name, &mut deferred, |_, _| ()).map(|(room, ())| room);
        let rooms = names.iter().map(open).collect();
        self.mailboxes.after_unlock(&deferred);
        rooms
    }

    /// Sends a message to one session.
    pub(crate) fn direct_from_outside(
        &self,
        publisher: &Publisher,
        to: &Uuid,
        publication: &Publication<'_>,
    ) -> Result<Published, RoomError> {
        self.direct(publisher.sender(), to, publication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        hub::{
            harness::{Bench, name},
            session::{PUBLISHER_RECENT_IDS_MAX, Recipient},
        },
    };

    /// The most rooms of one message of the chat protocol.
    const ROOMS_MAX: usize = 32;

    #[test]
    fn a_room_is_made_a_repeat_is_known_and_one_client_is_left_out() {
        let bench = Bench::new(&Config::default(), 1, 1000);
        let (publisher, other) = (Publisher::new(), Publisher::new());
        let publish = |publisher: &Publisher, rooms: &[&str], id, without: Option<&Uuid>| {
            let rooms: Vec<_> = rooms.iter().map(|room| name(room)).collect();
            let publication = Publication::from("x").dedup_id(id);
            bench.hub.publish_from_outside(publisher, &rooms, publication, without)
        };
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        let first = publish(&publisher, &["new"], a, None).expect("it is made");
        assert_eq!((&first.seqs[..], first.repeated), (&[1][..], false));
        let again = publish(&publisher, &["new"], a, None).expect("it is there");
        assert_eq!((&again.seqs[..], again.repeated), (&[1][..], true));
        let of_other = publish(&other, &["new"], a, None).expect("it is there");
        assert_eq!((&of_other.seqs[..], of_other.repeated), (&[2][..], false));
        assert_eq!(publish(&other, &["new", "two"], a, None).expect("made").seqs[..], [3, 1]);
        let twice = publish(&other, &["new", "new"], b, None);
        assert_eq!(twice, Err(RoomError::SameRoomTwice));
    }

    #[test]
    fn as_many_ids_are_remembered_whatever_the_number_of_rooms() {
        let bench = Bench::new(&Config::default(), 1, 1000);
        let enter = |n: usize| {
            bench.hub.rooms.enter(&name(&n.to_string()), &mut Deferred::default(), |_, _| ())
        };
        let rooms: Vec<_> = (0..ROOMS_MAX).map(|n| enter(n).expect("a room").0).collect();
        let rooms: Vec<&Room> = rooms.iter().map(AsRef::as_ref).collect();
        let publisher = Publisher::new();
        let mut state = publisher.session.state.lock();
        let ids: Vec<Uuid> = (0..PUBLISHER_RECENT_IDS_MAX).map(|_| Uuid::new_v4()).collect();
        for id in &ids {
            let to = Recipient::rooms(&rooms, &[1; ROOMS_MAX]);
            state.remember_publish(*id, to, &bench.hub.account.sessions);
        }
        assert!(ids.iter().all(|id| state.recent_publish(*id, &rooms).is_some()));
    }

    #[test]
    fn a_batch_of_a_thousand_can_be_repeated() {
        let bench = Bench::new(&Config::default(), 1, 1000);
        let publisher = Publisher::new();
        let ids: Vec<Uuid> = (0..1000).map(|_| Uuid::new_v4()).collect();
        for is_repeat in [false, true] {
            for id in &ids {
                let publication = Publication::from("x").dedup_id(*id);
                let to = [name("a")];
                let published = bench.hub.publish_from_outside(&publisher, &to, publication, None);
                assert_eq!(published.expect("a place").repeated, is_repeat);
            }
        }
    }
}
