//! Tests of the order across rooms.

use std::collections::VecDeque;

use super::{room::HELD_MAX, *};

fn item(places: &[(&str, u64)], payload: Option<u64>) -> Item<u64> {
    let places = places.iter().map(|(room, seq)| (String::from(*room), *seq)).collect();
    let id = payload.unwrap_or(0);
    Item { places, id, payload }
}

fn live(seq: u64) -> Item<u64> {
    item(&[("a", seq)], Some(seq))
}

fn steps(reorderer: &mut Reorderer<u64>) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    reorderer.pump(&mut steps);
    steps
}

fn lost(room: &str, range: Option<(u64, u64)>) -> Step<u64> {
    Step::Lost { room: room.into(), range }
}

fn fetch(after: u64) -> Step<u64> {
    fetch_in("e", after)
}

fn fetch_in(epoch: &str, after: u64) -> Step<u64> {
    Step::Fetch { room: "a".into(), epoch: epoch.into(), after }
}

fn at(seq: u64) -> Reorderer<u64> {
    let mut reorderer = Reorderer::default();
    reorderer.enter("a", "e", seq, false);
    reorderer
}

#[test]
fn what_was_seen_is_dropped_and_holes_are_ones_own() {
    let mut reorderer = at(3);
    for seq in [3, 4, 4, 7, 5] {
        reorderer.arrive(live(seq));
    }
    assert_eq!(steps(&mut reorderer), [Step::Yield(4), Step::Yield(7)]);
    assert_eq!(reorderer.position("a"), Some(("e", 7)));
}

#[test]
fn an_answer_that_overtakes_messages_hides_none_of_them() {
    let mut reorderer = at(0);
    reorderer.own("a", 3);
    assert_eq!(reorderer.position("a"), Some(("e", 0)), "1 and 2 may still come");
    reorderer.arrive(live(1));
    reorderer.arrive(live(2));
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
    assert_eq!(reorderer.position("a"), Some(("e", 3)));
    reorderer.arrive(item(&[("a", 3)], None));
    reorderer.arrive(live(4));
    assert_eq!(steps(&mut reorderer), [Step::Yield(4)]);
}

#[test]
fn a_gap_is_fetched_while_live_messages_wait() {
    let mut reorderer = at(1);
    reorderer.gap("a", 2, 5);
    reorderer.arrive(live(6));
    assert_eq!(steps(&mut reorderer), [fetch(1)]);
    reorderer.arrive(live(7));
    assert_eq!(steps(&mut reorderer), []);
    // 2 is no longer kept, and 3 is one's own.
    reorderer.page("a", "e", 7, vec![item(&[("a", 3)], None), live(4)]);
    assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 2))), Step::Yield(4), fetch(4)]);
    reorderer.page("a", "e", 7, vec![live(5), live(6), live(7)]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(5), Step::Yield(6), Step::Yield(7)]);
}

#[test]
fn what_cannot_be_fetched_is_lost_and_told() {
    let mut reorderer = at(1);
    reorderer.gap("a", 2, 5);
    assert_eq!(steps(&mut reorderer), [fetch(1)]);
    reorderer.page_failed("a");
    reorderer.arrive(live(6));
    assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 5))), Step::Yield(6)]);
    reorderer.gap("a", 7, 9);
    assert_eq!(steps(&mut reorderer), [fetch(6)]);
    reorderer.page("a", "e", 12, vec![live(10)]);
    assert_eq!(steps(&mut reorderer), [lost("a", Some((7, 9)))], "10 will come by itself");
}

#[test]
fn another_epoch_loses_the_unknown() {
    let mut reorderer = at(5);
    reorderer.replay("a", "f", 2, false, None);
    reorderer.arrive(live(3));
    assert_eq!(steps(&mut reorderer), [lost("a", None), Step::Yield(3)]);
    assert_eq!(reorderer.position("a"), Some(("f", 3)));
}

