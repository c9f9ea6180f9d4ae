//! The library as an embedder meets it: handlers, refusals, peers, the handle, and handlers that
//! block.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

// The example is code that people copy, so it is run as it stands.
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../examples/custom_handler.rs"]
mod custom_handler;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use rusty_socks::{
    CloseReason, Config, Context, Epoch, ErrorKind, Handler, IntoService, MayBlock, Message as Got,
    Mode, Peer, Position, PreparedFrame, Published, Range, Refusal, Replay, Request, RoomError,
    RoomName, SendStatus, Server,
};
use support::{Client, DEADLINE, TestServer, config, eventually};
use tungstenite::Message;

/// A server with `handler` on `/`.
fn serve(config: Config, handler: impl IntoService) -> TestServer {
    TestServer::run(Server::builder().config(config).route("/", handler).bind().unwrap())
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// The code and the reason of the server's Close.
fn close_of(client: &mut Client) -> (u16, String) {
    let frame = client.closed().expect("a code");
    (frame.code.into(), frame.reason.as_str().to_owned())
}

fn text(client: &mut Client) -> String {
    client.next().to_text().unwrap().to_owned()
}

fn ask(client: &mut Client, question: &str) -> String {
    client.send(question);
    text(client)
}

/// Sends to this client; what became of it does not matter here.
fn say<S: 'static, M: Mode>(ctx: &mut Context<'_, S, M>, text: &str) {
    ctx.send(text);
}

/// A door that the test opens.
struct Gate {
    waiting: Receiver<()>,
    hold: Sender<()>,
}

/// The handler's side of it.
#[derive(Clone)]
struct Door {
    arrived: Sender<()>,
    open: Receiver<()>,
}

impl Gate {
    fn new() -> (Gate, Door) {
        let (arrived, waiting) = crossbeam_channel::unbounded();
        let (hold, open) = crossbeam_channel::bounded(0);
        (Gate { waiting, hold }, Door { arrived, open })
    }

    /// Waits until a handler stands at the door.
    fn wait(&self) {
        self.waiting.recv_timeout(DEADLINE).expect("nobody came to the door");
    }

    /// Lets everyone through, now and later.
    fn open(self) {
        drop(self.hold);
    }
}

impl Door {
    /// Stops here until the door is open.
    fn pass(&self) {
        let _ = self.arrived.send(());
        let _ = self.open.recv_timeout(DEADLINE);
    }
}

// ---- handlers and their state
// ----------------------------------------------------------------------

/// Counts its connection's messages, from where the query says.
struct Counting;

impl Handler for Counting {
    type State = u64;

    fn on_upgrade(&self, request: &Request<'_>) -> Result<u64, Refusal> {
        request.query().parse().map_err(|_| Refusal::bad_request("the query is a number"))
    }

    fn on_message(&self, ctx: &mut Context<'_, u64>, _message: Got<'_>) {
        *ctx.state() += 1;
        let count = *ctx.state();
        say(ctx, &count.to_string());
    }
}

#[test]
fn each_connection_has_its_own_state() {
    let server = serve(config(), Counting);
    let (mut a, mut b) = (server.connect("/?0"), server.connect("/?100"));
    for n in 1..4 {
        assert_eq!(ask(&mut a, "next"), n.to_string());
        assert_eq!(ask(&mut b, "next"), (100 + n).to_string());
    }
}

#[test]
fn a_closure_is_a_handler() {
    let count = AtomicUsize::new(0);
    let server = serve(config(), move |ctx: &mut Context<'_, ()>, _: Got<'_>| {
        say(ctx, &count.fetch_add(1, Ordering::Relaxed).to_string());
    });
    let (mut a, mut b) = (server.connect("/"), server.connect("/"));
    assert_eq!((ask(&mut a, "?"), ask(&mut b, "?")), ("0".to_owned(), "1".to_owned()));
}

#[test]
fn each_route_has_its_handler() {
    fn name<M: Mode>(
        name: &'static str,
    ) -> impl Fn(&mut Context<'_, (), M>, Got<'_>) + Send + Sync + 'static {
        move |ctx, _| say(ctx, name)
    }
    let builder = Server::builder()
        .config(config())
        .route("/a", name("a"))
        .route("/a/b", name("a/b").blocking(1, 1))
        .route("/a", name("never"))
        .route("/%C3%A9", name("é"));
    let server = TestServer::run(builder.bind().unwrap());
    for (path, expected) in [("/a", "a"), ("/a/b", "a/b"), ("/a?x=/a/b", "a"), ("/%C3%A9", "é")] {
        assert_eq!(ask(&mut server.connect(path), "?"), expected, "{path}");
    }
    assert_eq!(server.get("/b").0, 404);
    assert_eq!(server.get("/a/").0, 404);
}

#[test]
fn messages_come_whole_and_of_their_kind() {
    let server = serve(config(), |ctx: &mut Context<'_, ()>, message: Got<'_>| {
        match message {
            Got::Text(text) => ctx.send(text.as_bytes()),
            Got::Binary(bytes) => ctx.send(&format!("{bytes:?}")),
        };
    });
    let mut client = server.connect("/");
    client.socket.send(Message::text("é")).unwrap();
    assert_eq!(client.next(), Message::binary("é".as_bytes().to_vec()));
    client.socket.send(Message::binary(vec![0, 255])).unwrap();
    assert_eq!(client.next(), Message::text("[0, 255]"));
}

#[test]
fn a_prepared_frame_goes_to_many() {
    let frame = PreparedFrame::new(Got::Text("hello"));
    let server = serve(config(), move |ctx: &mut Context<'_, ()>, _: Got<'_>| {
        ctx.send_prepared(&frame);
    });
    for _ in 0..3 {
        assert_eq!(ask(&mut server.connect("/"), "?"), "hello");
    }
}

