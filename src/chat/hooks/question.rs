//! The question to the backend, as JSON.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::counts::Hook;
use crate::chat::{json, upgraded::Upgraded};

/// One question. Fields that its hook does not have are absent.
#[derive(Debug, Serialize)]
pub(in crate::chat) struct Question<'a> {
    pub(in crate::chat) event: Hook,
    pub(in crate::chat) client_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::chat) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::chat) room: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(in crate::chat) rooms: &'a [&'a str],
    /// As the client sent it, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::chat) content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::chat) sender: Option<&'a RawValue>,
    #[serde(flatten)]
    pub(in crate::chat) upgraded: Option<&'a Upgraded>,
    pub(in crate::chat) remote_addr: SocketAddr,
}

impl<'a> Question<'a> {
    /// A question about a client, without anything about the hook.
    pub(in crate::chat) fn about(
        event: Hook,
        client_id: Uuid,
        user: Option<&'a str>,
        remote_addr: SocketAddr,
    ) -> Question<'a> {
        Question {
            event,
            client_id,
            user,
            room: None,
            rooms: &[],
            content: None,
            sender: None,
            upgraded: None,
            remote_addr,
        }
    }

    pub(super) fn body(&self) -> String {
        json::text(self)
    }
}
