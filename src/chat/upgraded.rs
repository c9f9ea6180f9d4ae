//! What the backend of the hooks is told of an upgrade.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Request;

/// The headers of an upgrade that the backend is told.
const HEADERS: [&str; 4] = ["Origin", "Cookie", "Authorization", "User-Agent"];

/// What an upgrade said.
#[derive(Debug, Serialize)]
pub(super) struct Upgraded {
    path: String,
    query: String,
    headers: BTreeMap<&'static str, String>,
}

impl Upgraded {
    /// Notes what the backend is told of an upgrade. A header that is not UTF-8 is left out.
    pub(super) fn of(request: &Request<'_>) -> Upgraded {
        let header = |name| match name {
            // HTTP/2, from which a proxy may come, lets a client send its cookies in several
            // headers (RFC 9113, section 8.2.3).
            "Cookie" => {
                let cookies: Vec<&str> = request.values(name).collect();
                (!cookies.is_empty()).then(|| (name, cookies.join("; ")))
            }
            _ => Some((name, request.header(name)?.to_owned())),
        };
        Upgraded {
            path: request.path().to_owned(),
            query: request.query().to_owned(),
            headers: HEADERS.into_iter().filter_map(header).collect(),
        }
    }
}