#[test]
fn a_context_knows_its_client() {
    let server = serve(config(), |ctx: &mut Context<'_, ()>, _: Got<'_>| {
        let (addr, same) = (ctx.remote_addr(), ctx.client_id() == ctx.peer().client_id());
        say(ctx, &format!("{addr} {same}"));
    });
    let mut client = server.connect("/");
    let expected = format!("{} true", client.socket.get_ref().local_addr().unwrap());
    assert_eq!(ask(&mut client, "?"), expected);
}

// ---- refusals
// --------------------------------------------------------------------------------------

struct Doorkeeper;

impl Handler for Doorkeeper {
    type State = ();

    fn on_upgrade(&self, request: &Request<'_>) -> Result<(), Refusal> {
        assert_eq!((request.method(), request.path()), ("GET", "/"));
        assert!(request.remote_addr().is_some() && request.header("host").is_some());
        let why = "because of \"that\"";
        match request.query() {
            "400" => Err(Refusal::bad_request(why)),
            "401" => Err(Refusal::unauthorized(why)),
            "403" => Err(Refusal::forbidden(why)),
            "404" => Err(Refusal::not_found(why)),
            "429" => Err(Refusal::too_many_requests(why)),
            "503" => Err(Refusal::unavailable(why)),
            "panic" => panic!("a planted panic"),
            _ => Ok(()),
        }
    }

    fn on_message(&self, ctx: &mut Context<'_, ()>, message: Got<'_>) {
        ctx.send(message);
    }
}

/// The answer to an upgrade that is refused.
fn refused(server: &TestServer, path: &str) -> tungstenite::http::Response<Option<Vec<u8>>> {
    match server.try_connect(path).map_err(|error| *error) {
        Err(tungstenite::Error::Http(response)) => *response,
        Err(other) => panic!("{path}: {other}"),
        Ok(_) => panic!("{path} was served"),
    }
}

#[test]
fn a_refusal_is_answered_with_its_status_and_reason() {
    let server = serve(config(), Doorkeeper);
    for status in [400, 401, 403, 404, 429, 503] {
        let response = refused(&server, &format!("/?{status}"));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let body: serde_json::Value =
            serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
        assert_eq!(body["message"], "because of \"that\"");
    }
    let rejected = server.stats().rejected;
    assert_eq!((rejected["handler"], rejected["unauthorized"]), (5, 1));
    assert_eq!(ask(&mut server.connect("/?welcome"), "in"), "in");
}

#[test]
fn a_panic_in_on_upgrade_is_answered_with_500() {
    let server = serve(config(), Doorkeeper);
    assert_eq!(refused(&server, "/?panic").status(), 500);
    assert_eq!(server.stats().handler_panics, 1);
    assert_eq!(ask(&mut server.connect("/"), "in"), "in");
}

#[test]
fn a_refused_upgrade_takes_no_permit() {
    let server = serve(Config { max_conn: 1, max_queued_tasks: 0, ..config() }, Doorkeeper);
    for _ in 0..5 {
        assert_eq!(refused(&server, "/?401").status(), 401);
    }
    server.connect("/").close();
    server.wait_until_empty();
}

// ---- beginnings and ends
// ---------------------------------------------------------------------------

/// What happened to whom, in order.
type Log = Arc<Mutex<Vec<(String, String)>>>;

/// Writes down every call. A message is done as told: `close`, `panic`, or said back.
struct Scribe {
    log: Log,
    /// What a farewell is published to.
    room: RoomName,
}

impl Scribe {
    fn new() -> (Scribe, Log) {
        let log = Log::default();
        (Scribe { log: Arc::clone(&log), room: room("scribes") }, log)
    }

    fn note<M: Mode>(&self, ctx: &Context<'_, (), M>, what: impl Into<String>) {
        self.log.lock().unwrap().push((ctx.client_id().to_string(), what.into()));
    }
}

impl<M: Mode> Handler<M> for Scribe {
    type State = ();

    fn on_open(&self, ctx: &mut Context<'_, (), M>) {
        self.note(ctx, "open");
        ctx.join(&self.room, Replay::Nothing).then(|_, joined| assert!(joined.is_ok()));
    }

    fn on_message(&self, ctx: &mut Context<'_, (), M>, message: Got<'_>) {
        let text = message.as_text().unwrap_or_default();
        self.note(ctx, text);
        match text {
            "close" => ctx.close(CloseReason::new(4000, "bye")),
            "panic" => panic!("a planted panic"),
            other => say(ctx, other),
        }
    }

    fn on_drain(&self, ctx: &mut Context<'_, (), M>) {
        self.note(ctx, "drain");
        say(ctx, "last words");
    }

    fn on_close(&self, ctx: &mut Context<'_, (), M>, reason: &CloseReason) {
        self.note(ctx, format!("closed {}", reason.code()));
        assert!(ctx.is_member(self.room.as_str()));
        let published = ctx.publish_to_others(self.room.as_str(), "farewell");
        published.then(|_, published| assert!(published.is_ok()));
    }
}

/// What happened to the only client.
fn story(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|(_, what)| what.clone()).collect()
}

/// Waits until the last thing that happened is `what`.
fn wait_for(log: &Log, what: &str) {
    eventually(what, || match log.lock().unwrap().last() {
        Some((_, last)) if last == what => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn calls_come_in_order_from_open_to_close() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), scribe);
    let mut client = server.connect("/");
    ask(&mut client, "1");
    ask(&mut client, "2");
    client.close();
    wait_for(&log, "closed 1005");
    assert_eq!(story(&log), ["open", "1", "2", "closed 1005"]);
}

#[test]
fn on_close_hears_the_peers_code() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), scribe);
    let mut client = server.connect("/");
    let frame = tungstenite::protocol::CloseFrame { code: 4321.into(), reason: "done".into() };
    client.socket.close(Some(frame)).unwrap();
    wait_for(&log, "closed 4321");
}

