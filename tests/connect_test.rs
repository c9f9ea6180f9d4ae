//! `rusty_socks connect`, the program: from pipes, and on a terminal.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/proxy.rs"]
mod proxy;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use proxy::Proxy;
use rusty_socks::Config;
use serde_json::Value;
use support::{DEADLINE, TestServer};

fn config() -> Config {
    Config { resume_window: Duration::from_secs(60), ..support::config() }
}

struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rusty_socks"));
    command.arg("connect").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with `input` to its end.
fn run(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut child = command(arguments).spawn().unwrap();
    // Who has read enough closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child)
}

fn finish(child: Child) -> Outcome {
    let id = child.id();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output().unwrap()));
    let output = told
        .recv_timeout(DEADLINE)
        .unwrap_or_else(|_| panic!("the program (process {id}) does not end"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn address(server: &TestServer) -> String {
    server.addr.to_string()
}

#[test]
fn each_line_of_a_pipe_is_published_and_answered() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let outcome = run(&[&address(&server), "--name", "ben"], b"hi\r\n/join tea\n\nlast");
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (Some(0), "", ""));
    for text in ["hi", "/join tea", "", "last"] {
        let message = anna.json();
        assert_eq!((&message["content"], &message["sender"]), (&text.into(), &"ben".into()));
    }
    server.wait_for("it has closed in order", |stats| stats.active_connections == 1);
    assert_eq!(server.closed_with(1000), 1);
}

#[test]
fn lines_of_json_are_published_as_the_json_they_are() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let input = b"{\"n\": 1}\nnot json\n[2, \"b\"]\n\"text\"\n";
    let outcome = run(&[&address(&server), "--send-json"], input);
    for content in [serde_json::json!({"n": 1}), serde_json::json!([2, "b"]), "text".into()] {
        assert_eq!(anna.json()["content"], content);
    }
    assert_eq!(outcome.code, Some(1), "one line was not sent");
    assert!(outcome.err.contains("it is no JSON: expected ident"), "{outcome:?}");
}

#[test]
fn much_input_is_no_trouble() {
    let server = TestServer::start(Config { history: 5000, history_bytes: 4 << 20, ..config() });
    let input: String = (0..3000).map(|number| format!("{number}\n")).collect();
    assert_eq!(run(&[&address(&server)], input.as_bytes()).code, Some(0));
    let mut anna = server.chat();
    for _ in 0..10 {
        anna.json();
    }
    let page = anna.ask(r#"{"type":"history","ref":1,"room":"lobby","limit":1}"#);
    assert_eq!(page["seq"], 3000);
    assert_eq!(page["messages"][0]["content"], "2999");
}

#[test]
fn what_comes_is_shown_on_standard_output_alone() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    anna.send(r#"{"content":"a\u001b[31mb","sender":"anna","timestamp":"2025-03-15T12:00:00Z"}"#);
    anna.ask(r#"{"content":{"n":1},"ref":1}"#);
    let url = address(&server);
    let outcome = run(&[&url, "--count", "2", "--no-timestamps"], b"");
    let id = &anna.welcome["client_id"].as_str().unwrap()[..8];
    assert_eq!(outcome.out, format!("anna: a\u{fffd}[31mb\n{id}: {{\"n\":1}}\n"));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""));

    let outcome = run(&[&url, "--wait", "0.2", "--json", "--color", "always"], b"");
    let lines: Vec<Value> =
        outcome.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["type"], &lines[1]["seq"]), (&"message".into(), &2.into()));
    assert_eq!(lines[1]["content"]["n"], 1);

    let outcome = run(&[&url, "--count", "1", "--color", "always"], b"");
    assert!(outcome.out.contains("\x1b[2m") && outcome.out.contains(":00:00"), "{outcome:?}");
    let outcome = run(&[&url, "--count", "3", "--wait", "0.2"], b"");
    assert_eq!(outcome.code, Some(1), "fewer than were wanted");
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.code, self.out, self.err)
    }
}