#[test]
fn a_new_epoch_replaces_the_position() {
    // At the position: nothing is lost.
    let mut reorderer = at(4);
    reorderer.begin_epoch("a", "f", 4);
    reorderer.begin_epoch("nowhere", "f", 4);
    reorderer.arrive(live(5));
    assert_eq!(steps(&mut reorderer), [Step::Yield(5)]);
    // Below it: numbers are given again, one's own too.
    reorderer.own("a", 7);
    reorderer.begin_epoch("a", "g", 3);
    assert_eq!(reorderer.position("a"), Some(("g", 3)));
    let again = |seq| item(&[("a", seq)], Some(seq + 100));
    for seq in 4..=7 {
        reorderer.arrive(again(seq));
    }
    let yields = (104..=107).map(Step::Yield);
    let expected: Vec<_> = [lost("a", None)].into_iter().chain(yields).collect();
    assert_eq!(steps(&mut reorderer), expected);
    // Above it: a gap.
    reorderer.begin_epoch("a", "h", 9);
    reorderer.arrive(again(10));
    assert_eq!(steps(&mut reorderer), [fetch_in("h", 7)]);
    reorderer.page("a", "h", 10, vec![again(9), again(10)]);
    let expected = [lost("a", Some((8, 8))), Step::Yield(109), Step::Yield(110)];
    assert_eq!(steps(&mut reorderer), expected);
}

#[test]
fn a_new_epoch_drops_what_waits_above_it_and_the_page_under_way() {
    let mut reorderer = at(0);
    reorderer.gap("a", 1, 2);
    for seq in 3..=5 {
        reorderer.arrive(live(seq));
    }
    assert_eq!(steps(&mut reorderer), [fetch(0)]);
    reorderer.begin_epoch("a", "f", 3);
    assert!(!reorderer.expects_page("a", "e") && reorderer.expects_page("a", "f"));
    reorderer.arrive(item(&[("a", 4)], Some(104)));
    assert_eq!(steps(&mut reorderer), [lost("a", None), fetch_in("f", 0)]);
    reorderer.page("a", "f", 4, vec![live(1), live(2), live(3)]);
    assert_eq!(steps(&mut reorderer), [1, 2, 3, 104].map(Step::Yield));
}

#[test]
fn what_another_room_still_has_does_not_count_in_a_new_epoch() {
    let mut reorderer = at(0);
    reorderer.enter("b", "e", 0, false);
    reorderer.gap("b", 1, 1);
    reorderer.arrive(item(&[("a", 3), ("b", 2)], Some(32)));
    let mut ignored = Vec::new();
    reorderer.pump(&mut ignored);
    reorderer.begin_epoch("a", "f", 0);
    reorderer.page_failed("b");
    (1..=3).for_each(|seq| reorderer.arrive(live(seq)));
    let told = steps(&mut reorderer);
    for one in [32, 1, 2, 3] {
        assert!(told.contains(&Step::Yield(one)), "{one} of {told:?}");
    }
    assert_eq!(reorderer.position("a"), Some(("f", 3)));
}

#[test]
fn a_resume_that_has_everything_costs_nothing_in_a_new_epoch() {
    let mut reorderer = at(2);
    reorderer.own("a", 4);
    reorderer.suspend();
    reorderer.replay("a", "f", 3, false, Some(vec![live(3)]));
    reorderer.arrive(live(4));
    assert_eq!(steps(&mut reorderer), [Step::Yield(3), Step::Yield(4)]);
    assert_eq!(reorderer.position("a"), Some(("f", 4)));
}

#[test]
fn where_only_the_latest_counts_nothing_is_fetched() {
    let mut reorderer = Reorderer::default();
    reorderer.enter("a", "e", 1, true);
    reorderer.gap("a", 2, 5);
    reorderer.arrive(live(6));
    assert_eq!(steps(&mut reorderer), [lost("a", Some((2, 5))), Step::Yield(6)]);
}

#[test]
fn a_newcomer_is_greeted_with_older_messages_once() {
    let mut reorderer = Reorderer::default();
    reorderer.greet("a", "e", 5);
    for seq in [4, 5, 5, 6, 4] {
        reorderer.arrive(live(seq));
    }
    assert_eq!(steps(&mut reorderer), [Step::Yield(4), Step::Yield(5), Step::Yield(6)]);
}

