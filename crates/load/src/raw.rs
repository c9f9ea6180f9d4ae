//! Messages without a protocol: a stream of bytes, cut by size.

/// The part of a message that has come. Used by one thread.
pub(crate) struct RawMessages {
    size: usize,
    partial: Vec<u8>,
}

impl RawMessages {
    /// Cuts a stream into messages of `size` bytes, which is at least 1.
    pub(crate) fn new(size: usize) -> RawMessages {
        RawMessages { size: size.max(1), partial: Vec::new() }
    }

    /// Hands over each message that is whole by now; what is left over waits for more.
    pub(crate) fn cut(&mut self, mut bytes: &[u8], mut on_message: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.size - self.partial.len()));
            bytes = rest;
            if part.len() == self.size {
                on_message(part);
                continue;
            }
            self.partial.extend_from_slice(part);
            if self.partial.len() == self.size {
                on_message(&self.partial);
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_by_size() {
        let (mut raw, mut messages) = (RawMessages::new(10), Vec::new());
        for part in ["abcde", "fghij", "k", "lmnopqrstuvwxyz01234", "5678"] {
            raw.cut(part.as_bytes(), |message| {
                messages.push(String::from_utf8_lossy(message).into_owned());
            });
        }
        assert_eq!(messages, ["abcdefghij", "klmnopqrst", "uvwxyz0123"]);
        assert_eq!(raw.partial, b"45678");
    }
}
