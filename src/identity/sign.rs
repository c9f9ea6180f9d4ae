//! Makes tokens, for trying out and for tests.

use jsonwebtoken::{EncodingKey, Header};

use crate::{
    config::HMAC_SECRET_BYTES_MIN,
    error::{Error, ErrorKind},
};

/// Makes a token of `claims`, signed with HS256. Needs the cargo feature `identity`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: the secret has less than 32 bytes.
pub fn sign(claims: &serde_json::Value, secret: &str) -> Result<String, Error> {
    if secret.len() < HMAC_SECRET_BYTES_MIN {
        let message = format!("the secret must have at least {HMAC_SECRET_BYTES_MIN} bytes");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signed = jsonwebtoken::encode(&Header::default(), claims, &key);
    signed.map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))
}