#[test]
fn on_close_hears_of_a_loss() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), scribe);
    let mut client = server.connect("/");
    ask(&mut client, "1");
    drop(client);
    wait_for(&log, "closed 1006");
}

#[test]
fn a_farewell_reaches_those_who_stay() {
    let (scribe, _) = Scribe::new();
    let server = serve(config(), scribe);
    let (mut stays, mut leaves) = (server.connect("/"), server.connect("/"));
    ask(&mut leaves, "here");
    leaves.close();
    assert_eq!(text(&mut stays), "farewell");
}

#[test]
fn a_handler_closes_with_a_code_of_its_own() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), scribe);
    let mut client = server.connect("/");
    client.send("said before");
    client.send("close");
    client.send("too late");
    assert_eq!(text(&mut client), "said before");
    assert_eq!(close_of(&mut client), (4000, "bye".to_owned()));
    drop(client);
    server.wait_until_empty();
    assert_eq!(story(&log), ["open", "said before", "close", "closed 4000"]);
}

#[test]
fn a_panic_closes_its_own_connection_and_no_other() {
    let (scribe, log) = Scribe::new();
    // One worker, so that both live on the thread that panics.
    let server = serve(Config { thread_pool_size: 1, ..config() }, scribe);
    let (mut lucky, mut unlucky) = (server.connect("/"), server.connect("/"));
    unlucky.send("panic");
    unlucky.send("too late");
    assert_eq!(close_of(&mut unlucky).0, 1011);
    wait_for(&log, "closed 1011");
    assert_eq!(text(&mut lucky), "farewell");
    assert_eq!(ask(&mut lucky, "still here"), "still here");
    assert!(!story(&log).contains(&"too late".to_owned()));
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.closed["1011"]), (1, 1));
}

#[test]
fn a_drain_is_announced_before_it_closes() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), scribe);
    let mut client = server.connect("/");
    server.handle.shutdown(DEADLINE);
    assert_eq!(text(&mut client), "last words");
    assert_eq!(close_of(&mut client).0, 1001);
    drop(client);
    server.handle.join();
    assert_eq!(story(&log), ["open", "drain", "closed 1001"]);
}

/// Ends many connections, each in another way, and checks that each beginning has one end.
fn churn(server: &TestServer, log: &Log) {
    const THREADS: usize = 4;
    const EACH: usize = 30;
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                for round in 0..EACH {
                    let mut client = server.connect("/");
                    match (number + round) % 6 {
                        0 => client.close(),
                        1 => drop(client),
                        2 => {
                            client.send("close");
                            close_of(&mut client);
                        }
                        3 => {
                            client.send("panic");
                            close_of(&mut client);
                        }
                        4 => {
                            // Unread input at the end makes it a reset.
                            client.send("said");
                            client.send("and not read");
                        }
                        _ => {
                            ask(&mut client, "hello");
                            client.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
                        }
                    }
                }
            });
        }
    });
    server.wait_until_empty();
    let count = |prefix: &str| {
        let log = log.lock().unwrap();
        let mut clients: Vec<String> = log
            .iter()
            .filter(|(_, what)| what.starts_with(prefix))
            .map(|(client, _)| client.clone())
            .collect();
        clients.sort_unstable();
        clients
    };
    // The last calls may still wait for a thread when the connections are gone already.
    eventually("every beginning and every end is told", || {
        match (count("open").len(), count("closed").len()) {
            told if told == (THREADS * EACH, THREADS * EACH) => Ok(()),
            told => Err(format!("{told:?}")),
        }
    });
    let (opened, closed) = (count("open"), count("closed"));
    assert_eq!(opened, closed, "by client");
    let mut clients = opened;
    clients.dedup();
    assert_eq!(clients.len(), THREADS * EACH, "and each once");
}

#[test]
fn beginnings_and_ends_come_in_pairs() {
    let (scribe, log) = Scribe::new();
    churn(&serve(Config { max_conn: 1000, ..config() }, scribe), &log);
}

#[test]
fn beginnings_and_ends_come_in_pairs_where_the_handler_blocks() {
    let (scribe, log) = Scribe::new();
    churn(
        &serve(Config { max_conn: 1000, ..config() }, Handler::<MayBlock>::blocking(scribe, 3, 16)),
        &log,
    );
}

/// Panics when it is dropped, once it is told to.
#[derive(Default)]
struct Brittle(bool);

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(!self.0, "a planted panic");
    }
}

struct BrittleHandler;

impl Handler for BrittleHandler {
    type State = Brittle;

    fn on_upgrade(&self, request: &Request<'_>) -> Result<Brittle, Refusal> {
        Ok(Brittle(request.query() == "brittle"))
    }

    fn on_message(&self, ctx: &mut Context<'_, Brittle>, message: Got<'_>) {
        ctx.send(message);
    }
}

