//! The routes of the server API, in one table that `docs/openapi.json` is held against.

use percent_encoding::percent_decode_str;

use crate::{Request, config::ApiScope};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Publish,
    Batch,
    Rooms,
    History,
    ClearHistory,
    Presence,
    Sessions,
    CloseSession,
    CloseUser,
    Revoke,
    Drain,
    Reload,
    Nodes,
    Settings,
    Key,
    Live,
}

/// A method, a path whose part in braces is a parameter, and what they ask for.
const ROUTES: [(&str, &str, Operation); 16] = [
    ("POST", "/v1/publish", Operation::Publish),
    ("POST", "/v1/batch", Operation::Batch),
    ("GET", "/v1/rooms", Operation::Rooms),
    ("GET", "/v1/rooms/{room}/history", Operation::History),
    ("DELETE", "/v1/rooms/{room}/history", Operation::ClearHistory),
    ("GET", "/v1/rooms/{room}/presence", Operation::Presence),
    ("GET", "/v1/sessions", Operation::Sessions),
    ("POST", "/v1/sessions/{client_id}/close", Operation::CloseSession),
    ("POST", "/v1/users/{user}/close", Operation::CloseUser),
    ("POST", "/v1/revoke", Operation::Revoke),
    ("POST", "/v1/drain", Operation::Drain),
    ("POST", "/v1/reload", Operation::Reload),
    ("GET", "/v1/nodes", Operation::Nodes),
    ("GET", "/v1/settings", Operation::Settings),
    ("GET", "/v1/key", Operation::Key),
    ("GET", "/v1/live", Operation::Live),
];

impl Operation {
    /// Returns the scope that a key needs for it; `None` if any key will do.
    pub(super) fn scope(self) -> Option<ApiScope> {
        Some(match self {
            Operation::Key => return None,
            Operation::Publish | Operation::Batch => ApiScope::Publish,
            Operation::Rooms
            | Operation::History
            | Operation::Presence
            | Operation::Sessions
            | Operation::Nodes
            | Operation::Live => ApiScope::Read,
            Operation::ClearHistory
            | Operation::CloseSession
            | Operation::CloseUser
            | Operation::Revoke
            | Operation::Drain
            | Operation::Reload
            | Operation::Settings => ApiScope::Admin,
        })
    }

    /// Returns the parameters that its query may have.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Operation::Rooms => &["prefix", "after", "limit"],
            Operation::History => &["before", "after", "limit"],
            Operation::Presence => &["after", "limit"],
            Operation::Sessions => &["room", "user", "after", "limit"],
            Operation::Publish
            | Operation::Batch
            | Operation::ClearHistory
            | Operation::CloseSession
            | Operation::CloseUser
            | Operation::Revoke
            | Operation::Drain
            | Operation::Reload
            | Operation::Nodes
            | Operation::Settings
            | Operation::Key
            | Operation::Live => &[],
        }
    }
}

/// The route of a request.
pub(super) enum Found {
    /// An operation, and the parameter in its path.
    Operation(Operation, String),
    /// A path that has other methods: these.
    OtherMethods(String),
    Nothing,
}

/// Finds the route of `request`. A GET route answers HEAD too.
pub(super) fn find(request: &Request<'_>) -> Found {
    let method = if request.method() == "HEAD" { "GET" } else { request.method() };
    let mut allowed = Vec::new();
    for (known, path, operation) in ROUTES {
        let Some(parameter) = parameter(path, request.path()) else { continue };
        if known == method {
            return Found::Operation(operation, parameter);
        }
        allowed.push(known);
        if known == "GET" {
            allowed.push("HEAD");
        }
    }
    match allowed.is_empty() {
        true => Found::Nothing,
        false => Found::OtherMethods(allowed.join(", ")),
    }
}

/// Returns the decoded parameter if `path` is one of `template`; an empty text if it has none.
fn parameter(template: &str, path: &str) -> Option<String> {
    let mut found = String::new();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                found = percent_decode_str(given).decode_utf8().ok()?.into_owned();
                if found.is_empty() {
                    return None;
                }
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_room_in_a_path_is_decoded() {
        let template = "/v1/rooms/{room}/history";
        for (path, room) in [
            ("/v1/rooms/tea/history", Some("tea")),
            ("/v1/rooms/a%2Fb%20%C3%BC/history", Some("a/b ü")),
            ("/v1/rooms/a/b/history", None),
            ("/v1/rooms//history", None),
            ("/v1/rooms/%FF/history", None),
            ("/v1/rooms/tea/history/", None),
            ("/v1/rooms", None),
        ] {
            assert_eq!(parameter(template, path).as_deref(), room, "{path}");
        }
    }

    #[test]
    fn the_openapi_file_has_every_route_and_no_other() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/openapi.json")).expect("JSON");
        let mut described = BTreeSet::new();
        for (path, methods) in file["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                if method != "parameters" {
                    described.insert((method.to_uppercase(), path.clone()));
                    let listed = operation["parameters"].as_array().into_iter().flatten();
                    let in_query = listed.filter(|parameter| parameter["in"] == "query");
                    let names: Vec<&str> =
                        in_query.filter_map(|parameter| parameter["name"].as_str()).collect();
                    let route = ROUTES.iter().find(|(known, route, _)| {
                        known.eq_ignore_ascii_case(method) && route == path
                    });
                    let known = route.map_or(&[][..], |(.., operation)| operation.parameters());
                    assert_eq!(names, known, "{method} {path}");
                }
            }
        }
        let own = ["/health", "/ready", "/stats", "/metrics"].map(|path| ("GET", path));
        let routes = ROUTES.iter().map(|(method, path, _)| (*method, *path)).chain(own);
        let routes: BTreeSet<(String, String)> =
            routes.map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
        assert_eq!(described, routes);
    }
}
