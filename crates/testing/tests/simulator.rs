//! A minute of the simulator. `scripts/simulate.sh` runs it for hours.

use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, SystemTime},
};

use rusty_socks::{
    Server,
    chat::Chat,
    stepped::redis::{Event, Order, ServerFacts},
};
use rusty_socks_testing::{
    cluster::{self, Cluster},
    random::Random,
    simulator::{
        Broken, Fault, Invariant, Plan, Report, Simulation, Verdict, World,
        socket::{Heard, Socket},
    },
};

fn run(seed: u64, steps: u64, clients: usize) -> Report {
    let report = Simulation::new(Plan::draw(seed, steps, clients)).run();
    assert!(report.broken.is_none(), "{report}");
    report
}

/// What must be reached, or the promises about it are not held against anything.
const REACHED: [&str; 31] = [
    "already_member",
    "broadcast",
    "close 1000",
    "close 1001",
    "close 1012",
    "close 4001",
    "close 4102",
    "close 4103",
    "close 4202",
    "close 4203",
    "closing",
    "direct",
    "forbidden",
    "gap",
    "joined",
    "left",
    "limit_exceeded",
    "matched",
    "message",
    "not_found",
    "not_member",
    "ok",
    "overloaded",
    "pong",
    "status 101",
    "status 403",
    "status 503",
    "unmatched",
    "unrecoverable",
    "welcome",
    "presence gap",
];

#[test]
fn known_seeds_keep_every_promise_and_reach_what_there_is() {
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 30..70 {
        let report = run(seed, 1500, 20);
        for (kind, count) in report.kinds {
            *heard.entry(kind).or_default() += count;
        }
    }
    let missing: Vec<_> = REACHED.iter().filter(|kind| !heard.contains_key(**kind)).collect();
    assert!(missing.is_empty(), "nobody heard {missing:?} of {heard:?}");
}

#[test]
fn a_new_seed_keeps_every_promise() {
    let seed = Random::seed();
    (0..8).for_each(|run_of| drop(run(seed.wrapping_add(run_of), 1500, 20)));
}

#[test]
fn seeds_that_found_something_keep_every_promise() {
    // A resume names rooms that the rules took its client out of, after the bound was lowered.
    run(1_795_872_562_632_199_178, 1500, 20);
    run(500_002, 1500, 20);
    // A session is away again already, and its token is revoked, before its client has read that it
    // was resumed.
    run(1_795_894_616_993_394_469, 1000, 40);
    // Its token was sent before its connection was lost, and read when it had ended.
    run(1_795_897_208_774_885_516, 1000, 8);
    // What a resume had to tell of rooms without a place was dropped where a mailbox was full.
    run(1_795_897_601_227_154_653, 1000, 40);
}

#[test]
fn a_crowd_keeps_every_promise() {
    run(1, 400, 300);
    run(2, 400, 300);
}

#[test]
fn a_seed_has_one_transcript() {
    for seed in [3, 7, 11] {
        let [one, again] = [(); 2].map(|()| run(seed, 600, 30));
        assert_eq!(
            (one.hash, one.heard, one.turns),
            (again.hash, again.heard, again.turns),
            "seed {seed}"
        );
    }
    assert_ne!(run(3, 600, 30).hash, run(7, 600, 30).hash);
}

/// A feature's fault and invariant, which see the whole world.
struct Feature(Rc<Cell<u64>>);

