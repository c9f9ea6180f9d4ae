//! `rusty_socks load` against small scripted servers: what it counts is what they did.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

#[path = "support/load.rs"]
mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use support::{DEADLINE, Outcome, echo, outcome_of, serve};
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// How late the slow answers come.
const LATE: Duration = Duration::from_millis(300);

/// Starts the real binary against the address.
fn start(address: SocketAddr, flags: &str) -> Child {
    support::start(&format!("ws://{address}/ws {flags}"))
}

fn load(address: SocketAddr, flags: &str) -> Outcome {
    outcome_of(start(address, flags))
}

#[test]
fn all_are_served_held_and_closed_cleanly() {
    let address = serve(None, |_, upgrade| echo(upgrade.accept("")));
    let outcome = load(address, "-c 20 --hold 200ms --waited-after 10s --message hello");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/served/at_once/count"), 20);
    assert_eq!(outcome.count("/open_max"), 20);
    assert_eq!(outcome.count("/held_to_the_end"), 20);
    assert_eq!(outcome.count("/closed_cleanly"), 20);
    assert_eq!(outcome.count("/closed_by_server/total"), 0);
    assert_eq!((outcome.count("/messages/sent"), outcome.count("/messages/received")), (20, 20));
    assert!(outcome.figures["served"]["at_once"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(outcome.figures["server"], Value::Null, "a 404 for /stats is passed over");
}

#[test]
fn rejections_are_counted_by_status_with_their_advice() {
    let address = serve(None, |index, upgrade| match index % 2 {
        0 => echo(upgrade.accept("")),
        _ => upgrade.reject("503 Service Unavailable", &format!("Retry-After: {}\r\n", index % 4)),
    });
    let outcome = load(address, "-c 20 --hold 0 --waited-after 10s");
    assert_eq!(outcome.code, Some(0), "a storm measures a full server: {}", outcome.stderr);
    assert_eq!(outcome.count("/served/at_once/count"), 10);
    assert_eq!(outcome.count("/rejected/by_status/503/count"), 10);
    assert_eq!(outcome.count("/rejected/by_status/503/retry_after_s_min"), 1);
    assert_eq!(outcome.count("/rejected/by_status/503/retry_after_s_max"), 3);
}

#[test]
fn advice_is_followed_when_asked_to() {
    let address = serve(None, |index, upgrade| match index {
        0..4 => upgrade.reject("503 Service Unavailable", "Retry-After: 0\r\n"),
        4 => upgrade.reject("403 Forbidden", ""),
        _ => echo(upgrade.accept("")),
    });
    let outcome = load(address, "-c 8 --retry 3 --hold 0 --waited-after 10s");
    assert_eq!(outcome.code, Some(4), "a 403 is no answer of a full server: {}", outcome.stderr);
    assert_eq!(outcome.count("/retries"), 4);
    assert_eq!(outcome.count("/served/total"), 7);
    assert!(outcome.count("/served/after_retry/count") >= 3, "one of the four may meet the 403");
    assert_eq!(outcome.count("/rejected/by_status/403/count"), 1, "no advice, no other try");
}

#[test]
fn tries_end_when_they_are_used_up() {
    let address = serve(None, |_, upgrade| {
        upgrade.reject("503 Service Unavailable", "Retry-After: 0\r\n");
    });
    let outcome = load(address, "-c 3 --retry 2 --hold 0");
    assert_eq!(outcome.code, Some(4), "nobody was served: {}", outcome.stderr);
    assert_eq!(outcome.count("/retries"), 6);
    assert_eq!(outcome.count("/rejected/total"), 3);
}

#[test]
fn a_server_that_hangs_up_fails_the_run() {
    let address = serve(None, |_, upgrade| drop(upgrade));
    let outcome = load(address, "-c 5 --hold 0");
    assert_eq!(outcome.code, Some(3));
    assert_eq!(outcome.count("/failed/by_cause/closed_before_answer/count"), 5);
    assert_eq!(outcome.count("/failed/client_limited"), 0);
}

#[test]
fn a_server_that_never_answers_fails_the_run_in_time() {
    let address = serve(None, |_, mut upgrade| {
        // Stays until the client gives up.
        let _ = upgrade.stream.read(&mut [0]);
    });
    let outcome = load(address, "-c 5 --hold 0 --timeout 300ms");
    assert_eq!(outcome.code, Some(3));
    assert_eq!(outcome.count("/failed/by_cause/answer_timeout/count"), 5);
}

/// Elsewhere a reset takes the answer with it before any client could read it.
#[cfg(target_os = "linux")]
#[test]
fn an_answer_before_a_reset_is_read_nevertheless() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Closing with the request unread makes the kernel send a reset.
            stream.peek(&mut [0]).unwrap();
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n")
                .unwrap();
        }
    });
    let outcome = load(address, "-c 5 --hold 0");
    assert_eq!(outcome.count("/rejected/by_status/503/count"), 5);
    assert_eq!(outcome.code, Some(4));
}

