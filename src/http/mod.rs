//! The bytes before the upgrade: request heads, the few routes, and their answers.

pub(crate) mod head;
pub(crate) mod response;
pub(crate) mod router;
