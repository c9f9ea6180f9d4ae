//! How it ends: the drain, its grace, and the signals of the shipped binary.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[cfg(unix)]
#[path = "support/program.rs"]
mod program;

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rusty_socks::{
    CloseReason, Config, Context, Handler, MayBlock, Message as Incoming, Mode, Server,
};
use support::{
    BusyServer, DEADLINE, RawClient, TestServer, close_frame, config, eventually, frame,
    upgrade_head,
};

/// For tests in which a deadline must pass.
const SHORT: Duration = Duration::from_millis(200);

/// Never reached by a test that passes.
const LONG: Duration = Duration::from_secs(60);

/// Waits until nobody can connect any more.
fn wait_until_closed(server: &TestServer) {
    eventually("connecting is refused", || match TcpStream::connect(server.addr) {
        Ok(_) => Err("connected".into()),
        Err(_) => Ok(()),
    });
}

/// Expects the server to stop long before `LONG`.
fn joins(server: &TestServer) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let handle = server.handle.clone();
    std::thread::spawn(move || {
        handle.join();
        sender.send(())
    });
    receiver.recv_timeout(DEADLINE).expect("the server has stopped");
}

#[test]
fn an_empty_server_stops_at_once() {
    let server = TestServer::start(config());
    server.handle.shutdown(LONG);
    joins(&server);
}

