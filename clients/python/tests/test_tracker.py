"""The order of messages, without a network: by hand, and by random scripts from seeds."""

from __future__ import annotations

import random
import unittest
from typing import Any

from rusty_socks.messages import Message, Place
from rusty_socks.tracker import Held, Tracker

from .support import SEED

SCRIPTS = 400
STEPS = 150


def message(places: list[tuple[str, int]], client_id: str = "other") -> Message:
    rooms = tuple(Place(room, seq) for room, seq in places)
    # The same message has the same id, whatever it comes with.
    id_ = "+".join(f"{room}{seq}" for room, seq in places)
    first = rooms[0]
    return Message(first.room, first.seq, id_, id_, client_id, "", None, None, rooms)


class Notes:
    """A sink that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fetches: list[tuple[str, int, int]] = []
        self.full: set[str] = set()

    def deliver(self, held: Held, names: list[str]) -> None:
        self.told.append((held.message.content, *names))

    def lost(self, room: str, first: int | None, last: int | None, reason: str) -> None:
        self.told.append((room, first, last, reason))

    def fetch(self, room: str, after: int, fetch: int) -> None:
        self.fetches.append((room, after, fetch))

    def may_yield(self, room: str) -> bool:
        return room not in self.full


class ByHand(unittest.TestCase):
    def setUp(self) -> None:
        self.notes = Notes()
        self.tracker = Tracker(self.notes, hold_max=100, hold_bytes_max=10_000)
        self.tracker.start("a", "e", 0)
        self.tracker.start("b", "e", 0)

    def live(self, *places: tuple[str, int]) -> None:
        self.tracker.live(message(list(places)), 10)

    def told(self) -> list[Any]:
        told, self.notes.told = self.notes.told, []
        return told

    def fill(self, room: str, messages: list[Message], epoch: str = "e", seq: int = 9) -> None:
        name, _, fetch = self.notes.fetches.pop(0)
        self.assertEqual(name, room)
        self.tracker.fill(room, fetch, epoch, seq, messages)

    def test_messages_are_yielded_once(self) -> None:
        for seq in (1, 2, 2, 1, 3):
            self.live(("a", seq))
        self.assertEqual(self.told(), [("a1", "a"), ("a2", "a"), ("a3", "a")])

    def test_a_message_of_several_rooms_is_yielded_once_in_all_of_them(self) -> None:
        self.live(("a", 1), ("b", 1))
        self.live(("b", 2), ("a", 2))
        self.assertEqual(self.told(), [("a1+b1", "a", "b"), ("b2+a2", "b", "a")])

    def test_what_follows_a_gap_waits_for_it(self) -> None:
        self.tracker.gap("a", 1, 2)
        self.live(("a", 3), ("b", 1))
        self.live(("b", 2))
        self.assertEqual(self.told(), [])
        self.fill("a", [message([("a", 1)]), message([("a", 2)])])
        self.assertEqual(
            self.told(), [("a1", "a"), ("a2", "a"), ("a3+b1", "a", "b"), ("b2", "b")]
        )

    def test_a_message_of_a_page_counts_in_the_room_that_was_asked_about_alone(self) -> None:
        self.tracker.gap("a", 1, 1)
        self.fill("a", [message([("a", 1), ("b", 2)])])
        # What comes before it in b is still on its way, and then the message comes there again.
        self.live(("b", 1))
        self.tracker.gap("b", 2, 2)
        self.fill("b", [message([("a", 1), ("b", 2)])])
        self.assertEqual(self.told(), [("a1+b2", "a"), ("b1", "b"), ("a1+b2", "b")])

    def test_an_answer_to_resume_is_of_one_instant_in_all_rooms(self) -> None:
        self.tracker.interrupt()
        both = message([("a", 2), ("b", 2)])
        self.tracker.resume("a", "e", 2, messages=[message([("a", 1)]), both])
        self.tracker.resume("b", "e", 2, messages=[message([("b", 1)]), both])
        self.assertEqual(self.told(), [("a1", "a"), ("b1", "b"), ("a2+b2", "b", "a")])

    def test_live_messages_do_not_count_in_a_room_that_is_not_back_yet(self) -> None:
        self.tracker.interrupt()
        self.tracker.resume("a", "e", 0, messages=[])
        self.live(("a", 1), ("b", 2))
        self.assertEqual(self.told(), [])
        answer = [message([("b", 1)]), message([("a", 1), ("b", 2)])]
        self.tracker.resume("b", "e", 2, messages=answer)
        self.assertEqual(self.told(), [("b1", "b"), ("a1+b2", "b", "a")])

    def test_own_numbers_are_no_messages(self) -> None:
        self.live(("a", 1))
        self.tracker.own("a", 3)
        self.live(("a", 2))
        self.tracker.own("a", 4)
        room = self.tracker.room("a")
        assert room is not None
        self.assertEqual((room.seq, self.told()), (4, [("a1", "a"), ("a2", "a")]))

    def test_what_a_history_no_longer_has_is_lost_but_not_what_has_come(self) -> None:
        self.tracker.gap("a", 1, 2)
        self.live(("a", 3))
        self.tracker.interrupt()
        self.tracker.resume("a", "e", 4, messages=None)
        self.notes.fetches.pop(0)
        self.fill("a", [message([("a", 4)])])
        self.assertEqual(self.told(), [("a", 1, 2, "not_kept"), ("a3", "a"), ("a4", "a")])

    def test_a_page_of_another_epoch_is_the_end_of_the_room_as_it_was(self) -> None:
        self.tracker.gap("a", 1, 2)
        self.fill("a", [message([("a", 7)])], epoch="f", seq=7)
        self.live(("a", 8))
        self.assertEqual(self.told(), [("a", None, None, "epoch"), ("a8", "a")])

    def test_a_latest_room_is_not_fetched(self) -> None:
        self.tracker.start("a", "e", 0, is_latest=True)
        self.tracker.own("a", 2)
        self.tracker.gap("a", 1, 3)
        self.live(("a", 4))
        self.assertEqual(
            self.told(), [("a", 1, 1, "latest"), ("a", 3, 3, "latest"), ("a4", "a")]
        )
        self.assertEqual(self.notes.fetches, [])

    def test_an_epoch_at_the_position_costs_nothing(self) -> None:
        self.live(("a", 1))
        self.tracker.epoch("a", "f", 1)
        self.live(("a", 2))
        self.assertEqual(self.told(), [("a1", "a"), ("a2", "a")])

    def test_an_epoch_above_the_position_is_a_gap(self) -> None:
        self.live(("a", 1))
        self.tracker.epoch("a", "f", 3)
        self.live(("a", 4))
        self.fill("a", [message([("a", 2)]), message([("a", 3)])], epoch="f")
        self.assertEqual(self.told(), [("a1", "a"), ("a2", "a"), ("a3", "a"), ("a4", "a")])

    def test_an_epoch_below_the_position_gives_numbers_again(self) -> None:
        self.live(("a", 1))
        self.live(("a", 2))
        self.tracker.epoch("a", "f", 1)
        self.live(("a", 2))
        self.assertEqual(
            self.told(), [("a1", "a"), ("a2", "a"), ("a", None, None, "epoch"), ("a2", "a")]
        )

    def test_an_epoch_discards_what_is_held_back_and_the_page_under_way(self) -> None:
        self.tracker.gap("a", 1, 2)
        self.live(("a", 3))
        self.tracker.epoch("a", "f", 1)
        self.live(("a", 2))
        self.fill("a", [message([("a", 1)]), message([("a", 2)])])
        self.assertEqual(self.told(), [("a", None, None, "epoch")])
        self.fill("a", [message([("a", 1)])], epoch="f")
        self.assertEqual(self.told(), [("a1", "a"), ("a2", "a")])

    def test_the_replay_of_the_welcome_comes_before_its_position(self) -> None:
        self.tracker.start("a", "e", 3, is_greeting=True)
        for seq in (2, 3, 4):
            self.live(("a", seq))
        self.assertEqual(self.told(), [("a2", "a"), ("a3", "a"), ("a4", "a")])

    def test_a_reader_that_is_behind_stops_no_other_room(self) -> None:
        self.notes.full = {"a"}
        self.live(("a", 1), ("b", 1))
        self.live(("b", 2))
        self.assertEqual(self.told(), [("a1+b1", "b"), ("b2", "b")])
        self.notes.full = set()
        self.tracker.drain()
        self.assertEqual(self.told(), [("a1+b1", "a")])

    def test_rooms_that_wait_for_each_other_go_on_in_some_order(self) -> None:
        self.notes.full = {"a", "b"}
        self.live(("a", 1), ("b", 2))
        self.live(("b", 1), ("a", 2))
        # No server numbers so, and the second is dropped in b by its number.
        self.notes.full = set()
        self.tracker.drain()
        self.assertEqual({content for content, *_ in self.told()}, {"a1+b2", "b1+a2"})

    def test_what_waits_is_bounded_and_fetched_again(self) -> None:
        self.notes.full = {"a"}
        for seq in range(1, 1001):
            self.live(("a", seq))
            self.tracker.received(10)
        room = self.tracker.room("a")
        assert room is not None
        self.assertLessEqual(len(room.queue), 101)
        self.notes.full = set()
        self.tracker.drain()
        while self.notes.fetches:
            _, after, _ = self.notes.fetches[0]
            self.fill("a", [message([("a", at)]) for at in range(after + 1, after + 100)][:50])
        wanted = [(f"a{seq}", "a") for seq in range(1, 1001)]
        self.assertEqual(self.told(), wanted)


class Script:
    """A server in memory, and a network whose every step is drawn from a seed."""

    ROOMS = ("a", "b", "c")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: dict[str, list[Message]] = {name: [] for name in self.ROOMS}
        # How many messages a history keeps: mostly all.
        self.kept = self.random.choice((10_000, 10_000, 10_000, 8))
        hold_max = self.random.choice((1000, 1000, 4))
        self.down: list[tuple[Any, ...]] = []
        self.members: set[str] = set(self.ROOMS)
        self.covered: dict[str, int] = {name: 0 for name in self.ROOMS}
        self.full: set[str] = set()
        self.to_join: list[str] = []
        self.is_connected = True
        self.yielded = 0
        self.tracker = Tracker(self, hold_max=hold_max, hold_bytes_max=10_000)
        for name in self.ROOMS:
            self.tracker.start(name, "e", 0)

    # --- What the tracker says.

    def deliver(self, held: Held, names: list[str]) -> None:
        for name in names:
            seq = next(place.seq for place in held.message.rooms if place.room == name)
            assert seq > self.covered[name], f"{name} {seq} again, or late"
            between = self.log[name][self.covered[name] : seq - 1]
            strangers = [each.id for each in between if each.client_id != "me"]
            assert not strangers, f"{strangers} were passed over in {name}"
            assert held.message is self.log[name][seq - 1], f"{name} {seq} is another message"
            self.covered[name] = seq
            self.yielded += 1

    def lost(self, room: str, first: int | None, last: int | None, reason: str) -> None:
        assert first is not None and last is not None and reason == "not_kept", reason
        between = self.log[room][self.covered[room] : first - 1]
        assert all(each.client_id == "me" for each in between), "what is before the loss"
        oldest = len(self.log[room]) - self.kept + 1
        assert last < oldest, f"{room} {first} to {last} are kept, from {oldest}"
        self.covered[room] = last

    def fetch(self, room: str, after: int, fetch: int) -> None:
        size = self.random.randint(1, 5)
        page = [each for each in self.since(room, after) if each in self.log[room][-self.kept :]]
        self.down.append(("page", room, fetch, len(self.log[room]), page[:size]))

    def may_yield(self, room: str) -> bool:
        return room not in self.full

    # --- The server and the network.

    def since(self, room: str, seq: int) -> list[Message]:
        return self.log[room][seq:]

    def say(self, names: list[str], publisher: str) -> None:
        places = [(name, len(self.log[name]) + 1) for name in names]
        made = message(places, publisher)
        for name in names:
            self.log[name].append(made)
        if self.is_connected and any(name in self.members for name in names):
            self.down.append(("own", places) if publisher == "me" else ("message", made))

    def skip(self) -> None:
        """The client is slow: what waits for it is skipped, and told as gaps."""
        # What was missed before a room came back is told by the answer.
        answers = [at for at, frame in enumerate(self.down) if frame[0] == "answer"]
        at = self.random.randint(max([-1, *answers]) + 1, len(self.down))
        ranges: dict[str, list[int]] = {}
        for kind, *rest in self.down[at:]:
            if kind == "message":
                for place in rest[0].rooms:
                    ranges.setdefault(place.room, []).append(place.seq)
            elif kind == "gap":
                # One that waits to be told grows.
                ranges.setdefault(rest[0], []).extend(rest[1:])
        kept = [frame for frame in self.down[at:] if frame[0] not in ("message", "gap")]
        gaps = [("gap", room, min(seqs), max(seqs)) for room, seqs in ranges.items()]
        self.down[at:] = [*gaps, *kept]

    def arrive(self) -> None:
        if not self.down:
            return
        kind, *rest = self.down.pop(0)
        if kind == "message":
            self.tracker.live(rest[0], 10)
        elif kind == "own":
            for name, seq in rest[0]:
                self.tracker.own(name, seq)
        elif kind == "gap":
            self.tracker.gap(*rest)
        elif kind == "page":
            room, fetch, seq, page = rest
            self.tracker.fill(room, fetch, "e", seq, page, 10)
        elif kind == "answer":
            for room, seq, messages in rest[0]:
                self.tracker.resume(room, "e", seq, messages=messages, size=10)

    def place(self, name: str) -> tuple[str, int, list[Message] | None]:
        room = self.tracker.room(name)
        assert room is not None
        missed = self.since(name, room.seq)
        is_kept = all(each in self.log[name][-self.kept :] for each in missed)
        is_recovered = is_kept and self.random.random() < 0.7
        return (name, len(self.log[name]), missed if is_recovered else None)

    def lose(self) -> None:
        self.down = []
        self.tracker.interrupt()
        self.is_connected = False

    def come_back(self) -> None:
        self.is_connected = True
        if self.random.random() < 0.5:
            self.members = set(self.ROOMS)
            self.down.append(("answer", [self.place(name) for name in self.ROOMS]))
        else:
            # The session was lost: each room is joined by itself.
            self.members = set()
            self.to_join = list(self.ROOMS)

    def step(self) -> None:
        draw = self.random.random()
        if not self.is_connected:
            if draw < 0.5:
                self.come_back()
                return
        elif self.to_join and draw < 0.3:
            name = self.to_join.pop(0)
            self.down.append(("answer", [self.place(name)]))
            self.members.add(name)
            return
        elif draw < 0.03:
            self.lose()
            return
        elif draw < 0.06 and not self.to_join:
            self.skip()
            return
        if draw > 0.95:
            self.full = set(self.random.sample(self.ROOMS, self.random.randint(0, 2)))
            self.tracker.drain()
        elif draw > 0.6:
            names = self.random.sample(self.ROOMS, self.random.choice((1, 1, 2, 3)))
            own = self.random.random() < 0.2 and self.members.issuperset(names)
            self.say(names, "me" if own and self.is_connected else "other")
        else:
            self.arrive()

    def settle(self) -> None:
        self.full = set()
        if not self.is_connected:
            self.come_back()
        while self.to_join or self.down:
            if self.to_join:
                name = self.to_join.pop(0)
                self.down.append(("answer", [self.place(name)]))
                self.members.add(name)
            self.arrive()
            self.tracker.drain()
        # What all readers see at the end.
        for name in self.ROOMS:
            self.say([name], "other")
        while self.down:
            self.arrive()
        for name in self.ROOMS:
            assert self.covered[name] == len(self.log[name]), (
                f"{name} is at {self.covered[name]} of {len(self.log[name])}"
            )


class BySeed(unittest.TestCase):
    def test_scripts_lose_repeat_and_disorder_nothing(self) -> None:
        yielded = 0
        for seed in range(SEED, SEED + SCRIPTS):
            script = Script(seed)
            with self.subTest(seed=seed):
                for _ in range(STEPS):
                    script.step()
                script.settle()
            yielded += script.yielded
        self.assertGreater(yielded, SCRIPTS * 10)


if __name__ == "__main__":
    unittest.main()
