//! The reasons why a token is refused.

use std::fmt;

macro_rules! token_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $text:literal;)*) => {
        /// The reason why a token is refused. Says nothing that is secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum TokenError {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl TokenError {
            /// Every reason.
            pub const ALL: &[TokenError] = &[$(TokenError::$variant),*];

            /// Returns the stable name of the reason, as in `/stats`.
            pub fn name(self) -> &'static str {
                match self {
                    $(TokenError::$variant => $name,)*
                }
            }
        }

        impl fmt::Display for TokenError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(TokenError::$variant => $text,)*
                })
            }
        }
    };
}

token_errors! {
    /// There is no token.
    Missing = "missing", "a token is required";
    /// The token is longer than 16 KiB.
    TooLong = "too_long", "the token has more than 16 KiB";
    /// The token is not a signed JWT.
    Malformed = "malformed", "the token is not a signed JWT";
    /// The token's algorithm is not that of a key of the server: `none` never is.
    Algorithm = "algorithm", "the token's algorithm is not one that this server has a key for";
    /// No key has the token's `kid`.
    UnknownKey = "unknown_key", "no key has the token's kid";
    /// The keys are being fetched. The token may be good.
    KeysUnavailable = "keys_unavailable", "the keys for tokens are being fetched; try again";
    /// The signature does not fit.
    Signature = "signature", "the token's signature is wrong";
    /// The token has expired.
    Expired = "expired", "the token has expired";
    /// The token is not valid yet.
    NotYetValid = "not_yet_valid", "the token is not valid yet";
    /// The token is for another audience.
    Audience = "audience", "the token is for another audience";
    /// The token is from another issuer.
    Issuer = "issuer", "the token is from another issuer";
    /// A claim is missing or malformed: `sub` and `exp` are required.
    Claims = "claims",
        "a claim is missing or malformed: sub (1 to 128 bytes), exp, and rooms if it is there";
    /// The token was revoked.
    Revoked = "revoked", "the token was revoked";
    /// No token came within `auth_timeout`.
    TimedOut = "timed_out", "no token came in time";
    /// The server verifies no tokens.
    Off = "off", "this server verifies no tokens";
}

impl TokenError {
    /// Whether the same token may be accepted a moment later.
    pub fn is_temporary(self) -> bool {
        self == TokenError::KeysUnavailable
    }
}

impl std::error::Error for TokenError {}