#[test]
fn nobody_listening_is_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = load(address, "-c 5 --hold 0");
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stderr.contains(&format!("connections to {address} failed")));
    assert_eq!(outcome.count("/failed/by_cause/connect_refused/count"), 5);
}

#[test]
fn an_answer_that_proves_nothing_is_a_bad_answer() {
    let address = serve(None, |index, mut upgrade| match index {
        0 => upgrade.answer("SSH-2.0-OpenSSH_9.6\r\n"),
        _ => upgrade.answer(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: c29tZXRoaW5nIGVsc2U=\r\n\r\n",
        ),
    });
    let outcome = load(address, "-c 2 --hold 0");
    assert_eq!(outcome.code, Some(3));
    assert_eq!(outcome.count("/failed/by_cause/bad_answer/count"), 2);
}

#[test]
fn the_clock_tells_who_waited_at_a_server_that_does_not() {
    let address = serve(None, |index, upgrade| {
        if index >= 6 {
            // The lateness is the behaviour under test, not a wait for something else.
            thread::sleep(LATE);
        }
        echo(upgrade.accept(""));
    });
    // 150 ms lie as far from an answer at once as from one that is LATE.
    let outcome = load(address, "-c 10 --hold 0 --waited-after 150ms");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/served/after_waiting/count"), 4);
    assert_eq!(outcome.figures["served"]["waited_according_to"], "clock");
    let p50 = outcome.figures["served"]["after_waiting"]["p50_ms"].as_f64().unwrap();
    assert!(p50 >= LATE.as_secs_f64() * 1e3, "{p50}");
}

#[test]
fn a_server_that_tells_who_waited_is_believed() {
    let address = serve(None, |index, upgrade| {
        let extra = if index < 3 { "Queue-Wait-Ms: 5\r\n" } else { "" };
        echo(upgrade.accept(extra));
    });
    // By the clock all of them would have waited.
    let outcome = load(address, "-c 10 --hold 0 --waited-after 1ms --rate 200");
    assert_eq!(outcome.count("/served/after_waiting/count"), 3);
    assert_eq!(outcome.count("/served/at_once/count"), 7);
    assert_eq!(outcome.figures["served"]["waited_according_to"], "server");
}

#[test]
fn those_in_line_do_not_keep_others_from_coming() {
    let (arrived, all_here) = mpsc::channel();
    let (open_doors, doors) = crossbeam_channel::bounded::<()>(0);
    let address = serve(None, move |_, upgrade| {
        arrived.send(()).unwrap();
        // Nobody enters until the sender is gone.
        let _ = doors.recv();
        echo(upgrade.accept(""));
    });
    let child = start(address, "-c 6 --connecting 2 --waited-after 50ms --hold 0");
    for _ in 0..6 {
        all_here.recv_timeout(DEADLINE).expect("six stand in line, though two may connect at once");
    }
    drop(open_doors);
    let outcome = outcome_of(child);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.count("/served/total"), 6);
}

#[test]
fn those_the_server_ends_are_counted_by_close_code() {
    let address = serve(None, |index, upgrade| {
        let mut socket = upgrade.accept("");
        match index {
            0 | 1 => {
                let frame = CloseFrame { code: CloseCode::from(4102), reason: "slow".into() };
                socket.close(Some(frame)).unwrap();
                echo(socket);
            }
            2 => drop(socket),
            _ => {
                socket.send(Message::Ping("are you there".into())).unwrap();
                assert!(socket.read().unwrap().is_pong());
                echo(socket);
            }
        }
    });
    let outcome = load(address, "-c 6 --hold 500ms");
    assert_eq!(outcome.code, Some(5), "three were ended early: {}", outcome.stderr);
    assert_eq!(outcome.count("/served/total"), 6);
    assert_eq!(outcome.count("/closed_by_server/by_code/4102"), 2);
    assert_eq!(outcome.count("/closed_by_server/by_code/no_close_frame"), 1);
    assert_eq!((outcome.count("/held_to_the_end"), outcome.count("/closed_cleanly")), (3, 3));
}

#[test]
fn the_servers_own_figures_stand_beside() {
    let stats = r#"{"active_connections":2,"queued":0,"rejected_total":9,"max_queued_tasks":4}"#;
    let address = serve(Some(stats), |_, upgrade| echo(upgrade.accept("")));
    let outcome = load(address, "-c 2 --hold 0 --waited-after 1ms");
    assert_eq!(outcome.count("/server/rejected_total"), 9);
    assert!(outcome.stderr.contains("rejected_total 9"), "{}", outcome.stderr);
    assert_eq!(outcome.count("/server_after/rejected_total"), 9, "asked again at the end");
    assert_eq!(outcome.count("/served/at_once/count"), 2, "a server with a line says who waited");
}