#[test]
fn a_message_of_two_rooms_waits_for_its_turn_in_both() {
    let mut reorderer = at(0);
    reorderer.enter("b", "e", 0, false);
    let both = || item(&[("a", 2), ("b", 1)], Some(21));
    let of_b = |seq, payload| item(&[("b", seq)], Some(payload));
    reorderer.replay("a", "e", 2, false, Some(vec![live(1), both()]));
    reorderer.replay("b", "e", 2, false, Some(vec![both(), of_b(2, 22)]));
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(21), Step::Yield(22)]);
    // Live, while one of the rooms is being fetched.
    reorderer.gap("a", 3, 3);
    reorderer.arrive(item(&[("a", 4), ("b", 3)], Some(43)));
    reorderer.arrive(of_b(4, 44));
    assert_eq!(steps(&mut reorderer), [fetch(2)]);
    reorderer.page("a", "e", 4, vec![live(3)]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(3), Step::Yield(43), Step::Yield(44)]);
}

#[test]
fn a_room_that_is_left_takes_with_it_what_waited_there_alone() {
    let mut reorderer = at(0);
    reorderer.enter("b", "e", 0, false);
    reorderer.gap("a", 1, 1);
    reorderer.gap("b", 1, 1);
    assert_eq!(steps(&mut reorderer).len(), 2, "both are being fetched");
    reorderer.arrive(live(2));
    reorderer.arrive(item(&[("a", 3), ("b", 2)], Some(32)));
    reorderer.forget("a");
    // The room began anew meanwhile, and its numbers with it.
    reorderer.enter("a", "f", 0, false);
    reorderer.page("b", "e", 2, vec![item(&[("b", 1)], None)]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(32)]);
    for seq in 1..=3 {
        reorderer.arrive(live(seq));
    }
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2), Step::Yield(3)]);
}

/// After the loss of a session each room is joined by itself.
#[test]
fn a_message_of_two_rooms_waits_for_the_room_that_one_comes_back_to_later() {
    for comes_back in [true, false] {
        let mut reorderer = at(0);
        reorderer.enter("b", "e", 0, false);
        reorderer.suspend();
        let both = || item(&[("a", 1), ("b", 3)], Some(13));
        let of_b = |seq| item(&[("b", seq)], Some(seq));
        reorderer.replay("a", "e", 1, false, Some(vec![both()]));
        assert_eq!(steps(&mut reorderer), []);
        if comes_back {
            reorderer.replay("b", "e", 3, false, Some(vec![of_b(1), of_b(2), both()]));
            assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2), Step::Yield(13)]);
            continue;
        }
        reorderer.give_up_waiting();
        assert_eq!(steps(&mut reorderer), [Step::Yield(13)]);
        assert_eq!(reorderer.position("b"), Some(("e", 0)), "1 and 2 are not seen");
    }
}

/// A page is answered at once, and a live message takes its time.
#[test]
fn a_message_that_a_page_of_another_room_brings_first_comes_once() {
    let mut reorderer = at(0);
    reorderer.enter("b", "e", 1, false);
    reorderer.gap("a", 1, 1);
    assert_eq!(steps(&mut reorderer), [fetch(0)]);
    let both = || item(&[("a", 1), ("b", 2)], Some(12));
    reorderer.page("a", "e", 1, vec![both()]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(12)]);
    reorderer.arrive(both());
    reorderer.arrive(item(&[("b", 3)], Some(3)));
    assert_eq!(steps(&mut reorderer), [Step::Yield(3)]);
}

#[test]
fn a_message_of_an_earlier_life_of_a_room_hides_none_of_the_later_one() {
    let mut reorderer = at(0);
    reorderer.enter("b", "later", 0, false);
    reorderer.gap("a", 1, 1);
    assert_eq!(steps(&mut reorderer), [fetch(0)]);
    reorderer.page("a", "e", 1, vec![item(&[("a", 1), ("b", 2)], Some(12))]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(12)]);
    reorderer.arrive(item(&[("b", 1)], Some(1)));
    reorderer.arrive(item(&[("b", 2)], Some(2)));
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
}

#[test]
fn a_loss_in_a_room_that_is_left_is_not_told() {
    let mut reorderer = at(5);
    reorderer.replay("a", "f", 2, false, None);
    reorderer.forget("a");
    assert_eq!(steps(&mut reorderer), []);
}

