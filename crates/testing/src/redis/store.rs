//! What a Redis keeps: keys, their values, and when they expire.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(Bytes),
    /// Fields and values, in the order in which the fields came.
    Hash(BTreeMap<Bytes, Bytes>),
    /// A set.
    Set(BTreeSet<Bytes>),
    /// Members and scores.
    Sorted(BTreeMap<Bytes, f64>),
    /// A stream.
    Stream(Stream),
}

/// Fields and values of an entry, one behind the other.
pub(super) type Fields = Vec<Bytes>;

/// A stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stream {
    /// By id, the entries.
    pub entries: BTreeMap<(u64, u64), Fields>,
    /// The last id, which may be of an entry that is gone.
    pub last: (u64, u64),
}

/// Keys and values.
#[derive(Debug, Clone, Default)]
pub struct Store {
    keys: BTreeMap<Bytes, Kept>,
    now_ms: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    value: Value,
    until_ms: Option<u64>,
}

/// What a command is told that finds a value of another kind.
pub(super) const WRONG_KIND: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value";

/// Finds a value of one kind, and makes an empty one.
pub trait Kind: Sized {
    /// Finds it in a value.
    fn of(value: &mut Value) -> Option<&mut Self>;
    /// An empty one.
    fn empty() -> Value;
    /// Whether there is nothing in it, so that its key is gone.
    fn is_empty(&self) -> bool;
}

macro_rules! kinds {
    ($( $kind:ty => $variant:ident, $is_gone:expr; )*) => {
        $( impl Kind for $kind {
            fn of(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$variant(it) => Some(it),
                    _ => None,
                }
            }

            fn empty() -> Value {
                Value::$variant(<$kind>::default())
            }

            fn is_empty(&self) -> bool {
                let is_gone: fn(&$kind) -> bool = $is_gone;
                is_gone(self)
            }
        } )*
    };
}

kinds! {
    BTreeMap<Bytes, Bytes> => Hash, |it| it.len() == 0;
    BTreeSet<Bytes> => Set, |it| it.len() == 0;
    BTreeMap<Bytes, f64> => Sorted, |it| it.len() == 0;
    // An empty stream stays.
    Stream => Stream, |_| false;
    Bytes => Text, |_| false;
}

impl Store {
    pub(super) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// It is of another kind.
    pub fn find<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&mut K>, &'static str> {
        self.expire(key);
        match self.keys.get_mut(key) {
            None => Ok(None),
            Some(kept) => K::of(&mut kept.value).map(Some).ok_or(WRONG_KIND),
        }
    }

    /// Changes the value of a key, which is made if there is none, and goes if it is empty then.
    ///
    /// # Errors
    /// It is of another kind.
    pub fn change<K: Kind, R>(
        &mut self,
        key: &Bytes,
        change: impl FnOnce(&mut K) -> R,
    ) -> Result<R, &'static str> {
        self.expire(key);
        let made = || Kept { value: K::empty(), until_ms: None };
        let kept = self.keys.entry(key.clone()).or_insert_with(made);
        let value = K::of(&mut kept.value).ok_or(WRONG_KIND)?;
        let result = change(value);
        if value.is_empty() {
            self.keys.remove(key);
        }
        Ok(result)
    }

    /// Puts a value in place of whatever a key has.
    pub fn put(&mut self, key: Bytes, value: Value, until_ms: Option<u64>) {
        self.keys.insert(key, Kept { value, until_ms });
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.expire(key);
        self.keys.remove(key).is_some()
    }

    /// Has a key go in so many milliseconds; whether it is there.
    pub fn expire_in(&mut self, key: &[u8], ms: i64) -> bool {
        self.expire(key);
        let until_ms = self.now_ms.saturating_add_signed(ms);
        let kept = self.keys.get_mut(key);
        kept.map(|kept| kept.until_ms = Some(until_ms)).is_some()
    }

    /// The time, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The keys that there are.
    pub fn keys(&mut self) -> Vec<Bytes> {
        let now_ms = self.now_ms;
        self.keys.retain(|_, kept| kept.until_ms.is_none_or(|until_ms| until_ms > now_ms));
        self.keys.keys().cloned().collect()
    }

    fn expire(&mut self, key: &[u8]) {
        let is_over = |kept: &Kept| kept.until_ms.is_some_and(|until_ms| until_ms <= self.now_ms);
        if self.keys.get(key).is_some_and(is_over) {
            self.keys.remove(key);
        }
    }
}
