//! What is to be written, cut into the plaintext of TLS records.

use std::io::IoSlice;

/// The most plaintext in a record (RFC 8446, section 5.1).
pub(super) const RECORD_BYTES_MAX: usize = 16 << 10;

/// Cuts what is to be written into records: as large as they may be, and without a copy where one
/// slice fills a record or is the last.
pub(super) struct Records<'s, 'b> {
    slices: &'s [IoSlice<'b>],
    /// Bytes of the first slice that are taken already.
    taken: usize,
}

impl<'s, 'b> Records<'s, 'b> {
    pub(super) fn new(slices: &'s [IoSlice<'b>]) -> Records<'s, 'b> {
        Records { slices, taken: 0 }
    }

    /// The next record's plaintext; empty at the end.
    pub(super) fn next<'r>(&mut self, gathered: &'r mut Vec<u8>) -> &'r [u8]
    where
        's: 'r,
    {
        let part = self.part(RECORD_BYTES_MAX);
        if part.len() == RECORD_BYTES_MAX || self.slices.is_empty() {
            return part;
        }
        gathered.clear();
        gathered.extend_from_slice(part);
        while !self.slices.is_empty() && gathered.len() < RECORD_BYTES_MAX {
            gathered.extend_from_slice(self.part(RECORD_BYTES_MAX - gathered.len()));
        }
        gathered
    }

    /// Takes at most `bytes_max` off the front, of one slice.
    fn part(&mut self, bytes_max: usize) -> &'s [u8] {
        let slices: &'s [IoSlice<'b>] = self.slices;
        let Some((first, behind)) = slices.split_first() else { return &[] };
        let rest = &first[self.taken..];
        let part = &rest[..rest.len().min(bytes_max)];
        self.taken += part.len();
        if self.taken == first.len() {
            (self.slices, self.taken) = (behind, 0);
        }
        part
    }
}
