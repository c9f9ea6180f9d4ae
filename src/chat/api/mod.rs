//! The server API: what programs do over plain HTTP, in the JSON of the chat protocol. The
//! reference is `docs/api.md`, and `docs/openapi.json` for machines.

mod answer;
mod routes;
mod access;
mod query;
mod publish;
mod batch;
mod close;
mod lists;
mod live;
mod reload;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use uuid::Uuid;

use super::{about::kept_max, fault::Fault};
use crate::{
    AdminAnswer, AdminContext, AdminHandler, AdminStep, Config, Pending, Request, Status,
    config::ApiScope,
};
use access::Access;
use answer::{error, ok, refusal};
use routes::{Found, Operation};

/// The server API as an [`AdminHandler`]: publishes, lists and closes for programs that show one of
/// the keys in [`Config::api_key`] and [`Config::api_keys`].
#[derive(Debug)]
pub struct Api {
    settings: ArcSwap<ApiSettings>,
}

/// The settings that a reload replaces.
#[derive(Debug)]
struct ApiSettings {
    access: Arc<Access>,
    message_bytes_max: usize,
    body_bytes_max: usize,
    history_max: usize,
}

impl ApiSettings {
    /// Those who had the same name in `before` go on as they are.
    fn new(config: &Config, before: Option<&ApiSettings>) -> ApiSettings {
        ApiSettings {
            access: Arc::new(Access::new(config, before.map(|before| &*before.access))),
            message_bytes_max: config.max_message_bytes,
            body_bytes_max: config.api_body_bytes,
            history_max: kept_max(config),
        }
    }
}

impl Api {
    /// Makes the API with the keys and limits of `config`. Without a key, every request is answered
    /// with 401.
    pub fn new(config: &Config) -> Api {
        Api { settings: ArcSwap::from_pointee(ApiSettings::new(config, None)) }
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
        let settings = self.settings.load();
        if operation == Operation::Live && request.header("Authorization").is_none() {
            query::Query::parse(request, operation.parameters())?;
            return Ok(live::begin(&settings.access));
        }
        let caller = settings.access.caller(request, operation.scope())?;
        let query = query::Query::parse(request, operation.parameters())?;
        let (message_bytes_max, body_bytes_max) =
            (settings.message_bytes_max, settings.body_bytes_max);
        let answer = match operation {
            Operation::Publish => {
                let id = publish::idempotency_key(request)?;
                return Ok(AdminStep::Body(
                    message_bytes_max,
                    Box::new(move |ctx, body| publish::publish(ctx, caller, body, id)),
                ));
            }
            Operation::Batch => {
                batch::check_head(request)?;
                return Ok(AdminStep::Body(
                    body_bytes_max,
                    Box::new(move |ctx, body| batch::begin(ctx, caller, message_bytes_max, body)),
                ));
            }
            Operation::CloseSession => {
                caller.check_all_rooms()?;
                let client = client_id(&parameter)?;
                return Ok(AdminStep::Body(
                    close::BODY_BYTES_MAX,
                    Box::new(move |ctx, body| close::session(ctx, &client, &body)),
                ));
            }
            Operation::CloseUser => {
                caller.check_all_rooms()?;
                return Ok(AdminStep::Body(
                    close::BODY_BYTES_MAX,
                    Box::new(move |ctx, body| close::user(ctx, parameter, &body)),
                ));
            }
            Operation::Revoke => {
                caller.check_all_rooms()?;
                return Ok(AdminStep::Body(
                    close::BODY_BYTES_MAX,
                    Box::new(|ctx, body| close::revoke(ctx, &body)),
                ));
            }
            Operation::Rooms => lists::rooms(ctx, &caller, &query),
            Operation::History => {
                let history_max = settings.history_max;
                return Ok(when_here(ctx, parameter, move |ctx, room| {
                    let answer = lists::history(ctx, &caller, &room, &query, history_max);
                    answer.map(AdminStep::Answer)
                }));
            }
            Operation::ClearHistory => {
                return Ok(when_here(ctx, parameter, move |ctx, room| {
                    lists::clear_history(ctx, &caller, room)
                }));
            }
            Operation::Presence => {
                return Ok(when_here(ctx, parameter, move |ctx, room| {
                    lists::presence(ctx, &caller, &room, &query).map(AdminStep::Answer)
                }));
            }
            Operation::Sessions => lists::sessions(ctx, &caller, &query),
            Operation::Nodes => {
                caller.check_all_rooms()?;
                Ok(lists::nodes(ctx))
            }
            Operation::Settings => {
                caller.check_all_rooms()?;
                Ok(lists::settings(ctx))
            }
            Operation::Key => Ok(lists::key(&caller)),
            Operation::Live => {
                caller.check_all_rooms()?;
                return Ok(AdminStep::Live(None));
            }
            Operation::Reload => {
                caller.check_all_rooms()?;
                return Ok(reload::begin(ctx));
            }
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

/// Goes on as soon as a room is on this server.
fn when_here(
    ctx: &mut AdminContext<'_>,
    room: String,
    next: impl FnOnce(&mut AdminContext<'_>, String) -> Result<AdminStep, Fault> + Send + 'static,
) -> AdminStep {
    let pending = ctx.bring(&room);
    await_room(ctx, pending, room, next)
}

fn await_room(
    ctx: &mut AdminContext<'_>,
    pending: Pending<()>,
    room: String,
    next: impl FnOnce(&mut AdminContext<'_>, String) -> Result<AdminStep, Fault> + Send + 'static,
) -> AdminStep {
    let refuse = |fault: Fault| AdminStep::Answer(refusal(&fault));
    match pending.outcome() {
        Ok(Ok(())) => next(ctx, room).unwrap_or_else(refuse),
        Ok(Err(error)) => refuse(error.into()),
        Err(pending) => AdminStep::Continue(
            publish::LOOK,
            Box::new(move |ctx| await_room(ctx, pending, room, next)),
        ),
    }
}

impl AdminHandler for Api {
    fn on_request(&self, ctx: &mut AdminContext<'_>, request: &Request<'_>) -> AdminStep {
        self.begin(ctx, request).unwrap_or_else(AdminStep::Answer)
    }

    fn on_reload(&self, config: &Config) {
        let new = ApiSettings::new(config, Some(&**self.settings.load()));
        self.settings.store(Arc::new(new));
    }

    fn may_read_figures(&self, request: &Request<'_>) -> bool {
        let settings = self.settings.load();
        let caller = settings.access.caller(request, Some(ApiScope::Read));
        caller.is_ok_and(|caller| caller.key.allows_all_rooms())
    }
}

fn client_id(text: &str) -> Result<Uuid, AdminAnswer> {
    let message = "the path must have a client_id, which is a UUID";
    Uuid::try_parse(text).map_err(|_| error(Status::BadRequest, "bad_request", message))
}
