//! What new connections are given: the files' certificates and keys, as `rustls` takes them.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets,
        ResolvesServerCert, WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};

use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::files::{Contents, Files};
use crate::{
    config::{
        Config,
        open::{open, open_again},
    },
    error::{Error, ErrorKind},
};

/// Tickets that a client gets in a TLS 1.3 handshake. One connection follows another here, so one
/// is enough, and each costs as much as a record.
const TICKETS: usize = 1;

/// The certificates of a server. Usable from any thread.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
}

/// The files, and what they held when they were last good.
struct Current {
    files: Arc<Files>,
    config: Arc<ServerConfig>,
    pairs_digest: u64,
    client_ca_digest: u64,
    /// When the first certificate ends, in seconds since 1970.
    expires_at: Option<i64>,
}

/// Certificates and keys that were read and found good, and are not in use yet.
pub(crate) struct NewTls {
    current: Current,
    has_other_pairs: bool,
    has_other_client_ca: bool,
}

impl NewTls {
    /// Whether they are others than those in use.
    pub(crate) fn is_other(&self) -> bool {
        self.has_other_pairs || self.has_other_client_ca
    }

    /// Whether a certificate or key is another one.
    pub(crate) fn has_other_pairs(&self) -> bool {
        self.has_other_pairs
    }

    /// Whether the authorities of clients are others.
    pub(crate) fn has_other_client_ca(&self) -> bool {
        self.has_other_client_ca
    }
}

impl Tls {
    /// Reads and checks the files of `config`. Returns `None` if it has no certificate.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a file cannot be read, or holds something else than its setting asks
    /// for.
    pub(crate) fn load(config: &Config) -> Result<Option<Tls>, Error> {
        let Some(files) = Files::of(config) else { return Ok(None) };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let contents = files.read(open)?;
        let ticketer = ticketer()?;
        let (config, expires_at) = server_config(&contents, &provider, ticketer)?;
        let (pairs_digest, client_ca_digest) =
            (contents.pairs_digest(), contents.client_ca_digest());
        drop(contents);
        let (files, config) = (Arc::new(files), Arc::new(config));
        let current = Current { files, config, pairs_digest, client_ca_digest, expires_at };
        Ok(Some(Tls { provider, current: RwLock::new(current) }))
    }

    /// What the next connection is given.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    /// Returns when the first of the certificates in use ends, in seconds since 1970.
    pub(crate) fn expires_at(&self) -> Option<i64> {
        self.current.read().expires_at
    }

    /// Reads the files again, or those of another configuration, which must all be good. Waits for
    /// the disk.
    pub(crate) fn prepare(&self, config: Option<&Config>) -> Result<NewTls, Error> {
        let others = config.and_then(Files::of).map(Arc::new);
        let files = others.unwrap_or_else(|| Arc::clone(&self.current.read().files));
        let contents = files.read(open_again)?;
        let (pairs_digest, client_ca_digest) =
            (contents.pairs_digest(), contents.client_ca_digest());
        let (has_other_pairs, has_other_client_ca, ticketer_in_use) = {
            let current = self.current.read();
            let has_other_pairs = current.pairs_digest != pairs_digest;
            let has_other_client_ca = current.client_ca_digest != client_ca_digest;
            if !has_other_pairs && !has_other_client_ca {
                drop(contents);
                let config = Arc::clone(&current.config);
                let expires_at = current.expires_at;
                let current = Current { files, config, pairs_digest, client_ca_digest, expires_at };
                return Ok(NewTls { current, has_other_pairs, has_other_client_ca });
            }
            // A ticket stands for the certificate that its client once showed.
            let ticketer = (!has_other_client_ca).then(|| Arc::clone(&current.config.ticketer));
            (has_other_pairs, has_other_client_ca, ticketer)
        };
        let ticketer = ticketer_in_use.map_or_else(ticketer, Ok)?;
        let (config, expires_at) = server_config(&contents, &self.provider, ticketer)?;
        let config = Arc::new(config);
        drop(contents);
        let current = Current { files, config, pairs_digest, client_ca_digest, expires_at };
        Ok(NewTls { current, has_other_pairs, has_other_client_ca })
    }

    /// Gives new connections what was prepared. Connections that are open, and sessions that
    /// clients have tickets for, go on.
    pub(crate) fn take(&self, new: NewTls) {
        *self.current.write() = new.current;
    }
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    let cannot = |error| {
        Error::new(ErrorKind::System, "cannot make a key for TLS tickets").with_source(error)
    };
    aws_lc_rs::Ticketer::new().map_err(cannot)
}

fn server_config(
    contents: &Contents<'_>,
    provider: &Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<(ServerConfig, Option<i64>), Error> {
    let cannot = |what: &'static str| {
        move |error: rustls::Error| Error::new(ErrorKind::System, what).with_source(error)
    };
    let pairs = Pairs(contents.pairs(provider)?);
    let expires_at = pairs.expires_at();
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(cannot("cannot offer TLS 1.2 and 1.3"))?;
    let builder = match contents.client_roots()? {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build();
            builder.with_client_cert_verifier(verifier.map_err(|error| {
                Error::config("tls_client_ca: cannot be used").with_source(error)
            })?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(pairs));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ticketer;
    config.send_tls13_tickets = TICKETS;
    // Tickets keep a session at its client; a table here would be one more lock for all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((config, expires_at))
}

/// The certificates, each with its key; at least one.
#[derive(Debug)]
struct Pairs(Vec<Arc<CertifiedKey>>);

impl Pairs {
    /// Returns when the first of the certificates ends, in seconds since 1970; those of the
    /// authorities that they come with included.
    fn expires_at(&self) -> Option<i64> {
        let certs = self.0.iter().flat_map(|pair| &pair.cert);
        let ends = certs.filter_map(|cert| {
            let (_, cert) = X509Certificate::from_der(cert).ok()?;
            Some(cert.validity().not_after.timestamp())
        });
        ends.min()
    }
}

impl ResolvesServerCert for Pairs {
    /// Chooses the first certificate for the name that the client asks for, or else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &self.0[..] {
            return Some(Arc::clone(only));
        }
        let signs =
            |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_named = |pair: &&Arc<CertifiedKey>| {
            let cert = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
            let (Ok(cert), Some(name)) = (cert, &name) else { return false };
            verify_server_name(&cert, name).is_ok()
        };
        let mut usable = self.0.iter().filter(signs);
        let first = usable.clone().next();
        usable.find(is_named).or(first).cloned()
    }
}