#[test]
fn clients_get_what_was_queued_then_the_notice_then_1001() {
    let server = TestServer::start(config());
    let mut reader = server.chat();
    let mut writer = server.chat();
    for number in 1..=100 {
        let answer = writer.ask(&format!(r#"{{"type":"publish","content":{number},"ref":1}}"#));
        assert_eq!(answer["seq"], number);
    }
    server.handle.shutdown(LONG);
    for number in 1..=100 {
        assert_eq!(reader.json()["content"], number);
    }
    for mut client in [reader, writer] {
        let notice = client.json();
        assert_eq!(notice["type"], "closing");
        assert!(notice["reconnect_after_ms"].is_u64(), "{notice}");
        let close = client.closed().unwrap();
        assert_eq!(u16::from(close.code), 1001);
        while client.socket.read().is_ok() {}
    }
    joins(&server);
    assert_eq!(server.closed_with(1001), 2);
}

#[test]
fn those_in_line_are_told_that_the_server_drains() {
    let server = TestServer::start(Config { max_conn: 1, thread_pool_size: 4, ..config() });
    let mut inside = server.upgrade("/echo");
    let mut line = Vec::new();
    for place in 1..=5 {
        let mut client = server.raw_client();
        client.send(upgrade_head("/echo").as_bytes());
        server.wait_for("it is in line", |stats| stats.queued == place);
        line.push(client);
    }
    server.handle.shutdown(LONG);
    for mut client in line {
        let answer = client.answer();
        assert_eq!((answer.status, &answer.json()["error"]), (503, &"draining".into()));
        assert!(answer.header("Retry-After").is_some());
        client.expect_end();
    }
    assert_eq!(inside.close_code(), 1001);
    inside.send(&close_frame(1001));
    inside.expect_end();
    joins(&server);
    assert_eq!(server.stats().rejected["draining"], 5);
}

#[test]
fn a_permit_that_comes_too_late_does_not_take_the_answer_away() {
    let server = BusyServer::start(Config { max_conn: 3, ..config() });
    let mut second = server.blocker();
    let leaver = server.upgrade("/echo");
    let first = server.occupy(server.blocker());
    let mut waiter = server.raw_client();
    waiter.send(upgrade_head("/echo").as_bytes());
    server.wait_for("its socket is accepted", |stats| stats.pending_heads == 1);
    let first = first.release();
    server.wait_for("it is in line", |stats| stats.queued == 1);
    // In its next turn the worker gets busy again, and then finds that somebody has left.
    let first = server.occupy(first);
    second.send("again");
    leaver.reset();
    let first = first.release();
    let second = server.until_occupied(second);
    server.handle.shutdown(LONG);
    wait_until_closed(&server);
    // The worker's letter is posted right behind that. Should it come later, the drain simply comes
    // first.
    let second = second.release();
    // Either the drain or the permit came first; silence is no answer.
    let answer = waiter.answer();
    match answer.status {
        101 => assert_eq!(waiter.close_code(), 1001),
        status => assert_eq!((status, &answer.json()["error"]), (503, &"draining".into())),
    }
    drop((first, second, waiter));
    joins(&server);
}

#[test]
fn idle_connections_and_half_requests_are_closed_without_a_word() {
    let server = TestServer::start(config());
    let mut idle = server.raw_client();
    idle.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    let silent = server.raw_client();
    let mut slow = server.raw_client();
    slow.send(b"GET /health HTTP/1.1\r\nHo");
    server.wait_for("all are there", |stats| stats.sockets == 3 && stats.bytes_in == 36 + 24);
    server.handle.shutdown(LONG);
    for mut client in [idle, silent, slow] {
        client.expect_end();
    }
    joins(&server);
}

#[test]
fn nobody_new_comes_in_while_others_still_leave() {
    let server = TestServer::start(config());
    let mut inside = server.upgrade("/echo");
    server.handle.shutdown(LONG);
    assert_eq!(inside.close_code(), 1001);
    wait_until_closed(&server);
    assert!(server.stats().draining);
    inside.send(&close_frame(1001));
    inside.expect_end();
    joins(&server);
}

#[test]
fn a_client_that_never_answers_the_close_is_cut_off_by_the_close_timeout() {
    let server = TestServer::start(Config { close_timeout: SHORT, ..config() });
    let mut client = server.upgrade("/echo");
    server.handle.shutdown(LONG);
    assert_eq!(client.close_code(), 1001);
    client.expect_end();
    joins(&server);
}

#[test]
fn a_client_that_never_answers_the_close_is_cut_off_by_the_grace() {
    let server = TestServer::start(Config { close_timeout: LONG, ..config() });
    let mut client = server.upgrade("/echo");
    server.handle.shutdown(SHORT);
    assert_eq!(client.close_code(), 1001);
    joins(&server);
}

/// A client with more messages on their way to it than the kernel takes, none of which it has read.
fn behind(server: &TestServer) -> (RawClient, usize) {
    let mut client = server.upgrade("/ws");
    assert!(client.text().contains("welcome"));
    let message = "x".repeat(60 << 10);
    let mut published = 0;
    server.wait_for("it is behind", |stats| {
        if stats.read_pauses == 0 && stats.workers.iter().all(|worker| worker.mailbox == 0) {
            server.handle.publish("lobby", message.as_str()).unwrap();
            published += 1;
        }
        stats.read_pauses > 0
    });
    (client, published)
}

#[test]
fn a_client_that_is_behind_may_read_for_as_long_as_the_grace() {
    let server = TestServer::start(Config { close_timeout: SHORT, ..config() });
    let (mut client, published) = behind(&server);
    server.handle.shutdown(LONG);
    wait_until_closed(&server);
    let seen = Instant::now();
    // Several times what it has to answer a Close, once that is there to be read.
    eventually("it has hesitated", || match seen.elapsed() > 3 * SHORT {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    for number in 0..published {
        assert_eq!(client.text().len(), 60 << 10, "message {number} of {published}");
    }
    assert!(client.text().contains("closing"));
    assert_eq!(client.close_code(), 1001);
    client.send(&close_frame(1001));
    client.expect_end();
    joins(&server);
}

#[test]
fn who_watches_over_a_kept_connection_sees_the_drain() {
    let server = TestServer::start(config());
    // One for each worker, so that one watcher at least is on a worker with nobody to wait for.
    let mut watchers = [server.raw_client(), server.raw_client()];
    for watcher in &mut watchers {
        watcher.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(watcher.answer().status, 200);
    }
    let mut inside = server.upgrade("/echo");
    server.handle.shutdown(LONG);
    assert_eq!(inside.close_code(), 1001);
    for watcher in &mut watchers {
        watcher.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = watcher.answer();
        assert_eq!((answer.status, &answer.json()["status"]), (503, &"draining".into()));
        watcher.expect_end();
    }
    inside.send(&close_frame(1001));
    inside.expect_end();
    drop(watchers);
    joins(&server);
}

#[test]
fn a_client_that_never_reads_is_cut_off_by_the_grace() {
    let server = TestServer::start(config());
    let (_client, _) = behind(&server);
    server.handle.shutdown(SHORT);
    joins(&server);
}

#[test]
fn a_client_that_still_sends_may_finish_before_it_reads() {
    let server = TestServer::start(Config { close_timeout: LONG, ..config() });
    let mut client = server.upgrade("/echo");
    let mut writer = client.stream.try_clone().unwrap();
    // 64 MiB are more than the server takes from a client that reads none of its echoes.
    let flood = frame(0x82, &[7; 60 << 10]).repeat(1 << 10);
    let writing = std::thread::spawn(move || {
        writer.set_write_timeout(Some(DEADLINE)).unwrap();
        std::io::Write::write_all(&mut writer, &flood)
    });
    server.wait_for("it is held back", |stats| stats.read_pauses > 0);
    // Time enough for the whole flood many times over.
    server.handle.shutdown(Duration::from_secs(10));
    // Nobody waits for its messages any more, so nothing holds them back.
    writing.join().unwrap().unwrap();
    assert_eq!(client.close_code(), 1001);
    client.send(&close_frame(1001));
    client.expect_end();
    joins(&server);
}

/// Counts the calls it gets.
#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    drained: AtomicUsize,
    closed: AtomicUsize,
}

struct Counting(Arc<Counts>);

impl<M: Mode> Handler<M> for Counting {
    type State = ();

    fn on_open(&self, _: &mut Context<'_, (), M>) {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn on_message(&self, ctx: &mut Context<'_, (), M>, message: Incoming<'_>) {
        ctx.send(message);
    }

    fn on_drain(&self, ctx: &mut Context<'_, (), M>) {
        self.0.drained.fetch_add(1, Ordering::SeqCst);
        ctx.send("farewell");
    }

    fn on_close(&self, _: &mut Context<'_, (), M>, reason: &CloseReason) {
        assert_eq!(reason.code(), 1001);
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Every connection that was opened is drained and closed, whether it answers or not.
fn every_open_has_its_close(counts: &Counts, server: &TestServer) {
    let mut polite = server.upgrade("/");
    let mut rude = server.upgrade("/");
    for client in [&mut polite, &mut rude] {
        client.send(&frame(0x81, b"hello"));
        assert_eq!(client.text(), "hello");
    }
    server.handle.shutdown(SHORT);
    assert_eq!(polite.text(), "farewell");
    assert_eq!(polite.close_code(), 1001);
    polite.send(&close_frame(1001));
    joins(server);
    let counted = [&counts.opened, &counts.drained, &counts.closed];
    assert_eq!(counted.map(|count| count.load(Ordering::SeqCst)), [2, 2, 2]);
}

#[test]
fn every_open_has_its_drain_and_its_close() {
    let counts = Arc::<Counts>::default();
    let config = Config { close_timeout: LONG, ..config() };
    let builder = Server::builder().config(config).route("/", Counting(Arc::clone(&counts)));
    every_open_has_its_close(&counts, &TestServer::run(builder.bind().unwrap()));
}

#[test]
fn every_open_has_its_drain_and_its_close_on_threads_of_its_own() {
    let counts = Arc::<Counts>::default();
    let config = Config { close_timeout: LONG, ..config() };
    let handler = Handler::<MayBlock>::blocking(Counting(Arc::clone(&counts)), 2, 10);
    let builder = Server::builder().config(config).route("/", handler);
    every_open_has_its_close(&counts, &TestServer::run(builder.bind().unwrap()));
}

/// The shipped binary, as an operator runs it.
#[cfg(unix)]
mod binary {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        process::Stdio,
        sync::mpsc,
        thread,
        time::Duration,
    };

    use super::{
        DEADLINE, TcpStream, close_frame, eventually, frame,
        program::{PROGRAM, Process, Program, command, listens_on},
    };

    /// The program with no more than `files` open files, which it cannot raise again.
    fn start_with_files(files: usize) -> Program {
        let limited = format!("ulimit -n {files}; exec \"$0\" --host 127.0.0.1 --port 0");
        let mut command = command("sh");
        command.args(["-c", &limited, PROGRAM]).env("RUSTY_SOCKS_ADMIN_PORT", "0");
        // Nobody who waits goes by itself.
        command.env("RUSTY_SOCKS_HANDSHAKE_TIMEOUT", "60");
        Program::run(&mut command)
    }

    /// The address of its admin listener.
    fn admin_of(server: &Program) -> String {
        let line = server.log_line("the admin listener is on ");
        line.split_once("listener is on ").unwrap().1.to_owned()
    }

    #[test]
    fn a_signal_drains_and_ends_with_code_0() {
        for signal in ["-TERM", "-INT"] {
            let mut server = Program::start(&[], &[]);
            let mut client = server.upgrade("/ws");
            server.signal(signal);
            assert_eq!(client.close_code(), 1001);
            client.send(&close_frame(1001));
            client.expect_end();
            assert_eq!(server.exit_code(), Some(0), "{signal}");
            let said: Vec<String> = server.log.try_iter().collect();
            assert!(said.iter().any(|line| line.contains("draining")), "{said:?}");
        }
    }

    #[test]
    fn a_client_that_never_answers_does_not_change_the_code() {
        let mut server = Program::start(&["--close-timeout", "60", "--drain-timeout", "0.2"], &[]);
        let _client = server.upgrade("/ws");
        server.signal("-TERM");
        assert_eq!(server.exit_code(), Some(0));
    }

    #[test]
    fn a_second_signal_ends_it_at_once_with_code_1() {
        // Far beyond the deadline of this test.
        let mut server = Program::start(&["--close-timeout", "600", "--drain-timeout", "600"], &[]);
        let mut client = server.upgrade("/ws");
        server.signal("-TERM");
        assert_eq!(client.close_code(), 1001, "the first one was heard");
        server.signal("-TERM");
        assert_eq!(server.exit_code(), Some(1));
    }

    #[test]
    fn without_file_descriptors_it_waits_says_so_once_and_goes_on() {
        // Room for what the server itself keeps open and about twenty connections.
        let mut server = start_with_files(40);
        let admin = admin_of(&server);
        let mut crowd: Vec<TcpStream> =
            (0..60).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
        let mut said = Vec::new();
        let hear = |what: &str, said: &mut Vec<String>| loop {
            let line = server.log.recv_timeout(DEADLINE).expect(what);
            let is_it = line.contains(what);
            said.push(line);
            if is_it {
                return;
            }
        };
        hear("cannot accept", &mut said);
        // Those who wait do not keep the operator out, and neither do those who take the place of
        // others: more of them than files are reserved.
        let ask = |path: &str| {
            let mut operator = TcpStream::connect(&admin).unwrap();
            operator.set_read_timeout(Some(DEADLINE)).unwrap();
            let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
            operator.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            operator.read_to_string(&mut answer).unwrap();
            answer
        };
        let accepted = || {
            let answer = ask("/stats");
            let stats: serde_json::Value =
                serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            // Those who ask are counted, too.
            stats["sockets_total"].as_u64().unwrap()
                - stats["admin_requests_total"].as_u64().unwrap()
        };
        for _ in 0..15 {
            let before = accepted();
            crowd.remove(0);
            eventually("another one takes the place", || match accepted() > before {
                true => Ok(()),
                false => Err(format!("{before} were accepted")),
            });
        }
        let ready = ask("/ready");
        assert!(ready.contains("\"ready\":true"), "{ready}");
        drop(crowd);
        hear("accepting again", &mut said);
        let complaints = said.iter().filter(|line| line.contains("cannot accept")).count();
        assert_eq!(complaints, 1, "{said:?}");
        let mut client = server.upgrade("/ws");
        server.signal("-TERM");
        assert_eq!(client.close_code(), 1001);
        client.send(&close_frame(1001));
        assert_eq!(server.exit_code(), Some(0));
    }

    /// A process whose log nobody reads must serve on and end all the same.
    #[test]
    fn a_log_that_nobody_reads_holds_up_neither_clients_nor_signals() {
        let arguments = ["--log", "debug", "--close-timeout", "600", "--drain-timeout", "600"];
        let mut command = command(PROGRAM);
        command.args(["--host", "127.0.0.1", "--port", "0"]).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::with_capacity(1, child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let process = Process { child, log: mpsc::channel().1 };
        let mut server = Program { process, addr: listens_on(&line) };
        // Each is logged when it opens and when it closes: more than a pipe of 64 KiB holds.
        for _ in 0..600 {
            let mut client = server.upgrade("/ws");
            client.send(&close_frame(1000));
            assert_eq!(client.close_code(), 1000);
        }
        let mut client = server.upgrade("/ws");
        server.signal("-TERM");
        assert_eq!(client.close_code(), 1001, "the first one was heard");
        server.signal("-TERM");
        assert_eq!(server.exit_code(), Some(1));
        drop(log);
    }

    /// The clients did nothing wrong while the server stood still.
    #[test]
    fn a_process_that_was_stopped_closes_nobody_for_it() {
        let server = Program::start(&["--timeout", "2", "--ping", "0.5"], &[]);
        let mut client = server.upgrade("/ws");
        client.text();
        server.signal("-STOP");
        // Longer than the timeout: it is the time itself that is tested.
        thread::sleep(Duration::from_millis(3000));
        server.signal("-CONT");
        for _ in 0..3 {
            let (first, payload) = client.frame().expect("a ping, and no close");
            assert_eq!((first, payload.len()), (0x89, 0));
            client.send(&frame(0x8a, b""));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_last_file_descriptor_is_not_needed_to_stop() {
        const FILES: usize = 40;
        let mut server = start_with_files(FILES);
        let admin = admin_of(&server);
        let files = format!("/proc/{}/fd", server.child.id());
        let is_open = |file: usize| std::fs::symlink_metadata(format!("{files}/{file}")).is_ok();
        let mut clients = Vec::new();
        // A quarter is not for clients.
        while !is_open(FILES - FILES / 4 - 2) {
            clients.push(server.upgrade("/ws"));
        }
        let mut operators = Vec::new();
        // One of these numbers is what the blocked `accept` has reserved for itself.
        while !is_open(FILES - 2) && !is_open(FILES - 1) {
            let count = || std::fs::read_dir(&files).unwrap().count();
            let before = count();
            operators.push(TcpStream::connect(&admin).unwrap());
            eventually("it is accepted", || match count() > before {
                true => Ok(()),
                false => Err(format!("{before} open files")),
            });
        }
        server.signal("-TERM");
        for client in &mut clients {
            assert_eq!(client.close_code(), 1001);
            client.send(&close_frame(1001));
        }
        assert_eq!(server.exit_code(), Some(0));
        drop(operators);
    }

    #[test]
    fn a_log_of_everything_holds_no_session_token() {
        let mut server = Program::start(&["--log", "trace"], &[]);
        let mut client = server.upgrade("/ws");
        let welcome: serde_json::Value = serde_json::from_str(&client.text()).unwrap();
        let token = welcome["session"].as_str().unwrap().to_owned();
        client.reset();
        let mut again = server.upgrade("/ws");
        again.text();
        let resume = format!(r#"{{"type":"resume","session":"{token}","rooms":[]}}"#);
        let (first, second) = resume.as_bytes().split_at(resume.len() - 20);
        again.send(&frame(0x01, first));
        again.send(&frame(0x80, second));
        assert!(again.text().contains(r#""type":"ok""#));
        server.signal("-TERM");
        assert_eq!(again.close_code(), 1001);
        again.send(&close_frame(1001));
        assert_eq!(server.exit_code(), Some(0));
        let said: Vec<String> = server.log.iter().collect();
        assert!(said.iter().any(|line| line.contains("DEBUG")), "it logs everything: {said:?}");
        let bytes = format!("{:?}", &token.as_bytes()[..8]);
        let bytes = bytes.trim_matches(['[', ']']);
        let telling: Vec<&String> =
            said.iter().filter(|line| line.contains(&token) || line.contains(bytes)).collect();
        assert!(telling.is_empty(), "{telling:?}");
    }

    #[test]
    fn a_port_in_use_is_told_in_one_line_with_code_1() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let port = address.port().to_string();
        let arguments = ["--host", "127.0.0.1", "--port", &port, "--log", "error"];
        let output = command(PROGRAM).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&address.to_string()), "{stderr}");
    }
}
