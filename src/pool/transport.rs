//! How the messages of a connection travel, which its request asks for.

use super::{
    conn_io::ConnIo,
    event_stream::{EventStream, write_head},
    worker_cx::WorkerCtx,
};
use crate::{
    hub::stream_key::StreamKey,
    ws::{deflate::Deflate, handshake::Upgrade},
};

/// How the messages of a connection travel.
pub(crate) enum Transport {
    WebSocket(Upgrade),
    Events(EventsRequest),
}

/// Down as server-sent events, up in posts.
pub(super) struct EventsRequest {
    /// Header lines of the answer, each with its line end.
    pub(super) lines: String,
    /// What is to follow each write, in bytes.
    pub(super) padding: usize,
}

impl Transport {
    /// Answers the request: messages may follow.
    pub(super) fn begin(self, waited_ms: Option<u64>, io: &mut ConnIo, cx: &mut WorkerCtx) {
        match self {
            Transport::WebSocket(upgrade) => {
                io.outbox.push_own(0, &mut cx.scratch.spare, |out| upgrade.respond(out, waited_ms));
                io.deflate = upgrade.compression.map(|agreed| Box::new(Deflate::new(agreed)));
            }
            Transport::Events(EventsRequest { mut lines, padding }) => {
                if let Some(waited_ms) = waited_ms {
                    lines += &format!("Queue-Wait-Ms: {waited_ms}\r\n");
                }
                // What was not written of earlier answers is no frame.
                let mut head = io.outbox.take_bytes(&mut cx.scratch.spare);
                write_head(&mut head, cx.date(), &lines);
                let key = StreamKey::new(cx.shared.hub.node, io.id);
                io.stream.begin_events(EventStream::new(key, head, padding));
                cx.shared.metrics.server.event_streams_total.add_shared();
            }
        }
    }
}