#[test]
fn how_it_ends_is_the_exit_code() {
    let server = TestServer::start(config());
    let here = address(&server);
    let raw = |path: &str| format!("ws://{here}{path}");
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let big = vec![b'x'; 100_000];
    let ends: [(&[&str], &[u8], i32, &str); 10] = [
        (&[&nobody], b"", 3, "cannot connect"),
        (&[&raw("/nowhere")], b"", 4, "404"),
        (&["--raw", &raw("/nowhere")], b"", 4, "404"),
        (&["ftp://localhost"], b"", 2, "the scheme must be"),
        (&["ws://"], b"", 2, "ws://"),
        (&["--raw", "--room", "x"], b"", 2, "--room"),
        (&["-H", "nonsense", &here], b"", 2, "NAME: VALUE"),
        (&["--wait", "x", &here], b"", 2, "--wait"),
        (&[&here], &big, 1, "too large"),
        (&["--raw", &raw("/echo")], &big, 5, "1009"),
    ];
    for (arguments, input, code, text) in ends {
        let outcome = run(arguments, input);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(text), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.starts_with("rusty_socks: "), "{arguments:?}: {outcome:?}");
    }
}

/// `--room` is that room: what others say in the default room is neither shown nor counted.
#[test]
fn a_room_that_is_named_is_the_only_one() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    anna.ask(r#"{"content":"in the lobby","ref":1}"#);
    anna.ask(r#"{"type":"join","room":"builds","ref":2}"#);
    let url = address(&server);
    let child = command(&[&url, "--room", "builds", "--count", "1", "--json"]).spawn().unwrap();
    let is_there = || anna.ask(r#"{"type":"presence","room":"builds","ref":3}"#)["count"] == 2;
    support::eventually("it is in the room", {
        let mut is_there = is_there;
        move || if is_there() { Ok(()) } else { Err("not yet".into()) }
    });
    anna.ask(r#"{"content":"in the lobby again","ref":4}"#);
    anna.ask(r#"{"room":"builds","content":"done","ref":5}"#);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let message: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&message["room"], &message["content"]), (&"builds".into(), &"done".into()));

    let outcome = run(&[&url, "--room", "lobby", "--count", "2"], b"");
    assert_eq!(outcome.out.lines().count(), 2, "asked for, it greets as ever: {outcome:?}");
}

#[test]
fn a_line_that_is_not_utf_8_is_told_or_sent_as_it_is() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let outcome = run(&[&address(&server)], b"one\n\xff\nthree\n");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.err,
        "rusty_socks: line 2 is not sent: it is not UTF-8, and the chat protocol is text\n"
    );
    assert_eq!(
        (&anna.json()["content"], &anna.json()["content"]),
        (&"one".into(), &"three".into())
    );
    let echo = format!("ws://{}/echo", server.addr);
    let outcome = run(&["--raw", &echo], b"a\n\xff\x00\nb");
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), "a\nff 00\nb\n"), "{outcome:?}");
}

#[test]
#[cfg(unix)]
fn a_standard_input_that_cannot_be_read_is_told() {
    let server = TestServer::start(config());
    let mut child = command(&[&address(&server)]);
    let child = child.stdin(std::fs::File::open("/").unwrap()).spawn().unwrap();
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.err.contains("cannot read standard input"), "{outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
}

/// A server that does with each connection what it is told to.
fn serves(each: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|stream| each(stream.unwrap())));
    url
}

/// Reads the request, answers, and ends the connection.
fn answers(text: &'static str) -> String {
    serves(move |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(text.as_bytes());
    })
}

