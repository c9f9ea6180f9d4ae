//! One order per room: every member sees the same messages, numbered without holes, each once.
//!
//! The tests are random. Each prints its seed, and `TEST_SEED` plays it again.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    net::TcpStream,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rusty_socks::{
    Config, Context, Message as Sent, Peer, Publication, RoomError, SendStatus, Server,
    ServerHandle,
};
use serde_json::{Value, json};
use support::{Client, DEADLINE, TestServer, config};
use tungstenite::{Message, WebSocket, protocol::Role};

/// A small generator (xorshift64*): the same seed gives the same run, as far as threads allow.
struct Random(u64);

impl Random {
    /// Prints the seed, which is what a failure is played again with.
    fn seeded(test: &str) -> Random {
        let given = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("{test}: TEST_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn split(&mut self) -> Random {
        Random(self.below(u64::MAX >> 1) << 1 | 1)
    }
}

/// Four workers, and bounds that no test here is about.
fn roomy() -> Config {
    Config {
        thread_pool_size: 4,
        max_conn: 1000,
        buffer: 1_000_000,
        buffer_bytes: 256 << 20,
        history: 100_000,
        history_bytes: 256 << 20,
        replay: 0,
        ..config()
    }
}

/// One message of a room, as a member got it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    seq: u64,
    by: String,
    n: u64,
}

impl Got {
    fn from(message: &Value) -> Got {
        Got {
            seq: message["seq"].as_u64().unwrap(),
            by: message["content"]["by"].as_str().unwrap().to_owned(),
            n: message["content"]["n"].as_u64().unwrap(),
        }
    }
}

fn content(by: &str, n: u64) -> Value {
    json!({"by": by, "n": n})
}

/// The number of a publisher's last message.
const LAST: u64 = 1_000_000;

/// Publishes from outside of any connection, in the form the chat protocol has.
fn publish_from_outside(
    handle: &ServerHandle,
    room: &str,
    by: &str,
    n: u64,
) -> Result<u64, RoomError> {
    let before = format!("{{\"type\":\"message\",\"room\":{},\"seq\":", json!(room));
    let after = format!(",\"content\":{}}}", content(by, n));
    handle.publish(room, Publication::around_seq(&before, &after)).map(|published| published.seq)
}

/// The same, again and again while the server is behind. Returns how often it was refused.
fn publish_surely(handle: &ServerHandle, room: &str, by: &str, n: u64) -> u64 {
    for refused in 0.. {
        match publish_from_outside(handle, room, by, n) {
            Ok(_) => return refused,
            Err(RoomError::Overloaded) => thread::yield_now(),
            Err(error) => panic!("{room}: {error}"),
        }
    }
    unreachable!("nobody tries that often")
}

fn join(client: &mut Client, room: &str) -> Value {
    let answer = client.ask(&json!({"type": "join", "room": room, "ref": "join"}).to_string());
    assert_eq!(answer["type"], "ok", "{answer}");
    answer
}

/// A client that is in `rooms` and nowhere else.
fn member_of(server: &TestServer, rooms: &[String]) -> Client {
    let mut client = server.chat();
    client.ask(r#"{"type":"leave","room":"lobby","ref":1}"#);
    for room in rooms {
        join(&mut client, room);
    }
    client
}

/// A second way to write to a client's socket, so that one thread can write while another reads.
fn writer(client: &Client) -> WebSocket<TcpStream> {
    let stream = client.socket.get_ref().try_clone().unwrap();
    WebSocket::from_raw_socket(stream, Role::Client, None)
}

/// Reads until `lasts` publishers have said their last, and returns what came, by room.
fn read_to_the_end(client: &mut Client, mut lasts: usize) -> HashMap<String, Vec<Got>> {
    let mut got: HashMap<String, Vec<Got>> = HashMap::new();
    while lasts > 0 {
        let message = client.json();
        assert_eq!(message["type"], "message", "{message}");
        let room = message["room"].as_str().unwrap().to_owned();
        let message = Got::from(&message);
        lasts -= usize::from(message.n == LAST);
        got.entry(room).or_default().push(message);
    }
    got
}

/// Puts together what all members of a room saw. Two who differ about a number fail here.
fn whole_room<'a>(seen: impl Iterator<Item = &'a Vec<Got>>) -> BTreeMap<u64, Got> {
    let mut whole = BTreeMap::new();
    for message in seen.flatten() {
        let first = whole.entry(message.seq).or_insert_with(|| message.clone());
        assert_eq!(first, message, "one number, one message");
    }
    whole
}

