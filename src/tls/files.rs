//! The PEM files: certificates, private keys, and the authorities of clients.

use std::{
    hash::{DefaultHasher, Hasher},
    io::Read,
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use crate::{
    config::{Config, open::Open},
    error::Error,
};

/// The largest file, in bytes. A chain takes a few thousand, a bundle of all public authorities
/// 250,000.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files that a configuration names.
pub(super) struct Files {
    pairs: Vec<[Named; 2]>,
    client_ca: Option<Named>,
}

/// One file: its key in the configuration, and its path.
struct Named {
    key: String,
    path: String,
}

/// What the files hold.
pub(super) struct Contents<'f> {
    pairs: Vec<[Content<'f>; 2]>,
    client_ca: Option<Content<'f>>,
}

struct Content<'f> {
    of: &'f Named,
    bytes: Vec<u8>,
}

impl Files {
    /// The files of `config`, or `None` if it has no certificate.
    pub(super) fn of(config: &Config) -> Option<Files> {
        let named = |key: &str, path: &str| Named { key: key.to_owned(), path: path.to_owned() };
        let first = [named("tls_cert", &config.tls_cert), named("tls_key", &config.tls_key)];
        let first = (!config.tls_cert.is_empty()).then_some(first);
        let more = config.tls.iter().enumerate().map(|(index, pair)| {
            let [cert, key] = pair.paths(index);
            [named(&cert, &pair.cert), named(&key, &pair.key)]
        });
        let pairs: Vec<_> = first.into_iter().chain(more).collect();
        let client_ca = Some(named("tls_client_ca", &config.tls_client_ca));
        let client_ca = client_ca.filter(|ca| !ca.path.is_empty());
        (!pairs.is_empty()).then_some(Files { pairs, client_ca })
    }

    /// Reads all of them.
    pub(super) fn read(&self, open: Open) -> Result<Contents<'_>, Error> {
        let mut pairs = Vec::new();
        for [cert, key] in &self.pairs {
            pairs.push([cert.read(open)?, key.read(open)?]);
        }
        let client_ca = self.client_ca.as_ref().map(|ca| ca.read(open)).transpose()?;
        Ok(Contents { pairs, client_ca })
    }
}

impl Named {
    fn read(&self, open: Open) -> Result<Content<'_>, Error> {
        let mut bytes = Vec::new();
        let read = open(self.path.as_ref())
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(error) => Err(self.wrong("cannot read the file").with_source(error)),
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
                Err(self.wrong(&format!("must be a PEM file of at most {FILE_BYTES_MAX} bytes")))
            }
            Ok(_) => Ok(Content { of: self, bytes }),
        }
    }

    /// An error about this file.
    fn wrong(&self, what: &str) -> Error {
        Error::config(format!("{} = {:?}: {what}", self.key, self.path))
    }
}

impl Contents<'_> {
    /// Returns a number that is another one for other certificates and keys. Keeps no copy of a
    /// private key.
    pub(super) fn pairs_digest(&self) -> u64 {
        digest(self.pairs.iter().flatten().map(|content| content.bytes.as_slice()))
    }

    /// Returns a number that is another one for other authorities of clients.
    pub(super) fn client_ca_digest(&self) -> u64 {
        digest(self.client_ca.iter().map(|content| content.bytes.as_slice()))
    }

    /// The certificates with their keys, the first pair first.
    pub(super) fn pairs(&self, provider: &CryptoProvider) -> Result<Vec<Arc<CertifiedKey>>, Error> {
        self.pairs.iter().map(|[cert, key]| pair(cert, key, provider).map(Arc::new)).collect()
    }

    /// The authorities that a client's certificate must come from, if it needs one.
    pub(super) fn client_roots(&self) -> Result<Option<RootCertStore>, Error> {
        let Some(content) = &self.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for cert in content.certificates()? {
            roots.add(cert).map_err(|error| {
                content.of.wrong("holds a certificate that is not legal").with_source(error)
            })?;
        }
        Ok(Some(roots))
    }
}

impl Content<'_> {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        const DEMAND: &str = "must hold PEM certificates (-----BEGIN CERTIFICATE-----)";
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match certs {
            Ok(certs) if certs.is_empty() && self.bytes.is_empty() => {
                Err(self.of.wrong(&format!("{DEMAND}; the file is empty")))
            }
            Ok(certs) if certs.is_empty() => {
                Err(self.of.wrong(&format!("{DEMAND}; there is none in the file")))
            }
            Ok(certs) => Ok(certs),
            Err(error) => Err(self.of.wrong(DEMAND).with_source(error)),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        const DEMAND: &str = "must hold one PEM private key without a passphrase";
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(_) if self.is_encrypted() => Err(self.of.wrong(&self.encrypted(DEMAND))),
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) if self.is_encrypted() => {
                Err(self.of.wrong(&self.encrypted(DEMAND)))
            }
            Err(pem::Error::NoItemsFound) if self.bytes.is_empty() => {
                Err(self.of.wrong(&format!("{DEMAND}; the file is empty")))
            }
            Err(pem::Error::NoItemsFound) => {
                Err(self.of.wrong(&format!("{DEMAND}; there is none in the file")))
            }
            Err(error) => Err(self.of.wrong(DEMAND).with_source(error)),
        }
    }

    fn is_encrypted(&self) -> bool {
        let has = |text: &[u8]| self.bytes.windows(text.len()).any(|window| window == text);
        has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
    }

    fn encrypted(&self, demand: &str) -> String {
        format!("{demand}; this one is encrypted (`openssl pkey` writes it in the clear)")
    }
}

fn pair(
    cert: &Content<'_>,
    key: &Content<'_>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let chain = cert.certificates()?;
    let private_key = provider
        .key_provider
        .load_private_key(key.private_key()?)
        .map_err(|error| key.of.wrong("must be an RSA, ECDSA or Ed25519 key").with_source(error))?;
    let certified = CertifiedKey::new(chain, private_key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let Named { key: name, path } = cert.of;
            let what = format!("must be the key of the first certificate in {name} = {path:?}");
            Err(key.of.wrong(&what))
        }
        Err(error) => {
            Err(cert.of.wrong("holds a certificate that is not legal").with_source(error))
        }
    }
}

fn digest<'c>(contents: impl Iterator<Item = &'c [u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for bytes in contents {
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    }
    hasher.finish()
}
