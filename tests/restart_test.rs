//! Restarts with a snapshot: what a server leaves to the next one, and what its clients notice.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;
#[path = "support/program.rs"]
mod program;
#[path = "support/activated.rs"]
mod activated;

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use activated::Activated;
use rusty_socks::{Config, ErrorKind, chat};
use rusty_socks_client::{Event, PublishOptions, Session};
use support::{DEADLINE, TestServer, eventually};
use tempfile::TempDir;

/// How long clients may take that come back when they are told to, up to five seconds later.
const BACK: Duration = Duration::from_secs(120);

fn config(snapshot: &Path) -> Config {
    Config {
        resume_window: Duration::from_secs(60),
        snapshot: snapshot.to_str().unwrap().into(),
        ..support::config()
    }
}

/// A server on a socket that stays open when it stops.
fn serve(listener: &TcpListener, config: Config) -> TestServer {
    let builder = chat::builder(config).unwrap().listener(listener.try_clone().unwrap());
    TestServer::run(builder.bind().unwrap())
}

fn session(listener: &TcpListener) -> Session {
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    Session::builder().default_room(false).connect(&url).unwrap()
}

/// The next event that `pick` wants; others are passed over.
fn wait_for<T>(session: &Session, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    let end = Instant::now() + BACK;
    loop {
        let event = session.recv_timeout(end.saturating_duration_since(Instant::now()));
        let event = event.unwrap_or_else(|error| panic!("no {what}: {error}"));
        let event = event.unwrap_or_else(|| panic!("no {what}: it is over"));
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether these files are there, and no other ones.
fn is(dir: &TempDir, expected: &[&str]) -> Result<(), String> {
    let names = names(dir);
    if names == expected { Ok(()) } else { Err(format!("{names:?}")) }
}

#[test]
fn sessions_rooms_and_messages_outlive_their_server() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = serve(&listener, config(&path));
    let (anna, ben) = (session(&listener), session(&listener));
    let connected = |session: &Session| {
        wait_for(session, "connection", |event| match event {
            Event::Connected { client_id, resumed } => Some((client_id.clone(), *resumed)),
            _ => None,
        })
    };
    let ids = [&anna, &ben].map(|session| connected(session).0);
    for session in [&anna, &ben] {
        session.join("tea").unwrap();
        session.watch_presence("tea", true).unwrap();
    }
    assert_eq!(ben.publish("tea", "before").unwrap().seq, 1);
    drop(first);
    for session in [&anna, &ben] {
        let told = wait_for(session, "word of it", |event| match event {
            Event::Closing { reconnect_after, .. } => Some(*reconnect_after),
            _ => None,
        });
        assert!(told.is_some());
        let code = wait_for(session, "close", |event| match event {
            Event::Disconnected { reason, .. } => Some(reason.code()),
            _ => None,
        });
        assert_eq!(code, 1012);
    }
    assert_eq!(names(&dir), ["state"]);

    let second = serve(&listener, config(&path));
    eventually("it is read once: a crash does not bring it back", || is(&dir, &[]));
    let published = ben.publish("tea", "after").unwrap();
    assert_eq!((published.seq, published.repeated), (2, false));
    for (session, id) in [(&anna, &ids[0]), (&ben, &ids[1])] {
        assert_eq!(connected(session), (id.clone(), true));
        let members = wait_for(session, "members", |event| match event {
            Event::Members { members, .. } => Some(members.count),
            _ => None,
        });
        assert_eq!(members, 2, "neither has left");
    }
    let (seq, text) = wait_for(&anna, "message", |event| match event {
        Event::Message(message) => Some((message.seq, message.content::<String>().unwrap())),
        Event::Lost { .. } | Event::Left { .. } => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!((seq, text.as_str()), (2, "after"), "the first one came before");
    assert_eq!(second.stats().sessions_resumed, 2);
}

#[test]
fn two_hundred_clients_notice_no_more_than_a_pause() {
    const CLIENTS: usize = 200;
    const ROOM: usize = 10;
    const EACH: usize = 8;

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let settings = [
        ("RUSTY_SOCKS_SNAPSHOT", path.to_str().unwrap()),
        ("RUSTY_SOCKS_MAX_CONN", "400"),
        ("RUSTY_SOCKS_HISTORY", "1000"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = Activated::start(&listener, &settings);
    assert_eq!(first.is_told(), "READY=1");
    let sessions: Vec<Session> = (0..CLIENTS).map(|_| session(&listener)).collect();
    let room_of = |client: usize| format!("room.{}", client / ROOM);
    for (client, session) in sessions.iter().enumerate() {
        session.join(&room_of(client)).unwrap();
    }
    let ids: Vec<String> = sessions.iter().map(Session::client_id).collect();
    let published = AtomicUsize::new(0);
    let mut during = 0;
    thread::scope(|scope| {
        for (client, session) in sessions.iter().enumerate() {
            let (room, partner, published) = (room_of(client), &ids[client ^ 1], &published);
            scope.spawn(move || {
                for n in 0..EACH {
                    let options = PublishOptions::default().echo();
                    let receipt = session.publish_with(&room, &(client, n), options);
                    receipt.unwrap_or_else(|error| panic!("{client} cannot publish: {error}"));
                    let sent = session.direct(partner, &(client, n));
                    sent.unwrap_or_else(|error| panic!("{client} cannot send: {error}"));
                    published.fetch_add(1, Ordering::Relaxed);
                    // A few a second, as people do.
                    thread::park_timeout(Duration::from_millis(50));
                }
            });
        }
        let end = Instant::now() + BACK;
        while published.load(Ordering::Relaxed) < CLIENTS && Instant::now() < end {
            thread::park_timeout(Duration::from_millis(5));
        }
        first.terminate();
        assert_eq!(first.is_told(), "STOPPING=1");
        first.log_line("snapshot: wrote ");
        first.ends();
        during = published.load(Ordering::Relaxed);
        let second = Activated::start(&listener, &settings);
        let line = second.log_line("snapshot: took up ");
        assert!(line.contains(&format!("{CLIENTS} sessions")), "{line}");
        // Every thread ends once all of its messages were answered by it.
        eventually_within(BACK, || published.load(Ordering::Relaxed) == CLIENTS * EACH);
        check(&sessions, (ROOM, EACH));
        drop(second);
    });
    assert!(during < CLIENTS * EACH, "it was over before the restart");
}

fn eventually_within(time: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < end, "not in time");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// That each session has had everything once: each message in its room, in the order of their
/// numbers, and those to itself.
fn check(sessions: &[Session], (room, each): (usize, usize)) {
    for (client, session) in sessions.iter().enumerate() {
        let (mut seq, mut said, mut directs) = (0, BTreeSet::new(), BTreeSet::new());
        let mut ends = Vec::new();
        let mut resumed = 0;
        let is_there = |said: &BTreeSet<(usize, usize)>, directs: &BTreeSet<(usize, usize)>| {
            said.len() == room * each && directs.len() == each
        };
        while !is_there(&said, &directs) {
            wait_for(session, &format!("message to {client}: {said:?} {directs:?}"), |event| {
                match event {
                    Event::Message(message) => {
                        seq += 1;
                        assert_eq!(message.seq, seq, "a hole or a repeat for {client}");
                        assert!(said.insert(message.content().unwrap()), "{client} has it twice");
                    }
                    Event::Direct(message) => {
                        assert!(
                            directs.insert(message.content().unwrap()),
                            "{client} has it twice"
                        );
                    }
                    Event::Disconnected { reason, .. } => ends.push(reason.code()),
                    Event::Connected { resumed: true, .. } => resumed += 1,
                    Event::Lost { .. }
                    | Event::DirectLost
                    | Event::SessionLost { .. }
                    | Event::Excluded { .. } => panic!("{client}: {event:?}"),
                    _ => {}
                }
                Some(())
            });
        }
        assert_eq!((&ends[..], resumed), (&[1012][..], 1), "{client} came back once, at once");
        let partner = client ^ 1;
        assert!(directs.iter().all(|(from, _)| *from == partner), "{directs:?}");
    }
}

/// What is left of the first server that wrote to `path`, once it has ended.
fn leave(listener: &TcpListener, path: &Path) -> (TestServer, Vec<u8>) {
    let server = serve(listener, config(path));
    let client = session(listener);
    client.join("tea").unwrap();
    client.publish("tea", &"x".repeat(5000)).unwrap();
    server.handle.shutdown(DEADLINE);
    server.handle.join();
    let bytes = fs::read(path).unwrap();
    (server, bytes)
}

#[test]
fn what_cannot_be_read_is_set_aside_and_said() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_server, whole) = leave(&listener, &path);
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 0x10;
    let mut future = whole.clone();
    future[8] = 9;
    for (bytes, why) in [
        (&damaged[..], "is damaged"),
        (&whole[..whole.len() - 1], "it is cut off"),
        (&whole[..2], "it is cut off"),
        (b"", "it is cut off"),
        (&future, "its format has version 9"),
    ] {
        fs::write(&path, bytes).unwrap();
        let server =
            Activated::start(&listener, &[("RUSTY_SOCKS_SNAPSHOT", path.to_str().unwrap())]);
        let line = server.log_line("is not taken up");
        assert!(line.contains(why) && line.contains("state.bad"), "{line}");
        assert_eq!(server.is_told(), "READY=1");
        assert_eq!(names(&dir), ["state.bad"]);
        assert_eq!(fs::read(dir.path().join("state.bad")).unwrap(), bytes);
    }
    // What one start did not get to the end of, the next one does not begin with.
    fs::rename(dir.path().join("state.bad"), dir.path().join("state.reading")).unwrap();
    fs::write(&path, &whole).unwrap();
    let server = Activated::start(&listener, &[("RUSTY_SOCKS_SNAPSHOT", path.to_str().unwrap())]);
    server.log_line("did not come to the end");
    server.log_line("snapshot: took up 2 rooms, 1 message and 1 session,");
    eventually("it is removed", || is(&dir, &["state.bad"]));
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    for bytes in [&b"{}"[..], b"something else altogether"] {
        fs::write(&path, bytes).unwrap();
        let error = chat::server(config(&path)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        let told = format!("snapshot: {} is no snapshot of this server", path.display());
        assert!(error.to_string().starts_with(&told), "{error}");
        assert_eq!((names(&dir), fs::read(&path).unwrap()), (vec!["state".into()], bytes.to_vec()));
    }
}

#[test]
fn a_server_that_never_runs_leaves_the_snapshot_to_the_next_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_server, whole) = leave(&listener, &path);
    for _ in 0..2 {
        let server = chat::server(config(&path)).unwrap();
        assert_eq!((server.handle().stats().sessions, names(&dir).len()), (1, 1));
        drop(server);
        assert_eq!((names(&dir), fs::read(&path).unwrap()), (vec!["state".into()], whole.clone()));
    }
    let server = serve(&listener, config(&path));
    eventually("it is removed", || is(&dir, &[]));
    assert_eq!(server.stats().sessions, 1);
}

#[test]
fn a_signal_while_the_snapshot_is_read_costs_nothing() {
    const MESSAGES: usize = 300;

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let large = Config { history: 1000, history_bytes: 1 << 30, ..config(&path) };
    let server = serve(&listener, large);
    let client = session(&listener);
    client.join("tea").unwrap();
    for _ in 0..MESSAGES {
        client.publish("tea", &"x".repeat(60_000)).unwrap();
    }
    drop(server);
    let whole = fs::metadata(&path).unwrap().len();
    let settings = [
        ("RUSTY_SOCKS_SNAPSHOT", path.to_str().unwrap()),
        ("RUSTY_SOCKS_HISTORY", "1000"),
        ("RUSTY_SOCKS_HISTORY_BYTES", "1GiB"),
    ];
    for signal in ["-TERM", "-INT", "-HUP"] {
        let server = Activated::start(&listener, &settings);
        let end = Instant::now() + DEADLINE;
        // It is claimed to be read.
        while path.exists() {
            assert!(Instant::now() < end, "it is never read");
            thread::yield_now();
        }
        server.signal(signal);
        server.log_line("snapshot: took up ");
        if signal == "-HUP" {
            server.log_line("listens on");
            eventually("it is removed", || is(&dir, &[]));
            server.terminate();
        }
        // Whether it had read all before the signal came or not: nothing is lost.
        server.ends();
        assert_eq!(names(&dir), ["state"], "after {signal}");
        assert!(fs::metadata(&path).unwrap().len().abs_diff(whole) < 10_000, "after {signal}");
    }
    let server = Activated::start(&listener, &settings);
    let told = format!("snapshot: took up 2 rooms, {MESSAGES} messages and 1 session,");
    server.log_line(&told);
}

#[test]
fn what_is_too_old_or_too_large_is_not_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_server, whole) = leave(&listener, &path);
    eventually("it is older than a moment", || {
        let age = fs::metadata(&path).unwrap().modified().unwrap().elapsed().unwrap();
        if age > Duration::from_millis(50) { Ok(()) } else { Err(format!("{age:?}")) }
    });
    let young = Config { snapshot_max_age: Duration::from_millis(20), ..config(&path) };
    let small = Config { snapshot_bytes_max: 4096, ..config(&path) };
    assert!(whole.len() > 4096, "{}", whole.len());
    for config in [young, small] {
        fs::write(&path, &whole).unwrap();
        let server = serve(&listener, config);
        assert_eq!(server.stats().sessions, 0);
        assert_eq!(names(&dir), ["state.bad"]);
        drop(server);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_place_where_nothing_can_be_written_is_known_at_the_start_or_told_at_the_end() {
    let dir = TempDir::new().unwrap();
    let nowhere = dir.path().join("nowhere").join("state");
    let error = chat::server(config(&nowhere)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().starts_with("snapshot: cannot write "), "{error}");

    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let server = chat::server(config(&place.join("state"))).unwrap();
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    fs::remove_dir(&place).unwrap();
    handle.shutdown(DEADLINE);
    let error = running.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert!(error.to_string().starts_with("cannot write the snapshot "), "{error}");
}

#[test]
fn without_a_snapshot_a_server_says_that_it_shuts_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(&listener, Config { snapshot: String::new(), ..config(&PathBuf::new()) });
    let client = session(&listener);
    client.join("tea").unwrap();
    drop(server);
    let code = wait_for(&client, "close", |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.code()),
        _ => None,
    });
    assert_eq!(code, 1001);
}
