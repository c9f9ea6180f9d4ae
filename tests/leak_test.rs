//! Permits, sessions, places in line, slots: whatever way a connection ends, all of it comes back.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{net::Shutdown, panic, sync::Once, time::Duration};

use rusty_socks::{
    CloseReason, Config, Context, Handler, MayBlock, Message as Incoming, Mode, Refusal, Request,
    RoomName, Server,
};
use support::{RawClient, TestServer, close_frame, config, eventually, frame, upgrade_head};

/// Connections at once. Both sides are files of this process, and tests run side by side: with two
/// dozen of them the usual limit of 1024 open files still holds.
const BATCH: usize = 16;

/// About a thousand connections each way: a leak of one in a hundred would use up the permits.
const BATCHES: usize = 64;

/// As many permits as connections at once, so that the first one that is lost is missed. Who comes
/// while a permit is still on its way back waits for it.
fn tight() -> Config {
    Config { max_conn: BATCH, max_queued_tasks: 2 * BATCH, ..config() }
}

/// Opens connections by the batch, ends each in the given way, and looks whether anything is left.
fn end_all(server: &TestServer, open: impl Fn(&TestServer) -> RawClient, end: impl Fn(RawClient)) {
    for _ in 0..BATCHES {
        let clients: Vec<RawClient> = (0..BATCH).map(|_| open(server)).collect();
        clients.into_iter().for_each(&end);
    }
    nothing_is_left(server);
}

/// Every gauge is at zero, and every permit can be used again.
fn nothing_is_left(server: &TestServer) {
    server.wait_until_empty();
    // What was still in the backlog is in no gauge, and may come and take a permit for a moment.
    eventually("all permits can be used at once", || {
        let mut clients = Vec::new();
        for _ in 0..server.stats().max_connections {
            let mut client = server.raw_client();
            client.send(upgrade_head("/echo").as_bytes());
            let answer = client.answer();
            if answer.status != 101 {
                return Err(format!("{answer:?} {:?}", server.stats()));
            }
            clients.push(client);
        }
        Ok(())
    });
    server.wait_until_empty();
}

fn echo_client(server: &TestServer) -> RawClient {
    server.upgrade("/echo")
}

/// A client in a room, with a message sent and answered.
fn chat_client(server: &TestServer) -> RawClient {
    let mut client = server.upgrade("/ws");
    assert!(client.text().contains("welcome"));
    client
}

#[test]
fn a_clean_close_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, chat_client, |mut client| {
        client.send(&close_frame(1000));
        assert_eq!(client.close_code(), 1000);
        client.expect_end();
    });
    assert_eq!(server.closed_with(1000), (BATCH * BATCHES) as u64);
}

#[test]
fn a_close_whose_answer_nobody_reads_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, chat_client, |mut client| client.send(&close_frame(1000)));
}

#[test]
fn a_reset_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, chat_client, RawClient::reset);
}

#[test]
fn a_reset_in_the_middle_of_a_message_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, chat_client, |mut client| {
        let whole = frame(0x82, &[7; 5000]);
        client.send(&whole[..3000]);
        client.reset();
    });
}

#[test]
fn an_end_without_a_close_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, echo_client, |mut client| {
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.expect_end();
    });
    assert!(server.closed_with(1006) >= (BATCH * BATCHES) as u64);
}

#[test]
fn a_message_with_the_end_right_behind_it_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, echo_client, |mut client| {
        client.send(&frame(0x81, b"last words"));
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.text(), "last words");
        client.expect_end();
    });
}

#[test]
fn a_request_with_the_end_right_behind_it_leaves_nothing() {
    let server = TestServer::start(tight());
    let open = |server: &TestServer| {
        let mut client = server.raw_client();
        client.send(upgrade_head("/echo").as_bytes());
        client
    };
    end_all(&server, open, |client| {
        client.stream.shutdown(Shutdown::Write).unwrap();
    });
    end_all(&server, open, RawClient::reset);
}

#[test]
fn silence_leaves_nothing() {
    // Short, for each batch waits for it.
    let timeout = Duration::from_millis(20);
    let server = TestServer::start(Config { timeout, ping: Duration::ZERO, ..tight() });
    end_all(&server, echo_client, |mut client| {
        assert_eq!(client.close_code(), 4202);
        client.send(&close_frame(4202));
        client.expect_end();
    });
}

#[test]
fn a_protocol_error_leaves_nothing() {
    let server = TestServer::start(tight());
    end_all(&server, echo_client, |mut client| {
        client.send(&frame(0x83, b"reserved"));
        assert_eq!(client.close_code(), 1002);
        client.expect_end();
    });
}

#[test]
fn a_close_that_is_never_answered_leaves_nothing() {
    let server = TestServer::start(Config { close_timeout: Duration::from_millis(20), ..tight() });
    let open = |server: &TestServer| {
        let mut client = chat_client(server);
        // Not a word of JSON ten times in a row, and the server has had enough.
        client.send(&frame(0x81, b"nonsense").repeat(10));
        client
    };
    end_all(&server, open, |mut client| {
        assert_eq!(client.close_code(), 4008);
        client.expect_end();
    });
}