/// Servers that are silent, broken or gone get one sentence, which names them and says what they
/// do.
#[test]
fn each_failure_is_one_clear_sentence() {
    let held = Mutex::new(Vec::new());
    let silent = serves(move |stream| held.lock().unwrap().push(stream));
    let ends = serves(|mut stream| drop(stream.read(&mut [0; 4096])));
    let foreign = answers("220 mail.example.org ESMTP\r\n");
    let refuses = answers(
        "HTTP/1.1 403 No\r\nContent-Length: 43\r\n\r\n{\"error\":\"origin\",\"message\":\"not \\\"here\\\"\"}",
    );
    let welcome_and_gone = serves(|stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let welcome = r#"{"type":"welcome","client_id":"me","room":"lobby","epoch":"e","seq":0}"#;
        let _ = socket.send(tungstenite::Message::text(welcome));
        let _ = socket.read();
        // What it has not read would make the kernel reset the connection instead of ending it.
        let stream = socket.get_mut();
        let _ = stream.shutdown(Shutdown::Write);
        let _ = io::copy(stream, &mut io::sink());
    });
    let cases: [(&[&str], i32, String); 6] = [
        (
            &["--timeout", "0.3", &silent],
            3,
            format!("{silent} takes the connection, and does not answer in time"),
        ),
        (
            &["--raw", "--timeout", "0.3", &silent],
            3,
            format!("{silent} takes the connection, and does not answer in time"),
        ),
        (&[&ends], 5, format!("{ends} ends the connection without an answer to the upgrade")),
        (
            &[&foreign],
            5,
            "this is no WebSocket server: the answer is not HTTP: invalid HTTP version".into(),
        ),
        (&[&refuses], 4, "the server answers 403: not \"here\"".into()),
        (
            &["--no-reconnect", &welcome_and_gone],
            5,
            "the connection is lost: the server ended it without a Close frame".into(),
        ),
    ];
    for (arguments, code, sentence) in cases {
        let outcome = run(arguments, b"a line\nand another\n");
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.err, format!("rusty_socks: {sentence}\n"), "{arguments:?}");
        assert_eq!(outcome.out, "");
    }
}

/// A server that is busy is asked again as it says, which is told; unless that is beyond what was
/// allowed.
#[test]
fn a_busy_server_is_waited_for_within_the_timeout() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    proxy.refuse_next(busy);
    proxy.refuse_next("HTTP/1.1 429 Slowly\r\nContent-Length: 0\r\n\r\n");
    let outcome = run(&[&proxy.url()], b"hi");
    assert_eq!((outcome.code, proxy.came()), (Some(0), 3), "{outcome:?}");
    let lines: Vec<&str> = outcome.err.lines().collect();
    assert!(
        lines[0].starts_with("rusty_socks: the server answers 503; trying again in 1."),
        "{outcome:?}"
    );
    assert!(
        lines[1].starts_with("rusty_socks: the server answers 429; trying again in 0."),
        "{outcome:?}"
    );
    assert_eq!(lines.len(), 2, "{outcome:?}");

    let ends: [&[&str]; 3] =
        [&["--no-reconnect"], &["--timeout", "0.5"], &["--raw", "--timeout", "0.5"]];
    for flags in ends {
        proxy.refuse_next(busy);
        let (url, came) = (proxy.url(), proxy.came());
        let outcome = run(&[&[url.as_str()], flags].concat(), b"hi");
        assert_eq!((outcome.code, proxy.came()), (Some(4), came + 1), "{flags:?}: {outcome:?}");
        assert_eq!(outcome.err.lines().count(), 1, "{flags:?}: {outcome:?}");
        assert!(
            outcome.err.starts_with("rusty_socks: the server answers 503"),
            "{flags:?}: {outcome:?}"
        );
    }
}

/// What is lost and comes back is told to whoever only writes, too.
#[test]
fn a_pipe_is_told_of_its_connection_and_of_nothing_else() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let mut anna = server.chat();
    let mut child = command(&[&proxy.url()]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"before\n").unwrap();
    assert_eq!(anna.json()["content"], "before");
    proxy.refuse_next("HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(true);
    anna.ask(r#"{"content":"not for a pipe","ref":1}"#);
    input.write_all(b"after\n").unwrap();
    drop(input);
    assert_eq!(anna.json()["content"], "after");
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), ""), "{outcome:?}");
    let lines: Vec<&str> = outcome.err.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    assert!(lines[0].contains("disconnected") && lines[1].contains("503"), "{outcome:?}");
    assert_eq!(lines[2], "rusty_socks: connected again");
}