#[test]
fn a_state_that_panics_when_it_is_dropped_costs_no_other_connection() {
    let server = serve(Config { thread_pool_size: 1, ..config() }, BrittleHandler);
    let mut other = server.connect("/");
    let mut brittle = server.connect("/?brittle");
    ask(&mut brittle, "hello");
    brittle.close();
    eventually("the panic is counted", || match server.stats().handler_panics {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(ask(&mut other, "still here"), "still here");
}

#[test]
fn a_state_that_panics_when_it_is_refused_a_place_costs_no_other_connection() {
    let full = Config { thread_pool_size: 1, max_conn: 1, max_queued_tasks: 0, ..config() };
    let server = serve(full, BrittleHandler);
    let mut inside = server.connect("/");
    assert_eq!(refused(&server, "/?brittle").status(), 503);
    assert_eq!(ask(&mut inside, "still here"), "still here");
}

#[test]
fn a_state_that_panics_when_it_leaves_the_line_costs_no_other_connection() {
    let full = Config {
        thread_pool_size: 1,
        max_conn: 1,
        max_queued_tasks: 1,
        queue_timeout: Duration::from_millis(20),
        ..config()
    };
    let server = serve(full, BrittleHandler);
    let mut inside = server.connect("/");
    assert_eq!(refused(&server, "/?brittle").status(), 503);
    assert_eq!(ask(&mut inside, "still here"), "still here");
}

// ---- peers and the handle
// --------------------------------------------------------------------------

/// Gives each client's peer to the test.
fn peers() -> (impl Fn(&mut Context<'_, ()>, Got<'_>) + Send + Sync + 'static, Receiver<Peer>) {
    let (found, peers) = crossbeam_channel::unbounded();
    let handler = move |ctx: &mut Context<'_, ()>, _: Got<'_>| {
        found.send(ctx.peer()).unwrap();
    };
    (handler, peers)
}

/// Connects, and gets hold of the peer on the server's side.
fn connect_peer(server: &TestServer, peers: &Receiver<Peer>) -> (Client, Peer) {
    let mut client = server.connect("/");
    client.send("who am I");
    let peer = peers.recv_timeout(DEADLINE).unwrap();
    (client, peer)
}

#[test]
fn a_peer_is_reached_from_another_thread() {
    let (handler, peers) = peers();
    let server = serve(config(), handler);
    let (mut client, peer) = connect_peer(&server, &peers);
    thread::spawn(move || {
        assert_eq!(peer.send("text"), SendStatus::Sent);
        assert_eq!(peer.send(&b"\x00\xff"[..]), SendStatus::Sent);
        let frame = PreparedFrame::new(Got::Text("prepared"));
        assert_eq!(peer.clone().send_prepared(&frame), SendStatus::Sent);
        peer.close(CloseReason::new(4000, "bye"));
    });
    assert_eq!(client.next(), Message::text("text"));
    assert_eq!(client.next(), Message::binary(vec![0, 255]));
    assert_eq!(client.next(), Message::text("prepared"));
    assert_eq!(close_of(&mut client), (4000, "bye".to_owned()));
}

#[test]
fn a_peer_that_is_gone_is_nobody_else() {
    let (handler, peers) = peers();
    let server = serve(Config { thread_pool_size: 1, ..config() }, handler);
    let (client, gone) = connect_peer(&server, &peers);
    client.close();
    server.wait_until_empty();
    // The next connection lives in the same slot.
    let (mut client, peer) = connect_peer(&server, &peers);
    assert_ne!(gone.client_id(), peer.client_id());
    gone.send("to someone gone");
    gone.close(CloseReason::KICKED);
    peer.send("to someone here");
    assert_eq!(text(&mut client), "to someone here");
}

#[test]
fn the_handle_closes_a_client_by_its_id() {
    let (handler, peers) = peers();
    let server = serve(config(), handler);
    let (mut client, peer) = connect_peer(&server, &peers);
    let (_other, _) = connect_peer(&server, &peers);
    let close = |id| server.handle.close(&id, CloseReason::KICKED);
    assert_eq!(close(uuid::Uuid::new_v4()), Err(RoomError::NoSuchClient));
    assert_eq!(close(peer.client_id()), Ok(()));
    assert_eq!(close_of(&mut client).0, 4009);
    drop(client);
    eventually("the client is forgotten", || match server.stats().sessions {
        1 => Ok(()),
        sessions => Err(sessions.to_string()),
    });
    assert_eq!(close(peer.client_id()), Err(RoomError::NoSuchClient));
}

#[test]
fn the_handle_publishes_to_a_room_that_is_there() {
    let (scribe, _) = Scribe::new();
    let server = serve(config(), scribe);
    assert_eq!(server.handle.publish("scribes", "x"), Err(RoomError::NoSuchRoom));
    let mut client = server.connect("/");
    ask(&mut client, "here");
    assert_eq!(server.handle.publish("scribes", "text").unwrap().seq, 1);
    assert_eq!(server.handle.publish("scribes", &b"binary"[..]).unwrap().seq, 2);
    assert_eq!(client.next(), Message::text("text"));
    assert_eq!(client.next(), Message::binary(b"binary".to_vec()));
}

#[test]
fn a_room_can_be_opened_before_anyone_is_in_it() {
    let (scribe, _) = Scribe::new();
    let server = serve(Config { max_rooms: 1, ..config() }, scribe);
    eventually("a sweep did not come between", || {
        server.handle.open_room(&room("news")).unwrap();
        server.handle.publish("news", "x").map(|_| ()).map_err(|error| error.to_string())
    });
    // Nobody is in it, so it yields to another one; where somebody is, it does not.
    server.handle.open_room(&room("more")).unwrap();
    assert_eq!(server.handle.publish("news", "x"), Err(RoomError::NoSuchRoom));
    let mut client = server.connect("/");
    ask(&mut client, "here");
    assert_eq!(server.handle.open_room(&room("news")), Err(RoomError::TooManyRooms));
}

#[test]
fn a_server_stops_once_however_often_it_is_told() {
    let server = serve(config(), Doorkeeper);
    let addr = server.addr;
    for _ in 0..3 {
        server.handle.shutdown(DEADLINE);
    }
    server.handle.join();
    server.handle.join();
    assert!(server.stats().draining);
    assert!(std::net::TcpStream::connect(addr).is_err(), "nobody listens any more");
}

// ---- what bind refuses
// -----------------------------------------------------------------------------

fn bind_error(config: Config, path: &str) -> rusty_socks::Error {
    match Server::builder().config(config).route(path, Counting).bind() {
        Err(error) => error,
        Ok(_) => panic!("{path} was taken"),
    }
}

#[test]
fn a_path_must_be_one_and_must_be_free() {
    for path in ["", "ws", "/a b", "/a?b", "/a#b", "/health", "/stats"] {
        let error = bind_error(config(), path);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&format!("'{path}'")), "{error}");
    }
}

