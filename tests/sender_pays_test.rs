//! Where readers cannot keep up with one sender, the sender is slowed down or refused, and the
//! readers that read steadily stay.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rusty_socks::{
    Config, Server,
    chat::Chat,
    config::{Overflow, RoomRule},
    stepped::{MemoryClient, SteppedServer},
};
use support::{frame, upgrade_head};

/// Time between two looks at everything, by the server's clock.
const STEP_MS: u64 = 10;

/// How long each flood goes on: two seconds and a half.
const STEPS: usize = 250;

/// What a reader of a slow network takes in a step: 1 MB a second.
const SLOW_BYTES: usize = 10_000;

/// What it has read of a flood at the least.
const GOT_BYTES_MIN: usize = STEPS * SLOW_BYTES / 2;

/// Input that a flooder has ready at any time.
const AHEAD_BYTES: usize = 128 << 10;

fn server(config: Config) -> SteppedServer {
    server_of(2, config)
}

fn server_of(workers: usize, config: Config) -> SteppedServer {
    let config = Config {
        thread_pool_size: workers,
        replay: 0,
        // What a sender may say is not what is tested here.
        rate_messages: 0,
        rate_bytes: 0,
        ..config
    };
    let chat = Chat::new(&config).unwrap();
    Server::builder().route("/ws", chat).config(config).stepped().unwrap()
}

/// A client, what it was sent so far, and how fast it reads.
struct Client {
    end: MemoryClient,
    got: Vec<u8>,
    bytes_per_step: Option<usize>,
}

impl Client {
    fn new(server: &mut SteppedServer) -> Client {
        let end = server.connect().unwrap();
        end.write(upgrade_head("/ws").as_bytes());
        server.settle();
        Client { end, got: Vec::new(), bytes_per_step: None }
    }

    /// Reads so much in each step from now on.
    fn slowly(server: &mut SteppedServer, bytes_per_step: usize) -> Client {
        let client = Client::new(server);
        client.end.set_window(0);
        Client { bytes_per_step: Some(bytes_per_step), ..client }
    }

    fn id(&mut self) -> String {
        self.read();
        let text = String::from_utf8_lossy(&self.got).into_owned();
        text.split("\"client_id\":\"").nth(1).unwrap()[..36].to_owned()
    }

    fn say(&self, text: &str) {
        self.end.write(&frame(0x81, text.as_bytes()));
    }

    /// Says the same again and again, as fast as the server reads it.
    fn flood(&self, message: &[u8]) {
        while self.end.unread() < AHEAD_BYTES {
            self.end.write(message);
        }
    }

    fn read(&mut self) {
        self.got.extend(self.end.read());
        if let Some(bytes) = self.bytes_per_step {
            self.end.set_window(bytes);
        }
    }

    fn count(&self, what: &str) -> usize {
        self.got.windows(what.len()).filter(|part| *part == what.as_bytes()).count()
    }

    fn is_closed_as_slow(&self) -> bool {
        // 4102 is 0x1006.
        self.got.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == [0x10, 0x06])
    }
}

/// One step of everything.
fn pass(server: &mut SteppedServer, clients: &mut [&mut Client]) {
    for _ in 0..3 {
        server.turn();
    }
    clients.iter_mut().for_each(|client| client.read());
    server.advance(Duration::from_millis(STEP_MS));
}

