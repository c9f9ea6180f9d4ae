//! How a handler refuses an upgrade.

use crate::http::response::Status;

/// Why an upgrade is refused by a handler, and with which HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Refusal {
    /// 400: the request makes no sense here.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::BadRequest, message: message.into() }
    }

    /// 401: the client did not say who it is.
    pub fn unauthorized(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unauthorized, message: message.into() }
    }

    /// 403: the client may not.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Forbidden, message: message.into() }
    }

    /// 404: there is nothing under this path and query.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::NotFound, message: message.into() }
    }

    /// 429: the client asks too often.
    pub fn too_many_requests(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::TooManyRequests, message: message.into() }
    }

    /// 503: the handler cannot take the client now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal { status: Status::Unavailable, message: message.into() }
    }
}
