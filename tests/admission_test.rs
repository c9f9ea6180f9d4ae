//! Who may come in: permits, the line of those that wait for one, and what the refused are told.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with a clear message")]

mod support;

use std::{
    collections::VecDeque,
    net::Shutdown,
    time::{Duration, Instant},
};

use rusty_socks::Config;
use support::{
    Answer, BusyServer, RawClient, TestServer, close_frame, config, eventually, frame, upgrade_head,
};

/// For tests in which a deadline must pass.
const SHORT: Duration = Duration::from_millis(200);

/// Never reached by a test that passes.
const LONG: Duration = Duration::from_secs(60);

/// Four workers, as by default, few places, and all the patience one needs in line: nobody is to
/// leave it by the clock unless that is the test.
fn few(max_conn: usize, max_queued_tasks: usize) -> Config {
    let queue_timeout = LONG;
    Config { thread_pool_size: 4, max_conn, max_queued_tasks, queue_timeout, ..config() }
}

/// Sends an upgrade request and returns without waiting for the answer.
fn ask(server: &TestServer) -> RawClient {
    let mut client = server.raw_client();
    client.send(upgrade_head("/echo").as_bytes());
    client
}

/// Asks, and returns once it stands in line as number `place`.
fn stand_in_line(server: &TestServer, place: usize) -> RawClient {
    let client = ask(server);
    server.wait_for("the line is longer by one", |stats| stats.queued == place);
    client
}

/// Closes politely and waits for the end.
fn leave(mut client: RawClient) {
    client.send(&close_frame(1000));
    assert_eq!(client.close_code(), 1000);
    client.expect_end();
}

/// Whether the server has said anything yet.
fn has_heard(client: &RawClient) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let heard = client.stream.peek(&mut [0]).is_ok();
    client.stream.set_nonblocking(false).unwrap();
    heard
}

