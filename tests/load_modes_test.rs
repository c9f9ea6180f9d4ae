//! The modes of `rusty_socks load` against servers whose behaviour is known: what it measures is
//! what they did.
//!
//! Nothing here asserts how fast anything is, only how figures stand to each other: a server that
//! stalls for a second must show as one.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

#[path = "support/load.rs"]
mod load;
mod support;

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use load::{Outcome, echo, echo_after};
use serde_json::Value;
use support::TestServer;
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

/// How long the stalling server stalls. Far more than a busy machine is late by chance.
const STALL: Duration = Duration::from_millis(1000);

/// What the slow server takes for each answer.
const DELAY: Duration = Duration::from_millis(100);

/// Runs the real binary; `line` is what stands behind `load`, `URL` in it is the server's.
fn load(line: &str, url: &str) -> Outcome {
    load::outcome_of(load::start(&line.replace("URL", url)))
}

/// A server that upgrades everybody and runs `script` for each on a thread of its own. `refuse`
/// says which upgrades, by number, get a 503 instead.
fn serve(
    refuse: impl Fn(usize) -> bool + Send + Sync + 'static,
    script: impl Fn(WebSocket<TcpStream>) + Send + Sync + 'static,
) -> String {
    let address = load::serve(None, move |number, upgrade| match refuse(number) {
        true => upgrade.reject("503 Full", ""),
        false => script(upgrade.accept("")),
    });
    format!("ws://{address}/")
}

/// A server that returns all at once, but does nothing for [`STALL`] before its 100th answer.
fn stalling_echo() -> String {
    serve(
        |_| false,
        |socket| {
            echo_after(socket, |count| {
                if count == 100 {
                    // The stall is the behaviour under test, not a wait for something else.
                    thread::sleep(STALL);
                }
            });
        },
    )
}

