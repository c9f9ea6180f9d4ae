//! A handler that tells a client its address.

#![allow(clippy::unwrap_used, unreachable_pub)]

use rusty_socks::{Context, Handler, Message, Refusal, Request};

/// A handler that says which address its client has, at the upgrade and later.
pub struct Who;

impl Handler for Who {
    type State = String;

    fn on_upgrade(&self, request: &Request<'_>) -> Result<String, Refusal> {
        Ok(request.remote_addr().unwrap().to_string())
    }

    fn on_message(&self, ctx: &mut Context<'_, String>, _: Message<'_>) {
        let now = ctx.remote_addr();
        let text = format!("{} {now}", ctx.state());
        ctx.send(Message::Text(&text));
    }
}
