"""The parts without a network: backoff, rates, frames, names, queues, the outbox."""

from __future__ import annotations

import asyncio
import json
import math
import unittest
from datetime import datetime, timezone
from typing import Any

from rusty_socks import End, Failed, Message, Options, Overrun, Place, RustySocksError
from rusty_socks.backoff import Backoff, Over, Verdict, retry_after, verdict
from rusty_socks.errors import Misbehaved
from rusty_socks.frames import Frame, message_in, number_in, parse, seq_in
from rusty_socks.names import matches, touches
from rusty_socks.outbox import STREAK_MAX, Command, Entry, Outbox
from rusty_socks.queues import EventQueue, MessageQueue, Queue
from rusty_socks.rate import Bucket
from rusty_socks.tracker import Held


class BackoffTest(unittest.TestCase):
    def backoff(self, draw: float = 1.0) -> Backoff:
        return Backoff(base_s=0.25, cap_s=30, settled_s=5, random=lambda: draw)

    def test_every_close_code_of_the_table(self) -> None:
        table = {
            Verdict.STOP: "1000 1002 1003 1007 1008 1009 4001 4003 4008 4009 4010",
            Verdict.BACK_OFF: "1001 1005 1006 1011 1012 1013 4101 4102 4103",
            Verdict.AT_ONCE: "4201 4202 4203",
        }
        for wanted, codes in table.items():
            for code in codes.split():
                self.assertIs(verdict(End(int(code), "")), wanted, code)

    def test_every_status(self) -> None:
        for status in (408, 425, 429, 500, 503, 599):
            self.assertIs(verdict(End(1006, "", status)), Verdict.BACK_OFF, status)
        for status in (200, 301, 400, 401, 403, 404, 426, 431):
            self.assertIs(verdict(End(1006, "", status)), Verdict.STOP, status)

    def test_full_jitter_doubles_up_to_the_cap(self) -> None:
        lost = Over(End(1006, ""))
        most = self.backoff(1.0)
        delays = [most.after(lost) for _ in range(9)]
        self.assertEqual(delays, [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30])
        self.assertEqual(self.backoff(0.0).after(lost), 0)
        for _ in range(2000):
            most.after(lost)
        self.assertEqual(most.after(lost), 30)

    def test_a_session_that_lasted_begins_anew(self) -> None:
        backoff = self.backoff()
        for _ in range(5):
            backoff.after(Over(End(1006, ""), lived_s=4.9))
        self.assertEqual(backoff.after(Over(End(1006, ""), lived_s=5)), 0.25)

    def test_only_the_first_attempt_is_at_once(self) -> None:
        backoff = self.backoff()
        ends = [backoff.after(Over(End(4201, ""))) for _ in range(3)]
        self.assertEqual(ends, [0, 0.5, 1])

    def test_what_a_closing_server_asks_for_replaces_the_delay_and_then_bounds_it(self) -> None:
        backoff = self.backoff(0.0)
        closing = Over(End(1001, ""), reconnect_after_s=3)
        self.assertEqual([backoff.after(closing), backoff.after(closing)], [3, 3])
        backoff = self.backoff(1.0)
        small = Over(End(1001, ""), reconnect_after_s=0.1)
        self.assertEqual([backoff.after(small), backoff.after(small)], [0.1, 0.5])

    def test_retry_after_is_the_least_and_bounded(self) -> None:
        refused = Over(End(1006, "", 503), retry_after_s=7)
        self.assertEqual(self.backoff().after(refused), 7.25)
        for mad in (1e300, math.inf):
            over = Over(End(1006, "", 503), retry_after_s=mad)
            self.assertEqual(self.backoff(0.0).after(over), 600)
        for no in (math.nan, -5.0):
            over = Over(End(1006, "", 503), retry_after_s=no)
            self.assertEqual(self.backoff(0.0).after(over), 0)

    def test_retry_after_is_seconds_or_a_date(self) -> None:
        now = datetime(2026, 11, 28, 12, 0, 0, tzinfo=timezone.utc)
        self.assertEqual(retry_after("3", now), 3)
        self.assertEqual(retry_after("Sat, 28 Nov 2026 12:00:30 GMT", now), 30)
        self.assertEqual(retry_after("9" * 400, now), float("9" * 12))
        for no in (None, "", "soon", "-1", "1.5", "²", "Sat, 99 Nov 2026 12:00:30 GMT"):
            self.assertIsNone(retry_after(no, now), no)


class FramesTest(unittest.TestCase):
    def test_what_is_no_frame_is_ignored(self) -> None:
        for text in ("", "[]", "1", "null", "{", '{"a":NaN}', "[" * 100_000, b"{}"):
            self.assertIsNone(parse(text), text[:10])
        self.assertEqual(parse('{"type":"x"}'), {"type": "x"})

    def test_wrong_fields_are_told(self) -> None:
        good = {"room": "a", "seq": 1, "id": "i", "client_id": "c", "timestamp": "t"}
        self.assertEqual(message_in({**good, "content": 1}).rooms, (Place("a", 1),))
        wrong: dict[str, tuple[Any, ...]] = {
            "room": (None, 1, {}),
            "seq": (None, "1", 1.0, True, -1, 2**64),
            "rooms": ("x", [1], [{"room": "a"}]),
            "user": (1,),
        }
        for name, values in wrong.items():
            for value in values:
                with self.assertRaises(Misbehaved, msg=f"{name}: {value!r}"):
                    message_in({**good, name: value})
        self.assertEqual(seq_in({"seq": 2**64 - 1}), 2**64 - 1)
        self.assertEqual(number_in({"n": 10**400}, "n"), 1e15)
        self.assertIsNone(number_in({"n": True}, "n"))


