//! Snapshots as streams of bytes: the header, and the records with their lengths and checksums.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read, Write},
};

use crc32fast::Hasher;

use super::records::{FRAMING_BYTES, MAGIC, Record};

/// The version of the format that this program writes, and the only one that it reads.
const VERSION: u32 = 2;

/// Magic, version, time and checksum.
const HEADER_BYTES: u64 = 8 + 4 + 8 + 4;

/// The last record at its longest.
const END_BYTES: u64 = FRAMING_BYTES + 16;

/// Writes a snapshot, and no more than a bound. Used by one thread.
pub(crate) struct SnapshotWriter<W> {
    out: W,
    /// Of everything that was written.
    hash: Hasher,
    bytes: u64,
    bytes_max: u64,
    records: u64,
    buffer: Vec<u8>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the header. `written_at_ms` is in milliseconds since 1970.
    pub(crate) fn new(mut out: W, written_at_ms: u64, bytes_max: u64) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&written_at_ms.to_le_bytes());
        let mut hash = Hasher::new();
        hash.update(&header);
        header.extend_from_slice(&hash.clone().finalize().to_le_bytes());
        out.write_all(&header)?;
        let (bytes, records, buffer) = (HEADER_BYTES, 0, Vec::new());
        Ok(SnapshotWriter { out, hash, bytes, bytes_max, records, buffer })
    }

    /// The bytes that further records may have, with what frames them.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes + END_BYTES)
    }

    /// Writes a record. Returns whether there was space for it.
    pub(crate) fn put(&mut self, record: &Record<'_>) -> io::Result<bool> {
        self.encode(record)?;
        let fits = self.buffer.len() as u64 + FRAMING_BYTES <= self.bytes_left();
        if fits {
            self.write()?;
        }
        Ok(fits)
    }

    /// Returns the bytes that a record would take.
    pub(crate) fn measure(&mut self, record: &Record<'_>) -> io::Result<u64> {
        self.encode(record)?;
        Ok(self.buffer.len() as u64 + FRAMING_BYTES)
    }

    /// Writes the last record. Returns what was written to, and the bytes.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        self.encode(&Record::End { records: self.records })?;
        self.write()?;
        self.out.flush()?;
        Ok((self.out, self.bytes))
    }

    fn encode(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.buffer.clear();
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(record, buffer).map_err(io::Error::other)?;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.buffer.len()).map_err(io::Error::other)?.to_le_bytes();
        self.hash.update(&len);
        self.hash.update(&self.buffer);
        self.out.write_all(&len)?;
        self.out.write_all(&self.hash.clone().finalize().to_le_bytes())?;
        self.out.write_all(&self.buffer)?;
        self.bytes += FRAMING_BYTES + self.buffer.len() as u64;
        self.records += 1;
        Ok(())
    }
}

/// Why a snapshot cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Io(io::Error),
    Foreign,
    /// Of another version of the format.
    Version(u32),
    Header,
    Truncated,
    /// This record is not what was written.
    Checksum(u64),
    /// This record makes no sense.
    Malformed(u64, Cow<'static, str>),
    Trailing,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Io(error) => error.fmt(f),
            Unreadable::Foreign => f.write_str("it is no snapshot of this server"),
            Unreadable::Version(version) => write!(
                f,
                "its format has version {version}, and this program reads version {VERSION} alone"
            ),
            Unreadable::Header => f.write_str("its header is damaged"),
            Unreadable::Truncated => f.write_str("it is cut off"),
            Unreadable::Checksum(record) => write!(f, "its record {record} is damaged"),
            Unreadable::Malformed(record, what) => write!(f, "its record {record} has {what}"),
            Unreadable::Trailing => f.write_str("something follows its end"),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Unreadable::Truncated,
            _ => Unreadable::Io(error),
        }
    }
}

/// Reads a snapshot, record by record. Used by one thread.
pub(crate) struct SnapshotReader<R> {
    input: R,
    hash: Hasher,
    /// What is left of the file: no record is longer, whatever its length says.
    bytes_left: u64,
    records: u64,
    written_at_ms: u64,
    buffer: Vec<u8>,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header of a snapshot of so many bytes.
    pub(crate) fn new(mut input: R, bytes: u64) -> Result<Self, Unreadable> {
        let magic: [u8; 8] = take(&mut input)?;
        if magic != MAGIC {
            return Err(Unreadable::Foreign);
        }
        let version: [u8; 4] = take(&mut input)?;
        if u32::from_le_bytes(version) != VERSION {
            return Err(Unreadable::Version(u32::from_le_bytes(version)));
        }
        let time: [u8; 8] = take(&mut input)?;
        let mut hash = Hasher::new();
        [&magic[..], &version, &time].iter().for_each(|part| hash.update(part));
        if take(&mut input)? != hash.clone().finalize().to_le_bytes() {
            return Err(Unreadable::Header);
        }
        Ok(SnapshotReader {
            input,
            hash,
            bytes_left: bytes.saturating_sub(HEADER_BYTES),
            records: 0,
            written_at_ms: u64::from_le_bytes(time),
            buffer: Vec::new(),
        })
    }

