//! The server without the feature `tls`.

use crate::{config::Config, error::Error};

/// No server has TLS.
pub(crate) enum Tls {}

/// Nothing.
pub(crate) enum NewTls {}

impl NewTls {
    pub(crate) fn is_other(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_other_pairs(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_other_client_ca(&self) -> bool {
        match *self {}
    }
}

impl Tls {
    /// Refuses a configuration with TLS.
    pub(crate) fn load(config: &Config) -> Result<Option<Tls>, Error> {
        match config.has_tls() {
            true => Err(Error::config(
                "tls_cert: this server was built without the cargo feature `tls`",
            )),
            false => Ok(None),
        }
    }

    pub(crate) fn expires_at(&self) -> Option<i64> {
        match *self {}
    }

    pub(crate) fn prepare(&self, _: Option<&Config>) -> Result<NewTls, Error> {
        match *self {}
    }

    pub(crate) fn take(&self, _: NewTls) {
        match *self {}
    }
}