fn is_contiguous(numbers: impl IntoIterator<Item = u64>) -> bool {
    let numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[test]
fn all_members_of_a_room_see_one_order() {
    const MEMBERS: usize = 9;
    const EACH: u64 = 60;
    let mut random = Random::seeded("all_members_of_a_room_see_one_order");
    let server = TestServer::start(roomy());
    let rooms: Vec<String> = (0..3).map(|n| format!("room {n}")).collect();
    let start = Arc::new(Barrier::new(MEMBERS + rooms.len()));

    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for member in 0..MEMBERS {
        // Everyone is in two rooms of three, so the rooms share connections and workers.
        let mine = [rooms[member % 3].clone(), rooms[(member + 1) % 3].clone()];
        let mut client = member_of(&server, &mine);
        let mut wire = writer(&client);
        let name = format!("member {member}");
        let (by, start, mut random) = (name.clone(), Arc::clone(&start), random.split());
        writers.push(thread::spawn(move || {
            start.wait();
            let some = (0..EACH).map(|n| (n, random.below(2) as usize)).collect::<Vec<_>>();
            for (n, to) in some.into_iter().chain([(LAST, 0), (LAST, 1)]) {
                let message = json!({"room": mine[to], "content": content(&by, n)});
                // Sometimes alone, and sometimes several in one write.
                wire.write(Message::text(message.to_string())).unwrap();
                if n == LAST || random.below(4) == 0 {
                    wire.flush().unwrap();
                }
            }
        }));
        // Six members and one outsider publish to each room; one's own last is not heard.
        readers.push(thread::spawn(move || (name, read_to_the_end(&mut client, 2 * 6))));
    }
    for room in &rooms {
        let (handle, room, start) = (server.handle.clone(), room.clone(), Arc::clone(&start));
        writers.push(thread::spawn(move || {
            start.wait();
            for n in (0..EACH).chain([LAST]) {
                publish_surely(&handle, &room, "outside", n);
            }
        }));
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();

    let mut published = 0;
    for room in &rooms {
        let whole = whole_room(seen.iter().filter_map(|(_, got)| got.get(room)));
        assert_eq!(whole.keys().next(), Some(&1));
        assert!(is_contiguous(whole.keys().copied()), "{room} has holes");
        let mut last: HashMap<&str, u64> = HashMap::new();
        for message in whole.values() {
            let before = last.insert(&message.by, message.n);
            assert!(before.is_none_or(|before| before < message.n), "{room}: {message:?} is late");
            published += 1;
        }
        for (member, got) in seen.iter().filter_map(|(member, got)| Some((member, got.get(room)?)))
        {
            let end = got.last().unwrap().seq;
            let others = whole.range(..=end).map(|(_, m)| m).filter(|m| m.by != *member);
            assert!(others.eq(got), "{member} in {room} got {got:?}");
        }
    }
    let expected = MEMBERS as u64 * (EACH + 2) + 3 * (EACH + 1);
    assert_eq!(published, expected, "each message once, and none lost");
}

#[test]
fn who_comes_and_goes_misses_nothing_and_gets_nothing_twice() {
    const VISITORS: u64 = 6;
    const VISITS: u64 = 25;
    let mut random = Random::seeded("who_comes_and_goes_misses_nothing_and_gets_nothing_twice");
    let server = TestServer::start(roomy());
    let done = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for publisher in 0..3 {
        let mut client = server.chat();
        let (handle, done) = (server.handle.clone(), Arc::clone(&done));
        publishers.push(thread::spawn(move || {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                // Each waits for its answer, so the room is as busy as the server can make it.
                let by = format!("publisher {publisher}");
                let command = json!({"content": content(&by, n), "ref": n}).to_string();
                assert_eq!(client.ask(&command)["type"], "ok");
                if n % 8 == 0 {
                    publish_surely(&handle, "lobby", &format!("outside {publisher}"), n);
                }
            }
        }));
    }
    let mut visitors = Vec::new();
    for _ in 0..VISITORS {
        let mut client = server.chat();
        let mut random = random.split();
        visitors.push(thread::spawn(move || {
            let (epoch, mut seen) =
                (client.welcome["epoch"].clone(), client.welcome["seq"].as_u64().unwrap());
            let mut next = |message: &Value| {
                let got = Got::from(message);
                assert_eq!(got.seq, seen + 1, "{got:?}");
                seen = got.seq;
                seen
            };
            for _ in 0..VISITS {
                let stay = random.below(30);
                let mut at = 0;
                for _ in 0..=stay {
                    at = next(&client.json());
                }
                client.send(r#"{"type":"leave","room":"lobby","ref":"leave"}"#);
                loop {
                    let frame = client.json();
                    if frame["type"] != "message" {
                        assert_eq!(frame["ref"], "leave", "{frame}");
                        break;
                    }
                    at = next(&frame);
                }
                for _ in 0..random.below(4) {
                    // Away for a few round trips, in which nothing may come.
                    client.send(r#"{"type":"ping","ref":"away"}"#);
                    assert_eq!(client.json()["ref"], "away");
                }
                let since = json!({"epoch": epoch, "seq": at});
                client.send(json!({"type": "join", "room": "lobby", "since": since}).to_string());
                let answer = client.json();
                assert_eq!(answer["recovered"], true, "{answer}");
                for message in answer["messages"].as_array().unwrap() {
                    at = next(message);
                }
                assert_eq!(answer["seq"], at);
            }
        }));
    }
    let outcomes: Vec<_> = visitors.into_iter().map(thread::JoinHandle::join).collect();
    done.store(true, Ordering::Relaxed);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
}

#[test]
fn who_connects_in_the_middle_gets_the_replay_and_then_all_that_follows() {
    const LATECOMERS: u64 = 12;
    let server = TestServer::start(Config { replay: 5, ..roomy() });
    let handle = server.handle.clone();
    let mut first = server.chat();
    let publisher = thread::spawn(move || {
        let mut refused = 0;
        for n in 0..3000 {
            refused += publish_surely(&handle, "lobby", "outside", n);
        }
        refused
    });
    let mut latecomers = Vec::new();
    for latecomer in 0..LATECOMERS {
        // Each comes when the one before has seen some more, so they come at many moments.
        let seen = first.json()["seq"].as_u64().unwrap();
        assert!(seen > latecomer);
        let mut client = server.chat();
        let position = client.welcome["seq"].as_u64().unwrap();
        latecomers.push(thread::spawn(move || {
            let mut seen = position.saturating_sub(5);
            while seen < 3000 {
                let message = client.json();
                assert_eq!(message["seq"], seen + 1);
                seen += 1;
            }
        }));
    }
    latecomers.into_iter().for_each(|latecomer| latecomer.join().unwrap());
    publisher.join().unwrap();
}

#[test]
fn what_is_refused_as_overloaded_leaves_no_trace() {
    const PUBLISHERS: u64 = 3;
    const EACH: u64 = 400;
    // So few letters fit that publishers without a pause are refused again and again.
    let server = TestServer::start(Config { mailbox: 2, ..roomy() });
    let members: Vec<Client> = (0..5).map(|_| server.chat()).collect();
    let readers: Vec<_> = members
        .into_iter()
        .map(|mut client| thread::spawn(move || read_to_the_end(&mut client, PUBLISHERS as usize)))
        .collect();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let handle = server.handle.clone();
            thread::spawn(move || {
                let by = format!("outside {publisher}");
                (0..EACH)
                    .chain([LAST])
                    .map(|n| publish_surely(&handle, "lobby", &by, n))
                    .sum::<u64>()
            })
        })
        .collect();
    let refused: u64 = publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum();
    let total = PUBLISHERS * (EACH + 1);
    for reader in readers {
        let got = reader.join().unwrap().remove("lobby").unwrap();
        assert!(is_contiguous(got.iter().map(|message| message.seq)));
        assert_eq!(got.len() as u64, total, "{refused} were refused");
        let mut last = HashMap::new();
        for message in got {
            let before = last.insert(message.by, message.n);
            assert!(before.is_none_or(|before| before < message.n));
        }
    }
}

#[test]
fn a_busy_room_with_small_mailboxes_stalls_nobody() {
    const MEMBERS: u64 = 8;
    const EACH: u64 = 150;
    // Publishers feel each other's mailboxes all the time: their sockets are held and read again.
    let server = TestServer::start(Config { mailbox: 16, max_errors: 0, ..roomy() });
    let start = Arc::new(Barrier::new(MEMBERS as usize));
    let members: Vec<_> = (0..MEMBERS)
        .map(|member| {
            let mut client = server.chat();
            let mut wire = writer(&client);
            let start = Arc::clone(&start);
            let write = thread::spawn(move || {
                start.wait();
                let by = format!("member {member}");
                for n in 0..EACH {
                    let command = json!({"content": content(&by, n), "ref": n, "echo": true});
                    wire.write(Message::text(command.to_string())).unwrap();
                }
                wire.flush().unwrap();
            });
            let read = thread::spawn(move || {
                let (mut accepted, mut refused, mut got) = (Vec::new(), 0, Vec::new());
                // Every command is answered, and what was accepted comes back as a message.
                while accepted.len() as u64 + refused < EACH
                    || !accepted.iter().all(|n| got.contains(n))
                {
                    let frame = client.json();
                    match frame["type"].as_str().unwrap() {
                        "ok" => accepted.push(frame["ref"].as_u64().unwrap()),
                        "error" => {
                            assert_eq!(frame["code"], "overloaded", "{frame}");
                            refused += 1;
                        }
                        _ if frame["content"]["by"] == format!("member {member}") => {
                            got.push(frame["content"]["n"].as_u64().unwrap());
                        }
                        _ => {}
                    }
                }
                assert_eq!(accepted, got, "in the order they were sent");
            });
            (write, read)
        })
        .collect();
    for (write, read) in members {
        write.join().unwrap();
        read.join().unwrap();
    }
}

#[test]
fn what_one_thread_sends_to_a_peer_comes_in_its_order() {
    const THREADS: u64 = 4;
    const EACH: u64 = 200;
    let (found, peers) = crossbeam_channel::unbounded::<Peer>();
    let hand_out = move |ctx: &mut Context<'_, ()>, _: Sent<'_>| {
        found.send(ctx.peer()).unwrap();
    };
    let builder = Server::builder().config(roomy()).route("/", hand_out);
    let server = TestServer::run(builder.bind().unwrap());
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect("/")).collect();
    let peers: Vec<Peer> = clients
        .iter_mut()
        .map(|client| {
            client.send("who am I");
            peers.recv_timeout(DEADLINE).unwrap()
        })
        .collect();
    let senders: Vec<_> = (0..THREADS)
        .map(|sender| {
            let peers = peers.clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    for (to, peer) in peers.iter().enumerate() {
                        let status = peer.send(&format!("{sender} {n} {to}"));
                        assert_eq!(status, SendStatus::Sent);
                    }
                }
            })
        })
        .collect();
    for (to, client) in clients.iter_mut().enumerate() {
        let mut next = [0; THREADS as usize];
        for _ in 0..THREADS * EACH {
            let message = client.next();
            let parts: Vec<usize> =
                message.to_text().unwrap().split(' ').map(|part| part.parse().unwrap()).collect();
            assert_eq!(parts[1..], [next[parts[0]], to]);
            next[parts[0]] += 1;
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}
