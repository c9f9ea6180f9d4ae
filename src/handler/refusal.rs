//! A handler's refusal of an upgrade.

use crate::http::response::Status;

/// A refusal of an upgrade: an HTTP status and a message, returned by
/// [`Handler::on_upgrade`](crate::Handler::on_upgrade). The client gets both as a plain HTTP answer
/// with a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refusal {
    /// Refuses with 400: the request is malformed for this route.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::BadRequest, message: message.into() }
    }

    /// Refuses with 401: the client did not authenticate.
    pub fn unauthorized(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unauthorized, message: message.into() }
    }

    /// Refuses with 403: the client is not allowed to connect.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Forbidden, message: message.into() }
    }

    /// Refuses with 404: nothing exists under this path and query.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::NotFound, message: message.into() }
    }

    /// Refuses with 429: the client connects too often.
    pub fn too_many_requests(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::TooManyRequests, message: message.into() }
    }

    /// Refuses with 500: the handler panicked.
    pub(crate) fn internal() -> Refusal {
        Refusal { status: Status::InternalError, message: "internal error".to_owned() }
    }

    /// Refuses with 503: the handler cannot serve the client now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unavailable, message: message.into() }
    }
}
