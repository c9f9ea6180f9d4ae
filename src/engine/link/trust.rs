//! Whom a link trusts over TLS.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// The largest file of authorities, in bytes.
const CA_BYTES_MAX: u64 = 1 << 20;

/// Whom a link trusts over TLS. Clones share it, and the tickets of servers.
#[derive(Debug, Clone)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the authorities in a PEM file, or else those that browsers trust.
    pub(super) fn new(ca: Option<&Path>) -> io::Result<Trust> {
        let roots = match ca {
            Some(path) => roots_of(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust(Arc::new(config)))
    }

    /// Begins TLS with a host, a name or an IP address. Nothing is sent yet.
    pub(super) fn begin(&self, host: &str) -> Result<Box<ClientConnection>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("a certificate cannot be for {host:?}"))?;
        let session = ClientConnection::new(Arc::clone(&self.0), name);
        session.map(Box::new).map_err(|error| format!("cannot begin TLS: {error}"))
    }
}

fn roots_of(path: &Path) -> io::Result<RootCertStore> {
    let invalid = |what: &str| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", path.display()))
    };
    let size = fs::metadata(path).map_err(|error| invalid(&error.to_string()))?.len();
    if size > CA_BYTES_MAX {
        return Err(invalid(&format!("must have at most {CA_BYTES_MAX} bytes, not {size}")));
    }
    let bytes = fs::read(path).map_err(|error| invalid(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&bytes) {
        let cert = cert.map_err(|_| invalid("holds a certificate that is not legal"))?;
        roots.add(cert).map_err(|_| invalid("holds a certificate that is not legal"))?;
    }
    match roots.is_empty() {
        true => Err(invalid("must hold PEM certificates (-----BEGIN CERTIFICATE-----)")),
        false => Ok(roots),
    }
}