fn check_unavailable(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
    let retry_after: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!(retry_after >= 1, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error"], error);
    assert_eq!(body["retry_after_s"], retry_after);
}

fn echoes(client: &mut RawClient) {
    client.send(&frame(0x81, b"hello"));
    assert_eq!(client.text(), "hello");
}

#[test]
fn of_ten_upgrades_four_are_served_two_wait_and_four_are_refused() {
    let server = TestServer::start(few(4, 2));
    let mut served: Vec<RawClient> = (0..4).map(|_| server.upgrade("/echo")).collect();
    let mut line: VecDeque<RawClient> =
        (1..=2).map(|place| stand_in_line(&server, place)).collect();
    for _ in 0..4 {
        let mut refused = ask(&server);
        check_unavailable(&refused.answer(), "full");
        // Everything was there to read, and then the end: no reset.
        refused.expect_end();
    }
    let stats = server.stats();
    assert_eq!((stats.active_connections, stats.queued), (4, 2));
    assert_eq!((stats.accepted_total, stats.rejected_total), (4, 4));
    assert_eq!(stats.rejected["full"], 4);
    // As others leave, those in line enter in order of arrival.
    while let Some(mut first) = line.pop_front() {
        leave(served.remove(0));
        let answer = first.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        answer.header("Queue-Wait-Ms").unwrap().parse::<u64>().unwrap();
        assert!(line.iter().all(|other| !has_heard(other)), "nobody overtook it");
        echoes(&mut first);
        served.push(first);
    }
    assert_eq!(server.stats().queue_wait_ms.count, 2);
    served.into_iter().for_each(leave);
    server.wait_until_empty();
}

#[test]
fn ten_upgrades_at_the_same_moment_are_served_kept_and_refused_in_the_same_numbers() {
    let server = TestServer::start(few(4, 2));
    let clients: Vec<RawClient> = (0..10).map(|_| ask(&server)).collect();
    server.wait_for("all ten are decided on", |stats| {
        stats.accepted_total + stats.rejected_total + stats.queued as u64 == 10
    });
    let stats = server.stats();
    assert_eq!((stats.accepted_total, stats.queued, stats.rejected["full"]), (4, 2, 4));
    let mut served = Vec::new();
    let mut waiting = Vec::new();
    for mut client in clients {
        eventually("the decision is heard by all but two", || {
            let heard = has_heard(&client) || waiting.len() < 2;
            if heard { Ok(()) } else { Err("silence".into()) }
        });
        if !has_heard(&client) {
            waiting.push(client);
            continue;
        }
        match client.answer() {
            answer if answer.status == 101 => served.push(client),
            answer => {
                check_unavailable(&answer, "full");
                client.expect_end();
            }
        }
    }
    served.into_iter().for_each(leave);
    for client in &mut waiting {
        assert_eq!(client.answer().status, 101);
    }
    waiting.into_iter().for_each(leave);
    server.wait_until_empty();
    assert_eq!(server.stats().accepted_total, 6);
}

#[test]
fn who_is_served_at_once_is_told_of_no_wait() {
    let server = TestServer::start(few(1, 1));
    let mut client = ask(&server);
    assert_eq!(client.answer().header("Queue-Wait-Ms"), None);
}

#[test]
fn without_a_line_the_next_one_is_refused_at_once() {
    let server = TestServer::start(few(1, 0));
    let inside = server.upgrade("/echo");
    check_unavailable(&ask(&server).answer(), "full");
    leave(inside);
    server.wait_for("the permit is back", |stats| stats.active_connections == 0);
    server.upgrade("/echo");
}

#[test]
fn the_wait_that_is_told_is_the_wait_there_was() {
    let server = TestServer::start(few(1, 1));
    let mut inside = server.upgrade("/echo");
    let began = Instant::now();
    let mut waiter = stand_in_line(&server, 1);
    let seen = Instant::now();
    while seen.elapsed() < SHORT {
        echoes(&mut inside);
    }
    leave(inside);
    let answer = waiter.answer();
    let told: u64 = answer.header("Queue-Wait-Ms").unwrap().parse().unwrap();
    // Turns are timed to the millisecond, from their beginning.
    let (least, most) = (SHORT.as_millis() as u64 - 10, began.elapsed().as_millis() as u64 + 10);
    assert!((least..=most).contains(&told), "{told} is not within {least} to {most}");
}

#[test]
fn a_waiter_that_hangs_up_leaves_the_line_and_the_next_is_served() {
    let server = TestServer::start(few(1, 3));
    let inside = server.upgrade("/echo");
    let polite = stand_in_line(&server, 1);
    let rude = stand_in_line(&server, 2);
    let mut patient = stand_in_line(&server, 3);
    drop(polite);
    server.wait_for("one has left the line", |stats| stats.queued == 2);
    rude.reset();
    server.wait_for("so has the other", |stats| stats.queued == 1);
    leave(inside);
    assert_eq!(patient.answer().status, 101);
    echoes(&mut patient);
    leave(patient);
    server.wait_until_empty();
    assert_eq!(server.stats().accepted_total, 2, "nobody was served who was not there");
}

#[test]
fn a_waiter_whose_end_comes_together_with_its_request_leaves_the_line() {
    let server = BusyServer::start(few(1, 1));
    let blocker = server.occupy(server.blocker());
    let client = ask(&server);
    client.stream.shutdown(Shutdown::Write).unwrap();
    server.wait_for("it is on its way to the worker", |stats| stats.pending_heads == 1);
    let blocker = blocker.release();
    server.wait_for("its request was handled", |stats| stats.pending_heads == 0);
    server.wait_for("nobody is in line", |stats| stats.queued == 0);
    assert_eq!(server.stats().rejected_total, 0);
    drop(client);
    blocker.close();
    server.wait_until_empty();
    assert_eq!(server.stats().accepted_total, 1);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let server = TestServer::start(Config { queue_timeout: SHORT, ..few(1, 2) });
    let mut inside = server.upgrade("/echo");
    let mut waiter = stand_in_line(&server, 1);
    check_unavailable(&waiter.answer(), "queue_timeout");
    waiter.expect_end();
    let stats = server.stats();
    assert_eq!((stats.queued, stats.rejected["queue_timeout"], stats.rejected["full"]), (0, 1, 0));
    echoes(&mut inside);
}

#[test]
fn a_wait_longer_than_the_timeout_of_the_silent_does_not_count_as_silence() {
    let timeout = Duration::from_millis(500);
    let server = TestServer::start(Config { timeout, ping: Duration::ZERO, ..few(1, 1) });
    let mut inside = server.upgrade("/echo");
    let mut waiter = stand_in_line(&server, 1);
    let seen = Instant::now();
    while seen.elapsed() < timeout * 2 {
        echoes(&mut inside);
    }
    leave(inside);
    assert_eq!(waiter.answer().status, 101);
    echoes(&mut waiter);
    leave(waiter);
}

#[test]
fn health_and_stats_are_answered_while_everything_is_taken() {
    let server = TestServer::start(few(1, 1));
    let _inside = server.upgrade("/echo");
    let _waiter = stand_in_line(&server, 1);
    check_unavailable(&ask(&server).answer(), "full");
    assert_eq!(server.get("/health").0, 200);
    let (status, body) = server.get("/stats");
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &stats["active_connections"], &stats["queued"]),
        (200, &1.into(), &1.into())
    );
    assert_eq!(stats["rejected"]["full"], 1);
}