#[test]
fn a_bad_config_is_told_as_one() {
    let bad = Config { max_conn: 0, timeout: Duration::ZERO, ..config() };
    let error = bind_error(bad, "/");
    assert_eq!((error.kind(), error.is_config()), (ErrorKind::Config, true));
    let text = error.to_string();
    assert!(text.contains("max_conn = 0") && text.contains("timeout = 0"), "{text}");
}

#[test]
fn rules_between_keys_are_told_too() {
    let error = bind_error(Config { history: 1, replay: 2, ..config() }, "/");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[test]
fn a_port_in_use_is_told_as_one() {
    let server = serve(config(), Counting);
    let error = bind_error(Config { port: server.addr.port(), ..config() }, "/");
    assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
    assert!(error.to_string().contains(&server.addr.to_string()), "{error}");
}

// ---- rooms from a handler
// --------------------------------------------------------------------------

/// Does with rooms what its messages say, on a worker or on a thread of its own.
struct Roomy;

impl<M: Mode> Handler<M> for Roomy {
    type State = ();

    fn on_message(&self, ctx: &mut Context<'_, (), M>, message: Got<'_>) {
        let words: Vec<&str> = message.as_text().unwrap_or_default().split(' ').collect();
        match words[..] {
            ["join", name] => {
                ctx.join(&room(name), Replay::Latest(2)).then(|ctx, joined| match joined {
                    Ok(joined) => {
                        let replay: Vec<_> = joined.replay.iter().map(payload).collect();
                        say(ctx, &format!("joined at {} {replay:?}", joined.position.seq));
                    }
                    Err(error) => say(ctx, &error.to_string()),
                });
            }
            ["since", name, seq] => {
                let since = Position { epoch: Epoch::UNKNOWN, seq: seq.parse().unwrap() };
                ctx.join(&room(name), Replay::Since(since)).then(|ctx, joined| {
                    say(ctx, &format!("recovered {}", joined.unwrap().recovered));
                });
            }
            ["leave", name] => {
                let left = ctx.leave(name);
                left.then(|ctx, left| say(ctx, &format!("left {}", left.is_ok())));
            }
            ["member", name] => {
                let is_member = ctx.is_member(name);
                say(ctx, &is_member.to_string());
            }
            ["publish", name, text] => ctx.publish(name, text).then(told),
            ["broadcast", name, text] => ctx.publish_to_others(name, text).then(told),
            ["history", name] => {
                ctx.history(name, Range::Latest, 9).then(|ctx, page| match page {
                    Ok(page) => {
                        let messages: Vec<_> = page.messages.iter().map(payload).collect();
                        say(ctx, &format!("{} {messages:?}", page.position.seq));
                    }
                    Err(error) => say(ctx, &error.to_string()),
                });
            }
            _ => panic!("{words:?}"),
        }
    }
}

fn told<M: Mode>(ctx: &mut Context<'_, (), M>, published: Result<Published, RoomError>) {
    match published {
        Ok(published) => say(ctx, &format!("published {}", published.seq)),
        Err(error) => say(ctx, &error.to_string()),
    }
}

fn payload(frame: &PreparedFrame) -> String {
    String::from_utf8(frame.payload().to_vec()).unwrap()
}

/// The next `count` messages, sorted: an answer and a room's message may come in either order.
fn sorted(client: &mut Client, count: usize) -> Vec<String> {
    let mut texts: Vec<String> = (0..count).map(|_| text(client)).collect();
    texts.sort_unstable();
    texts
}

/// The same conversation for both kinds of handler.
fn rooms_work(handler: impl IntoService) {
    let server = serve(Config { max_rooms_per_conn: 2, ..config() }, handler);
    let (mut a, mut b) = (server.connect("/"), server.connect("/"));
    assert_eq!(ask(&mut a, "publish r x"), "there is no such room");
    assert_eq!(ask(&mut a, "history r"), "there is no such room");
    assert_eq!(ask(&mut a, "leave r"), "left false");
    assert_eq!(ask(&mut a, "join r"), "joined at 0 []");
    assert_eq!(ask(&mut a, "join r"), "already a member of this room");
    assert_eq!(ask(&mut b, "join r"), "joined at 0 []");
    assert_eq!((ask(&mut a, "member r"), ask(&mut a, "member q")), ("true".into(), "false".into()));

    a.send("publish r one");
    assert_eq!(sorted(&mut a, 2), ["one", "published 1"]);
    assert_eq!(ask(&mut a, "broadcast r two"), "published 2");
    assert_eq!(ask(&mut a, "broadcast r three"), "published 3");
    assert_eq!(
        (text(&mut b), text(&mut b), text(&mut b)),
        ("one".into(), "two".into(), "three".into())
    );
    assert_eq!(ask(&mut b, "history r"), "3 [\"one\", \"two\", \"three\"]");

    assert_eq!(ask(&mut a, "leave r"), "left true");
    assert_eq!(ask(&mut b, "broadcast r four"), "published 4");
    assert_eq!(ask(&mut a, "publish r five"), "published 5", "an outsider may publish");
    assert_eq!(text(&mut b), "five");
    assert_eq!(ask(&mut a, "join r"), "joined at 5 [\"four\", \"five\"]");
    assert_eq!(ask(&mut b, "broadcast r six"), "published 6");
    assert_eq!(text(&mut a), "six");

    assert_eq!(ask(&mut a, "since s 0"), "recovered false");
    assert_eq!(ask(&mut a, "join t"), "this connection is in as many rooms as it may be");
    a.close();
    b.close();
    server.wait_until_empty();
    // One has history, and the default room is always there.
    eventually("rooms without history go", || match server.stats().rooms {
        2 => Ok(()),
        rooms => Err(rooms.to_string()),
    });
}

#[test]
fn rooms_work_from_a_handler_on_a_worker() {
    rooms_work(Roomy);
}

#[test]
fn rooms_work_from_a_handler_that_blocks() {
    rooms_work(Handler::<MayBlock>::blocking(Roomy, 2, 8));
}

#[test]
fn a_broadcast_reaches_everyone_on_its_route_but_its_sender() {
    fn cry<M: Mode>(ctx: &mut Context<'_, (), M>, message: Got<'_>) {
        ctx.broadcast(message).then(|ctx, done| say(ctx, &format!("{done:?}")));
    }
    let builder = Server::builder()
        .config(config())
        .route("/a", cry)
        .route("/b", cry.blocking(1, 8))
        .route("/c", |_: &mut Context<'_, ()>, _: Got<'_>| {});
    let server = TestServer::run(builder.bind().unwrap());
    let [mut a, mut a2, mut b, mut b2] = ["/a", "/a", "/b", "/b"].map(|path| server.connect(path));
    let mut c = server.connect("/c");
    assert_eq!((ask(&mut a, "one"), text(&mut a2)), ("Ok(())".to_owned(), "one".to_owned()));
    assert_eq!((ask(&mut b, "two"), text(&mut b2)), ("Ok(())".to_owned(), "two".to_owned()));
    // Each gets the next one and nothing before it, and the third route gets nothing but its close.
    assert_eq!((ask(&mut a2, "three"), text(&mut a)), ("Ok(())".to_owned(), "three".to_owned()));
    assert_eq!((ask(&mut b2, "four"), text(&mut b)), ("Ok(())".to_owned(), "four".to_owned()));
    server.handle.shutdown(DEADLINE);
    assert_eq!(close_of(&mut c).0, 1001);
}

// ---- handlers that block
// ---------------------------------------------------------------------------

#[test]
fn a_blocking_handler_delays_no_other_route() {
    let (gate, door) = Gate::new();
    let slow = move |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        door.pass();
        ctx.send(message);
    };
    let quick = |ctx: &mut Context<'_, ()>, message: Got<'_>| {
        ctx.send(message);
    };
    let one_worker = Config { thread_pool_size: 1, ..config() };
    let builder =
        Server::builder().config(one_worker).route("/slow", slow.blocking(1, 4)).route("/", quick);
    let server = TestServer::run(builder.bind().unwrap());
    let (mut waits, mut passes) = (server.connect("/slow"), server.connect("/"));
    waits.send("slow");
    gate.wait();
    for n in 0..20 {
        assert_eq!(ask(&mut passes, &n.to_string()), n.to_string());
    }
    assert_eq!(server.get("/health").0, 200);
    gate.open();
    assert_eq!(text(&mut waits), "slow");
}

