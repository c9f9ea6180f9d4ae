//! How messages get into a connection's outbox.

use std::io::IoSlice;

use super::ConnIo;
use crate::{
    pool::{run::Run, worker_cx::WorkerCtx},
    ws::{
        encode::{encode_frame, header_bytes, message_header},
        frame::{Kind, Message, PreparedFrame},
    },
};

/// A message of so many bytes is given to the kernel at once if nothing waits before it: copying it
/// into the outbox would cost more than the write that is saved by gathering.
const WRITE_AT_ONCE_BYTES_MIN: usize = 16 << 10;

impl ConnIo {
    /// Queues a message that fits.
    // In line for short messages to clients without compression; everything else stays out of the
    // way.
    #[inline(always)]
    pub(super) fn queue(&mut self, message: Message<'_>, cx: &mut WorkerCtx) {
        let (kind, payload) = (message.kind(), message.as_bytes());
        if self.deflate.is_some() || payload.len() >= WRITE_AT_ONCE_BYTES_MIN {
            return self.queue_otherwise(kind, payload, cx);
        }
        let header = message_header(kind, false);
        self.outbox.push_own(1, &mut cx.scratch.spare, |out| encode_frame(out, &header, payload));
    }

    #[inline(never)]
    fn queue_otherwise(&mut self, kind: Kind, payload: &[u8], cx: &mut WorkerCtx) {
        let scratch = &mut cx.scratch;
        match &mut self.deflate {
            Some(deflate) if payload.len() >= cx.limits.compression_threshold => {
                self.outbox.push_own(1, &mut scratch.spare, |out| {
                    let (deflaters, deflated) = (&mut scratch.deflaters, &mut scratch.deflated);
                    deflate.write_frame(kind, payload, deflaters, deflated, out);
                });
            }
            _ if payload.len() >= WRITE_AT_ONCE_BYTES_MIN => self.queue_large(kind, payload, cx),
            _ => {
                let header = message_header(kind, false);
                let spare = &mut scratch.spare;
                self.outbox.push_own(1, spare, |out| encode_frame(out, &header, payload));
            }
        }
    }

    fn queue_large(&mut self, kind: Kind, payload: &[u8], cx: &mut WorkerCtx) {
        let (header, used) = header_bytes(&message_header(kind, false), payload.len());
        let mut parts = [&header[..used], payload];
        if !self.write_at_once(&mut parts, cx) {
            self.outbox.push_own(1, &mut cx.scratch.spare, |out| {
                out.reserve(parts[0].len() + parts[1].len());
                parts.iter().for_each(|part| out.extend_from_slice(part));
            });
            self.count_outbox(self.outbox.held_bytes() + self.stream.unsent_bytes(), cx);
            cx.tell_growth();
        }
    }

    /// Gives the kernel what it takes of a frame if nothing waits before it, and takes that off the
    /// parts. Returns whether it took all. An error is left for the next write to find.
    fn write_at_once(&mut self, parts: &mut [&[u8]; 2], cx: &mut WorkerCtx) -> bool {
        if self.is_blocked() || !self.outbox.is_empty() {
            return false;
        }
        let written = self.stream.write(&parts.map(IoSlice::new), &mut cx.tls);
        let Ok(sent) = written else { return false };
        self.on_sent(sent, cx);
        self.last_tx = cx.now;
        let of_header = sent.min(parts[0].len());
        *parts = [&parts[0][of_header..], &parts[1][sent - of_header..]];
        parts[1].is_empty()
    }

    /// Queues a frame that others are sent as well: compressed once for all of them where that is
    /// agreed.
    pub(in crate::pool) fn queue_prepared(&mut self, frame: &PreparedFrame, cx: &mut WorkerCtx) {
        self.count_message_out();
        let is_short = frame.payload().len() < cx.limits.compression_threshold;
        let Some(deflate) = self.deflate.as_ref().filter(|_| !is_short) else {
            return self.outbox.push_shared(frame.bytes(), &mut cx.scratch.spare);
        };
        let bits = deflate.shared_window_bits();
        match bits.and_then(|bits| frame.shared(bits, &mut cx.scratch.deflaters)) {
            Some(shared) => self.outbox.push_shared(shared, &mut cx.scratch.spare),
            None => self.queue(frame.message(), cx),
        }
    }

    /// Queues all messages of a run in one piece, if they fit. Returns whether they do.
    pub(in crate::pool) fn queue_run(&mut self, run: &mut Run, cx: &mut WorkerCtx) -> bool {
        let (messages, scratch) = (run.messages.len(), &mut cx.scratch);
        let (deflate, bytes_min) = (self.deflate.as_deref(), cx.limits.compression_threshold);
        let tally = &cx.shared.hub.account.frames;
        let Some(frames) = run.joined(deflate, bytes_min, &mut scratch.deflaters, tally) else {
            return false;
        };
        if !self.outbox.fits_run(messages, frames.len(), &cx.limits.outbox) {
            return false;
        }
        if let Some(access) = &mut self.access {
            access.messages_out += messages as u64;
        }
        self.outbox.push_run(frames, messages, &mut scratch.spare);
        true
    }
}
