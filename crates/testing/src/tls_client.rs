//! The client's side of TLS in memory.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::certificates::Pair;

/// A TLS client whose network is whoever calls it.
pub struct TlsClient {
    /// The connection of `rustls`.
    pub conn: ClientConnection,
}

/// Makes the configuration of a client that trusts `ca` alone, a PEM text, and shows `pair` if
/// there is one.
///
/// # Panics
/// If a text is no certificate.
pub fn client_config(
    ca: &str,
    versions: &[&'static SupportedProtocolVersion],
    pair: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("a version")
        .with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    Arc::new(config)
}

impl TlsClient {
    /// Makes a client of the server `name`.
    ///
    /// # Panics
    /// If the name is not legal.
    pub fn new(config: Arc<ClientConfig>, name: &str) -> TlsClient {
        let name = ServerName::try_from(name.to_owned()).expect("a legal name");
        TlsClient { conn: ClientConnection::new(config, name).expect("a session") }
    }

    /// Encrypts `bytes`, at once or after the handshake.
    ///
    /// # Panics
    /// Never: it is memory.
    pub fn send(&mut self, bytes: &[u8]) {
        self.conn.set_buffer_limit(None);
        self.conn.writer().write_all(bytes).expect("into memory");
    }

    /// Takes what goes to the server.
    ///
    /// # Panics
    /// Never: it is memory.
    pub fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut out).expect("into memory");
        }
        out
    }

    /// Gives it what the server sent. Returns what that says.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// # Panics
    /// Never: it is memory.
    pub fn input(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            if self.conn.read_tls(&mut bytes).expect("from memory") == 0 {
                break;
            }
            self.conn.process_new_packets()?;
            match self.conn.reader().read_to_end(&mut plain) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("from memory: {error}"),
            }
        }
        Ok(plain)
    }
}