#[test]
fn a_server_that_tells_of_gaps_without_end_is_held_to_the_bound() {
    let mut reorderer = at(0);
    reorderer.gap("a", 1, 1);
    assert_eq!(steps(&mut reorderer), [fetch(0)]);
    let last = 4 * HELD_MAX as u64;
    for seq in (4..=last).step_by(2) {
        match seq < last / 2 {
            true => reorderer.gap("a", seq, seq),
            false => reorderer.replay("a", "e", seq, false, None),
        }
        assert!(reorderer.rooms["a"].held.len() <= HELD_MAX);
    }
    reorderer.page("a", "e", 1, vec![live(1)]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), fetch(1)]);
    let mut told = Vec::new();
    while reorderer.rooms["a"].gap_fill.is_some() {
        reorderer.page_failed("a");
        told.extend(steps(&mut reorderer));
    }
    assert!(matches!(told.pop(), Some(Step::Lost { range: Some((_, to)), .. }) if to == last));
    assert_eq!(reorderer.position("a"), Some(("e", last)));
}

#[test]
fn a_greeting_is_over_when_something_newer_is_told() {
    let mut reorderer = Reorderer::default();
    reorderer.greet("a", "e", 5);
    reorderer.gap("a", 6, 6);
    reorderer.arrive(live(5));
    assert_eq!(steps(&mut reorderer), [fetch(5)], "nothing old waits behind the new");
}

#[test]
fn pages_that_bring_nothing_new_end_the_search() {
    for page in [vec![], vec![live(1), live(2)], vec![live(1000)]] {
        let mut reorderer = at(2);
        reorderer.gap("a", 0, 9);
        assert_eq!(steps(&mut reorderer), [fetch(2)]);
        reorderer.page("a", "e", 9, page);
        assert_eq!(steps(&mut reorderer), [lost("a", Some((3, 9)))]);
    }
}

#[test]
fn messages_that_wait_for_each_other_do_not_wait_for_ever() {
    let mut reorderer = at(0);
    reorderer.enter("b", "e", 0, false);
    let (one, two) = ([("a", 1), ("b", 2)], [("a", 2), ("b", 1)]);
    let of = |places: &[(&str, u64)], payload| item(places, Some(payload));
    reorderer.replay("a", "e", 2, false, Some(vec![of(&one, 1), of(&two, 2)]));
    reorderer.replay("b", "e", 2, false, Some(vec![of(&two, 2), of(&one, 1)]));
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), Step::Yield(2)]);
}

#[test]
fn what_does_not_fit_is_fetched_too() {
    let mut reorderer = at(0);
    reorderer.gap("a", 1, 1);
    assert_eq!(steps(&mut reorderer), [fetch(0)]);
    let end = HELD_MAX as u64 + 2;
    for seq in 2..=end {
        reorderer.arrive(live(seq));
    }
    reorderer.page("a", "e", end, vec![live(1)]);
    assert_eq!(steps(&mut reorderer), [Step::Yield(1), fetch(1)]);
}

/// A server of three rooms that loses, forgets and disconnects, and a client that must account
/// for each message: yielded once and in order, or told to be lost.
#[test]
fn any_course_of_events_accounts_for_every_message_once() {
    for round in 0..400 {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 ^ round;
        println!("seed {seed}");
        play(seed);
    }
}

/// The places of a message, and what is yielded of it.
type Published = (Vec<(String, u64)>, Option<u64>);

struct World {
    random: u64,
    /// Per room: places and payload of every message, and how many of the oldest are
    /// forgotten.
    rooms: [Vec<Published>; 3],
    kept_from: [u64; 3],
    payloads: u64,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn publish(&mut self) -> Published {
        let mask = match self.below(4) {
            0 => 1 + self.below(7),
            _ => 1 << self.below(3),
        };
        let is_own = self.below(4) == 0;
        self.payloads += 1;
        let payload = (!is_own).then_some(self.payloads);
        let in_it: Vec<usize> = (0..3).filter(|room| mask & (1 << room) != 0).collect();
        let place = |&room: &usize| (NAMES[room].to_owned(), self.rooms[room].len() as u64 + 1);
        let places: Vec<_> = in_it.iter().map(place).collect();
        for room in in_it {
            self.rooms[room].push((places.clone(), payload));
        }
        (places, payload)
    }

    fn kept(&self, room: usize, after: u64, max: usize) -> Vec<Item<u64>> {
        let from = after.max(self.kept_from[room]) as usize;
        let all = self.rooms[room].iter().skip(from).take(max);
        let item = |(places, payload): &Published| Item {
            places: places.clone(),
            id: payload.unwrap_or(0),
            payload: *payload,
        };
        all.map(item).collect()
    }
}

