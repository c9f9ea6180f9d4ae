//! Snapshots without the feature `snapshot`: none is written, and none is read.

use std::{borrow::Cow, convert::Infallible, fmt, io, marker::PhantomData};

use super::records::Record;

/// Why a snapshot is neither written nor read.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this server was built without the cargo feature `snapshot`")
    }
}

/// No writer.
pub(crate) struct SnapshotWriter<W> {
    never: Infallible,
    of: PhantomData<W>,
}

impl<W> SnapshotWriter<W> {
    pub(crate) fn new(_: W, _: u64, _: u64) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, Unreadable.to_string()))
    }

    pub(crate) fn bytes_left(&self) -> u64 {
        match self.never {}
    }

    pub(crate) fn put(&mut self, _: &Record<'_>) -> io::Result<bool> {
        match self.never {}
    }

    pub(crate) fn measure(&mut self, _: &Record<'_>) -> io::Result<u64> {
        match self.never {}
    }

    pub(crate) fn finish(self) -> io::Result<(W, u64)> {
        match self.never {}
    }
}

/// No reader.
pub(crate) struct SnapshotReader<R> {
    never: Infallible,
    of: PhantomData<R>,
}

impl<R> SnapshotReader<R> {
    pub(crate) fn new(_: R, _: u64) -> Result<Self, Unreadable> {
        Err(Unreadable)
    }

    pub(crate) fn written_at_ms(&self) -> u64 {
        match self.never {}
    }

    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, Unreadable> {
        match self.never {}
    }

    pub(crate) fn malformed(&self, _: impl Into<Cow<'static, str>>) -> Unreadable {
        match self.never {}
    }
}