#[test]
fn what_a_waiter_says_before_it_is_served_is_handled_afterwards() {
    let server = TestServer::start(few(1, 1));
    let inside = server.upgrade("/echo");
    let mut waiter = server.raw_client();
    // Some of it in the segment of the request, the rest while it waits.
    waiter.send(&[upgrade_head("/echo").into_bytes(), frame(0x81, b"first")].concat());
    server.wait_for("it is in line", |stats| stats.queued == 1);
    for number in 0..1000 {
        waiter.send(&frame(0x81, number.to_string().as_bytes()));
    }
    leave(inside);
    assert_eq!(waiter.answer().status, 101);
    assert_eq!(waiter.text(), "first");
    for number in 0..1000 {
        assert_eq!(waiter.text(), number.to_string());
    }
    leave(waiter);
}

#[test]
fn fifty_waiters_of_four_workers_enter_in_order_of_arrival() {
    let server = TestServer::start(few(1, 50));
    let mut inside = server.upgrade("/echo");
    let line: Vec<RawClient> = (1..=50).map(|place| stand_in_line(&server, place)).collect();
    let busy = server.stats().workers.iter().filter(|worker| worker.sockets > 0).count();
    assert_eq!(busy, 4, "the line runs across all workers");
    let mut rest = line.into_iter();
    while let Some(mut next) = rest.next() {
        leave(inside);
        assert_eq!(next.answer().status, 101);
        assert!(rest.as_slice().iter().all(|other| !has_heard(other)), "nobody overtook it");
        inside = next;
    }
    leave(inside);
    server.wait_until_empty();
}

#[test]
fn a_newcomer_does_not_overtake_the_line() {
    let server = TestServer::start(few(1, 2));
    let inside = server.upgrade("/echo");
    let mut first = stand_in_line(&server, 1);
    let mut newcomer = stand_in_line(&server, 2);
    leave(inside);
    assert_eq!(first.answer().status, 101);
    assert!(!has_heard(&newcomer));
    leave(first);
    assert_eq!(newcomer.answer().status, 101);
}

#[test]
fn rejections_are_counted_by_reason_and_in_total() {
    let allowed_origins = vec!["https://good.example".to_owned()];
    let config =
        Config { allowed_origins, queue_timeout: SHORT, handshake_timeout: SHORT, ..few(1, 1) };
    let server = TestServer::start(config);
    let mut inside = server.upgrade("/echo");
    let mut waiter = stand_in_line(&server, 1);
    assert_eq!(ask(&server).answer().json()["error"], "full");
    assert_eq!(waiter.answer().json()["error"], "queue_timeout");
    let page = upgrade_head("/echo").replace("Host", "Origin: https://bad.example\r\nHost");
    for request in [page.as_str(), "nonsense\r\n\r\n", "GET /health HT"] {
        let mut client = server.raw_client();
        client.send(request.as_bytes());
        client.answer();
    }
    let stats = server.stats();
    for (reason, count) in stats.rejected {
        let expected = ["full", "queue_timeout", "origin", "bad_request", "head_timeout"];
        assert_eq!(count, u64::from(expected.contains(&reason)), "{reason}");
    }
    assert_eq!(stats.rejected_total, 5);
    echoes(&mut inside);
}

#[test]
fn two_thousand_changes_of_hands_lose_no_permit() {
    // More hands than permits, and places for those who have left and are not missed yet.
    const HANDS: usize = 8;
    const TURNS: usize = 250;
    let server = TestServer::start(few(2, HANDS * TURNS));
    std::thread::scope(|scope| {
        for hand in 0..HANDS {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..TURNS {
                    let mut client = ask(server);
                    // One in three gives up, wherever it happens to be by then.
                    match (hand + turn) % 3 {
                        0 => client.reset(),
                        _ => {
                            let answer = client.answer();
                            assert_eq!(answer.status, 101, "{answer:?} {:?}", server.stats());
                            leave(client);
                        }
                    }
                }
            });
        }
    });
    server.wait_until_empty();
    let _both = (server.upgrade("/echo"), server.upgrade("/echo"));
    assert_eq!(server.stats().active_connections, 2);
}
