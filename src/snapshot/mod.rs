//! The file in which a server that drains leaves its rooms and sessions to the next one.
//!
//! A header with the version and the time, then records, each with its length and a checksum over
//! everything up to its end, so that no part can be changed, left out or moved unseen. The last
//! record says how many there are. Records are written with `postcard`: it is compact, keeps bytes
//! as they are, and never reserves more memory than it was given bytes. What is in them is for the
//! hub to say; here is how they are kept.

mod records;
mod stream;
pub(crate) mod disk;

pub(crate) use records::{
    Bytes, GrantRecord, IdentityRecord, MembershipRecord, OwnerRecord, Payload, RecentRecord,
    RecipientRecord, Record, RevocationRecord, RoomRecord, SessionRecord,
};
pub(crate) use stream::{MESSAGE_OVERHEAD_BYTES, SnapshotReader, SnapshotWriter, Unreadable};
