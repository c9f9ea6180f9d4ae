//! The file in which a server that drains leaves its rooms and sessions to the next one.
//!
//! A header with the version and the time, then records, each with its length and a checksum over
//! everything up to its end, so that no part can be changed, left out or moved unseen. The last
//! record says how many there are. Records are written with `postcard`: it is compact, keeps bytes
//! as they are, and never reserves more memory than it was given bytes. What is in them is for the
//! hub to say; here is how they are kept.
//!
//! Needs the cargo feature `snapshot`; without it a configuration that names such a file is
//! refused.

mod records;
#[cfg(feature = "snapshot")]
mod stream;
#[cfg(not(feature = "snapshot"))]
#[path = "no_stream.rs"]
mod stream;
pub(crate) mod disk;

pub(crate) use records::{
    Bytes, GrantRecord, IdentityRecord, MESSAGE_OVERHEAD_BYTES, MembershipRecord, OwnerRecord,
    Payload, RecentRecord, RecipientRecord, Record, RevocationRecord, RoomRecord, SessionRecord,
};
pub(crate) use stream::{SnapshotReader, SnapshotWriter, Unreadable};

use crate::{config::Config, error::Error};

/// Refuses a configuration with a snapshot in a server without the feature `snapshot`.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    match cfg!(feature = "snapshot") || !config.leaves_snapshot() {
        true => Ok(()),
        false => Err(Error::config(
            "snapshot: this server was built without the cargo feature `snapshot`",
        )),
    }
}