#[test]
fn headers_and_origin_reach_the_server() {
    let (sender, seen) = mpsc::channel();
    let address = serve(None, move |_, upgrade| {
        let header = |name: &str| upgrade.header(name).unwrap_or_default().to_owned();
        sender.send([header("Origin"), header("X-Token"), header("Host")]).unwrap();
        echo(upgrade.accept(""));
    });
    load(address, "-c 1 --hold 0 --origin http://o.example -H X-Token:abc");
    let headers = seen.recv_timeout(DEADLINE).unwrap();
    assert_eq!(headers, ["http://o.example".to_owned(), "abc".to_owned(), address.to_string()]);
}

#[test]
fn a_message_is_repeated_at_its_interval() {
    let address = serve(None, |_, upgrade| echo(upgrade.accept("")));
    let outcome = load(address, "-c 2 --hold 500ms --message tick --every 50ms");
    let sent = outcome.count("/messages/sent");
    assert!(
        (4..=40).contains(&sent),
        "{sent} sent; ten intervals, two connections, a busy machine"
    );
}

#[test]
fn without_json_a_table_is_printed() {
    let address = serve(None, |_, upgrade| echo(upgrade.accept("")));
    let output = Command::new(env!("CARGO_BIN_EXE_rusty_socks"))
        .args(["load", &format!("ws://{address}/"), "-c", "3", "--hold", "0"])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("served at once") && table.contains("refused"), "{table}");
}

#[test]
fn bad_arguments_are_told_plainly() {
    for (flag, reason) in
        [("ftp://h/", "the scheme must be"), ("h:0", "allowed is HOST, HOST:PORT")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_rusty_socks")).args(["load", flag]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn refusals_are_a_failure_unless_they_are_expected() {
    let address = serve(None, |index, upgrade| match index % 10 {
        0 => echo(upgrade.accept("")),
        _ => upgrade.reject("404 Not Found", ""),
    });
    let outcome = load(address, "-c 20 --hold 0");
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let told = "FAILED (exit code 4): 18 of 20 connections were refused (18 with 404).";
    assert_eq!(outcome.figures["outcome"]["headline"], told);
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    assert_eq!(outcome.figures["outcome"]["problems"][0]["kind"], "refused");

    let outcome = load(address, "-c 20 --hold 0 --expect-refused 18");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.figures["outcome"]["passed"], true);
    assert_eq!(load(address, "-c 20 --hold 0 --expect-refused ..17").code, Some(6));
}

#[test]
fn a_limit_that_is_not_kept_has_an_exit_code_of_its_own() {
    let address = serve(None, |_, upgrade| echo(upgrade.accept("")));
    assert_eq!(load(address, "-c 2 --hold 0 --expect-p99-ms 0.001").code, Some(6));
    assert_eq!(load(address, "-c 2 --hold 0 --expect-p99-ms 60000").code, Some(0));
}

/// The device on which there is never any room.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let address = serve(None, |_, upgrade| echo(upgrade.accept("")));
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = |flags: &[&str], out: Stdio, err: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rusty_socks"));
        command.args(["load", &address.to_string(), "-c", "1", "--hold", "0"]).args(flags);
        command.stdin(Stdio::null()).stdout(out).stderr(err).output().unwrap()
    };
    for flags in [&[][..], &["--json"]] {
        let output = run(flags, full().into(), Stdio::piped());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {stderr}");
        assert!(stderr.contains("cannot write to standard output"), "{stderr}");
    }
    let output = run(&["--report", "/dev/full"], Stdio::piped(), Stdio::piped());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot write /dev/full"));
    // Nobody can be told then, but the run goes on and its result is printed.
    let output = run(&[], Stdio::piped(), full().into());
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Passed"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_run_with_its_table() {
    let (arrived, all_here) = mpsc::channel();
    let address = serve(None, move |index, mut upgrade| {
        arrived.send(()).unwrap();
        if index < 2 {
            echo(upgrade.accept(""));
        } else {
            let _ = upgrade.stream.read(&mut [0]);
        }
    });
    let child = start(address, "-c 5 --hold 60 --timeout 60");
    for _ in 0..5 {
        all_here.recv_timeout(DEADLINE).unwrap();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let outcome = outcome_of(child);
    assert_eq!(outcome.count("/interrupted") + outcome.count("/served/total"), 5);
    assert!(outcome.count("/interrupted") >= 3, "three were never answered");
    assert_eq!(outcome.code, Some(0), "an interrupt is the user's wish, not a failure");
}
