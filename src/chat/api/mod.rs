//! The server API: what programs do over plain HTTP, in the JSON of the chat protocol. The
//! reference is `docs/api.md`, and `docs/openapi.json` for machines.

mod answer;
mod routes;
mod access;
mod query;
mod publish;
mod batch;
mod lists;

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::{
    about::{About, kept_max},
    fault::Fault,
};
use crate::{
    AdminAnswer, AdminContext, AdminHandler, AdminStep, CloseReason, Config, Request, Status,
    config::ApiScope,
};
use access::Access;
use answer::{error, ok, refusal};
use routes::{Found, Operation};

/// The largest body of a request to close a session, in bytes.
const CLOSE_BODY_BYTES_MAX: usize = 1024;

/// The server API as an [`AdminHandler`]: publishes, lists and closes for programs that show one of
/// the keys in [`Config::api_key`] and [`Config::api_keys`].
#[derive(Debug)]
pub struct Api {
    access: Access,
    message_bytes_max: usize,
    body_bytes_max: usize,
    history_max: usize,
    about: Arc<About>,
}

impl Api {
    /// Makes the API with the keys and limits of `config`. Without a key, every request is answered
    /// with 401.
    pub fn new(config: &Config) -> Api {
        Api {
            access: Access::new(config),
            message_bytes_max: config.max_message_bytes,
            body_bytes_max: config.api_body_bytes,
            history_max: kept_max(config),
            about: Arc::new(About::new(config, None)),
        }
    }

    /// Makes the API tell the facts that the clients of the chat protocol are told.
    pub(super) fn with_about(self, about: Arc<About>) -> Api {
        Api { about, ..self }
    }

    fn begin(
        &self,
        ctx: &mut AdminContext<'_>,
        request: &Request<'_>,
    ) -> Result<AdminStep, AdminAnswer> {
        let (operation, parameter) = match routes::find(request) {
            Found::Operation(operation, parameter) => (operation, parameter),
            Found::Nothing => {
                let message = "there is nothing here; docs/api.md lists the routes";
                return Err(error(Status::NotFound, "not_found", message));
            }
            Found::OtherMethods(allowed) => {
                let message = format!("only {allowed} works here");
                let answer = error(Status::MethodNotAllowed, "method_not_allowed", &message);
                return Err(answer.header("Allow", &allowed));
            }
        };
        let caller = self.access.caller(request, operation.scope())?;
        let query = query::Query::parse(request, operation.parameters())?;
        let (message_bytes_max, body_bytes_max) = (self.message_bytes_max, self.body_bytes_max);
        let answer = match operation {
            Operation::Publish => {
                let id = publish::idempotency_key(request)?;
                return Ok(AdminStep::Body(
                    message_bytes_max,
                    Box::new(move |ctx, body| publish::publish(ctx, caller, body, id)),
                ));
            }
            Operation::Batch => {
                return Ok(AdminStep::Body(
                    body_bytes_max,
                    Box::new(move |ctx, body| batch::begin(ctx, caller, message_bytes_max, body)),
                ));
            }
            Operation::CloseSession => {
                caller.check_all_rooms()?;
                let client = client_id(&parameter)?;
                return Ok(AdminStep::Body(
                    CLOSE_BODY_BYTES_MAX,
                    Box::new(move |ctx, body| {
                        let closed = close(ctx, &client, &body);
                        AdminStep::Answer(closed.unwrap_or_else(|fault| refusal(&fault)))
                    }),
                ));
            }
            Operation::Rooms => lists::rooms(ctx, &caller, &query),
            Operation::History => {
                lists::history(ctx, &caller, &parameter, &query, self.history_max)
            }
            Operation::ClearHistory => lists::clear_history(ctx, &caller, &parameter),
            Operation::Presence => lists::presence(ctx, &caller, &parameter, &query),
            Operation::Sessions => lists::sessions(ctx, &caller, &query),
            Operation::Nodes => Ok(lists::nodes(ctx, &self.about)),
            Operation::Drain => {
                caller.check_all_rooms()?;
                ctx.drain();
                #[derive(Serialize)]
                struct Draining {
                    draining: bool,
                }
                Ok(ok(&Draining { draining: true }))
            }
        };
        answer.map(AdminStep::Answer).map_err(|fault| refusal(&fault))
    }
}

impl AdminHandler for Api {
    fn on_request(&self, ctx: &mut AdminContext<'_>, request: &Request<'_>) -> AdminStep {
        self.begin(ctx, request).unwrap_or_else(AdminStep::Answer)
    }

    fn may_read_figures(&self, request: &Request<'_>) -> bool {
        self.access.caller(request, ApiScope::Read).is_ok()
    }
}

/// Closes a session with the code and reason in `body`, if it has any.
fn close(ctx: &mut AdminContext<'_>, client: &Uuid, body: &[u8]) -> Result<AdminAnswer, Fault> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Close {
        /// In JSON `4000.0` is the same integer.
        code: Option<f64>,
        reason: Option<String>,
    }
    #[derive(Serialize)]
    struct Closed {
        client_id: String,
    }
    let asked: Close = match body.iter().all(u8::is_ascii_whitespace) {
        true => Close { code: None, reason: None },
        false if !body.trim_ascii_start().starts_with(b"{") => {
            return Err(Fault::bad_request("the body must be a JSON object, or empty"));
        }
        false => serde_json::from_slice(body)
            .map_err(|error| Fault::bad_request(format!("the body is no close: {error}")))?,
    };
    let code = asked.code.unwrap_or(CloseReason::KICKED.code().into());
    if code != 1000.0 && (!(3000.0..5000.0).contains(&code) || code.fract() != 0.0) {
        return Err(Fault::bad_request("code must be 1000, or 3000 to 4999"));
    }
    let code = code as u16;
    let default = || CloseReason::KICKED.reason().to_owned();
    let reason = asked.reason.unwrap_or_else(default);
    if reason.len() > 123 {
        return Err(Fault::bad_request("reason must have at most 123 bytes"));
    }
    ctx.close(client, CloseReason::new(code, reason))?;
    Ok(ok(&Closed { client_id: client.to_string() }))
}

fn client_id(text: &str) -> Result<Uuid, AdminAnswer> {
    let message = "the path must have a client_id, which is a UUID";
    Uuid::try_parse(text).map_err(|_| error(Status::BadRequest, "bad_request", message))
}
