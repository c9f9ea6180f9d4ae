//! TLS between a socket and its connection.
//!
//! The buffers belong to the worker: a connection keeps only what is half read, a part of a record,
//! and what is half written, ciphertext that the kernel did not take yet. Both are bounded, and
//! freed when they are empty. `rustls` decrypts where the worker has read the ciphertext to.

use std::{
    io::{self, IoSlice, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    HandshakeKind, ProtocolVersion, SupportedCipherSuite,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

use super::{
    costs::HANDSHAKE_COST,
    records::{RECORD_BYTES_MAX, Records},
    socket::{Failure, Received, Socket},
};
use crate::{metrics::WorkerMetrics, tls::Tls};

/// What a record takes beyond its plaintext, rounded up.
const RECORD_OVERHEAD_MAX: usize = 64;

/// Records that are encrypted for one write. What the kernel does not take of them is kept.
const RECORDS_PER_WRITE_MAX: usize = 4;

/// The largest part of a record, or of a handshake message in several records, that is kept until
/// the rest comes. A ciphertext record takes 18 KiB at most, a client's chain of certificates less.
const INCOMING_BYTES_MAX: usize = 20 << 10;

/// Ciphertext that waits for the kernel.
const OUTGOING_BYTES_MAX: usize = 2 * SEALED_BYTES;

/// The worker's buffer for ciphertext on its way out.
const SEALED_BYTES: usize = RECORDS_PER_WRITE_MAX * (RECORD_BYTES_MAX + RECORD_OVERHEAD_MAX);

/// What a session takes on the heap, measured of idle ones.
const SESSION_BYTES: usize = 1200;

/// The front of the worker's read buffer, which takes the plaintext: that of one record is copied
/// there before the ciphertext is passed over.
const PLAINTEXT_ROOM: usize = RECORD_BYTES_MAX;

/// How long a worker answers handshakes in one turn, and one at least: a signature takes it from 50
/// microseconds to 5 ms, as the key is. Those beyond wait for the next turn, so that a storm of
/// newcomers does not slow those inside.
const HANDSHAKE_TIME_PER_TURN: Duration = Duration::from_millis(5);

/// Records that are left to a key of TLS 1.2, which cannot be changed, when its connection is asked
/// to close: for what waits in an outbox, and the Close.
const RECORDS_FOR_CLOSE: u64 = 1 << 16;

/// What a worker lends to its TLS streams. Used by one thread.
pub(crate) struct TlsCx {
    metrics: Arc<WorkerMetrics>,
    /// Ciphertext on its way to a socket.
    sealed: Box<[u8]>,
    /// Short messages on their way into one record.
    gathered: Vec<u8>,
    handshake_time_left: Duration,
}

impl TlsCx {
    pub(crate) fn new(metrics: &Arc<WorkerMetrics>, is_on: bool) -> TlsCx {
        let sealed_bytes = if is_on { SEALED_BYTES } else { 0 };
        TlsCx {
            metrics: Arc::clone(metrics),
            sealed: vec![0; sealed_bytes].into(),
            gathered: Vec::new(),
            handshake_time_left: HANDSHAKE_TIME_PER_TURN,
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.handshake_time_left = HANDSHAKE_TIME_PER_TURN;
    }

    /// Takes so much of this turn's time for handshakes.
    pub(super) fn spend_handshake_time(&mut self, took: Duration) {
        self.handshake_time_left = self.handshake_time_left.saturating_sub(took);
    }
}

/// A socket with TLS on it. Owned by its connection.
pub(crate) struct TlsStream {
    socket: Socket,
    /// `None` once the handshake has failed: what follows goes out as it is.
    session: Option<UnbufferedServerConnection>,
    phase: Phase,
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Ciphertext that the kernel did not take, of which `outgoing_sent` bytes went later.
    outgoing: Vec<u8>,
    outgoing_sent: usize,
    /// The kernel took something since it was last asked.
    has_progress: bool,
    /// Records that may still be sealed before the connection is asked to close. A key that can be
    /// changed never comes to the end of them.
    records_left: u64,
    /// Whoever asked was told that none is left.
    is_worn_told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The header of a proxy is due, without TLS.
    Preamble,
    /// Nothing came yet.
    Fresh,
    Handshake,
    /// The handshake will not come to its end, and that is counted.
    Failed,
    Open,
    /// The peer has ended its direction.
    PeerClosed,
}

impl TlsStream {
    /// A socket whose handshake is due.
    pub(super) fn new(socket: Socket, tls: &Tls, has_preamble: bool) -> io::Result<TlsStream> {
        let session = UnbufferedServerConnection::new(tls.config()).map_err(io::Error::other)?;
        Ok(TlsStream {
            socket,
            session: Some(session),
            phase: if has_preamble { Phase::Preamble } else { Phase::Fresh },
            incoming: Vec::new(),
            outgoing: Vec::new(),
            outgoing_sent: 0,
            has_progress: false,
            records_left: u64::MAX,
            is_worn_told: false,
        })
    }

    /// Whether nothing can be said yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_some() && !matches!(self.phase, Phase::Open | Phase::PeerClosed)
    }

    /// Takes what came behind the header of a proxy as the beginning of TLS. `Err` if that is more
    /// than a client may send before it is answered.
    pub(super) fn begin(&mut self, rest: &[u8]) -> Result<(), ()> {
        if rest.len() > INCOMING_BYTES_MAX {
            return Err(());
        }
        self.phase = Phase::Fresh;
        self.incoming.extend_from_slice(rest);
        Ok(())
    }

    /// Whether ciphertext waits for the kernel.
    pub(super) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Bytes that the session and what is half read take, estimated.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<TlsStream>() + SESSION_BYTES + self.incoming.capacity()
    }

    /// Bytes that the ciphertext takes that waits for the kernel.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.outgoing.capacity()
    }

    /// Whether the kernel took something since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// Leaves a key that cannot be changed two records.
    #[cfg(test)]
    pub(super) fn wear(&mut self) {
        if self.session.as_ref().map(records_of_key) != Some(u64::MAX) {
            self.records_left = 2;
        }
    }

    /// Whether the connection must be closed soon.
    pub(super) fn is_worn(&self) -> bool {
        self.records_left == 0
    }

    /// Whether it must be closed soon, and that was not told yet.
    pub(super) fn take_is_worn(&mut self) -> bool {
        self.is_worn() && !std::mem::replace(&mut self.is_worn_told, true)
    }

    /// Whether bytes pass as they are.
    fn is_plain(&self) -> bool {
        self.session.is_none() || self.phase == Phase::Preamble
    }

    /// Counts a handshake that does not come to its end, once.
    pub(super) fn count_failed(&mut self, cx: &TlsCx) {
        if self.phase == Phase::Handshake {
            cx.metrics.tls_handshakes_failed.add(1);
            self.phase = Phase::Failed;
        }
    }

    /// Reads once, and puts what it decrypts to the front of `into`, which is the worker's buffer.
    // Out of the way of streams without TLS.
    #[inline(never)]
    pub(super) fn read(&mut self, into: &mut [u8], cx: &mut TlsCx) -> io::Result<Received> {
        if self.is_plain() {
            return match self.socket.read(into)? {
                0 => Ok(Received::End),
                bytes => Ok(Received::Bytes { bytes, was_short: bytes < into.len() }),
            };
        }
        if self.phase == Phase::PeerClosed {
            return Ok(Received::End);
        }
        let is_handshake = self.is_handshaking();
        if is_handshake && cx.handshake_time_left.is_zero() {
            cx.metrics.tls_handshake_waits.add(1);
            return Ok(Received::Later);
        }
        let kept = PLAINTEXT_ROOM + self.incoming.len();
        into[PLAINTEXT_ROOM..kept].copy_from_slice(&self.incoming);
        let read = match self.socket.read(&mut into[kept..]) {
            // What came behind the header of a proxy may be all there is.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && self.phase == Phase::Fresh
                    && !self.incoming.is_empty() =>
            {
                None
            }
            read => Some(read?),
        };
        let is_over = read == Some(0);
        let read = read.unwrap_or_default();
        let was_short = read < into.len() - kept;
        if is_over {
            self.count_failed(cx);
            if self.phase == Phase::Open {
                cx.metrics.tls_truncated.add(1);
            }
            return Ok(Received::End);
        }
        if self.phase == Phase::Fresh {
            self.phase = Phase::Handshake;
            // No record begins with a letter, and each method does.
            if into[PLAINTEXT_ROOM].is_ascii_uppercase() {
                return Ok(self.fail(Failure::PlainHttp, cx));
            }
        }
        let began = is_handshake.then(Instant::now);
        let decrypted = self.decrypt(into, kept + read, cx);
        if let Some(began) = began {
            cx.spend_handshake_time(began.elapsed());
        }
        match decrypted? {
            Ok(0) if self.phase == Phase::PeerClosed => Ok(Received::End),
            Ok(0) => {
                let cost = usize::from(is_handshake) * HANDSHAKE_COST;
                Ok(Received::Nothing { was_short, cost })
            }
            // The end is read in the next turn.
            Ok(bytes) => {
                let was_short = was_short && self.phase != Phase::PeerClosed;
                Ok(Received::Bytes { bytes, was_short })
            }
            Err(reason) => Ok(self.fail(Failure::Tls(reason), cx)),
        }
    }

    /// Decrypts the records between [`PLAINTEXT_ROOM`] and `end`, sends what the handshake answers
    /// to them, and keeps the part of a record at the end. Returns how much plaintext is at the
    /// front of `into`, or why the peer cannot be understood.
    fn decrypt(
        &mut self,
        into: &mut [u8],
        end: usize,
        cx: &mut TlsCx,
    ) -> io::Result<Result<usize, String>> {
        let Some(session) = &mut self.session else { return Ok(Ok(0)) };
        let (mut at, mut plain, mut sealed) = (PLAINTEXT_ROOM, 0, 0);
        let mut failure = None;
        let mut is_peer_closed = false;
        // Once the peer is not understood, `rustls` must not be asked about its bytes again, only
        // for the alert.
        while failure.is_none() || session.wants_write() {
            let (front, behind) = into.split_at_mut(at);
            let UnbufferedStatus { mut discard, state, .. } =
                session.process_tls_records(&mut behind[..end - at]);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    match data.encode(&mut cx.sealed[sealed..]) {
                        Ok(bytes) => sealed += bytes,
                        Err(EncodeError::AlreadyEncoded) => {}
                        Err(EncodeError::InsufficientSize(_)) => {
                            failure = Some("the handshake takes too much space".to_owned());
                        }
                    }
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let taken = record.map_err(|error| error.to_string()).and_then(|record| {
                            discard += record.discard;
                            let bytes = record.payload.len();
                            let room = front.get_mut(plain..plain + bytes);
                            let room = room.ok_or_else(|| "a record is too large".to_owned())?;
                            room.copy_from_slice(record.payload);
                            Ok(bytes)
                        });
                        match taken {
                            Ok(bytes) => plain += bytes,
                            Err(reason) => failure = Some(reason),
                        }
                    }
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    is_peer_closed = true;
                    false
                }
                Ok(_) => false,
                Err(error) => {
                    failure = Some(error.to_string());
                    true
                }
            };
            at += discard;
            if !goes_on {
                break;
            }
        }
        // What follows the peer's last word is nobody's.
        let rest = if is_peer_closed { &[] } else { &into[at..end] };
        if failure.is_none() && rest.len() > INCOMING_BYTES_MAX {
            failure = Some(format!("a handshake message takes over {INCOMING_BYTES_MAX} bytes"));
        }
        self.incoming.clear();
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.extend_from_slice(rest);
        }
        if self.phase == Phase::Handshake && !session.is_handshaking() {
            count_handshake(session, &cx.metrics);
            self.records_left = records_of_key(session);
            self.phase = Phase::Open;
        }
        if is_peer_closed {
            self.count_failed(cx);
            self.phase = Phase::PeerClosed;
        }
        self.transmit(&cx.sealed[..sealed])?;
        Ok(failure.map_or(Ok(plain), Err))
    }

    /// Ends TLS on this socket: what follows is read and written as it is.
    fn fail(&mut self, failure: Failure, cx: &TlsCx) -> Received {
        if self.is_handshaking() {
            self.count_failed(cx);
            self.session = None;
            self.incoming = Vec::new();
            return Received::NoSession(Box::new(failure));
        }
        Received::Broken(Box::new(failure))
    }

    /// Encrypts the front of `slices`, in as few records as possible, and gives the kernel what it
    /// takes. Returns how much plaintext that was.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], cx: &mut TlsCx) -> io::Result<usize> {
        self.flush()?;
        if self.is_plain() {
            return self.socket.write_vectored(slices);
        }
        let Some(session) = &mut self.session else { return Ok(0) };
        let TlsCx { sealed, gathered, .. } = cx;
        let mut used = 0;
        let mut taken = 0;
        loop {
            match session.process_tls_records(&mut self.incoming).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let mut records = Records::new(slices);
                    for _ in 0..RECORDS_PER_WRITE_MAX {
                        let record = records.next(gathered);
                        if record.is_empty() {
                            break;
                        }
                        used +=
                            traffic.encrypt(record, &mut sealed[used..]).map_err(cannot_seal)?;
                        taken += record.len();
                        self.records_left = self.records_left.saturating_sub(1);
                    }
                    break;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    used += data.encode(&mut sealed[used..]).map_err(io::Error::other)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.phase = Phase::PeerClosed,
                Ok(ConnectionState::BlockedHandshake) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        self.transmit(&sealed[..used])?;
        Ok(taken)
    }

    /// Tells the peer that nothing follows. Whatever the kernel does not take of that is lost.
    pub(super) fn close_notify(&mut self, cx: &mut TlsCx) {
        let Some(session) = &mut self.session else { return };
        let state = session.process_tls_records(&mut self.incoming).state;
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let sealed = traffic.queue_close_notify(&mut cx.sealed).unwrap_or_default();
            let _ = self.transmit(&cx.sealed[..sealed]);
        }
    }

    /// Ends our direction.
    pub(super) fn end(&mut self, cx: &mut TlsCx) -> io::Result<()> {
        self.close_notify(cx);
        self.socket.end()
    }

    /// Gives the kernel what it takes of the ciphertext that waits. `WouldBlock` if some is left.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) =
            self.outgoing.get(self.outgoing_sent..).filter(|rest| !rest.is_empty())
        {
            match self.socket.write(rest) {
                Ok(sent) => {
                    self.outgoing_sent += sent;
                    self.has_progress |= sent > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.outgoing, self.outgoing_sent) = (Vec::new(), 0);
        Ok(())
    }

    /// Gives `sealed` to the kernel, and keeps what it does not take.
    fn transmit(&mut self, mut sealed: &[u8]) -> io::Result<()> {
        while self.outgoing.is_empty() && !sealed.is_empty() {
            match self.socket.write(sealed) {
                Ok(sent) => {
                    sealed = &sealed[sent..];
                    self.has_progress |= sent > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.outgoing.len() + sealed.len() > OUTGOING_BYTES_MAX {
            return Err(io::Error::other("the peer does not read what TLS answers to it"));
        }
        self.outgoing.extend_from_slice(sealed);
        Ok(())
    }
}

fn count_handshake(session: &UnbufferedServerConnection, metrics: &WorkerMetrics) {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => metrics.tls_handshakes_tls12.add(1),
        _ => metrics.tls_handshakes_tls13.add(1),
    }
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        metrics.tls_handshakes_resumed.add(1);
    }
}

/// Returns how many records the session may seal before it is asked to close; `None` if its keys
/// change by themselves, or last for ever.
fn records_of_key(session: &UnbufferedServerConnection) -> u64 {
    let Some(SupportedCipherSuite::Tls12(suite)) = session.negotiated_cipher_suite() else {
        return u64::MAX;
    };
    match suite.common.confidentiality_limit {
        u64::MAX => u64::MAX,
        records_max => records_max.saturating_sub(RECORDS_FOR_CLOSE),
    }
}

fn cannot_seal(error: EncryptError) -> io::Error {
    io::Error::other(error)
}
