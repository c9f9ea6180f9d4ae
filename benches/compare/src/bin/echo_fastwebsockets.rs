//! A peer: an echo, a broadcast and rooms on `fastwebsockets`, behind hyper as its examples are.
//!
//! Reading a frame cannot be given up half way there, so where a client is also sent what others
//! say, one task reads and another writes, and both hold the writing half in turn: pongs are the
//! reader's duty. The task that writes ends with the set that holds it.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use fastwebsockets::upgrade::{self, UpgradeFut};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError,
    WebSocketWrite,
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rusty_socks_compare::peer::{Mode, PeerArgs, Shared};
use rusty_socks_compare::rooms::Rooms;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;

type Stream = TokioIo<Upgraded>;
type Reader = FragmentCollectorRead<ReadHalf<Stream>>;
type Writer = Arc<Mutex<WebSocketWrite<WriteHalf<Stream>>>>;

fn main() -> anyhow::Result<()> {
    let args = PeerArgs::parse();
    let shared = Shared::new(args.mode, Bytes::from);
    let serve = args.serve(|stream| answer_http(stream, Arc::clone(&shared)));
    args.runtime()?.block_on(serve)
}

async fn answer_http(stream: TcpStream, shared: Arc<Shared<Bytes>>) -> anyhow::Result<()> {
    let service = service_fn(move |request| {
        let answer = begin(request, Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    connection.with_upgrades().await?;
    Ok(())
}

fn begin(mut request: Request<Incoming>, shared: Arc<Shared<Bytes>>) -> Response<Empty<Bytes>> {
    let Ok((response, upgraded)) = upgrade::upgrade(&mut request) else {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    // Outside tokio's budget, as the crate's examples are.
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ = match shared.mode {
            Mode::Echo => echo(upgraded).await,
            Mode::Broadcast => share(upgraded, &shared.everyone).await,
            Mode::Rooms => chat(upgraded, &shared.rooms).await,
        };
    }));
    response
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn split(upgraded: UpgradeFut) -> Result<(Reader, Writer), WebSocketError> {
    let (read, write) = upgraded.await?.split(tokio::io::split);
    Ok((FragmentCollectorRead::new(read), Arc::new(Mutex::new(write))))
}

/// The next message, or `None` after a close.
async fn next(reader: &mut Reader, writer: &Writer) -> Result<Option<Bytes>, WebSocketError> {
    loop {
        let mut answer = async |frame| writer.lock().await.write_frame(frame).await;
        let frame = reader.read_frame(&mut answer).await?;
        match frame.opcode {
            OpCode::Close => return Ok(None),
            OpCode::Text | OpCode::Binary => {
                return Ok(Some(match frame.payload {
                    Payload::Bytes(bytes) => bytes.freeze(),
                    payload => Bytes::from(Vec::from(payload)),
                }));
            }
            _ => {}
        }
    }
}

async fn send(writer: &Writer, message: &Bytes) -> Result<(), WebSocketError> {
    writer.lock().await.write_frame(Frame::text(Payload::Borrowed(message))).await
}

/// Passes what this client says to everyone, and to this client what anyone says.
async fn share(
    upgraded: UpgradeFut,
    everyone: &broadcast::Sender<Bytes>,
) -> Result<(), WebSocketError> {
    let (mut reader, writer) = split(upgraded).await?;
    let mut passing_on = JoinSet::new();
    passing_on.spawn(pass_on_broadcast(everyone.subscribe(), writer.clone()));
    while let Some(message) = next(&mut reader, &writer).await? {
        // It fails only without receivers, and this client has one.
        let _ = everyone.send(message);
    }
    Ok(())
}

async fn pass_on_broadcast(mut inbox: broadcast::Receiver<Bytes>, writer: Writer) {
    loop {
        match inbox.recv().await {
            Ok(message) => {
                if send(&writer, &message).await.is_err() {
                    return;
                }
            }
            Err(RecvError::Lagged(lost)) => eprintln!("a client lost {lost} messages"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Does what this client asks of the rooms, and passes on what the others say there.
async fn chat(upgraded: UpgradeFut, rooms: &Arc<Rooms<Bytes>>) -> Result<(), WebSocketError> {
    let (mut reader, writer) = split(upgraded).await?;
    let (mut client, mut inbox) = rooms.enter();
    let (passing_to, mut passing_on) = (Arc::clone(&writer), JoinSet::new());
    passing_on.spawn(async move {
        while let Some(message) = inbox.recv().await {
            if send(&passing_to, &message).await.is_err() {
                return;
            }
        }
    });
    while let Some(message) = next(&mut reader, &writer).await? {
        let answer = std::str::from_utf8(&message).ok().and_then(|text| client.handle(text));
        if let Some(answer) = answer {
            send(&writer, &answer).await?;
        }
    }
    Ok(())
}