#[test]
fn an_open_loop_counts_what_a_stall_means_to_everybody() {
    let url = stalling_echo();
    // 200 a second for 3 s: the stall of 1 s falls on some 200 of the 600.
    let outcome = load("echo URL -c 1 --rate 200 --duration 3 --warmup 0", &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!((outcome.count("/traffic/due"), outcome.count("/traffic/answered")), (600, 600));
    assert_eq!(outcome.count("/traffic/unanswered") + outcome.count("/traffic/unexpected"), 0);
    let stall_ms = STALL.as_secs_f64() * 1e3;
    // A third of all waited, evenly from nothing to the whole stall: the 90 % mark lies at 0.7 of
    // it.
    let p90 = outcome.number("/traffic/latency/p90_ms");
    assert!(p90 > stall_ms * 0.5, "p90 {p90} ms hides a stall of {stall_ms} ms");
    assert!(outcome.number("/traffic/latency/max_ms") >= stall_ms * 0.95);
}

#[test]
fn a_closed_loop_hides_the_same_stall_and_says_so() {
    let url = stalling_echo();
    let outcome = load("echo URL -c 1 --messages 2000 --warmup 0", &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/answered"), 2000);
    let stall_ms = STALL.as_secs_f64() * 1e3;
    assert!(outcome.number("/traffic/latency/max_ms") >= stall_ms, "one message met the stall");
    assert!(outcome.number("/traffic/latency/p99_ms") < stall_ms / 2.0, "and one alone");
}

#[test]
fn a_fixed_delay_is_measured_as_it_is() {
    let url = serve(
        |_| false,
        |socket| {
            // The delay is the behaviour under test.
            echo_after(socket, |_| thread::sleep(DELAY));
        },
    );
    let outcome = load("echo URL -c 4 --duration 1 --warmup 0.3 --binary --size 5", &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let delay_ms = DELAY.as_secs_f64() * 1e3;
    assert!(outcome.number("/traffic/latency/p50_ms") >= delay_ms);
    // Four connections, ten answers a second each, and not one more than that.
    let rate = outcome.number("/traffic/answered_per_s");
    assert!(rate > 0.0 && rate <= 44.0, "{rate} answers a second");
}

#[test]
fn depth_puts_as_many_messages_on_their_way() {
    let url = serve(|_| false, echo);
    let outcome = load("echo URL -c 3 --depth 8 --messages 1000 --threads 2", &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!((outcome.count("/traffic/sent"), outcome.count("/traffic/answered")), (1000, 1000));
    assert_eq!(outcome.count("/open_max"), 3);
    assert_eq!(outcome.at("/client/threads").as_array().map(Vec::len), Some(2));
}

#[test]
fn what_is_never_answered_is_told() {
    // Swallows every other message.
    let url = serve(
        |_| false,
        |mut socket| {
            let mut count = 0;
            while let Ok(message) = socket.read() {
                count += 1;
                if message.is_text() && count % 2 == 0 && socket.send(message).is_err() {
                    return;
                }
            }
        },
    );
    let outcome = load("echo URL -c 1 --rate 100 --duration 1 --warmup 0", &url);
    assert_eq!(outcome.code, Some(5), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("50 of 100 messages without an answer"), "{}", outcome.stderr);
    assert_eq!((outcome.count("/traffic/sent"), outcome.count("/traffic/answered")), (100, 50));
    assert_eq!(outcome.count("/traffic/unanswered"), 50);
    assert_eq!(outcome.count("/traffic/out_of_order"), 50, "each came before the one swallowed");
}

#[test]
fn a_server_that_takes_nothing_leaves_the_timetable_behind() {
    // Keeps every socket open and reads from none.
    let kept: Mutex<Vec<WebSocket<TcpStream>>> = Mutex::default();
    let url = serve(|_| false, move |socket| kept.lock().unwrap().push(socket));
    let line = "echo URL -c 1 --rate 400 --size 65536 --duration 1 --warmup 0 --ramp 0";
    let outcome = load(line, &url);
    assert_eq!(outcome.code, Some(5), "nothing came back: {}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/due"), 400);
    let (sent, unsent) = (outcome.count("/traffic/sent"), outcome.count("/traffic/unsent"));
    assert_eq!(sent + unsent, 400);
    assert!(unsent > 0, "26 MB fit into no socket");
}

#[test]
fn refusals_and_endings_are_counted_and_dated() {
    let url = serve(
        |number| number % 2 == 1,
        |mut socket| {
            let frame = CloseFrame { code: CloseCode::from(4102), reason: "slow".into() };
            let _ = socket.close(Some(frame));
            while socket.read().is_ok() {}
        },
    );
    let outcome = load("idle URL -c 10 --hold 1 --ping 0", &url);
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert_eq!(outcome.count("/rejected/by_status/503/count"), 5);
    assert_eq!(outcome.count("/closed_by_server/by_code/4102"), 5);
    let over_time = |kind: &str| -> u64 {
        let counts = outcome.at("/over_time/outcomes")[kind].as_array().unwrap();
        counts.iter().filter_map(Value::as_u64).sum()
    };
    assert_eq!(over_time("opened"), 5);
    assert_eq!(over_time("refused with 503"), 5);
    assert_eq!(over_time("closed: close code 4102"), 5);
}

#[test]
fn what_is_no_echo_is_called_so() {
    let server = TestServer::start(support::config());
    let outcome =
        load("echo URL -c 2 --duration 0.5 --warmup 0", &format!("ws://{}/ws", server.addr));
    assert_eq!(outcome.code, Some(5), "served, and not one answer");
    assert_eq!(outcome.count("/traffic/answered"), 0);
    assert!(outcome.count("/traffic/unexpected") >= 2, "a welcome is no echo");
}

#[test]
fn a_fan_out_reaches_each_member_of_each_room_once() {
    let server = TestServer::start(support::config());
    let line = "fanout URL --publishers 3 --subscribers 12 --rooms 3 --rate 90 --duration 1 \
                --warmup 0.2 --threads 2";
    let outcome = load(line, &format!("ws://{}/ws", server.addr));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/sent"), 90);
    // Four subscribers in each room.
    assert_eq!(outcome.count("/traffic/expected"), 360);
    assert_eq!(outcome.count("/traffic/answered"), 360);
    for path in ["missing", "holes", "repeated", "not_joined", "to_publishers"] {
        assert_eq!(outcome.count(&format!("/traffic/{path}")), 0, "{path}");
    }
    // The server's own count stands beside: it sent what came, and got what was sent.
    let grown = |name: &str| {
        outcome.count(&format!("/server_after/{name}"))
            - outcome.count(&format!("/server_before/{name}"))
    };
    assert_eq!(grown("messages_in"), outcome.count("/messages/sent"));
    assert_eq!(grown("messages_out"), outcome.count("/messages/received"));
}

#[test]
fn any_broadcast_is_measured_by_the_stamp_alone() {
    // To everyone, the sender included, wrapped in something of its own.
    let everyone: Arc<Mutex<Vec<WebSocket<TcpStream>>>> = Arc::default();
    let url = serve(
        |_| false,
        move |mut socket| {
            let copy = socket.get_ref().try_clone().unwrap();
            everyone.lock().unwrap().push(WebSocket::from_raw_socket(copy, Role::Server, None));
            while let Ok(message) = socket.read() {
                if let Message::Text(text) = message {
                    for other in everyone.lock().unwrap().iter_mut() {
                        let _ = other.send(Message::text(format!("someone said: {text}")));
                    }
                }
            }
        },
    );
    let line = "fanout URL --protocol raw --publishers 2 --subscribers 5 --rate 40 --duration 1 \
                --warmup 0.5 --size 64";
    let outcome = load(line, &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/sent"), 40);
    assert_eq!(outcome.count("/traffic/expected"), 200);
    assert_eq!(outcome.count("/traffic/answered"), 200);
    assert_eq!(outcome.count("/traffic/to_publishers"), 80, "their own included");
}

#[test]
fn what_a_broadcast_loses_is_missing() {
    // Passes every message on to nobody but its sender.
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let url = serve(
        |_| false,
        move |socket| {
            let counted = Arc::clone(&counted);
            echo_after(socket, move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            });
        },
    );
    let line = "fanout URL --protocol raw --subscribers 3 --rate 20 --duration 1 --warmup 0";
    let outcome = load(line, &url);
    assert_eq!(outcome.code, Some(5), "not one delivery: {}", outcome.stderr);
    assert_eq!(outcome.count("/traffic/missing"), 60);
    assert_eq!(lost.load(Ordering::SeqCst), 20);
}

#[test]
fn idle_connections_are_held_and_pinged_on_every_thread() {
    let server = TestServer::start(support::config());
    let line = "idle URL -c 40 --hold 1 --ping 0.2 --ramp 0.3 --threads 4";
    let outcome = load(line, &format!("ws://{}/ws", server.addr));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!((outcome.count("/open_max"), outcome.count("/held_to_the_end")), (40, 40));
    assert_eq!(outcome.count("/closed_cleanly"), 40);
    assert!(outcome.count("/traffic/sent") >= 40, "{}", outcome.at("/traffic"));
    assert_eq!(outcome.count("/traffic/unanswered"), 0);
    assert!(outcome.number("/settled_after_ms") >= 290.0, "the ramp took its time");
}

#[test]
fn threads_and_sources_share_one_storm() {
    let server = TestServer::start(support::config());
    let line = "URL -c 30 --hold 0.2 --threads 3 --source 127.0.0.1";
    let outcome = load(line, &format!("ws://{}/ws", server.addr));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!((outcome.count("/served/total"), outcome.count("/open_max")), (30, 30));
}

#[test]
fn the_page_stands_alone() {
    let url = serve(|_| false, echo);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.html");
    let line =
        format!("echo URL -c 2 --rate 50 --duration 1 --warmup 0 --report {}", path.display());
    let outcome = load(&format!("{line} -H X-Token:s3cret"), &url);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let page = std::fs::read_to_string(path).unwrap();
    assert!(!page.contains("s3cret"), "a page is passed on");
    assert!(!page.contains("src=") && !page.contains("@import"), "nothing from elsewhere");
    let json = page.split("id=figures>").nth(1).unwrap().split("</script>").next().unwrap();
    let figures: Value = serde_json::from_str(json).unwrap();
    assert_eq!(figures["traffic"]["answered"], outcome.figures["traffic"]["answered"]);
}

#[test]
fn an_echo_by_a_route_that_is_not_there_is_no_success() {
    let server = TestServer::start(support::config());
    let url = format!("http://{}/nowhere", server.addr);
    let outcome = load("echo URL -c 5 --duration 1 --warmup 0", &url);
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let told = "5 of 5 connections were refused (5 with 404); nothing was measured.";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
}

#[test]
fn a_fan_out_that_was_mostly_refused_says_so_everywhere() {
    let server = TestServer::start(rusty_socks::Config {
        max_conn: 3,
        max_queued_tasks: 0,
        ..support::config()
    });
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    let line = format!(
        "fanout URL --subscribers 9 --rate 20 --duration 0.5 --warmup 0 --threads 1 --report {}",
        page.display()
    );
    let outcome = load(&line, &server.addr.to_string());
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let told = "7 of 10 connections were refused (7 with 503)";
    assert!(outcome.at("/outcome/headline").as_str().unwrap().contains(told));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(told), "the headline");
    assert!(page.contains("<b>7</b><span>connections refused</span>"), "the tile");

    let outcome = load(&format!("{line} --expect-refused 7"), &server.addr.to_string());
    assert!(!outcome.stderr.contains("refused ("), "{}", outcome.stderr);
}

#[test]
fn a_server_that_dies_in_the_middle_ends_the_run_as_a_failure() {
    for mode in ["echo --rate 100", "echo --depth 4", "fanout --protocol raw --subscribers 3"] {
        // Hangs up on everybody at the 40th message of anybody.
        let seen = AtomicU64::new(0);
        let url = serve(
            |_| false,
            move |mut socket| {
                socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                while seen.load(Ordering::SeqCst) < 40 {
                    match socket.read() {
                        Ok(message) if message.is_text() => {
                            seen.fetch_add(1, Ordering::SeqCst);
                            let _ = socket.send(message);
                        }
                        Ok(_) => {}
                        Err(tungstenite::Error::Io(error)) if is_early(&error) => {}
                        Err(_) => return,
                    }
                }
            },
        );
        let line = mode.replacen(' ', " URL ", 1);
        let outcome = load(&format!("{line} --duration 50 --warmup 0"), &url);
        assert_eq!(outcome.code, Some(5), "{mode}: {}", outcome.stderr);
        let all = outcome.count("/connections");
        assert_eq!(outcome.count("/closed_by_server/total"), all, "{mode}");
        let told = format!("the server closed {all} of {all} connections early");
        assert!(outcome.stderr.contains(&told), "{mode}: {}", outcome.stderr);
    }
}

/// Whether only nothing came yet.
fn is_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn a_rate_that_is_not_reached_fails_the_run() {
    let url = serve(|_| false, echo);
    let line = "echo URL -c 1 --rate 50 --duration 1 --warmup 0 --expect-rate";
    assert_eq!(load(&format!("{line} 20"), &url).code, Some(0));
    let outcome = load(&format!("{line} 1000"), &url);
    assert_eq!(outcome.code, Some(6), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("expected at least 1000/s"), "{}", outcome.stderr);
}

#[test]
fn another_machine_is_not_loaded_by_accident() {
    // An address that belongs to nobody (RFC 5737).
    for mode in ["", "echo ", "fanout ", "idle "] {
        let outcome = load(&format!("{mode}URL"), "ws://192.0.2.1/");
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("--allow-remote"), "{}", outcome.stderr);
    }
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_the_run() {
    let outcome = load("echo URL --report no/such/folder/page.html", "ws://127.0.0.1:1/");
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot write"), "{}", outcome.stderr);
}
