//! TLS for the listener: certificates and keys from PEM files, swapped without touching a
//! connection.
//!
//! Needs the cargo feature `tls`; without it a configuration that names a certificate is refused.
//! `files.rs` reads the files, `loaded.rs` has what new connections are given. What encrypts for
//! one connection is in `pool/tls.rs`.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod loaded;

#[cfg(not(feature = "tls"))]
pub(crate) use absent::Tls;
#[cfg(feature = "tls")]
pub(crate) use loaded::Tls;

/// The answer to a client that is refused before its handshake: the fatal alert `internal_error`
/// (RFC 8446, section 6). A 503 would need a handshake first, which costs more than a refusal may.
pub(crate) const REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