/// The device that is always full.
#[cfg(target_os = "linux")]
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_cannot_be_written_is_a_failure() {
    let server = TestServer::start(config());
    server.chat().ask(r#"{"content":"x","ref":1}"#);
    let echo = format!("ws://{}/echo", server.addr);
    let here = address(&server);
    let program = || Command::new(env!("CARGO_BIN_EXE_rusty_socks"));
    let invocations: [&[&str]; 6] = [
        &["connect", &here, "--count", "1"],
        &["connect", "--raw", &echo, "--count", "1"],
        &["check-config"],
        &["--help"],
        &["connect", "--help"],
        &["--version"],
    ];
    for arguments in invocations {
        let mut child = program()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(full())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"x\n").unwrap_or_default();
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {outcome:?}");
        let sentence = "rusty_socks: cannot write to standard output: ";
        assert!(outcome.err.starts_with(sentence), "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.err.lines().count(), 1, "{arguments:?}: {outcome:?}");
    }
    // Where nobody can be told, the exit code is what there is.
    let invocations: [&[&str]; 2] = [&["connect", "ws://"], &["--nonsense"]];
    for arguments in invocations {
        let mut child = program();
        let child =
            child.args(arguments).stdin(Stdio::null()).stdout(full()).stderr(full()).spawn();
        assert_eq!(finish(child.unwrap()).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn raw_passes_everything_word_for_word() {
    let server = TestServer::start(config());
    let echo = format!("ws://{}/echo", server.addr);
    let outcome = run(&["--raw", &echo], b"/quit\n{\"a\" : 1}\n\n");
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), "/quit\n{\"a\" : 1}\n\n"));
    let outcome = run(&["--raw", "--count", "1", "--ping", "0.1", &echo], b"x");
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), "x\n"));
}

/// A server that says what it is told to say, to one client.
fn says(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        socket.get_mut().write_all(bytes).unwrap();
        while socket.read().is_ok() {}
    });
    url
}

#[test]
fn binary_messages_are_hex_or_raw_and_a_close_tells_its_reason() {
    let url = says(b"\x82\x02\x00\xff\x88\x02\x03\xe8");
    assert_eq!(run(&["--raw", "--count", "9", &url], b"").out, "00 ff\n");
    let url = says(b"\x82\x02\x00A\x88\x02\x03\xe8");
    assert_eq!(run(&["--raw", "--count", "9", "--binary", "raw", &url], b"").out, "\0A");
    let url = says(b"\x88\x06\x10\x05full");
    let outcome = run(&["--raw", "--wait", "20", &url], b"");
    assert_eq!(outcome.code, Some(5));
    assert!(outcome.err.contains("4101 full"), "{outcome:?}");
}

#[test]
fn a_pipe_outlives_its_connection_unless_told_otherwise() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let url = proxy.url();
    let mut anna = server.chat();
    let mut child = command(&[&url]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"before\n").unwrap();
    assert_eq!(anna.json()["content"], "before");
    proxy.cut(true);
    input.write_all(b"after\n").unwrap();
    drop(input);
    assert_eq!(anna.json()["content"], "after");
    assert_eq!(finish(child).code, Some(0));

    let mut child = command(&[&url, "--no-reconnect", "--wait", "20"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"here\n").unwrap();
    assert_eq!(anna.json()["content"], "here");
    proxy.cut(true);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    drop(input);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let mut child = command(&[&address(&server), "--wait", "20"]).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stdin.take());
    server.wait_for("it is there", |stats| stats.active_connections == 2);
    anna.ask(r#"{"content":"x","ref":1}"#);
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
}