#[test]
fn a_blocking_pool_that_is_full_slow_and_panicking_delays_only_its_own_connections() {
    const MESSAGES: u64 = 300;
    let (gate, door) = Gate::new();
    let slow = move |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        assert!(message.as_text() != Some("panic"), "as it was asked to");
        door.pass();
        ctx.send(message);
    };
    let other = |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        ctx.send(message);
    };
    let quick = |ctx: &mut Context<'_, ()>, message: Got<'_>| {
        ctx.send(message);
    };
    let one_worker = Config { thread_pool_size: 1, ..config() };
    let builder = Server::builder()
        .config(one_worker)
        .route("/slow", slow.blocking(1, 4))
        .route("/other", other.blocking(1, 4))
        .route("/", quick);
    let server = TestServer::run(builder.bind().unwrap());
    let mut full: Vec<Client> = (0..4).map(|_| server.connect("/slow")).collect();
    let mut panicking: Vec<Client> = (0..4).map(|_| server.connect("/slow")).collect();
    let (mut inline, mut elsewhere) = (server.connect("/"), server.connect("/other"));
    full[0].send("first");
    gate.wait();
    // One waits at the door, the queue is full of the others, and more waits in the sockets.
    for client in &mut full {
        for n in 0..MESSAGES {
            client.socket.write(Message::text(n.to_string())).unwrap();
        }
        client.socket.flush().unwrap();
    }
    for client in &mut panicking {
        client.send("panic");
    }
    let serves_others = |inline: &mut Client, elsewhere: &mut Client| {
        for n in 0..20 {
            assert_eq!(ask(inline, &n.to_string()), n.to_string());
            assert_eq!(ask(elsewhere, &n.to_string()), n.to_string());
            inline.socket.send(Message::Ping(vec![n].into())).unwrap();
            assert_eq!(inline.socket.read().unwrap(), Message::Pong(vec![n].into()));
        }
    };
    serves_others(&mut inline, &mut elsewhere);
    gate.open();
    serves_others(&mut inline, &mut elsewhere);
    for client in &mut panicking {
        assert_eq!(close_of(client).0, 1011);
    }
    assert_eq!(text(&mut full[0]), "first");
    for client in &mut full {
        (0..MESSAGES).for_each(|n| assert_eq!(text(client), n.to_string()));
    }
    serves_others(&mut inline, &mut elsewhere);
    assert_eq!(server.stats().handler_panics, 4);
}

#[test]
fn a_blocking_handler_that_publishes_without_end_waits_for_what_it_has_said() {
    const MESSAGES: usize = 20_000;
    let tea = room("tea");
    let publishes = move |ctx: &mut Context<'_, (), MayBlock>, _: Got<'_>| {
        let sent = (0..MESSAGES).filter(|_| ctx.publish("tea", "x").wait().is_ok()).count();
        ctx.send(&sent.to_string());
    };
    struct Member(RoomName);
    impl Handler for Member {
        type State = ();
        fn on_open(&self, ctx: &mut Context<'_, ()>) {
            ctx.join(&self.0, Replay::Nothing);
        }
        fn on_message(&self, ctx: &mut Context<'_, ()>, message: Got<'_>) {
            ctx.send(message);
        }
    }
    // Half of the mailbox is twice what one session may have on its way.
    let small = Config { thread_pool_size: 1, mailbox: 512, buffer: 100_000, ..config() };
    let builder = Server::builder()
        .config(small)
        .route("/publishes", publishes.blocking(1, 4))
        .route("/", Member(tea));
    let server = TestServer::run(builder.bind().unwrap());
    let (mut publisher, mut member) = (server.connect("/publishes"), server.connect("/"));
    assert_eq!(ask(&mut member, "in"), "in");
    assert_eq!(ask(&mut publisher, "go"), MESSAGES.to_string(), "none was refused");
    (0..MESSAGES).for_each(|_| assert_eq!(text(&mut member), "x"));
    let stats = server.stats();
    assert_eq!(stats.pressure_pauses, 0, "nobody else was held up");
}

