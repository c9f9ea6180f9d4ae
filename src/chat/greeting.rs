//! The greeting of a client: the default room, `welcome`, and the replay.

use std::sync::Arc;

use rusty_socks_protocol::{Answer, answer::Welcome};

use super::{
    about::About,
    answers,
    fault::Fault,
    json,
    state::{Ctx, now, user},
};
use crate::{Identity, Joined, Permissions, Replay, RoomName};

/// The server's name and version in `welcome`.
const SERVER: &str = concat!("rusty_socks/", env!("CARGO_PKG_VERSION"));

/// Lets a client in: it joins the default room and is greeted.
pub(super) fn enter(ctx: &mut Ctx<'_>, about: &Arc<About>) {
    let Some(room) = &about.default_room else {
        return welcome(ctx, None, about);
    };
    if !ctx.permissions(room).contains(Permissions::JOIN) {
        // The client did not ask for this room.
        return welcome(ctx, None, about);
    }
    let (name, about) = (room.clone(), Arc::clone(about));
    ctx.join(&name.clone(), Replay::Latest(about.replay)).then(move |ctx, joined| match joined {
        Ok(joined) => {
            welcome(ctx, Some((&name, &joined)), &about);
            for message in &joined.replay {
                ctx.send_prepared(message);
            }
        }
        Err(error) => {
            welcome(ctx, None, &about);
            ctx.send(&Fault::from(error).frame(None));
        }
    });
}

fn welcome(ctx: &mut Ctx<'_>, joined: Option<(&RoomName, &Joined)>, about: &About) {
    let (client_id, session) = (ctx.client_id().to_string(), ctx.session_token().to_string());
    let position = joined.map(|(_, joined)| &joined.position);
    let (identity, token_expires_s) = of_welcome(ctx);
    let frame = json::text(&Answer::welcome(Welcome {
        client_id: client_id.into(),
        session: session.into(),
        room: joined.map(|(room, _)| room.as_str().into()),
        epoch: position.map(answers::epoch),
        seq: position.map(|position| position.seq),
        server: SERVER.into(),
        node: ctx.node().to_string().into(),
        ping_s: about.ping,
        max_message_bytes: about.max_message_bytes,
        resume_window_s: about.resume_window,
        limits: about.limits(ctx.has_address_limits(), identity.is_some()),
        user: identity.as_ref().map(|identity| (&*identity.user).into()),
        token_expires_s,
    }));
    ctx.send(&frame);
}

/// Returns the fields of `welcome` about the client's user.
fn of_welcome(ctx: &mut Ctx<'_>) -> (Option<Arc<Identity>>, Option<u64>) {
    match user(ctx) {
        Some(user) => (ctx.identity(), user.expires_s(now(ctx))),
        None => (None, None),
    }
}