/// The program on a pseudo-terminal, made by `script` of util-linux.
struct Terminal {
    child: Child,
    chunks: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// `None` where there is no such `script`.
    fn start(arguments: &[&str]) -> Option<Terminal> {
        let version = Command::new("script").arg("--version").output();
        if !version.is_ok_and(|version| version.stdout.starts_with(b"script from util-linux")) {
            println!("skipped: no script of util-linux here");
            return None;
        }
        let line = format!(
            "stty cols 60 rows 20; '{}' connect {}; code=$?; stty -a; exit $code",
            env!("CARGO_BIN_EXE_rusty_socks"),
            arguments.join(" ")
        );
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let (tell, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buffer) {
                if tell.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Terminal { child, chunks, seen: String::new() })
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Reads on until `wanted` was shown, and forgets what came up to there.
    fn read_until(&mut self, wanted: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.seen.drain(..at + wanted.len());
                return;
            }
            match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.push_str(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{wanted:?} was never shown, but {:?}", self.seen)
                }
            }
        }
    }

    /// Its exit code, once it has given the terminal back as it was.
    fn end(mut self) -> Option<i32> {
        self.read_until(" icanon");
        drop(self.child.stdin.take());
        finish(self.child).code
    }
}

#[test]
fn on_a_terminal_one_talks_and_is_not_interrupted() {
    let server = TestServer::start(config());
    let mut anna = server.chat();
    let Some(mut terminal) = Terminal::start(&[&address(&server), "--name", "ben"]) else { return };
    terminal.read_until("connected as ");
    terminal.read_until("lobby> ");
    terminal.press("half a li");
    terminal.read_until("half a li");
    anna.ask(r#"{"content":"interrupting","sender":"anna","ref":1}"#);
    terminal.read_until("interrupting\r\n");
    terminal.read_until("lobby> half a li");
    terminal.press("x\x7fne\r");
    let message = anna.json();
    assert_eq!((&message["content"], &message["sender"]), (&"half a line".into(), &"ben".into()));
    terminal.read_until("me: half a line");

    terminal.press("/join tea\r");
    terminal.read_until("tea> ");
    anna.ask(r#"{"type":"join","room":"tea","sender":"anna","ref":2}"#);
    terminal.read_until("anna (");
    terminal.read_until("came into tea");
    terminal.press("/who\r");
    terminal.read_until("2 in tea:");
    terminal.press("/to anna psst\r");
    assert_eq!(anna.json()["content"], "psst");
    terminal.read_until("psst");
    let to_ben =
        format!(r#"{{"type":"direct","to":{},"content":"yes?","ref":3}}"#, message["client_id"]);
    anna.ask(&to_ben);
    terminal.read_until("to you");
    terminal.read_until("yes?");
    terminal.press("/history 5\r");
    terminal.read_until("0 messages of tea");
    terminal.press("/dance\r");
    terminal.read_until("there is no /dance");
    terminal.press("/leave\r");
    terminal.read_until("left tea");
    terminal.press("anybody?\r");
    terminal.read_until("in which room?");
    terminal.press("/room lobby\r");
    terminal.read_until("lobby> ");
    terminal.press("/history\r");
    terminal.read_until("2 messages of lobby:");
    terminal.read_until("half a line");
    terminal.press("/history 1\r");
    terminal.read_until("1 message of lobby:");
    terminal.press("\x04");
    assert_eq!(terminal.end(), Some(0));
    server.wait_for("it has left", |stats| stats.active_connections == 1);
}

#[test]
fn on_a_terminal_the_end_of_the_session_ends_the_program() {
    let server = TestServer::start(config());
    let proxy = Proxy::start(server.addr);
    let Some(mut terminal) = Terminal::start(&[&proxy.url()]) else { return };
    terminal.read_until("connected as ");
    terminal.press("typing");
    terminal.read_until("typing");
    proxy.refuse_next("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    proxy.cut(false);
    terminal.read_until("disconnected");
    terminal.read_until("the server answers 403");
    assert_eq!(terminal.end(), Some(4));
}

#[test]
fn a_raw_terminal_sends_slashes_too() {
    let server = TestServer::start(config());
    let echo = format!("ws://{}/echo", server.addr);
    let Some(mut terminal) = Terminal::start(&["--raw", &echo]) else { return };
    terminal.read_until("> ");
    terminal.press("/quit\r");
    terminal.read_until("/quit\r\n");
    terminal.press("\x03");
    assert_eq!(terminal.end(), Some(0));
}
