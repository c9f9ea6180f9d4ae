//! Several messages of one room in one turn go out together, and each member gets what it would get
//! of them one by one.

// A helper that panics fails its test with a clear message.
#![allow(clippy::unwrap_used)]

mod support;

use rusty_socks::{
    Config, Server,
    chat::Chat,
    config::{Overflow, RoomRule},
    stepped::{MemoryClient, SteppedServer},
};
use support::{frame, upgrade_head};

/// Members to which messages go in slices, and some that they go to at once.
const CROWDS: [usize; 2] = [1500, 6];

/// What may wait for one client.
const BUFFER: usize = 8;

fn server() -> SteppedServer {
    let rule =
        |pattern: &str, overflow| RoomRule { overflow: Some(overflow), ..RoomRule::new(pattern) };
    let config = Config {
        thread_pool_size: 1,
        max_conn: 2000,
        max_pending_heads: 2000,
        default_room: String::new(),
        replay: 0,
        buffer: BUFFER,
        rooms: vec![rule("gap.*", Overflow::Gap), rule("latest.*", Overflow::Latest)],
        // What a client may say is not what is tested here.
        rate_messages: 0,
        rate_bytes: 0,
        ..Config::default()
    };
    let chat = Chat::new(&config).unwrap();
    Server::builder().route("/ws", chat).config(config).stepped().unwrap()
}

/// Clients in `room`, which have read their welcome and the answer to their join.
fn members(server: &mut SteppedServer, room: &str, count: usize) -> Vec<MemoryClient> {
    let clients: Vec<MemoryClient> = (0..count)
        .map(|_| {
            let client = server.connect().unwrap();
            client.write(upgrade_head("/ws").as_bytes());
            client
        })
        .collect();
    server.settle();
    clients.iter().for_each(|client| join(client, room));
    server.settle();
    clients.iter().for_each(|client| drop(client.read()));
    clients
}

fn say(client: &MemoryClient, text: &str) {
    client.write(&frame(0x81, text.as_bytes()));
}

fn join(client: &MemoryClient, room: &str) {
    say(client, &format!(r#"{{"type":"join","room":"{room}"}}"#));
}

fn publish(client: &MemoryClient, room: &str, count: usize) {
    (0..count).for_each(|_| say(client, &format!(r#"{{"room":"{room}","content":"x"}}"#)));
}

/// The numbers of the messages that a client was sent since the last look, in their order, and the
/// ranges that it was told are missing.
fn told(client: &MemoryClient) -> Vec<(u64, u64)> {
    let text = String::from_utf8_lossy(&client.read()).into_owned();
    let number = |text: &str, name: &str| {
        let behind = text.split_once(name)?.1;
        behind.split([',', '}']).next()?.parse::<u64>().ok()
    };
    let parts = text.split(r#"{"type":""#).skip(1);
    let of_part = |part: &str| match part.split('"').next()? {
        "message" => number(part, "\"seq\":").map(|seq| (seq, seq)),
        "gap" => Some((number(part, "\"from\":")?, number(part, "\"to\":")?)),
        _ => None,
    };
    parts.filter_map(of_part).collect()
}

fn all(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
    range.map(|seq| (seq, seq)).collect()
}

#[test]
fn each_member_gets_its_part_of_a_turn_in_order() {
    for crowd in CROWDS {
        let mut server = server();
        let members = members(&mut server, "room", crowd);
        let late = self::members(&mut server, "other", 1).pop().unwrap();
        let [ann, bob, others @ ..] = &members[..] else { panic!("two publishers") };
        // Sockets are read in the order in which they became readable, and each to its end.
        publish(ann, "room", 3);
        publish(bob, "room", 2);
        join(&late, "room");
        publish(&others[0], "room", 1);
        publish(ann, "room", 2);
        server.settle();
        let got: Vec<Vec<(u64, u64)>> = members.iter().chain([&late]).map(told).collect();
        for got in &got {
            assert!(got.is_sorted(), "{crowd}: in order, each once: {got:?}");
        }
        let numbers = |index: usize| got[index].iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
        for (index, got) in got[..crowd].iter().enumerate().skip(3) {
            assert_eq!(*got, all(1..=8), "{crowd}: member {index}");
        }
        let [of_ann, of_bob, of_other] = [0, 1, 2].map(numbers);
        assert_eq!(
            (of_ann.len(), of_bob.len(), of_other.len()),
            (3, 6, 7),
            "{crowd}: none its own"
        );
        for seq in 1..=8 {
            let missing =
                [&of_ann, &of_bob, &of_other].iter().filter(|got| !got.contains(&seq)).count();
            assert_eq!(missing, 1, "{crowd}: all but the one that said {seq}");
        }
        assert_eq!(got[crowd], all(8..=8), "{crowd}: what was said after it came");
    }
}

#[test]
fn a_turn_with_more_than_fits_loses_what_does_not_fit_and_no_more() {
    for crowd in CROWDS {
        let mut server = server();
        let members = members(&mut server, "gap.a", crowd);
        let (slow, writer) = (&members[crowd - 1], &members[0]);
        slow.set_window(0);
        publish(writer, "gap.a", BUFFER + 4);
        server.settle();
        assert_eq!(told(&members[1]), all(1..=12), "{crowd}: the others get all");
        assert!(told(slow).is_empty());
        slow.set_window(usize::MAX / 2);
        server.settle();
        publish(writer, "gap.a", 2);
        server.settle();
        let expected = [all(1..=8), vec![(9, 12)], all(13..=14)].concat();
        assert_eq!(told(slow), expected, "{crowd}");
    }
}

#[test]
fn of_a_turn_the_newest_alone_waits_where_that_is_enough() {
    for crowd in CROWDS {
        let mut server = server();
        let members = members(&mut server, "latest.a", crowd);
        let (slow, writer) = (&members[crowd - 1], &members[0]);
        slow.set_window(0);
        publish(writer, "latest.a", 1);
        server.settle();
        publish(writer, "latest.a", 4);
        server.settle();
        assert_eq!(told(&members[1]), all(1..=5), "{crowd}: the others get all");
        slow.set_window(usize::MAX / 2);
        server.settle();
        assert_eq!(told(slow), [(1, 1), (2, 4), (5, 5)], "{crowd}");
    }
}

#[test]
fn a_client_that_reads_byte_by_byte_is_counted_for_what_it_has_not_read() {
    let mut server = server();
    let members = members(&mut server, "room", 6);
    let (slow, writer) = (&members[5], &members[0]);
    slow.set_window(0);
    publish(writer, "room", BUFFER);
    server.settle();
    let mut got = Vec::new();
    for seq in 1..=8_u64 {
        // One more may wait for each that was read, though they went out in one piece.
        while got.len() < seq as usize {
            slow.set_window(1);
            server.settle();
            let text = slow.read();
            if text.contains(&b'}') && text.ends_with(b"}") {
                got.push(seq);
            }
        }
        publish(writer, "room", 1);
        server.settle();
        assert!(!slow.is_ended() && server.handle().stats().slow_consumers == 0, "{seq}");
    }
}
