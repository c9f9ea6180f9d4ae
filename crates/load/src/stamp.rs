//! What a published message carries so that its delivery is known anywhere: whose it is, and when
//! it was meant to be published.

use std::{
    io::Write,
    time::{Duration, Instant},
};

/// `[load:` run `:` nanoseconds `]`: eight and sixteen hex digits. It is plain text that needs no
/// escape in JSON, so that it survives a server that wraps messages.
pub(crate) const BYTES: usize = 32;

const PREFIX: &[u8] = b"[load:";

/// Writes and finds the stamps of one run.
pub(crate) struct Stamps {
    run: u32,
    began: Instant,
    /// Where the last stamp was found: the next is mostly at the same place.
    place: usize,
}

impl Stamps {
    pub(crate) fn new(run: u32, began: Instant) -> Stamps {
        Stamps { run, began, place: 0 }
    }

    /// Writes the stamp over the first [`BYTES`] of `form`.
    pub(crate) fn write(&self, form: &mut [u8], intended: Instant) {
        let nanos = intended.saturating_duration_since(self.began).as_nanos() as u64;
        write!(&mut form[..BYTES], "[load:{:08x}:{nanos:016x}]", self.run)
            .expect("the stamp has exactly as many bytes");
    }

    /// When the message was meant to be published, if it is of this run.
    pub(crate) fn read(&mut self, message: &[u8]) -> Option<Instant> {
        if !message.get(self.place..).is_some_and(|rest| rest.starts_with(PREFIX)) {
            self.place = message.windows(PREFIX.len()).position(|window| window == PREFIX)?;
        }
        let stamp = message.get(self.place..self.place + BYTES)?;
        let digits = |from: usize, to: usize| {
            u64::from_str_radix(std::str::from_utf8(&stamp[from..to]).ok()?, 16).ok()
        };
        let (run, nanos) = (digits(6, 14)?, digits(15, 31)?);
        (run == u64::from(self.run)).then(|| self.began + Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_wherever_a_server_puts_it() {
        let began = Instant::now();
        let at = began + Duration::from_micros(1234);
        let mut stamps = Stamps::new(7, began);
        let mut form = vec![b'x'; 40];
        stamps.write(&mut form, at);
        assert_eq!(stamps.read(&form), Some(at));
        let wrapped = [&b"{\"seq\":1,\"content\":\""[..], &form, b"\"}"].concat();
        assert_eq!(stamps.read(&wrapped), Some(at));
        assert_eq!(stamps.read(&form), Some(at));
        assert_eq!(Stamps::new(8, began).read(&form), None, "another run's");
        assert_eq!(stamps.read(b"{\"type\":\"welcome\"}"), None);
        assert_eq!(stamps.read(&form[..20]), None, "cut short");
    }
}