class NamesTest(unittest.TestCase):
    def test_patterns(self) -> None:
        cases = {"p.a": True, "p.a.b": True, "p": False, "p.": False, "q.a": False}
        for room, is_match in cases.items():
            self.assertIs(matches("p.*", room), is_match, room)
        self.assertTrue(touches("p.*", "p.q.*") and touches("p.q.*", "p.*"))
        self.assertTrue(touches("p.*", "p.a") and touches("p.a", "p.*") and touches("a", "a"))
        self.assertFalse(touches("p.*", "q.*") or touches("p.*", "p") or touches("a", "b"))


class RateTest(unittest.TestCase):
    def test_a_bucket_is_never_ahead_of_the_servers(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        for _ in range(10):
            self.assertEqual(bucket.wait_s(1, 0.0), 0)
            bucket.sent(1)
        # What is on its way may not have reached the server.
        self.assertEqual(bucket.wait_s(1, 5.0), math.inf)
        for _ in range(10):
            bucket.answered(1, 5.0)
        self.assertGreater(bucket.wait_s(1, 5.0), 0.1)
        self.assertEqual(bucket.wait_s(1, 5.2), 0)

    def test_a_message_larger_than_the_bucket_passes_when_it_is_full(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        self.assertEqual(bucket.wait_s(100, 0.0), 0)
        bucket.sent(100)
        bucket.answered(100, 0.0)
        self.assertGreater(bucket.wait_s(1, 9.0), 0)


def held(seq: int, size: int = 1, rooms: tuple[Place, ...] = ()) -> Held:
    places = rooms or (Place("a", seq),)
    made = Message("a", seq, str(seq), seq, "c", "t", None, None, places)
    return Held(made, size, False)


class QueueTest(unittest.IsolatedAsyncioTestCase):
    async def test_readers_take_turns_and_a_cancelled_one_passes_its_turn_on(self) -> None:
        queue: Queue[int] = Queue()
        readers = [asyncio.ensure_future(queue.next()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.push(1)
        # It was woken, and is cancelled before it runs.
        readers[0].cancel()
        self.assertEqual(await asyncio.wait_for(readers[1], 1), 1)
        queue.push(2)
        self.assertEqual(await asyncio.wait_for(readers[2], 1), 2)

    async def test_the_end_comes_after_what_waits(self) -> None:
        queue: Queue[int] = Queue()
        queue.push(1)
        queue.end(RustySocksError("stopped", "x"))
        queue.push(2)
        self.assertEqual(await queue.next(), 1)
        for _ in range(2):
            with self.assertRaises(RustySocksError):
                await queue.next()

    async def test_a_queue_is_full_by_count_or_bytes_and_tells_when_there_is_space(self) -> None:
        told: list[int] = []
        queue = MessageQueue(max_=3, bytes_max=100, has_space=lambda: told.append(1))
        for seq in range(3):
            self.assertFalse(queue.is_full)
            queue.push(held(seq), "a")
        self.assertTrue(queue.is_full)
        await queue.next()
        self.assertEqual((queue.is_full, told), (False, [1]))
        queue.push(held(9, size=100), "a")
        self.assertTrue(queue.is_full)

    async def test_a_message_of_several_rooms_is_taken_once(self) -> None:
        queue = MessageQueue(max_=9, bytes_max=100, has_space=lambda: None)
        both = held(1, rooms=(Place("a", 1), Place("b", 1)))
        queue.push(both, "a")
        queue.push(both, "b")
        self.assertEqual(len(queue), 1)

    async def test_events_that_nobody_reads_are_counted(self) -> None:
        queue = EventQueue(3)
        for number in range(10):
            queue.push(Failed(str(number), ""))
        told = [await queue.next() for _ in range(4)]
        self.assertEqual(told, [Overrun(7), *(Failed(str(n), "") for n in (7, 8, 9))])


class OutboxTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.now = 0.0
        self.outbox = Outbox(Options(outbox_max=1000), lambda: self.now)
        self.told: list[object] = []

    def add(self, type_: str = "publish", **fields: object) -> Entry:
        entry = Entry(
            Command(type_, **fields),
            ok=lambda answer: self.told.append(answer.get("seq", "ok")),
            failed=lambda error: self.told.append(error.code),
        )
        self.outbox.add(entry)
        return entry

    def open(self, limits: Frame | None = None) -> None:
        self.outbox.attach()
        self.outbox.greeted(1000, {} if limits is None else limits)
        self.outbox.open()

    def sent(self) -> list[Frame]:
        texts = []
        while (text := self.outbox.next()) is not None:
            texts.append(json.loads(text))
        return texts

    def answer(self, command: Frame, **fields: object) -> None:
        self.outbox.answered({"type": "ok", "ref": command["ref"], **fields})

    def refuse(self, command: Frame, code: str, **fields: object) -> None:
        self.outbox.answered({"type": "error", "ref": command["ref"], "code": code, **fields})

    async def test_what_has_no_answer_is_sent_again_on_the_next_connection(self) -> None:
        self.add(room="a", content=1)
        self.open()
        (first,) = self.sent()
        self.outbox.detach()
        self.open()
        (second,) = self.sent()
        self.assertEqual({**first, "ref": 0}, {**second, "ref": 0})
        # An answer to what another connection was asked is none.
        self.answer(first, seq=1)
        self.assertEqual(self.told, [])
        self.answer(second, seq=1)
        self.assertEqual(self.told, [1])

    async def test_nothing_of_the_programs_goes_before_the_session_is_back(self) -> None:
        self.add(room="a", content=1)
        self.outbox.attach()
        self.assertEqual(self.sent(), [])
        self.outbox.add_urgent(
            Entry(Command("resume"), ok=lambda answer: None, failed=lambda error: None)
        )
        self.assertEqual([each["type"] for each in self.sent()], ["resume"])
        self.outbox.open()
        self.assertEqual([each["type"] for each in self.sent()], ["publish"])

    async def test_a_busy_server_is_asked_again_when_it_says(self) -> None:
        self.add(room="a", content=1)
        self.open()
        (first,) = self.sent()
        self.refuse(first, "rate_limited", retry_after_ms=2000)
        self.assertEqual((self.sent(), self.outbox.wait_s()), ([], 2.0))
        self.now = 2.0
        self.assertEqual([each["content"] for each in self.sent()], [1])
        self.assertEqual(self.told, [])

    async def test_a_server_that_is_always_busy_is_given_up(self) -> None:
        self.add(room="a", content=1)
        self.open()
        refused = 0
        while refused < 11:
            (command,) = self.sent()
            if command["type"] == "ping":
                self.answer(command)
            else:
                self.refuse(command, "overloaded")
                refused += 1
            self.now += 600
        self.assertEqual((self.told, len(self.outbox)), (["overloaded"], 0))

    async def test_a_command_waits_for_the_answer_to_the_join_of_its_room(self) -> None:
        self.add("join", room="a")
        self.add(room="a", content=1)
        self.add(room="b", content=2)
        self.open()
        join, other = self.sent()
        self.assertEqual((join["type"], other["room"]), ("join", "b"))
        self.refuse(join, "overloaded", retry_after_ms=0)
        (join,) = self.sent()
        self.answer(join)
        self.assertEqual([each["room"] for each in self.sent()], ["a"])

    async def test_a_row_of_mistakes_is_broken_by_a_ping(self) -> None:
        for number in range(40):
            self.add(room="nowhere", content=number)
        self.open()
        errors = 0
        while commands := self.sent():
            for command in commands:
                if command["type"] == "ping":
                    self.outbox.answered({"type": "pong", "ref": command["ref"]})
                    errors = 0
                else:
                    self.refuse(command, "not_member")
                    errors += 1
                self.assertLessEqual(errors, STREAK_MAX)
        self.assertEqual(self.told, ["not_member"] * 40)

    async def test_a_server_without_limits_is_sent_few_at_once(self) -> None:
        for number in range(40):
            self.add(room="a", content=number)
        self.outbox.attach()
        self.outbox.greeted(None, None)
        self.outbox.open()
        self.assertLessEqual(len(self.sent()), STREAK_MAX)

    async def test_answers_without_sense_are_ignored_or_told(self) -> None:
        self.add(room="a", content=1)
        self.open()
        self.sent()
        refs: tuple[Any, ...] = (None, "1", 77, [], -1)
        for ref in refs:
            self.outbox.answered({"type": "ok", "ref": ref})
        self.assertEqual(self.told, [])

    async def test_what_is_lost_and_may_not_be_repeated_says_so(self) -> None:
        entry = self.add("broadcast", content=1)
        entry.is_once = True
        self.open()
        self.sent()
        self.outbox.detach()
        self.assertEqual((self.told, len(self.outbox)), (["answer_lost"], 0))

    async def test_urgent_commands_do_not_outlive_their_connection(self) -> None:
        self.outbox.add_urgent(
            Entry(Command("leave"), ok=lambda answer: None, failed=lambda error: None)
        )
        self.open()
        self.assertEqual(self.sent(), [])


class OptionsTest(unittest.TestCase):
    def test_wrong_numbers_are_refused_at_once(self) -> None:
        wrong: tuple[dict[str, Any], ...]
        wrong = ({"queue_max": 0}, {"hold_max": "9"}, {"backoff_cap_s": -1}, {"outbox_max": True})
        for each in wrong:
            with self.assertRaises(ValueError, msg=each):
                Options(**each)
        Options(attempts_max=0, outbox_max=0)


if __name__ == "__main__":
    unittest.main()