    /// When it was written, in milliseconds since 1970.
    pub(crate) fn written_at_ms(&self) -> u64 {
        self.written_at_ms
    }

    /// Reads the next record; `None` after the last one, behind which nothing may follow.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, Unreadable> {
        self.bytes_left =
            self.bytes_left.checked_sub(FRAMING_BYTES).ok_or(Unreadable::Truncated)?;
        let len: [u8; 4] = take(&mut self.input)?;
        let checksum: [u8; 4] = take(&mut self.input)?;
        let bytes = u64::from(u32::from_le_bytes(len));
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Unreadable::Truncated)?;
        self.buffer.clear();
        if (&mut self.input).take(bytes).read_to_end(&mut self.buffer)? as u64 != bytes {
            return Err(Unreadable::Truncated);
        }
        self.hash.update(&len);
        self.hash.update(&self.buffer);
        if self.hash.clone().finalize().to_le_bytes() != checksum {
            return Err(Unreadable::Checksum(self.records));
        }
        let malformed = |what: &'static str| Unreadable::Malformed(self.records, what.into());
        let (record, rest) = postcard::take_from_bytes::<Record<'_>>(&self.buffer)
            .map_err(|_| malformed("an unknown form"))?;
        if !rest.is_empty() {
            return Err(malformed("bytes that belong to nothing"));
        }
        if let Record::End { records } = record {
            if records != self.records {
                return Err(malformed("another number of records"));
            }
            let is_over = self.bytes_left == 0 && self.input.read(&mut [0])? == 0;
            return if is_over { Ok(None) } else { Err(Unreadable::Trailing) };
        }
        self.records += 1;
        Ok(Some(record))
    }

    /// The error for the record that was just read.
    pub(crate) fn malformed(&self, what: impl Into<Cow<'static, str>>) -> Unreadable {
        Unreadable::Malformed(self.records.saturating_sub(1), what.into())
    }
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Bytes, OwnerRecord, Payload, RoomRecord};

    fn written(texts: &[&str]) -> Vec<u8> {
        let mut writer = SnapshotWriter::new(Vec::new(), 7, 1 << 20).expect("memory");
        let owner = OwnerRecord::Many;
        let room = RoomRecord { name: "tea".into(), epoch: 1, began_seq: 0, seq: 9, owner };
        assert!(writer.put(&Record::Room(room)).expect("memory"));
        for (seq, text) in (1..).zip(texts) {
            let payload = match seq % 2 {
                0 => Payload::Text(text),
                _ => Payload::Binary(Bytes(text.as_bytes())),
            };
            assert!(
                writer
                    .put(&Record::Message { room: 0, seq, age_ms: 5, is_shared: false, payload })
                    .expect("memory")
            );
        }
        writer.finish().expect("memory").0
    }

    /// Reads everything. Returns the number of records.
    fn read(bytes: &[u8]) -> Result<usize, Unreadable> {
        let mut reader = SnapshotReader::new(bytes, bytes.len() as u64)?;
        let mut records = 0;
        while reader.next()?.is_some() {
            records += 1;
        }
        Ok(records)
    }

    #[test]
    fn every_byte_counts_and_none_may_be_missing_or_more() {
        let bytes = written(&["one", "", "three"]);
        assert_eq!(read(&bytes).expect("it is whole"), 4);
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut off at {at}");
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "bit {bit} of byte {at}");
            }
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(matches!(read(&more), Err(Unreadable::Trailing)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let bytes = written(&["one"]);
        let error = |bytes: &[u8]| read(bytes).expect_err("it is refused").to_string();
        assert_eq!(error(b"#!/bin/sh\nexit 0\n"), "it is no snapshot of this server");
        assert_eq!(error(b""), "it is cut off");
        let mut later = bytes.clone();
        later[8] = 3;
        assert!(error(&later).starts_with("its format has version 3"), "{}", error(&later));
        let mut longer = bytes.clone();
        longer[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(error(&longer), "it is cut off", "and four gigabytes are not reserved");
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let mut writer = SnapshotWriter::new(Vec::new(), 7, 200).expect("memory");
        let message = |text| Record::Direct { seq: 1, payload: Payload::Text(text) };
        let long = "x".repeat(150);
        assert!(!writer.put(&message(&long)).expect("memory"));
        let fits = |text| usize::from(text);
        let mut put = 0;
        while writer.put(&message("sixteen bytes ok")).expect("memory") {
            put += fits(true);
        }
        let (bytes, len) = writer.finish().expect("memory");
        assert!(put > 2 && bytes.len() <= 200 && bytes.len() as u64 == len, "{put} {len}");
        assert_eq!(read(&bytes).expect("it is whole"), put);
    }
}
