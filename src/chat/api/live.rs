//! The key of a viewer that cannot show it in a header, as no page in a browser can.

use std::sync::Arc;

use serde::Deserialize;

use super::access::Access;
use crate::{AdminStep, CloseReason, Status, config::ApiScope};

/// The first message of a viewer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum First {
    Auth { key: String },
}

/// Shows the figures to the client if its first message has a key that may read them.
pub(super) fn begin(access: &Arc<Access>) -> AdminStep {
    let access = Arc::clone(access);
    AdminStep::Live(Some(Box::new(move |text| judge(&access, text))))
}

fn judge(access: &Access, text: &str) -> Result<(), CloseReason> {
    let Ok(First::Auth { key }) = serde_json::from_str(text) else {
        let wanted = r#"the first message must be {"type":"auth","key":"…"}"#;
        return Err(CloseReason::UNAUTHORIZED.because(wanted));
    };
    let found = access.caller_with(Some(&key), Some(ApiScope::Read));
    let caller = found.map_err(|refused| match refused.status {
        Status::Forbidden => CloseReason::FORBIDDEN.because("the key has not the scope read"),
        _ => CloseReason::UNAUTHORIZED.because("no such key"),
    })?;
    match caller.key.allows_all_rooms() {
        true => Ok(()),
        false => Err(CloseReason::FORBIDDEN.because("the key may be used for some rooms only")),
    }
}
