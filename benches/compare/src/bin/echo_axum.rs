//! A peer: an echo, a broadcast and rooms on `axum`'s WebSockets, written as its documentation
//! does. axum is tokio-tungstenite behind hyper and a router: what differs between the two is what
//! that costs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use axum::serve::ListenerExt;
use clap::Parser;
use futures_util::SinkExt;
use rusty_socks_compare::peer::{LAG_MESSAGES_MAX, Mode, PeerArgs};
use rusty_socks_compare::rooms::Rooms;
use tokio::sync::broadcast::{self, error::RecvError};

#[derive(Parser)]
#[command(about = "Echo, broadcast and rooms on axum, to compare with")]
struct Args {
    #[command(flatten)]
    peer: PeerArgs,
}

/// What all connections share.
struct Shared {
    mode: Mode,
    everyone: broadcast::Sender<Message>,
    rooms: Arc<Rooms<Message>>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.peer.runtime()?.block_on(serve(&args.peer))
}

async fn serve(args: &PeerArgs) -> anyhow::Result<()> {
    let (everyone, _) = broadcast::channel(LAG_MESSAGES_MAX);
    let rooms = Rooms::new(Message::text);
    let shared = Arc::new(Shared { mode: args.mode, everyone, rooms });
    let app = Router::new().route("/", any(upgrade)).with_state(shared);
    let listener = args.listen().await?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("cannot set TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, app).await?;
    Ok(())
}

async fn upgrade(upgrade: WebSocketUpgrade, State(shared): State<Arc<Shared>>) -> Response {
    upgrade.on_upgrade(async move |socket| {
        // A client that leaves without a word is everyday business under load.
        let _ = match shared.mode {
            Mode::Echo => echo(socket).await,
            Mode::Broadcast => share(socket, &shared.everyone).await,
            Mode::Rooms => chat(socket, &shared.rooms).await,
        };
    })
}

async fn echo(mut socket: WebSocket) -> Result<(), axum::Error> {
    while let Some(message) = socket.recv().await {
        let message = message?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Passes what this client says to everyone, and to this client what anyone says. What has gathered
/// while this task slept leaves in one flush.
async fn share(
    mut socket: WebSocket,
    everyone: &broadcast::Sender<Message>,
) -> Result<(), axum::Error> {
    let mut inbox = everyone.subscribe();
    loop {
        tokio::select! {
            said = socket.recv() => match said {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    // It fails only without receivers, and this task is one.
                    let _ = everyone.send(message);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            heard = inbox.recv() => match heard {
                Ok(message) => {
                    socket.feed(message).await?;
                    while let Ok(message) = inbox.try_recv() {
                        socket.feed(message).await?;
                    }
                    socket.flush().await?;
                }
                Err(RecvError::Lagged(lost)) => eprintln!("a client lost {lost} messages"),
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Does what this client asks of the rooms, and passes on what the others say there.
async fn chat(mut socket: WebSocket, rooms: &Arc<Rooms<Message>>) -> Result<(), axum::Error> {
    let (mut client, mut inbox) = rooms.enter();
    loop {
        tokio::select! {
            said = socket.recv() => match said {
                Some(Ok(Message::Text(text))) => {
                    if let Some(answer) = client.handle(&text) {
                        socket.send(answer).await?;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            // The client holds one sender itself, so there is no end to this.
            Some(message) = inbox.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = inbox.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}
