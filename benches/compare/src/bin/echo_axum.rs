//! A peer: an echo, a broadcast and rooms on `axum`'s WebSockets, written as its documentation
//! does. axum is tokio-tungstenite behind hyper and a router: what differs between the two is what
//! that costs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt;
use clap::Parser;
use rusty_socks_compare::peer::{PeerArgs, Shared, converse};

fn main() -> anyhow::Result<()> {
    let args = PeerArgs::parse();
    args.runtime()?.block_on(serve(&args))
}

async fn serve(args: &PeerArgs) -> anyhow::Result<()> {
    let shared = Shared::new(args.mode, Message::text);
    let app = Router::new().route("/", any(upgrade)).with_state(shared);
    let listener = args.listen().await?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("cannot set TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, app).await?;
    Ok(())
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    State(shared): State<Arc<Shared<Message>>>,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        // A client that leaves without a word is everyday business under load.
        let _ = converse(socket, &shared).await;
    })
}