fn play(seed: u64) {
    let rooms = [const { Vec::new() }; 3];
    let mut world = World { random: seed | 1, rooms, kept_from: [0; 3], payloads: 0 };
    let mut reorderer = Reorderer::default();
    for name in NAMES {
        reorderer.enter(name, "e", 0, false);
    }
    let mut asked: VecDeque<(String, u64)> = VecDeque::new();
    let mut late_own: Vec<(String, u64)> = Vec::new();
    let mut yielded = Vec::new();
    let mut lost: BTreeSet<(String, u64)> = BTreeSet::new();
    for step in 0..120 {
        let is_last = step >= 100;
        match world.below(if is_last { 1 } else { 12 }) {
            // A page comes.
            0 | 1 => {
                if let Some((room, after)) = asked.pop_front() {
                    let index = NAMES.iter().position(|name| *name == room).unwrap();
                    match world.below(10) {
                        0 if !is_last => reorderer.page_failed(&room),
                        _ => {
                            let seq = world.rooms[index].len() as u64;
                            let max = 1 + world.below(4) as usize;
                            reorderer.page(&room, "e", seq, world.kept(index, after, max));
                        }
                    }
                }
            }
            // The connection goes, and comes back.
            2 => {
                reorderer.suspend();
                asked.clear();
                late_own.clear();
                for (index, name) in NAMES.iter().enumerate() {
                    let (_, seq) = reorderer.position(name).unwrap();
                    let newest = world.rooms[index].len() as u64;
                    let is_whole = seq >= world.kept_from[index] && world.below(3) > 0;
                    let missed = is_whole.then(|| world.kept(index, seq, usize::MAX));
                    reorderer.replay(name, "e", newest, false, missed);
                }
            }
            // A message is not delivered, in any of its rooms.
            3 => {
                let (places, payload) = world.publish();
                match payload {
                    Some(_) => {
                        for (room, seq) in &places {
                            reorderer.gap(room, *seq, *seq);
                        }
                    }
                    None => late_own.extend(places),
                }
            }
            // The server forgets.
            4 => {
                let room = world.below(3) as usize;
                let newest = world.rooms[room].len() as u64;
                world.kept_from[room] =
                    newest.saturating_sub(world.below(4)).max(world.kept_from[room]);
            }
            // The answer to an own publish comes at last.
            5 => late_own.drain(..).for_each(|(room, seq)| reorderer.own(&room, seq)),
            _ => {
                let (places, payload) = world.publish();
                match payload {
                    Some(_) => {
                        reorderer.arrive(Item { places, id: payload.unwrap_or(0), payload });
                    }
                    None if world.below(2) == 0 => late_own.extend(places),
                    None => places.iter().for_each(|(room, seq)| reorderer.own(room, *seq)),
                }
            }
        }
        let mut steps = Vec::new();
        reorderer.pump(&mut steps);
        for step in steps {
            match step {
                Step::Yield(payload) => yielded.push(payload),
                Step::Fetch { room, after, .. } => asked.push_back((room, after)),
                Step::Lost { room, range: Some((from, to)) } => {
                    lost.extend((from..=to).map(|seq| (room.clone(), seq)));
                }
                Step::Lost { range: None, .. } => panic!("the epoch is always the same"),
            }
        }
    }
    assert!(asked.is_empty(), "seed {seed}: nothing is left to fetch");
    let mut in_order = yielded.clone();
    in_order.sort_unstable();
    in_order.dedup();
    assert_eq!(in_order.len(), yielded.len(), "seed {seed}: each once");
    for (index, name) in NAMES.iter().enumerate() {
        // What this room gave up on, another may still have found.
        let of_room: Vec<u64> = (1u64..)
            .zip(&world.rooms[index])
            .filter(|(seq, _)| !lost.contains(&(name.to_string(), *seq)))
            .filter_map(|(_, (_, payload))| *payload)
            .collect();
        let seen: Vec<u64> = yielded.iter().copied().filter(|one| of_room.contains(one)).collect();
        assert!(seen.is_sorted(), "seed {seed}: {name} in order: {seen:?}");
        for (seq, (_, payload)) in (1u64..).zip(&world.rooms[index]) {
            let Some(payload) = payload else { continue };
            let is_told = yielded.contains(payload) || lost.contains(&(name.to_string(), seq));
            assert!(is_told, "seed {seed}: {name} {seq} is unaccounted for");
        }
    }
}
