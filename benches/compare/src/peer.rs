//! What the peers on tokio share: their command line, the runtime it asks for, and the conversation
//! with a client of those whose socket is a stream and a sink of messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::ws;
use clap::{Parser, ValueEnum};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::tungstenite;

use crate::rooms::Rooms;

/// Messages a slow client may lag behind before it loses some.
pub const LAG_MESSAGES_MAX: usize = 1024;

#[derive(Clone, Parser)]
#[command(about = "Echo, broadcast and rooms on 127.0.0.1, to compare with")]
pub struct PeerArgs {
    /// Port on 127.0.0.1; 0 picks a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// 1 is the current-thread runtime, fit to be pinned to a core; more is the multi-thread one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// What to do with a message.
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    pub mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Mode {
    /// Back to the client it came from.
    Echo,
    /// To all clients, the sender included.
    Broadcast,
    /// JSON: `join`, `leave` and `publish`, to a room's members without the sender.
    Rooms,
}

impl PeerArgs {
    pub fn runtime(&self) -> std::io::Result<Runtime> {
        let mut builder = match self.threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        if self.threads > 1 {
            builder.worker_threads(usize::from(self.threads));
        }
        // The clock is for `axum::serve`, which waits after a failed accept.
        builder.enable_all().build()
    }

    /// Listens, and prints where.
    pub async fn listen(&self) -> anyhow::Result<TcpListener> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        println!("listening on {}", listener.local_addr()?);
        Ok(listener)
    }

    /// Listens, and has a task of its own `converse` with each client.
    pub async fn serve<F>(&self, converse: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = self.listen().await?;
        loop {
            match listener.accept().await {
                // A client that leaves without a word is everyday business under load.
                Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                    tokio::spawn(converse(stream));
                }
                Ok(_) => {}
                // Most likely `EMFILE`. The other tasks must run for it to pass.
                Err(error) => {
                    eprintln!("cannot accept: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// What all connections of a peer share. `M` is what the peer sends, cheap to clone.
pub struct Shared<M> {
    pub mode: Mode,
    pub everyone: broadcast::Sender<M>,
    pub rooms: Arc<Rooms<M>>,
}

impl<M: Clone> Shared<M> {
    /// `text` makes a text message.
    pub fn new(mode: Mode, text: fn(String) -> M) -> Arc<Self> {
        let (everyone, _) = broadcast::channel(LAG_MESSAGES_MAX);
        Arc::new(Self { mode, everyone, rooms: Rooms::new(text) })
    }
}

/// A message of a library.
pub trait Message: Clone {
    /// Whether it is text or binary, and not what the library answers by itself.
    fn is_data(&self) -> bool;
    fn as_text(&self) -> Option<&str>;
}

macro_rules! message {
    ($message:ty) => {
        impl Message for $message {
            fn is_data(&self) -> bool {
                matches!(self, Self::Text(_) | Self::Binary(_))
            }

            fn as_text(&self) -> Option<&str> {
                if let Self::Text(text) = self { Some(text) } else { None }
            }
        }
    };
}

message!(tungstenite::Message);
message!(ws::Message);

/// A socket that is a stream and a sink of messages.
pub trait Socket<M, E>: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin {}

impl<S, M, E> Socket<M, E> for S where S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin {}

/// Does with each message of a client what the mode says, until the client goes.
pub async fn converse<M: Message, E>(
    socket: impl Socket<M, E>,
    shared: &Shared<M>,
) -> Result<(), E> {
    match shared.mode {
        Mode::Echo => echo(socket).await,
        Mode::Broadcast => share(socket, &shared.everyone).await,
        Mode::Rooms => chat(socket, &shared.rooms).await,
    }
}

async fn echo<M: Message, E>(mut socket: impl Socket<M, E>) -> Result<(), E> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_data() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Passes what this client says to everyone, and to this client what anyone says. A message is
/// shared by reference count; what has gathered while this task slept leaves in one flush.
async fn share<M: Message, E>(
    mut socket: impl Socket<M, E>,
    everyone: &broadcast::Sender<M>,
) -> Result<(), E> {
    let mut inbox = everyone.subscribe();
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(Ok(message)) if message.is_data() => {
                    // It fails only without receivers, and this task is one.
                    let _ = everyone.send(message);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            heard = inbox.recv() => match heard {
                Ok(message) => pass_on(&mut socket, message, || inbox.try_recv().ok()).await?,
                Err(RecvError::Lagged(lost)) => eprintln!("a client lost {lost} messages"),
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

/// Does what this client asks of the rooms, and passes on what the others say there.
async fn chat<M: Message, E>(
    mut socket: impl Socket<M, E>,
    rooms: &Arc<Rooms<M>>,
) -> Result<(), E> {
    let (mut client, mut inbox) = rooms.enter();
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(Ok(message)) => {
                    if let Some(answer) = message.as_text().and_then(|text| client.handle(text)) {
                        socket.send(answer).await?;
                    }
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            // The client holds one sender itself, so there is no end to this.
            Some(message) = inbox.recv() => {
                pass_on(&mut socket, message, || inbox.try_recv().ok()).await?;
            }
        }
    }
}

/// Sends `first` and what has gathered behind it, and flushes once.
async fn pass_on<M, E>(
    socket: &mut impl Socket<M, E>,
    first: M,
    mut more: impl FnMut() -> Option<M>,
) -> Result<(), E> {
    socket.feed(first).await?;
    while let Some(message) = more() {
        socket.feed(message).await?;
    }
    socket.flush().await
}
