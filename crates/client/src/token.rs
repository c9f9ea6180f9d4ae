//! Tokens: who this client is to the server, and where a new one comes from.

use std::{error, fmt, sync::Arc};

use crate::error::{Error, ErrorKind};

/// What a provider may fail with.
pub(crate) type ProviderError = Box<dyn error::Error + Send + Sync>;

type Provide = dyn Fn() -> Result<String, ProviderError> + Send + Sync;

/// Makes tokens: one before each connection, and one before that ends.
#[derive(Clone)]
pub(crate) struct TokenProvider(Arc<Provide>);

impl TokenProvider {
    pub(crate) fn new(
        provide: impl Fn() -> Result<String, ProviderError> + Send + Sync + 'static,
    ) -> TokenProvider {
        TokenProvider(Arc::new(provide))
    }

    /// Asks for a token, which may take a while.
    pub(crate) fn token(&self) -> Result<String, Error> {
        let token = (self.0)().map_err(|error| {
            Error::caused(ErrorKind::Unreachable, "there is no token to connect with", error)
        })?;
        let token = token.trim();
        if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let text = "a token must be one word without white space";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(token.to_owned())
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}
