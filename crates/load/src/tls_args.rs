//! The flags about TLS, of `load` and of what else connects.

use std::path::PathBuf;

use rusty_socks_client::TlsOptions;

// Not a doc comment: it would become the help of whoever flattens it.
#[derive(Debug, Clone, Default, clap::Args)]
#[allow(missing_docs)]
pub struct TlsArgs {
    /// For wss://: trust the authorities in this PEM file, and no others. Default: those that
    /// browsers trust.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,

    /// For wss://: trust any certificate. For tests: whoever is on the way can read everything.
    #[arg(long)]
    insecure: bool,
}

impl TlsArgs {
    /// Returns whom to trust.
    pub fn options(&self) -> TlsOptions {
        let mut options = TlsOptions::default();
        if let Some(path) = &self.ca {
            options = options.ca(path);
        }
        if self.insecure { options.insecure() } else { options }
    }
}
