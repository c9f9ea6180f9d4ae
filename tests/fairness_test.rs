//! What is expensive costs the client that asks for it, and delays nobody else.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusty_socks::{
    Config, Context, Message, Server, ServerHandle,
    chat::Chat,
    stepped::{MemoryClient, SteppedServer},
};
use support::{TestServer, config, frame, upgrade_head};

/// More members than are delivered to in one slice, twice over.
const CROWD: usize = 2500;

/// A server of one worker with the chat protocol.
fn server() -> SteppedServer {
    let config = Config {
        thread_pool_size: 1,
        max_conn: CROWD + 10,
        max_pending_heads: CROWD + 10,
        replay: 0,
        // What a client may say is not what is tested here.
        rate_messages: 0,
        rate_bytes: 0,
        ..Config::default()
    };
    let chat = Chat::new(&config).unwrap();
    Server::builder().route("/ws", chat).config(config).stepped().unwrap()
}

fn client(server: &mut SteppedServer) -> MemoryClient {
    let client = server.connect().unwrap();
    client.write(upgrade_head("/ws").as_bytes());
    client
}

fn say(client: &MemoryClient, text: &str) {
    client.write(&frame(0x81, text.as_bytes()));
}

fn join(client: &MemoryClient, room: &str) {
    say(client, &format!(r#"{{"type":"join","room":"{room}"}}"#));
}

/// What the client was sent since the last look.
fn read(client: &MemoryClient) -> String {
    String::from_utf8_lossy(&client.read()).into_owned()
}

/// The contents of the messages that the client was sent since the last look.
fn contents(client: &MemoryClient) -> Vec<String> {
    contents_of(&read(client))
}

fn contents_of(text: &str) -> Vec<String> {
    let parts = text.split(r#""content":""#).skip(1);
    parts.map(|part| part.split('"').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_message_to_a_large_room_delays_a_small_room_by_a_turn_at_most() {
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..CROWD).map(|_| client(&mut server)).collect();
    let (writer, reader) = (client(&mut server), client(&mut server));
    server.settle();
    crowd.iter().for_each(|member| join(member, "large"));
    [&writer, &reader].into_iter().for_each(|member| join(member, "small"));
    join(&writer, "large");
    server.settle();
    crowd.iter().for_each(|member| drop(member.read()));
    reader.read();
    for number in 0..3 {
        say(&writer, &format!(r#"{{"room":"large","content":"{number}"}}"#));
    }
    server.turn();
    let mut got: Vec<Vec<String>> = crowd.iter().map(contents).collect();
    let served = got.iter().filter(|contents| !contents.is_empty()).count();
    assert!((1..CROWD).contains(&served), "a slice, not all: {served}");
    say(&writer, r#"{"room":"small","content":"quick"}"#);
    server.turn();
    assert_eq!(contents(&reader), ["quick"], "in the next turn");
    server.settle();
    for (member, got) in crowd.iter().zip(&mut got) {
        got.extend(contents(member));
        assert_eq!(*got, ["0", "1", "2"], "each message once, and in order");
    }
}

#[test]
fn the_way_of_a_message_to_many_is_timed_until_its_last_slice() {
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..CROWD).map(|_| client(&mut server)).collect();
    let writer = client(&mut server);
    server.settle();
    crowd.iter().for_each(|member| join(member, "large"));
    [&writer, &crowd[0]].into_iter().for_each(|member| join(member, "small"));
    join(&writer, "large");
    server.settle();
    say(&writer, r#"{"room":"small","content":"x"}"#);
    server.settle();
    assert_eq!(server.handle().stats().fanout_lag_ms.count, 0, "to a few clients");
    say(&writer, r#"{"room":"large","content":"x"}"#);
    server.turn();
    assert_eq!(server.handle().stats().fanout_lag_ms.count, 0, "a slice, not all");
    server.advance(Duration::from_millis(30));
    server.settle();
    let lag = server.handle().stats().fanout_lag_ms;
    assert_eq!((lag.count, lag.max.floor()), (1, 30.0));
}

#[test]
fn a_member_that_leaves_and_one_that_comes_get_no_part_of_a_message_they_must_not() {
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..CROWD).map(|_| client(&mut server)).collect();
    let (writer, late) = (client(&mut server), client(&mut server));
    server.settle();
    crowd.iter().for_each(|member| join(member, "large"));
    join(&writer, "large");
    server.settle();
    crowd.iter().for_each(|member| drop(member.read()));
    say(&writer, r#"{"room":"large","content":"x"}"#);
    server.turn();
    let had: Vec<bool> = crowd.iter().map(|member| contents(member) == ["x"]).collect();
    // The last slice: of those before it some have the message, and are yet to be written to.
    let at = had.iter().rposition(|had| !had).expect("the message is under way");
    assert!(had.contains(&true));
    let has_not = &crowd[at];
    say(has_not, r#"{"type":"leave","room":"large"}"#);
    join(&late, "large");
    server.settle();
    assert!(contents(has_not).is_empty(), "it left before its slice came");
    assert!(contents(&late).is_empty(), "it came after the message");
    for (member, had) in crowd.iter().zip(had).filter(|(member, _)| !std::ptr::eq(*member, has_not))
    {
        assert_eq!(contents(member).len(), usize::from(!had), "once each");
    }
}

#[test]
fn a_burst_into_a_large_room_is_read_as_fast_as_it_is_delivered() {
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..CROWD).map(|_| client(&mut server)).collect();
    let (writer, quiet) = (client(&mut server), client(&mut server));
    server.settle();
    crowd.iter().for_each(|member| join(member, "large"));
    join(&writer, "large");
    server.settle();
    crowd.iter().for_each(|member| drop(member.read()));
    quiet.read();
    for _ in 0..200 {
        say(&writer, r#"{"room":"large","content":"b"}"#);
    }
    let mut turns = 0;
    while server.handle().stats().deliveries < (200 * CROWD) as u64 {
        let before = server.handle().stats();
        say(&quiet, r#"{"type":"ping"}"#);
        server.turn();
        assert!(!quiet.read().is_empty(), "an answer in the same turn, number {turns}");
        let made = server.handle().stats().deliveries - before.deliveries;
        assert!(made <= 16_384, "{made} deliveries in one turn");
        crowd.iter().for_each(|member| drop(member.read()));
        turns += 1;
        assert!(turns < 10_000, "it never ends");
    }
    let stats = server.handle().stats();
    assert!(stats.publish_pauses > 0, "the writer was not read meanwhile");
    assert_eq!((stats.pressure_pauses, stats.slow_consumers), (0, 0), "and nobody else noticed");
}

#[test]
fn pipelined_requests_take_turns() {
    let mut server = server();
    let greedy = server.connect().unwrap();
    let quick = client(&mut server);
    server.settle();
    quick.read();
    greedy.write("HEAD /stats HTTP/1.1\r\nHost: x\r\n\r\n".repeat(300).as_bytes());
    say(&quick, r#"{"type":"ping"}"#);
    server.turn();
    assert!(!quick.read().is_empty());
    let answers = |client: &MemoryClient| {
        String::from_utf8_lossy(&client.read()).matches("HTTP/1.1 200").count()
    };
    let at_once = answers(&greedy);
    assert!((1..=16).contains(&at_once), "{at_once} requests in one turn");
    server.settle();
    assert_eq!(at_once + answers(&greedy), 300, "none is forgotten");
}

/// Pings, one behind the other.
fn pings(count: usize) -> Vec<u8> {
    frame(0x81, br#"{"type":"ping"}"#).repeat(count)
}

/// How many of its pings were answered since the last look.
fn pongs(client: &MemoryClient) -> usize {
    pongs_of(&read(client))
}

fn pongs_of(text: &str) -> usize {
    text.matches(r#""type":"pong""#).count()
}

#[test]
fn many_that_ask_for_much_wait_for_each_other_and_nobody_else_does() {
    const COMMANDS: usize = 1000;
    let mut server = server();
    let greedy: Vec<MemoryClient> = (0..300).map(|_| client(&mut server)).collect();
    let quick = client(&mut server);
    server.settle();
    quick.read();
    greedy.iter().for_each(|client| client.write(&pings(COMMANDS)));
    let (mut answers, mut turns) = (vec![0; greedy.len()], 0);
    while answers.iter().any(|answers| *answers < COMMANDS) {
        answers.iter_mut().zip(&greedy).for_each(|(answers, client)| *answers += pongs(client));
        // Once each of them has shown what it asks for.
        if answers.iter().all(|answers| *answers > 0) {
            say(&quick, r#"{"type":"ping"}"#);
            server.turn();
            assert!(!quick.read().is_empty(), "an answer in the same turn, number {turns}");
        }
        server.turn();
        turns += 1;
        assert!(turns < 10_000, "it never ends");
    }
    assert!(turns > 50, "{turns} turns: they were no burden");
}

#[test]
fn a_light_request_between_heavy_ones_makes_nobody_light() {
    const ROUNDS: usize = 60;
    let mut server = server();
    let greedy: Vec<MemoryClient> = (0..300).map(|_| client(&mut server)).collect();
    let quick = client(&mut server);
    server.settle();
    quick.read();
    // Each sends the next as soon as it has its answers, one light request for a heavy one.
    let mut sent = vec![0_usize; greedy.len()];
    let mut open = vec![0_usize; greedy.len()];
    let mut turns = 0;
    while sent.iter().any(|sent| *sent < ROUNDS) {
        for ((client, sent), open) in greedy.iter().zip(&mut sent).zip(&mut open) {
            *open -= pongs(client);
            if *open == 0 && *sent < ROUNDS {
                *open = if *sent % 2 == 0 { 200 } else { 1 };
                client.write(&pings(*open));
                *sent += 1;
            }
        }
        let is_known = sent.iter().all(|sent| *sent > 1);
        if is_known {
            say(&quick, r#"{"type":"ping"}"#);
        }
        server.turn();
        if is_known {
            turns += 1;
            assert!(!quick.read().is_empty(), "an answer in the same turn, number {turns}");
        }
        assert!(turns < 10_000, "it never ends");
    }
    assert!(turns > 300, "{turns} turns: they were no burden");
}

#[test]
fn those_that_ask_for_much_are_served_whatever_others_ask() {
    const COMMANDS: usize = 3000;
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..1000).map(|_| client(&mut server)).collect();
    let greedy = client(&mut server);
    server.settle();
    greedy.read();
    greedy.write(&pings(COMMANDS));
    let (mut answers, mut turns) = (0, 0);
    while answers < COMMANDS {
        // Each turn brings more than it has time for.
        crowd.iter().for_each(|client| client.write(&pings(8)));
        server.turn();
        crowd.iter().for_each(|client| drop(client.read()));
        answers += pongs(&greedy);
        turns += 1;
        assert!(turns < 200, "{answers} answers in {turns} turns");
    }
    assert!(turns > 10, "{turns} turns: it was no burden");
}

#[test]
fn what_a_turn_has_no_time_for_comes_in_the_next_ones() {
    const MESSAGES: usize = 20;
    let mut server = server();
    let clients: Vec<MemoryClient> = (0..300).map(|_| client(&mut server)).collect();
    let sender = client(&mut server);
    server.settle();
    clients.iter().chain([&sender]).for_each(|client| join(client, "tea"));
    server.settle();
    clients.iter().for_each(|client| drop(client.read()));
    // Some of them have shown that they ask for much, so that both parts of the reading are there.
    let greedy = &clients[..20];
    greedy.iter().for_each(|client| client.write(&pings(1000)));
    server.turn();
    server.limit_turns(1);
    for number in 0..MESSAGES {
        say(&sender, &format!(r#"{{"room":"tea","content":"{number}"}}"#));
    }
    let mut answers: Vec<usize> = greedy.iter().map(pongs).collect();
    let mut got = vec![Vec::new(); clients.len()];
    let (mut turns, mut idle) = (0, 0);
    while got.iter().any(|got| got.len() < MESSAGES) || answers.iter().any(|of| *of < 1000) {
        server.turn();
        let mut served = 0;
        for (nth, client) in clients.iter().enumerate() {
            let text = read(client);
            served += usize::from(!text.is_empty());
            got[nth].extend(contents_of(&text));
            if let Some(answers) = answers.get_mut(nth) {
                *answers += pongs_of(&text);
            }
        }
        assert!(served <= 2 * 4, "{served} sockets were written to in a turn");
        idle = if served == 0 { idle + 1 } else { 0 };
        assert!(idle < 10, "nobody gets anything");
        turns += 1;
        assert!(turns < 100_000, "it never ends");
    }
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert!(got.iter().all(|got| *got == expected), "each has all, once and in order");
    assert!(turns > 300, "{turns} turns: they had time for more");
    server.limit_turns(usize::MAX);
    server.settle();
    assert!(clients.iter().all(|client| client.unread() == 0));
}

#[test]
fn a_turn_ends_before_all_is_read_where_requests_take_long() {
    const CLIENTS: usize = 64;
    let handle = Arc::new(OnceLock::<ServerHandle>::new());
    let (all_sent, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let slow = {
        let (handle, all_sent, seen) = (handle.clone(), all_sent.clone(), seen.clone());
        move |ctx: &mut Context<'_, ()>, message: Message<'_>| {
            let began = Instant::now();
            if message.as_text() == Some("wait") {
                while !all_sent.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(20)
                {
                    thread::yield_now();
                }
            } else {
                while began.elapsed() < Duration::from_millis(1) {}
                let turns = handle.get().map(|handle| handle.stats().turns);
                seen.lock().unwrap().push(turns);
            }
            ctx.send(message);
        }
    };
    let config = Config { thread_pool_size: 1, ..config() };
    let server = Server::builder().route("/slow", slow).config(config).bind().unwrap();
    let server = TestServer::run(server);
    handle.set(server.handle.clone()).unwrap();
    let mut first = server.connect("/slow");
    let mut others: Vec<_> = (0..CLIENTS).map(|_| server.connect("/slow")).collect();
    first.send("wait");
    // The next poll finds all of them ready at once.
    others.iter_mut().for_each(|client| client.send("x"));
    all_sent.store(true, Ordering::Relaxed);
    others.iter_mut().chain([&mut first]).for_each(|client| drop(client.next()));
    let seen = seen.lock().unwrap();
    let turns: BTreeSet<_> = seen.iter().collect();
    assert_eq!(seen.len(), CLIENTS);
    assert!(turns.len() > 1, "all in one turn of {CLIENTS} ms");
}

#[test]
fn a_flood_into_smaller_rooms_does_not_hold_up_a_large_one() {
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..CROWD).map(|_| client(&mut server)).collect();
    let flood: Vec<MemoryClient> = (0..4).map(|_| client(&mut server)).collect();
    let writer = client(&mut server);
    server.settle();
    crowd.iter().chain([&writer]).for_each(|member| join(member, "large"));
    crowd[..1000].iter().chain(&flood).for_each(|member| join(member, "middle"));
    server.settle();
    crowd.iter().chain(&flood).for_each(|member| drop(member.read()));
    say(&writer, r#"{"room":"large","content":"large"}"#);
    let mut waiting: Vec<&MemoryClient> = crowd.iter().collect();
    let mut turns = 0;
    while !waiting.is_empty() {
        for member in &flood {
            for _ in 0..6 {
                say(member, r#"{"room":"middle","content":"middle"}"#);
            }
        }
        server.turn();
        waiting.retain(|member| !contents(member).contains(&"large".to_owned()));
        turns += 1;
        // A turn writes to 128 of them, beside as many of those that wait already.
        assert!(turns < 30, "{} of {CROWD} still wait", waiting.len());
    }
}

#[test]
fn a_sender_into_many_large_rooms_waits_itself_and_nobody_else() {
    const ROOMS: usize = 10;
    const MEMBERS: usize = 1500;
    let mut server = server();
    let crowd: Vec<MemoryClient> = (0..MEMBERS).map(|_| client(&mut server)).collect();
    let (flooder, writer) = (client(&mut server), client(&mut server));
    server.settle();
    // In each room they stand in another order, so that their slices are of different members.
    for room in 0..ROOMS {
        let first = room * MEMBERS / ROOMS;
        crowd[first..].iter().chain(&crowd[..first]).for_each(|of| join(of, &format!("r{room}")));
        join(&flooder, &format!("r{room}"));
        server.settle();
    }
    crowd.iter().for_each(|member| join(member, "own"));
    join(&writer, "own");
    server.settle();
    crowd.iter().chain([&flooder]).for_each(|member| drop(member.read()));
    for number in 0..10 * ROOMS {
        say(&flooder, &format!(r#"{{"room":"r{}","content":"flood"}}"#, number % ROOMS));
    }
    let before = server.handle().stats().messages_in;
    server.turn();
    let taken = server.handle().stats().messages_in - before;
    // Each counts more than its 1,500 members, and 8,192 may be on their way.
    assert!((1..=6).contains(&taken), "{taken} of them are taken at once");
    say(&writer, r#"{"room":"own","content":"own"}"#);
    let mut waiting: Vec<&MemoryClient> = crowd.iter().collect();
    let mut turns = 0;
    while !waiting.is_empty() {
        server.turn();
        waiting.retain(|member| !contents(member).contains(&"own".to_owned()));
        turns += 1;
        // With 17 taken at once it is 63.
        assert!(turns < 50, "{} of {MEMBERS} still wait", waiting.len());
    }
    assert!(server.handle().stats().publish_pauses > 0, "the flooder was not read meanwhile");
}