#[test]
fn a_socket_that_never_says_a_word_leaves_nothing() {
    let server =
        TestServer::start(Config { handshake_timeout: Duration::from_millis(20), ..tight() });
    end_all(&server, TestServer::raw_client, |mut client| {
        assert_eq!(client.answer().status, 408);
        client.expect_end();
    });
    end_all(&server, TestServer::raw_client, drop);
}

#[test]
fn a_plain_request_leaves_nothing() {
    let server = TestServer::start(tight());
    let open = |server: &TestServer| {
        let mut client = server.raw_client();
        client.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    };
    end_all(&server, open, |mut client| assert_eq!(client.answer().status, 200));
    end_all(&server, open, RawClient::reset);
}

#[test]
fn a_rejection_leaves_nothing() {
    let server = TestServer::start(Config { max_conn: 1, max_queued_tasks: 0, ..config() });
    let inside = server.upgrade("/echo");
    for _ in 0..BATCHES * BATCH {
        let mut client = server.raw_client();
        client.send(upgrade_head("/echo").as_bytes());
        assert_eq!(client.answer().status, 503);
        client.expect_end();
    }
    drop(inside);
    nothing_is_left(&server);
    assert_eq!(server.stats().rejected["full"], (BATCHES * BATCH) as u64);
}

#[test]
fn a_rejection_that_nobody_reads_leaves_nothing() {
    let server = TestServer::start(Config { max_conn: 1, max_queued_tasks: 0, ..config() });
    let inside = server.upgrade("/echo");
    for turn in 0..BATCHES * BATCH {
        let mut client = server.raw_client();
        client.send(upgrade_head("/echo").as_bytes());
        match turn % 2 {
            0 => client.reset(),
            _ => drop(client),
        }
    }
    drop(inside);
    nothing_is_left(&server);
}

#[test]
fn a_waiter_that_hangs_up_leaves_nothing() {
    // A minute in line, so that nobody leaves it by the clock.
    let queue_timeout = Duration::from_secs(60);
    let config = Config { max_conn: 1, max_queued_tasks: BATCH, queue_timeout, ..config() };
    let server = TestServer::start(config);
    let inside = server.upgrade("/echo");
    for turn in 0..BATCHES {
        let mut line = Vec::new();
        for _ in 0..BATCH {
            let mut client = server.raw_client();
            client.send(upgrade_head("/echo").as_bytes());
            line.push(client);
        }
        server.wait_for("all stand in line", |stats| stats.queued == BATCH);
        for client in line {
            match turn % 3 {
                0 => client.reset(),
                1 => drop(client),
                _ => client.stream.shutdown(Shutdown::Write).unwrap(),
            }
        }
        server.wait_for("the line is empty", |stats| stats.queued == 0);
    }
    assert_eq!(server.stats().accepted_total, 1);
    drop(inside);
    nothing_is_left(&server);
}

#[test]
fn a_waiter_that_waits_too_long_leaves_nothing() {
    let queue_timeout = Duration::from_millis(20);
    let config = Config { max_conn: 1, max_queued_tasks: BATCH, queue_timeout, ..config() };
    let server = TestServer::start(config);
    let inside = server.upgrade("/echo");
    for _ in 0..BATCHES {
        let mut line: Vec<RawClient> = (0..BATCH).map(|_| server.raw_client()).collect();
        line.iter_mut().for_each(|client| client.send(upgrade_head("/echo").as_bytes()));
        for mut client in line {
            assert_eq!(client.answer().status, 503);
            client.expect_end();
        }
    }
    drop(inside);
    nothing_is_left(&server);
}

#[test]
fn a_slow_consumer_leaves_nothing() {
    // Each costs the kernel a few MiB of unread messages, so here it is a hundred and not a
    // thousand.
    const SLOW_BATCHES: usize = 7;
    let close_timeout = Duration::from_millis(20);
    let config = Config { buffer: 4, history: 0, replay: 0, close_timeout, ..tight() };
    let server = TestServer::start(config);
    server.handle.open_room(&RoomName::new("lobby").unwrap()).unwrap();
    let message = "x".repeat(60 << 10);
    for batch in 1..=SLOW_BATCHES {
        let clients: Vec<RawClient> = (0..BATCH).map(|_| chat_client(&server)).collect();
        server.wait_for("all of them are too slow", |stats| {
            // One who is behind already loses nothing by another message.
            if stats.workers.iter().all(|worker| worker.mailbox < 16) {
                let _ = server.handle.publish("lobby", message.as_str());
            }
            stats.closed.get("4102") == Some(&((batch * BATCH) as u64))
        });
        server.wait_for("the permits are back", |stats| stats.active_connections == 0);
        drop(clients);
    }
    nothing_is_left(&server);
}

/// Panics where the path says.
struct Panics(&'static str);

/// Panics when it is dropped, if it was told to.
#[derive(Default)]
struct Fragile(bool);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.0, "{WANTED}");
    }
}

impl Panics {
    fn at(&self, place: &str) {
        assert!(self.0 != place, "{WANTED}");
    }
}

impl<M: Mode> Handler<M> for Panics {
    type State = Fragile;

