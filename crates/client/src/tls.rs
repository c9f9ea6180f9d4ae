//! `wss://`: whom a client trusts, and TLS on a socket.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    InvalidMessage, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{
    error::{Error, ErrorKind},
    target::{Target, left},
};

/// Whom a client trusts. Default: the authorities that browsers trust, as Mozilla lists them.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    ca: Option<PathBuf>,
    insecure: bool,
}

impl TlsOptions {
    /// Trusts the authorities in a PEM file, and no others.
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Trusts any certificate: whoever is on the way can read and change everything. For tests.
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Reads the file, if one was given.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: it cannot be read, or has no certificates in it.
    pub fn connector(&self) -> Result<TlsConnector, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let system = |error| Error::caused(ErrorKind::System, "cannot begin TLS", error);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(system)?;
        let mut config = if self.insecure {
            let verifier = Arc::new(TrustsAnyone(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_root_certificates(self.roots()?).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let Some(path) = &self.ca else {
            return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        };
        let wrong = |what: &str| format!("{}: {what}", path.display());
        let invalid = |what: &str| Error::new(ErrorKind::InvalidInput, wrong(what));
        let bytes = fs::read(path).map_err(|error| {
            Error::caused(ErrorKind::InvalidInput, wrong("cannot read the file"), error)
        })?;
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&bytes) {
            let added = cert.map(|cert| roots.add(cert));
            if !matches!(added, Ok(Ok(()))) {
                return Err(invalid("holds a certificate that is not legal"));
            }
        }
        match roots.is_empty() {
            true => Err(invalid("must hold PEM certificates (-----BEGIN CERTIFICATE-----)")),
            false => Ok(roots),
        }
    }
}

/// Begins TLS on sockets. Clones share what they trust, and the tickets of servers.
#[derive(Debug, Clone)]
pub struct TlsConnector(Arc<ClientConfig>);

impl TlsConnector {
    /// Begins TLS on a socket to `target`. Nothing is sent before it is read from or written to.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: the host is no name that a certificate could have.
    pub fn begin<S: Read + Write>(
        &self,
        socket: S,
        target: &Target,
    ) -> Result<TlsStream<S>, Error> {
        let host = target.host().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            let text = format!("{target}: a certificate cannot be for {host:?}");
            Error::caused(ErrorKind::InvalidInput, text, error)
        })?;
        let session = ClientConnection::new(Arc::clone(&self.0), name)
            .map_err(|error| Error::caused(ErrorKind::System, "cannot begin TLS", error))?;
        Ok(TlsStream { socket, session, has_progress: false })
    }
}

impl TlsConnector {
    /// Begins TLS on a socket that blocks, and makes the handshake. All of it ends by `deadline`.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`]: the server's certificate. [`ErrorKind::Timeout`],
    /// [`ErrorKind::Lost`], [`ErrorKind::Misbehaved`]: there was no handshake.
    pub fn connect(
        &self,
        socket: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let mut stream = self.begin(socket, target)?;
        stream.shake(deadline).map_err(|error| {
            let fault = error.get_ref().and_then(|fault| fault.downcast_ref::<TlsFault>());
            let doing = format!("no TLS with {target}");
            match fault.map(|fault| fault.kind) {
                Some(kind) => Error::caused(kind, doing, error),
                None => Error::io(&doing, error),
            }
        })?;
        Ok(stream)
    }
}

/// TLS on a socket, which may block or not.
#[derive(Debug)]
pub struct TlsStream<S> {
    socket: S,
    session: ClientConnection,
    /// The socket took something since this was last asked.
    has_progress: bool,
}

impl<S: Read + Write> TlsStream<S> {
    /// Returns the socket.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    pub(crate) fn into_other<O: Read + Write>(self, other: impl FnOnce(S) -> O) -> TlsStream<O> {
        let TlsStream { socket, session, has_progress } = self;
        TlsStream { socket: other(socket), session, has_progress }
    }

    /// Whether ciphertext waits for the socket: [`flush`](Write::flush) gives it what it takes.
    pub fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Whether the socket took something since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    pub(crate) fn send_close_notify(&mut self) {
        self.session.send_close_notify();
        let _ = self.flush();
    }

    fn on_tls_error(&mut self, error: rustls::Error) -> io::Error {
        // The alert that says why; the socket may be gone.
        let _ = self.flush();
        io::Error::new(io::ErrorKind::InvalidData, explained(error))
    }
}

impl TlsStream<TcpStream> {
    /// Makes the handshake on a socket that blocks. All of it ends by `deadline`.
    pub(crate) fn shake(&mut self, deadline: Instant) -> io::Result<()> {
        while self.session.is_handshaking() || self.session.wants_write() {
            let wait = left(deadline);
            if wait.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_write_timeout(Some(wait))?;
            self.flush()?;
            if !self.session.is_handshaking() {
                break;
            }
            self.socket.set_read_timeout(Some(wait))?;
            match self.session.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Err(error) = self.session.process_new_packets() {
                return Err(self.on_tls_error(error));
            }
        }
        Ok(())
    }
}

impl<S: Read + Write> Read for TlsStream<S> {
    /// Reads from the socket once at most. `Interrupted` if that was a part of something.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A server that hangs up without a word; what ends the connection says the rest.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            outcome => return outcome,
        }
        match self.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The server may have said why before it hung up.
            Err(_) | Ok(()) => {}
        }
        self.session.read_tls(&mut self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            return Err(self.on_tls_error(error));
        }
        match self.session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::Interrupted.into())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            outcome => outcome,
        }
    }
}

impl<S: Read + Write> Write for TlsStream<S> {
    /// Takes no more while ciphertext waits for the socket.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.session.is_handshaking() {
            self.flush()?;
        }
        let taken = self.session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 && !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => self.has_progress = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What went wrong in TLS, so that people know what to do about it.
#[derive(Debug)]
pub(crate) struct TlsFault {
    pub(crate) kind: ErrorKind,
    text: String,
}

impl std::fmt::Display for TlsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsFault {}

fn explained(error: rustls::Error) -> TlsFault {
    let (kind, text) = match &error {
        rustls::Error::InvalidCertificate(why) => {
            let text = match why {
                CertificateError::UnknownIssuer => {
                    "the server's certificate is from an unknown authority".to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the server's certificate has expired".to_owned()
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    format!("the server's certificate is for another name: {why}")
                }
                why => format!("the server's certificate cannot be trusted: {why}"),
            };
            (ErrorKind::Untrusted, text)
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            (ErrorKind::Misbehaved, "the server does not speak TLS: use ws:// or http://".into())
        }
        rustls::Error::AlertReceived(AlertDescription::InternalError) => {
            let text = "the server refuses before the TLS handshake: too many connections";
            (ErrorKind::Lost, text.into())
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::UnknownCA,
        ) => (ErrorKind::Misbehaved, "the server asks for a client certificate".into()),
        error => (ErrorKind::Misbehaved, format!("TLS: {error}")),
    };
    TlsFault { kind, text }
}

/// Checks nothing but that the server has the key of the certificate that it shows.
#[derive(Debug)]
struct TrustsAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
