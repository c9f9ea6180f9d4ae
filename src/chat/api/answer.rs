//! Answers of the server API, and the statuses of faults.

use rusty_socks_protocol::ErrorCode;
use serde::Serialize;

use crate::{
    AdminAnswer, Status,
    chat::{fault::Fault, json},
};

/// The content type of an answer.
pub(super) const JSON: &str = "application/json";

/// The pause after which a request may be repeated that the server was too busy for.
pub(super) const RETRY_S: u64 = 1;

/// Answers with `body` as JSON.
pub(super) fn ok(body: &impl Serialize) -> AdminAnswer {
    AdminAnswer::ok(JSON, json::text(body))
}

pub(super) fn error(status: Status, word: &str, message: &str) -> AdminAnswer {
    AdminAnswer::error(status, word, message, None)
}

/// Answers a request that failed.
pub(super) fn refusal(fault: &Fault) -> AdminAnswer {
    let status = status_of(&fault.code);
    let may_help = matches!(status, Status::TooManyRequests | Status::Unavailable);
    AdminAnswer::error(status, fault.code.as_str(), fault.message(), may_help.then_some(RETRY_S))
}

pub(super) fn status_of(code: &ErrorCode) -> Status {
    match code {
        ErrorCode::Unauthorized => Status::Unauthorized,
        ErrorCode::Forbidden => Status::Forbidden,
        ErrorCode::NotFound => Status::NotFound,
        ErrorCode::TooLarge => Status::ContentTooLarge,
        ErrorCode::LimitExceeded | ErrorCode::RateLimited => Status::TooManyRequests,
        ErrorCode::Overloaded => Status::Unavailable,
        ErrorCode::Internal => Status::InternalError,
        _ => Status::BadRequest,
    }
}