    fn on_upgrade(&self, _: &Request<'_>) -> Result<Fragile, Refusal> {
        self.at("on_upgrade");
        Ok(Fragile(self.0 == "drop"))
    }

    fn on_open(&self, _: &mut Context<'_, Fragile, M>) {
        self.at("on_open");
    }

    fn on_message(&self, ctx: &mut Context<'_, Fragile, M>, message: Incoming<'_>) {
        self.at("on_message");
        if message == Incoming::Text("close") {
            ctx.close(CloseReason::NORMAL);
        }
    }

    fn on_close(&self, _: &mut Context<'_, Fragile, M>, _: &CloseReason) {
        self.at("on_close");
    }
}

fn echo(ctx: &mut Context<'_, ()>, message: Incoming<'_>) {
    ctx.send(message);
}

fn panicking(config: Config, place: &'static str) -> TestServer {
    be_quiet_about_wanted_panics();
    let builder = Server::builder().config(config).route("/ws", Panics(place));
    TestServer::run(builder.route("/echo", echo).bind().unwrap())
}

fn panicking_on_threads(config: Config, place: &'static str) -> TestServer {
    be_quiet_about_wanted_panics();
    let builder = Server::builder()
        .config(config)
        .route("/ws", Handler::<MayBlock>::blocking(Panics(place), 2, 100));
    TestServer::run(builder.route("/echo", echo).bind().unwrap())
}

/// Fewer of these, for a panic takes its time.
const PANICS: usize = 100;

/// What those panics say.
const WANTED: &str = "as the test wants it";

/// Keeps wanted panics from writing a backtrace each; any other is told as ever.
fn be_quiet_about_wanted_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some(WANTED) {
                tell(info);
            }
        }));
    });
}

/// Runs a hundred panics, and sees that they cost these connections and nothing else.
fn panic_often(server: &TestServer, expected: &[u16]) {
    let mut bystander = server.upgrade("/echo");
    for turn in 0..PANICS {
        let mut client = server.upgrade("/ws");
        client.send(&frame(0x81, b"close"));
        let code = client.close_code();
        assert!(expected.contains(&code), "{code}");
        match turn % 2 {
            0 => client.send(&close_frame(code)),
            _ => client.stream.shutdown(Shutdown::Write).unwrap(),
        }
        client.expect_end();
    }
    // On a thread of its own the last one may be later than the end that the client sees.
    server.wait_for("all panics are counted", |stats| stats.handler_panics >= PANICS as u64);
    bystander.send(&frame(0x81, b"untouched"));
    assert_eq!(bystander.text(), "untouched");
    drop(bystander);
    nothing_is_left(server);
    assert_eq!(server.stats().handler_panics, PANICS as u64);
}

#[test]
fn a_panic_in_on_open_costs_one_connection() {
    panic_often(&panicking(tight(), "on_open"), &[1011]);
}

#[test]
fn a_panic_in_on_message_costs_one_connection() {
    panic_often(&panicking(tight(), "on_message"), &[1011]);
}

#[test]
fn a_panic_in_on_close_costs_one_connection() {
    // The Close that brought it there was sent before.
    panic_often(&panicking(tight(), "on_close"), &[1000]);
}

#[test]
fn a_panic_of_a_state_that_is_dropped_costs_one_connection() {
    panic_often(&panicking(tight(), "drop"), &[1000]);
}

#[test]
fn a_panic_on_a_thread_of_a_blocking_handler_costs_one_connection() {
    for place in ["on_open", "on_message"] {
        // The close that the message asks for may overtake the panic's.
        panic_often(&panicking_on_threads(tight(), place), &[1011, 1000]);
    }
    panic_often(&panicking_on_threads(tight(), "on_close"), &[1000]);
}

#[test]
fn a_panic_in_on_upgrade_costs_one_connection() {
    let server = panicking(tight(), "on_upgrade");
    for _ in 0..PANICS {
        let mut client = server.raw_client();
        client.send(upgrade_head("/ws").as_bytes());
        assert_eq!(client.answer().status, 500);
        client.expect_end();
    }
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.rejected["handler"]), (PANICS as u64, PANICS as u64));
    nothing_is_left(&server);
}

#[test]
fn a_panic_of_a_state_that_was_never_served_costs_one_connection() {
    let queue_timeout = Duration::from_millis(20);
    let config = Config { max_conn: 1, max_queued_tasks: 1, queue_timeout, ..config() };
    let server = panicking(config, "drop");
    let mut inside = server.upgrade("/echo");
    let mut waits_too_long = server.raw_client();
    waits_too_long.send(upgrade_head("/ws").as_bytes());
    assert_eq!(waits_too_long.answer().status, 503);
    let mut waits = server.raw_client();
    waits.send(upgrade_head("/ws").as_bytes());
    let mut refused = server.raw_client();
    refused.send(upgrade_head("/ws").as_bytes());
    assert_eq!(refused.answer().status, 503);
    drop(waits);
    inside.send(&frame(0x81, b"untouched"));
    assert_eq!(inside.text(), "untouched");
    drop((inside, waits_too_long, refused));
    nothing_is_left(&server);
}
