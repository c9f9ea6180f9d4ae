//! HTTP before the upgrade: request heads, the few routes, and their answers.

pub(crate) mod head;
pub(crate) mod body;
pub(crate) mod event_stream;
pub(crate) mod origin;
pub(crate) mod router;
pub(crate) mod page;
pub(crate) mod proxies;
pub(crate) mod response;