#[test]
fn a_blocking_handler_waits_for_its_replies() {
    fn talk(ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>) -> Result<String, RoomError> {
        let tea = room("tea");
        if !ctx.is_member(tea.as_str()) {
            let joined = ctx.join(&tea, Replay::Nothing).wait()?;
            assert_eq!(joined.position.seq, 0);
        }
        let published = ctx.publish_to_others(tea.as_str(), message).wait()?;
        let page = ctx.history(tea.as_str(), Range::Latest, 9).wait()?;
        let texts: Vec<_> = page.messages.iter().map(payload).collect();
        if page.position.seq == 3 {
            ctx.leave("coffee").wait()?;
        }
        Ok(format!("{} {texts:?}", published.seq))
    }
    let handler = |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| match talk(ctx, message) {
        Ok(text) => say(ctx, &text),
        Err(error) => say(ctx, &error.to_string()),
    };
    let server = serve(config(), handler.blocking(1, 8));
    let mut client = server.connect("/");
    assert_eq!(ask(&mut client, "one"), "1 [\"one\"]");
    assert_eq!(ask(&mut client, "two"), "2 [\"one\", \"two\"]");
    assert_eq!(ask(&mut client, "three"), "not a member of this room");
}

#[test]
fn two_threads_serve_two_connections_at_once() {
    let (gate, door) = Gate::new();
    let meet = move |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        door.pass();
        ctx.send(message);
    };
    let server = serve(config(), meet.blocking(2, 4));
    let (mut a, mut b) = (server.connect("/"), server.connect("/"));
    a.send("a");
    b.send("b");
    // Both stand at the door before it is opened.
    gate.wait();
    gate.wait();
    gate.open();
    assert_eq!((text(&mut a), text(&mut b)), ("a".to_owned(), "b".to_owned()));
}

#[test]
fn calls_for_one_connection_never_overlap_and_keep_their_order() {
    const MESSAGES: usize = 500;
    struct Serial;
    impl Handler<MayBlock> for Serial {
        type State = (Arc<AtomicUsize>, usize);

        fn on_message(&self, ctx: &mut Context<'_, Self::State, MayBlock>, message: Got<'_>) {
            let inside = Arc::clone(&ctx.state().0);
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two calls at once");
            ctx.state().1 += 1;
            let count = ctx.state().1;
            let said = message.as_text().unwrap_or_default();
            ctx.send(&format!("{said} {count}"));
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let server = serve(config(), Serial.blocking(4, 1000));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.connect("/");
                for n in 1..=MESSAGES {
                    client.socket.write(Message::text(n.to_string())).unwrap();
                }
                client.socket.flush().unwrap();
                for n in 1..=MESSAGES {
                    assert_eq!(text(&mut client), format!("{n} {n}"));
                }
            });
        }
    });
    assert_eq!(server.stats().handler_panics, 0);
}

