//! One side of a connection after its handshake: decodes messages, answers pings, and does the
//! closing handshake (RFC 6455, 5.5 and 7).

use tungstenite::protocol::{Role, frame::coding::Control};

use super::{
    close::CloseReason,
    decoder::{Decoder, Event, ProtocolConfig},
    deflate::Inflater,
    encode::encode_control,
};

/// A decoder and the state of the closing handshake. Used by one thread.
#[derive(Debug, Default)]
pub struct Endpoint {
    decoder: Decoder,
}

impl Endpoint {
    /// Decodes at most one message or control frame. Appends the immediate answers to `out`: a pong
    /// to a ping, and one Close to a Close or a failure. Removes the used bytes from the front of
    /// `input`, and returns [`Event::NeedMore`] only when all are used. Bytes after the end are
    /// ignored.
    #[inline(always)]
    pub fn next<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        out: &mut Vec<u8>,
        config: &ProtocolConfig,
        inflater: Option<Inflater<'_>>,
    ) -> Event<'i> {
        let event = self.decoder.next(input, config, inflater);
        if !matches!(event, Event::Message(_) | Event::NeedMore) {
            self.answer(&event, out, config.role);
        }
        event
    }

    #[inline(never)]
    fn answer(&mut self, event: &Event<'_>, out: &mut Vec<u8>, role: Role) {
        match event {
            // Nothing may be sent after a Close.
            Event::Ping(payload) if !self.has_sent_close() => {
                encode_control(out, Control::Pong, payload, role);
            }
            Event::Close(reason) | Event::Failed(reason) => self.close(reason, out, role),
            Event::Ping(_) | Event::Pong(_) | Event::Message(_) | Event::NeedMore => {}
        }
    }

    /// Returns the bytes that an incomplete message takes; 0 between messages.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.decoder.held_bytes()
    }

    /// Whether this side has sent its Close, after which it must send nothing.
    pub fn has_sent_close(&self) -> bool {
        self.decoder.close_sent()
    }

    /// Appends this side's Close to `out`, which begins or ends the closing handshake. Later calls
    /// append nothing.
    pub fn close(&mut self, reason: &CloseReason, out: &mut Vec<u8>, role: Role) {
        if !self.has_sent_close() {
            self.decoder.set_close_sent();
            encode_control(out, Control::Close, &reason.payload(), role);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusty_socks_testing::frames::client_frame;

    use crate::encode::{Kind, encode_message};

    const CONFIG: ProtocolConfig = ProtocolConfig { role: Role::Server, message_bytes_max: 1000 };

    #[derive(Default)]
    struct Peer {
        endpoint: Endpoint,
        out: Vec<u8>,
        texts: Vec<String>,
        ended: Option<CloseReason>,
    }

    impl Peer {
        fn feed(&mut self, bytes: &[u8]) {
            let mut bytes = bytes.to_vec();
            let mut rest = &mut bytes[..];
            loop {
                match self.endpoint.next(&mut rest, &mut self.out, &CONFIG, None) {
                    Event::Message(received) => {
                        self.texts.push(received.message().as_text().expect("text").to_owned());
                    }
                    Event::Close(reason) | Event::Failed(reason) => self.ended = Some(reason),
                    Event::Ping(_) | Event::Pong(_) => {}
                    Event::NeedMore => return assert!(rest.is_empty(), "all is used"),
                }
            }
        }

        fn closes_sent(&self) -> usize {
            self.out.iter().filter(|byte| **byte == 0x88).count()
        }
    }

    #[test]
    fn whole_and_byte_by_byte_give_the_same() {
        let mut stream = Vec::new();
        stream.extend(client_frame(0x81, b"one"));
        stream.extend(client_frame(0x89, b"ping"));
        stream.extend(client_frame(0x01, b"frag"));
        stream.extend(client_frame(0x8a, b"unasked"));
        stream.extend(client_frame(0x80, b"ment"));
        stream.extend(client_frame(0x81, b""));
        stream.extend(client_frame(0x88, &[0x03, 0xe8]));
        stream.extend(client_frame(0x81, b"behind the end"));
        for step in [1, 2, 3, 7, stream.len()] {
            let mut peer = Peer::default();
            stream.chunks(step).for_each(|chunk| peer.feed(chunk));
            assert_eq!(peer.texts, ["one", "fragment", ""], "in steps of {step}");
            assert_eq!(peer.out, [b"\x8a\x04ping".as_slice(), b"\x88\x02\x03\xe8"].concat());
            assert_eq!(peer.ended, Some(CloseReason::NORMAL));
        }
    }

    #[test]
    fn failures_send_their_code() {
        for (bytes, code) in [
            (client_frame(0x83, b""), 1002),
            (client_frame(0xc1, b""), 1002),
            (client_frame(0x81, &[0xff]), 1007),
            (vec![0x81, 0xfe, 0x10, 0, 0, 0, 0, 0], 1009),
            (vec![0x81, 0x01, b'a'], 1002),
            (client_frame(0x88, &[0x03]), 1002),
            (client_frame(0x88, &[0x03, 0xe8, 0xff]), 1007),
        ] {
            let mut peer = Peer::default();
            peer.feed(&bytes);
            assert_eq!(peer.ended.take().map(|reason| reason.code()), Some(code), "{bytes:?}");
            assert_eq!(peer.out[0], 0x88, "a Close was sent");
            assert_eq!(u16::from_be_bytes([peer.out[2], peer.out[3]]), code);
            peer.feed(&client_frame(0x81, b"late"));
            assert_eq!((peer.closes_sent(), peer.ended), (1, None), "that was the end");
        }
    }

    #[test]
    fn a_code_that_must_not_be_sent_is_answered_as_a_fault() {
        for code in [1005_u16, 1006, 1015, 2999] {
            let mut peer = Peer::default();
            peer.feed(&client_frame(0x88, &code.to_be_bytes()));
            assert_eq!(peer.out[2..4], 1002_u16.to_be_bytes(), "{code}");
            assert_eq!(peer.ended.map(|reason| reason.code()), Some(1002));
        }
        let mut peer = Peer::default();
        peer.feed(&client_frame(0x88, b""));
        assert_eq!((peer.out, peer.ended), (vec![0x88, 0], Some(CloseReason::NO_STATUS)));
    }

    #[test]
    fn our_close_is_sent_once_and_answered() {
        let mut peer = Peer::default();
        for _ in 0..2 {
            peer.endpoint.close(&CloseReason::SLOW_CONSUMER, &mut peer.out, Role::Server);
        }
        peer.feed(&client_frame(0x81, b"late"));
        peer.feed(&client_frame(0x89, b"late"));
        assert_eq!((peer.texts.len(), peer.ended.is_none()), (1, true));
        peer.feed(&client_frame(0x88, &[0x10, 0x06]));
        assert_eq!(peer.ended.take().map(|reason| reason.code()), Some(4102));
        assert_eq!(peer.closes_sent(), 1);
        assert!(!peer.out.contains(&0x8a), "nothing follows a Close");
        for wrong in [client_frame(0x83, b""), client_frame(0x88, b"x")] {
            let mut peer = Peer::default();
            peer.endpoint.close(&CloseReason::NORMAL, &mut peer.out, Role::Server);
            peer.feed(&wrong);
            let code = peer.ended.take().map(|reason| reason.code());
            assert_eq!((peer.closes_sent(), code), (1, Some(1002)), "a fault adds no other");
        }
    }

    #[test]
    fn a_connection_at_rest_pays_for_one_pointer() {
        assert_eq!(size_of::<Endpoint>(), size_of::<usize>());
    }

    #[test]
    fn a_client_takes_unmasked_frames_and_answers_with_masked_ones() {
        let config = ProtocolConfig { role: Role::Client, ..CONFIG };
        let (mut client, mut server, mut out) = (Endpoint::default(), Endpoint::default(), vec![]);
        let mut frames = b"\x81\x02hi\x89\x04ping\x88\x02\x03\xe8".to_vec();
        let mut rest = &mut frames[..];
        let event = client.next(&mut rest, &mut out, &config, None);
        assert!(matches!(event, Event::Message(text) if text.message().as_text() == Some("hi")));
        assert!(matches!(client.next(&mut rest, &mut out, &config, None), Event::Ping(_)));
        assert!(matches!(client.next(&mut rest, &mut out, &config, None), Event::Close(_)));
        let (mut answers, mut none) = (&mut out[..], Vec::new());
        assert_eq!(answers[..2], [0x8a, 0x84]);
        let pong = server.next(&mut answers, &mut none, &CONFIG, None);
        assert!(matches!(pong, Event::Pong(payload) if *payload == *b"ping"));
        let close = server.next(&mut answers, &mut none, &CONFIG, None);
        assert!(matches!(close, Event::Close(reason) if reason == CloseReason::NORMAL));
        out.clear();
        encode_message(&mut out, Kind::Text, b"hi", Role::Client);
        let mut message = &mut out[..];
        let event = Endpoint::default().next(&mut message, &mut none, &CONFIG, None);
        assert!(matches!(event, Event::Message(text) if text.message().as_text() == Some("hi")));
        assert!(client.has_sent_close());
        let mut masked = client_frame(0x81, b"hi");
        let failed = Endpoint::default().next(&mut &mut masked[..], &mut none, &config, None);
        assert!(matches!(failed, Event::Failed(reason) if reason.code() == 1002));
    }
}