impl Fault for Feature {
    fn strike(&mut self, world: &mut World, _: &mut Random) -> Verdict {
        world.jump(1);
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

impl Invariant for Feature {
    fn at_rest(&mut self, world: &World) -> Verdict {
        match self.0.get() < 20 {
            true => Ok(()),
            false => Err(Broken {
                promise: "there are few faults",
                client: None,
                seen: format!("{} of them at step {}", self.0.get(), world.step),
            }),
        }
    }
}

#[test]
fn features_bring_their_own_faults_and_invariants_and_a_report_tells_what_broke() {
    let plan = Plan { fault_one_in: 3, ..Plan::draw(5, 1000, 10) };
    let count = Rc::new(Cell::new(0));
    let [fault, invariant] = [(); 2].map(|()| Feature(Rc::clone(&count)));
    let report = Simulation::new(plan).with(Box::new(fault), Box::new(invariant)).run();
    let text = report.to_string();
    assert!(text.contains("BROKEN at step"), "{text}");
    assert!(text.contains("there are few faults") && text.contains("time jumps by 1 ms"), "{text}");
}

fn run_cluster(seed: u64, steps: u64, clients: usize, shards: usize) -> Report {
    let plan = cluster::Plan::draw(seed, steps, clients).without_losses().with_shards(shards);
    let words = plan.words();
    let report = Cluster::new(plan).run();
    assert!(report.broken.is_none(), "{words}\n{report}");
    report
}

/// What must be reached in clusters.
const REACHED_IN_CLUSTERS: [&str; 10] = [
    "close 1000",
    "close 1012",
    "direct",
    "epoch",
    "gap",
    "message",
    "not_member",
    "ok",
    "overloaded",
    "welcome",
];

#[test]
fn a_cluster_keeps_every_promise_whatever_befalls_its_links() {
    let mut heard: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 1..=12 {
        let (clients, shards) = ([3, 6, 12, 30][seed as usize % 4], 1 + seed as usize % 3);
        for (kind, count) in run_cluster(seed, 1200, clients, shards).kinds {
            *heard.entry(kind).or_default() += count;
        }
    }
    let missing: Vec<_> =
        REACHED_IN_CLUSTERS.iter().filter(|kind| !heard.contains_key(**kind)).collect();
    assert!(missing.is_empty(), "nobody heard {missing:?} of {heard:?}");
}

#[test]
fn seeds_of_clusters_that_found_something_keep_every_promise() {
    // Redis had forgotten a script, so that who comes was shown behind its leaving.
    run_cluster(1_795_891_295_480_378_795, 2000, 30, 1);
    // A direct message that a node had held while it was cut off went out without a fence, because
    // its sender had gone on at another node.
    run_cluster(1_795_897_295_279_813_453, 2000, 6, 1);
    for seed in [
        // A session came back to a node by its own shard while another one was away, which knew it
        // as that node's from an earlier time.
        20_261_129_500_038,
        // A node that had not heard of a failover took a session up at the old primary, and ended
        // it in another shard when it was told so.
        20_261_129_501_343,
        // A session was taken up where it was already, and a shard that had a part of it from an
        // earlier time was not told when it ended.
        20_261_129_600_489,
    ] {
        let plan = cluster::Plan::draw(seed, 2000, 8).with_shards(3);
        let report = Cluster::new(plan).run();
        assert!(report.broken.is_none(), "{report}");
    }
    for (seed, steps, clients) in [
        // A session was written down late, behind a later one, for the same reason.
        (8_842_000_215, 800, 30),
        // A session that a failover had given back to its earlier node ended there, and with it
        // what that node knew of the client, which was in the room by another node.
        (1_795_891_331_896_367_009, 400, 6),
        // A session ended at a server that took over and still had it in a room that it had left.
        (1_795_897_208_776_130_361, 2000, 6),
        // A message to two rooms came to one while its node opened the other for a client of the
        // first, and again to the other.
        (17_959_500_363, 2000, 6),
        // A full Redis had refused to write down that a client was in a room, and had space again
        // when it was to show the client there. Then its node was killed.
        (1_795_919_362_758, 2000, 6),
        // A client joined a room that was not there, for which its node had just asked on behalf of
        // something that makes no rooms.
        (17_970_100_398, 2000, 6),
        // A session was resumed, and ended at a server that took over and had not heard of it.
        (17_970_200_105, 2000, 6),
        // A message to two rooms came to one while Redis refused to open the other, and again when
        // it did.
        (2_026_112_903_078, 2000, 8),
        // A client left a room by another node, and the node that it had been at heard of that
        // before it heard that the session had moved.
        (2_026_112_923_101, 2000, 8),
        // A failover had given a session back to its earlier node, where its client had said
        // nothing yet. When it ended there, that node no longer listed the client, which was in the
        // room by another node.
        (2_026_112_935_538, 2000, 8),
        // A node that had not heard of a failover took a session up at the old primary, wrote it
        // down at the new one, and ended it there, though its client was at another node.
        (2_026_112_953_762, 2000, 8),
    ] {
        let report = Cluster::new(cluster::Plan::draw(seed, steps, clients)).run();
        assert!(report.broken.is_none(), "{report}");
    }
}

#[test]
fn a_seed_of_a_cluster_has_one_transcript() {
    let [one, again] = [(); 2].map(|()| run_cluster(3, 400, 12, 2));
    assert_eq!((one.hash, one.heard, one.turns), (again.hash, again.heard, again.turns));
}

#[test]
fn no_question_waits_for_ever_for_links_that_are_lost_before_they_answer() {
    let config = cluster::Plan::draw(1, 1, 1).config;
    let chat = Chat::new(&config).expect("a legal default room");
    let builder = Server::builder().route("/ws", chat).config(config);
    let mut server = builder.stepped_at(SystemTime::UNIX_EPOCH).expect("a legal plan");
    let mut socket = Socket::new(server.connect().expect("there is space"));
    socket.upgrade(None, None);
    socket.flush(usize::MAX);
    let (mut events, mut waited_ms, mut refused) = (Vec::new(), 0, 0);
    for turn in 0..2000 {
        (0..server.workers()).for_each(|worker| _ = server.turn_of(worker));
        // The first is about the default room.
        let error =
            |heard: &Heard| matches!(heard, Heard::Text(text) if text.contains("overloaded"));
        if socket.read().iter().any(error) {
            refused += 1;
            waited_ms = 0;
            if refused == 2 {
                return;
            }
            let to = "00000000-0000-4000-8000-000000000001";
            let direct = format!(r#"{{"type":"direct","to":"{to}","content":1,"ref":1}}"#);
            socket.send(&direct);
            socket.flush(usize::MAX);
        }
        for (shard, order) in server.turn_of_engine(std::mem::take(&mut events)) {
            if let Order::Subscribe(channels) = order {
                events.extend(channels.into_iter().map(|one| (shard, Event::Subscribed(one))));
            }
        }
        // It is up for a second, and down for a moment.
        match turn % 20 {
            0 => {
                let facts = ServerFacts {
                    run_id: "run".to_owned(),
                    version: "7.0".to_owned(),
                    address: "memory".to_owned(),
                    now_ms: 0,
                };
                events.push((0, Event::Up(facts)));
            }
            19 => events.push((0, Event::Down("it is cut".to_owned()))),
            _ => {}
        }
        server.advance(Duration::from_millis(50));
        waited_ms += 50;
        assert!(waited_ms < 15_000, "{refused} questions were answered");
    }
}
