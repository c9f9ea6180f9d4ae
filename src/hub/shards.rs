//! Which of several engines a room or a client belongs to.
//!
//! All nodes compute the same from the name alone, so nothing needs to be asked. With one engine
//! nothing is computed.

use uuid::Uuid;

use super::names::RoomName;
use crate::config::REDIS_URLS_MAX;

/// The most engines.
const SHARDS_MAX: usize = REDIS_URLS_MAX;

const _: () = assert!(SHARDS_MAX <= u64::BITS as usize, "each has a bit of a word");

/// How many engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shards {
    count: usize,
}

impl Shards {
    pub(crate) const ONE: Shards = Shards { count: 1 };

    /// So many, and one at least.
    pub(crate) fn new(count: usize) -> Shards {
        Shards { count: count.clamp(1, SHARDS_MAX) }
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// A bit for each of them.
    pub(crate) fn all(self) -> u64 {
        u64::MAX >> (u64::BITS as usize - self.count)
    }

    /// The one that has a room: by its tag if it has one, so that rooms can be kept together.
    pub(crate) fn of_room(self, room: &RoomName) -> usize {
        match self.count {
            1 => 0,
            count => jump(hash(tag(room.as_str()).as_bytes()), count),
        }
    }

    /// The one that has the session of a client.
    pub(crate) fn of_client(self, client: Uuid) -> usize {
        match self.count {
            1 => 0,
            count => jump(hash(client.as_bytes()), count),
        }
    }

    /// The places of two rooms that are not in one shard, if there are such.
    pub(crate) fn apart(self, rooms: &[RoomName]) -> Option<(usize, usize)> {
        let (first, others) = rooms.split_first().filter(|_| self.count > 1)?;
        let shard = self.of_room(first);
        let at = others.iter().position(|room| self.of_room(room) != shard)?;
        Some((0, at + 1))
    }
}

/// What stands between the first `{` and the next `}`, or else all of the name.
fn tag(name: &str) -> &str {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(name)
}

/// FNV-1a, whose bits are mixed once more, because names that differ in their last letter are alike
/// in its upper bits.
fn hash(bytes: &[u8]) -> u64 {
    mixed(fnv_1a(bytes))
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The last step of MurmurHash3.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Jump consistent hash (Lamping and Veach, 2014): one more bucket takes an even share from each of
/// the others, and nothing moves between those.
fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_u64, 0_u64);
    while next < buckets as u64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let share = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * share) as u64;
    }
    bucket as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RoomName {
        RoomName::new(text).expect("a legal name")
    }

    #[test]
    fn keys_jump_as_published() {
        // As several libraries have them.
        for (key, buckets, bucket) in [
            (0, 1, 0),
            (1, 1, 0),
            (0, 2, 0),
            (4, 2, 1),
            (7, 2, 0),
            (42, 57, 43),
            (1, 128, 55),
            (129, 128, 120),
            (256, 1024, 520),
            (0xdead_10cc, 1, 0),
            (0xdead_10cc, 666, 361),
            (128, 100_000_000, 38_172_097),
            (u64::MAX, 128, 92),
        ] {
            assert_eq!(jump(key, buckets), bucket, "{key} among {buckets}");
        }
    }

    #[test]
    fn names_are_hashed_as_published() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv_1a(text.as_bytes()), hash, "{text:?}");
        }
        assert_eq!(mixed(1), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn rooms_of_one_tag_are_together() {
        for (text, expected) in [
            ("a", "a"),
            ("{a}b", "a"),
            ("b.{a}", "a"),
            ("x{a}y{b}", "a"),
            ("{}a", "{}a"),
            ("{a", "{a"),
            ("a}", "a}"),
            ("}{a}", "a"),
            ("{}{a}", "{}{a}"),
            ("{{a}}", "{a"),
            ("{a{b}", "a{b"),
        ] {
            assert_eq!(tag(text), expected, "{text}");
        }
        let shards = Shards::new(5);
        let rooms: Vec<_> = (0..50).map(|n| name(&format!("{{eur}}.{n}"))).collect();
        assert_eq!(shards.apart(&rooms), None);
        let rooms: Vec<_> = (0..50).map(|n| name(&format!("eur.{n}"))).collect();
        let (a, b) = shards.apart(&rooms).expect("they are spread");
        assert_ne!(shards.of_room(&rooms[a]), shards.of_room(&rooms[b]));
        assert_eq!(Shards::ONE.apart(&rooms), None);
    }

    #[test]
    fn rooms_are_spread_evenly_and_move_to_a_new_shard_alone() {
        let (before, after) = (Shards::new(4), Shards::new(5));
        let rooms: Vec<_> = (0..10_000).map(|n| name(&format!("room-{n}"))).collect();
        let mut counts = [0; 5];
        for room in &rooms {
            let (was, is) = (before.of_room(room), after.of_room(room));
            assert!(is == was || is == 4, "{room} moved from {was} to {is}");
            counts[is] += 1;
        }
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
        assert_eq!((before.all(), Shards::ONE.all(), Shards::new(64).all()), (15, 1, u64::MAX));
    }
}