fn publish(content_bytes: usize) -> Vec<u8> {
    frame(0x81, format!(r#"{{"content":"{}"}}"#, "x".repeat(content_bytes)).as_bytes())
}

#[test]
fn a_flood_of_large_messages_waits_for_those_who_read_steadily() {
    let mut server = server(Config::default());
    let mut slow: Vec<Client> = (0..4).map(|_| Client::slowly(&mut server, SLOW_BYTES)).collect();
    let (mut flooder, mut other) = (Client::new(&mut server), Client::new(&mut server));
    let message = publish(60 << 10);
    for _ in 0..STEPS {
        flooder.flood(&message);
        other.flood(&message);
        let mut all: Vec<&mut Client> = slow.iter_mut().collect();
        all.extend([&mut flooder, &mut other]);
        pass(&mut server, &mut all);
    }
    for reader in &slow {
        assert!(!reader.is_closed_as_slow() && !reader.end.is_ended());
        let got = reader.got.len();
        assert!(got > GOT_BYTES_MIN, "it got what it could read: {got}");
    }
    let stats = server.handle().stats();
    assert!(stats.sender_holds > 0 && stats.publish_pauses > 0);
    assert_eq!((stats.slow_consumers, stats.dropped), (0, 0));
}

#[test]
fn a_flood_of_small_messages_waits_for_those_who_read_steadily() {
    let mut server = server(Config::default());
    let mut slow = Client::slowly(&mut server, SLOW_BYTES);
    let mut flooders: Vec<Client> = (0..4).map(|_| Client::new(&mut server)).collect();
    let message = publish(10);
    for _ in 0..STEPS {
        flooders.iter().for_each(|flooder| flooder.flood(&message));
        let mut all: Vec<&mut Client> = flooders.iter_mut().collect();
        all.push(&mut slow);
        pass(&mut server, &mut all);
    }
    assert!(!slow.is_closed_as_slow() && slow.got.len() > GOT_BYTES_MIN);
}

#[test]
fn who_does_not_read_is_closed_and_stops_nobody() {
    let mut server = server(Config::default());
    let mut deaf: Vec<Client> = (0..4).map(|_| Client::slowly(&mut server, 0)).collect();
    let (mut flooder, mut reader) = (Client::new(&mut server), Client::new(&mut server));
    let message = publish(60 << 10);
    let mut stood_still = 0;
    for _ in 0..STEPS {
        flooder.flood(&message);
        let before = reader.got.len();
        let mut all: Vec<&mut Client> = deaf.iter_mut().collect();
        all.extend([&mut flooder, &mut reader]);
        pass(&mut server, &mut all);
        stood_still += usize::from(reader.got.len() == before);
    }
    assert_eq!(server.handle().stats().slow_consumers, 4);
    for client in &mut deaf {
        client.end.set_window(usize::MAX);
    }
    server.settle();
    for client in &mut deaf {
        client.read();
        assert!(client.is_closed_as_slow());
    }
    assert!(stood_still < 150, "held for a second at most: {stood_still} steps");
}

#[test]
fn a_flood_of_direct_messages_is_refused_before_it_closes_a_reader() {
    let mut server = server(Config { max_errors: 0, ..Config::default() });
    let mut victim = Client::new(&mut server);
    let id = victim.id();
    victim.bytes_per_step = Some(SLOW_BYTES);
    victim.end.set_window(0);
    let mut strangers: Vec<Client> = (0..12).map(|_| Client::new(&mut server)).collect();
    let mut friend = Client::new(&mut server);
    let direct =
        |content: &str| format!(r#"{{"type":"direct","to":"{id}","content":"{content}","ref":1}}"#);
    let message = frame(0x81, direct(&"x".repeat(900)).as_bytes());
    let (mut answered, mut asked) = (0, 0);
    for step in 0..STEPS {
        strangers.iter().for_each(|stranger| stranger.flood(&message));
        if step % 10 == 0 {
            friend.say(&direct("hello"));
            asked += 1;
        }
        let mut all: Vec<&mut Client> = strangers.iter_mut().collect();
        all.extend([&mut victim, &mut friend]);
        pass(&mut server, &mut all);
        answered = friend.count(r#""type":"ok""#) + friend.count(r#""code":"overloaded""#);
    }
    assert!(!victim.is_closed_as_slow() && !victim.end.is_ended());
    assert!(victim.got.len() > GOT_BYTES_MIN, "{}", victim.got.len());
    assert_eq!(answered, asked, "an honest sender is answered at once, and never held");
    let stats = server.handle().stats();
    assert_eq!((stats.slow_consumers, stats.dropped), (0, 0));
    assert!(stats.sender_holds > 0);
    let refused: usize = strangers.iter().map(|of| of.count(r#""code":"overloaded""#)).sum();
    let by_friend = friend.count(r#""code":"overloaded""#);
    assert_eq!(stats.directs_refused as usize, refused + by_friend, "each refusal is told");
}

#[test]
fn a_flood_of_direct_messages_closes_who_does_not_read() {
    let mut server = server(Config { max_errors: 0, ..Config::default() });
    let mut victim = Client::new(&mut server);
    let id = victim.id();
    victim.bytes_per_step = Some(0);
    victim.end.set_window(0);
    let mut stranger = Client::new(&mut server);
    let text = format!(r#"{{"type":"direct","to":"{id}","content":"{}"}}"#, "x".repeat(900));
    for _ in 0..STEPS {
        stranger.flood(&frame(0x81, text.as_bytes()));
        pass(&mut server, &mut [&mut victim, &mut stranger]);
    }
    assert_eq!(server.handle().stats().slow_consumers, 1);
}

#[test]
fn who_says_little_is_not_held_for_the_flood_of_another() {
    let mut server = server(Config::default());
    let mut slow = Client::slowly(&mut server, SLOW_BYTES);
    let (mut flooder, mut quiet) = (Client::new(&mut server), Client::new(&mut server));
    let message = publish(1000);
    let (mut late, mut said) = (0, 0);
    for step in 0..STEPS {
        flooder.flood(&message);
        if step % 10 == 0 {
            quiet.say(r#"{"content":"a word"}"#);
            said += 1;
        }
        pass(&mut server, &mut [&mut slow, &mut flooder, &mut quiet]);
        late += usize::from(quiet.end.unread() > 0);
    }
    assert!(server.handle().stats().sender_holds > 0, "the flooder is held");
    assert_eq!((said, late), (25, 0), "the other one is read at once");
    assert!(!slow.is_closed_as_slow());
}

#[test]
fn clients_that_hold_a_sender_in_turns_leave_it_half_of_its_time() {
    const ROUNDS: usize = 5;
    // A hold of a second, and the time in which it comes about.
    const ROUND_STEPS: usize = 110;
    let mut server = server(Config::default());
    let (mut flooder, mut reader) = (Client::new(&mut server), Client::new(&mut server));
    let message = publish(60 << 10);
    let mut stood_still = 0;
    for round in 0..ROUNDS {
        // Stops reading until it is given up, and is gone then; the next one takes its place.
        let mut holder = Client::slowly(&mut server, 0);
        for _ in 0..ROUND_STEPS {
            flooder.flood(&message);
            let before = reader.got.len();
            pass(&mut server, &mut [&mut flooder, &mut reader, &mut holder]);
            stood_still += usize::from(reader.got.len() == before);
        }
        assert!(round > 0 || stood_still > 50, "the first one holds it: {stood_still} steps");
    }
    let all = ROUNDS * ROUND_STEPS;
    assert!(2 * stood_still <= all + ROUND_STEPS, "{stood_still} of {all} steps");
}

#[test]
fn a_client_that_reads_steadily_is_kept_while_another_one_makes_the_sender_immune() {
    let mut server = server(Config::default());
    let mut slow = Client::slowly(&mut server, SLOW_BYTES);
    let mut flooder = Client::new(&mut server);
    let message = publish(60 << 10);
    let mut deaf = None;
    for step in 0..3 * STEPS {
        if step == STEPS {
            // The slow one has shown by now that it reads steadily.
            deaf = Some(Client::slowly(&mut server, 0));
        }
        flooder.flood(&message);
        let mut all = vec![&mut flooder, &mut slow];
        all.extend(&mut deaf);
        pass(&mut server, &mut all);
    }
    assert_eq!(server.handle().stats().slow_consumers, 1, "the one that does not read");
    assert!(!slow.is_closed_as_slow() && slow.got.len() > GOT_BYTES_MIN);
}

#[test]
fn a_message_of_several_rooms_that_leave_messages_out_holds_nobody() {
    // In two rooms, and on two workers: more than one slice has.
    const MEMBERS: usize = 1200;
    let gap = RoomRule { overflow: Some(Overflow::Gap), ..RoomRule::new("gap.*") };
    let mut server = server(Config {
        rooms: vec![gap],
        default_room: String::new(),
        max_conn: MEMBERS,
        ..Config::default()
    });
    let mut members: Vec<Client> = (0..MEMBERS).map(|_| Client::new(&mut server)).collect();
    for member in &mut members {
        member.say(r#"{"type":"join","room":"gap.a"}"#);
        member.say(r#"{"type":"join","room":"gap.b"}"#);
        server.settle();
    }
    let (flooder, slow) = (0, MEMBERS - 1);
    members[slow].end.set_window(0);
    let content = "x".repeat(60 << 10);
    let message = frame(
        0x81,
        format!(r#"{{"type":"publish","rooms":["gap.a","gap.b"],"content":"{content}"}}"#)
            .as_bytes(),
    );
    let published = server.handle().stats().deliveries;
    for _ in 0..20 {
        members[flooder].end.write(&message);
        server.settle();
        members.iter_mut().for_each(|member| drop(member.end.read()));
    }
    let stats = server.handle().stats();
    assert!(stats.deliveries > published + 10 * MEMBERS as u64 && stats.missed > 0);
    assert_eq!(stats.sender_holds, 0, "a client of these rooms misses messages instead");
}

/// Two connections of one session want to wait for its deliveries when the first does not know yet
/// that it was taken over. The other one is read on all the same.
#[test]
fn who_took_a_session_over_is_read_again_whatever_the_earlier_connection_asks() {
    let config = Config { max_message_bytes: 1 << 20, ..Config::default() };
    let mut server = server_of(3, Config { buffer_bytes: 4 << 20, ..config });
    let [mut earlier, later, mut reader] = [(); 3].map(|()| Client::new(&mut server));
    for client in [&earlier, &reader] {
        client.say(r#"{"type":"join","room":"r"}"#);
    }
    server.settle();
    earlier.read();
    let welcome = String::from_utf8_lossy(&earlier.got).into_owned();
    let session = welcome.split("\"session\":\"").nth(1).unwrap().split('"').next().unwrap();
    while (0..3).any(|worker| server.turn_of(worker)) {}
    // One message is always taken, and this one is more than may be on its way.
    later.say(&format!(r#"{{"type":"resume","session":"{session}"}}"#));
    later.say(&format!(r#"{{"type":"publish","content":"{}","room":"r"}}"#, "x".repeat(300_000)));
    later.say(r#"{"type":"ping","ref":"after"}"#);
    while server.handle().stats().publish_pauses == 0 {
        assert!(server.turn_of(1), "all of it was read");
    }
    // It is read before the letter that closes it.
    earlier.say(r#"{"type":"join","room":"other"}"#);
    assert!(server.turn_of(0));
    assert_eq!(server.handle().stats().publish_pauses, 2);
    server.settle();
    let mut later = later;
    later.read();
    assert_eq!(later.count(r#""ref":"after""#), 1);
    reader.read();
    assert!(reader.got.len() > 300_000);
}
