//! Identity: who a client is, what it may do, and for how long.
//!
//! The verifier turns a token (a JWT, RFC 7519) into an [`Identity`]: the user, the end
//! of the token, and what the token grants. [`Permissions`] say what an identity may do in one
//! room; the handler decides them, and the hub remembers them for each membership, so that a
//! message costs no look-up. The verifier needs the cargo feature `identity`; without it, a handler
//! can still say by its own means who somebody is.

mod permissions;
mod grants;
mod subject;
mod token_error;
mod revocations;
#[cfg(feature = "identity")]
mod keys;
#[cfg(feature = "identity")]
mod jwks;
#[cfg(feature = "identity")]
mod verifier;
#[cfg(feature = "identity")]
mod sign;
mod authenticator;
mod policy;

pub(crate) use authenticator::Authenticator;
pub(crate) use grants::read as read_grants;
pub(crate) use subject::is_user;
pub use {
    grants::Grant,
    permissions::{NotAPermission, Permissions},
    policy::{Verdict, decide, explain},
    revocations::Revocation,
    subject::Identity,
    token_error::TokenError,
};
#[cfg(feature = "identity")]
pub use {
    sign::sign,
    verifier::{check_keys, verify_once},
};