#[test]
fn a_client_whose_jobs_are_behind_is_not_read_and_loses_nothing() {
    // One connection may have 32 messages in its lane, so of so many most are never taken at first.
    const MESSAGES: u64 = 2000;
    let (gate, door) = Gate::new();
    let slow = move |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        door.pass();
        ctx.send(message);
    };
    let server = serve(config(), slow.blocking(1, 4));
    let mut client = server.connect("/");
    for n in 0..MESSAGES {
        client.socket.write(Message::text(n.to_string())).unwrap();
    }
    client.socket.flush().unwrap();
    gate.wait();
    // The queue takes four, and each connection may be one over.
    eventually("the queue is full", || match server.stats().messages_in {
        0..4 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    let mut other = server.connect("/");
    other.send("also waits");
    eventually("the other's message is taken", || match server.stats().messages_in {
        taken @ 0..5 => Err(taken.to_string()),
        _ => Ok(()),
    });
    assert!(server.stats().messages_in <= 4 + 2, "{:?}", server.stats().messages_in);
    gate.open();
    for n in 0..MESSAGES {
        assert_eq!(text(&mut client), n.to_string());
    }
    assert_eq!(text(&mut other), "also waits");
}

#[test]
fn everyone_who_was_paused_is_read_again() {
    // More connections than the queue takes messages: most are paused, and each has said all it has
    // to say when it is read again, so nobody's next message can wake another.
    const CLIENTS: usize = 8;
    let (gate, door) = Gate::new();
    let slow = move |ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>| {
        door.pass();
        ctx.send(message);
    };
    let server = serve(config(), slow.blocking(1, 1));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect("/")).collect();
    for client in &mut clients {
        client.send("first");
    }
    eventually("each has sent one", || match server.stats().messages_in {
        8 => Ok(()),
        taken => Err(taken.to_string()),
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(text(client), "first");
    }
    // All is quiet. From the last to the first, so that nobody profits from the one before.
    for client in clients.iter_mut().rev() {
        assert_eq!(ask(client, "second"), "second");
    }
}

#[test]
fn a_panic_where_the_handler_blocks_closes_its_own_connection_and_no_other() {
    let (scribe, log) = Scribe::new();
    let server = serve(config(), Handler::<MayBlock>::blocking(scribe, 1, 16));
    let (mut lucky, mut unlucky) = (server.connect("/"), server.connect("/"));
    unlucky.send("panic");
    assert_eq!(close_of(&mut unlucky).0, 1011);
    wait_for(&log, "closed 1011");
    assert_eq!(text(&mut lucky), "farewell");
    assert_eq!(ask(&mut lucky, "still here"), "still here");
    assert_eq!(server.stats().handler_panics, 1);
}

/// A blocking handler that stops at the door first, so that more messages wait behind that one.
struct Behind {
    scribe: Scribe,
    door: Door,
}

impl Handler<MayBlock> for Behind {
    type State = ();

    fn on_open(&self, ctx: &mut Context<'_, (), MayBlock>) {
        self.scribe.on_open(ctx);
    }

    fn on_message(&self, ctx: &mut Context<'_, (), MayBlock>, message: Got<'_>) {
        self.door.pass();
        self.scribe.on_message(ctx, message);
    }

    fn on_drain(&self, ctx: &mut Context<'_, (), MayBlock>) {
        self.scribe.on_drain(ctx);
    }

    fn on_close(&self, ctx: &mut Context<'_, (), MayBlock>, reason: &CloseReason) {
        self.scribe.on_close(ctx, reason);
    }
}

/// What a blocking handler is told when `first` comes and three more messages wait behind it.
fn story_behind(first: &str) -> Vec<String> {
    let (scribe, log) = Scribe::new();
    let (gate, door) = Gate::new();
    let server = serve(config(), Behind { scribe, door }.blocking(1, 16));
    let mut client = server.connect("/");
    for message in [first, "late 1", "late 2", "late 3"] {
        client.send(message);
    }
    gate.wait();
    eventually("all four wait", || match server.stats().messages_in {
        4 => Ok(()),
        taken => Err(taken.to_string()),
    });
    gate.open();
    close_of(&mut client);
    drop(client);
    eventually("the connection is over", || match story(&log).last() {
        Some(last) if last.starts_with("closed") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    story(&log)
}

#[test]
fn after_a_panic_a_blocking_handler_gets_no_more_messages() {
    assert_eq!(story_behind("panic"), ["open", "panic", "closed 1011"]);
}

#[test]
fn after_a_close_a_blocking_handler_gets_no_more_messages() {
    assert_eq!(story_behind("close"), ["open", "close", "closed 4000"]);
}

#[test]
fn what_was_sent_before_a_hang_up_is_still_handled_where_the_handler_blocks() {
    let (scribe, log) = Scribe::new();
    let (gate, door) = Gate::new();
    let server = serve(config(), Behind { scribe, door }.blocking(1, 16));
    let mut client = server.connect("/");
    for message in ["1", "2", "3"] {
        client.send(message);
    }
    gate.wait();
    client.close();
    gate.open();
    wait_for(&log, "closed 1005");
    assert_eq!(story(&log), ["open", "1", "2", "3", "closed 1005"]);
}

#[test]
fn a_drain_is_announced_where_the_handler_blocks() {
    let (scribe, log) = Scribe::new();
    let (gate, door) = Gate::new();
    let server = serve(config(), Behind { scribe, door }.blocking(1, 16));
    let mut client = server.connect("/");
    client.send("under way");
    gate.wait();
    server.handle.shutdown(DEADLINE);
    eventually("the drain has begun", || match server.stats().draining {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    });
    gate.open();
    assert_eq!(text(&mut client), "under way");
    assert_eq!(text(&mut client), "last words");
    assert_eq!(close_of(&mut client).0, 1001);
    drop(client);
    server.handle.join();
    assert_eq!(story(&log), ["open", "under way", "drain", "closed 1001"]);
}

#[test]
fn a_drain_ends_though_a_blocking_handler_does_not() {
    let (scribe, _) = Scribe::new();
    let (gate, door) = Gate::new();
    let server = serve(config(), Behind { scribe, door }.blocking(1, 16));
    let mut client = server.connect("/");
    client.send("stuck");
    gate.wait();
    server.handle.shutdown(Duration::from_millis(50));
    server.handle.join();
    gate.open();
}

// ---- the example
// -----------------------------------------------------------------------------------

fn example() -> TestServer {
    TestServer::run(custom_handler::server(config()).unwrap())
}

#[test]
fn the_example_counts_on_boards() {
    let server = example();
    assert_eq!(refused(&server, "/board?name=tea").status(), 401);
    assert_eq!(refused(&server, "/board?name=*&token=let-me-in").status(), 400);
    let board = |name: &str| server.connect(&format!("/board?token=let-me-in&name={name}"));
    let (mut a, mut b, mut elsewhere) = (board("tea"), board("tea"), board("coffee"));
    for client in [&mut a, &mut b, &mut elsewhere] {
        assert_eq!(text(client), "total 0");
    }
    assert_eq!((ask(&mut a, "+2"), text(&mut b)), ("total 2".to_owned(), "total 2".to_owned()));
    assert_eq!((ask(&mut b, "-1"), text(&mut a)), ("total 1".to_owned(), "total 1".to_owned()));
    assert_eq!(ask(&mut elsewhere, "7"), "total 7");
    assert!(ask(&mut b, "much").starts_with("send a whole number"));
    assert_eq!(text(&mut board("tea")), "total 1");
    drop(b);
    let mut farewells = [text(&mut a), text(&mut a)];
    farewells.sort_unstable();
    assert_eq!(farewells, ["someone left after 0 moves", "someone left after 1 moves"]);
}

#[test]
fn the_example_counts_primes() {
    let server = example();
    let mut client = server.connect("/primes");
    for (below, primes) in [("2", "0"), ("3", "1"), ("100", "25"), ("10000", "1229")] {
        assert_eq!(ask(&mut client, below), primes);
    }
    assert!(ask(&mut client, "many").starts_with("send a number"));
}
