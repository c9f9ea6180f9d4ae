"""What the soak test calls growth, and what clients of a cluster call wrong: `python3 -m unittest
scripts.chaos.test_chaos`."""

import random
import unittest

from . import growth, lines
from .account import Account
from .ledger import Ledger, Sent


def samples(course, noise=0.0, seconds=600, seed=1):
    """A sample each five seconds."""
    chance = random.Random(seed)
    return [(at, course(at) + chance.gauss(0, noise)) for at in range(0, seconds, 5)]


class Growth(unittest.TestCase):
    def test_noise_is_no_growth(self):
        for seed in range(50):
            level = samples(lambda at: 20e6, noise=1e6, seed=seed)
            self.assertIsNone(growth.grows("rss_bytes", level), f"seed {seed}")
            count = samples(lambda at: 120, noise=20, seed=seed)
            self.assertIsNone(growth.grows("sockets", count), f"seed {seed}")

    def test_a_leak_is_seen_through_the_noise(self):
        for seed in range(50):
            # A kilobyte a second and more.
            leak = samples(lambda at: 20e6 + 4000 * at, noise=0.5e6, seed=seed)
            self.assertIn("rss_bytes grows by", growth.grows("rss_bytes", leak), f"seed {seed}")
            descriptors = samples(lambda at: 100 + at // 60, noise=1, seed=seed)
            self.assertIsNotNone(growth.grows("descriptors", descriptors), f"seed {seed}")

    def test_what_comes_and_goes_is_no_growth(self):
        self.assertIsNone(growth.grows("sockets", samples(lambda at: 120 - 60 * (at % 50 < 10))))
        falls = samples(lambda at: 1e6 * (600 - at))
        self.assertIsNone(growth.grows("history_bytes", falls))
        # A step that is over within a part of the time.
        self.assertIsNone(growth.grows("rooms", samples(lambda at: 90 if 200 < at < 220 else 12)))

    def test_a_unit_has_its_own_floor(self):
        self.assertIsNone(growth.grows("session_bytes", samples(lambda at: at * 100)))
        self.assertIsNotNone(growth.grows("sessions", samples(lambda at: at * 100)))
        self.assertIsNone(growth.grows("rooms", []))


class Pictures(unittest.TestCase):
    def test_a_long_run_is_a_small_picture(self):
        long = [(at, at % 7) for at in range(100_000)]
        plot = lines.Lines(
            "x < y", "minutes", [lines.Panel("a", [("b", long), ("c", long)], 9)], [(5, "mark")]
        )
        drawn = plot.draw()
        self.assertLess(len(drawn), 30_000)
        self.assertIn("x &lt; y", drawn)
        # The highest of what is left out is shown.
        self.assertEqual(max(value for _, value in lines.fewer(long)), 6)


class Accounts(unittest.TestCase):
    """Each test tells a client something, and looks at what it calls wrong."""

    def setUp(self):
        self.ledger = Ledger()
        self.account = Account("a", self.ledger)
        self.account.on_joined(None, self.room(seq=0, recovered=False))

    def room(self, seq, recovered, messages=(), epoch="e"):
        messages = [self.message(of) for of in messages]
        answer = {"room": "tea", "epoch": epoch, "seq": seq, "recovered": recovered}
        return answer | {"messages": messages}

    def message(self, seq, key=None, by="b", echo=False, **others):
        key = key or f"k{seq}"
        pairs = [("tea", seq), *others.items()]
        sent = Sent(key, by, [room for room, _ in pairs], echo, None)
        self.ledger.sent.setdefault(key, sent)
        frame = {"type": "message", "room": "tea", "seq": seq, "content": {"k": key}}
        return frame | ({"rooms": [{"room": r, "seq": n} for r, n in pairs]} if others else {})

    def hears(self, *frames):
        for frame in frames:
            self.account.on_message(frame)

    def found(self):
        self.ledger.judge()
        return [finding.what for finding in self.ledger.findings]

    def gap(self, first, last):
        self.account.on_gap({"room": "tea", "from": first, "to": last})

    def epoch(self, epoch, seq):
        self.account.on_epoch({"room": "tea", "epoch": epoch, "seq": seq})

    def resumes(self, answer):
        asked = self.account.positions()
        self.account.on_resumed(asked, {"rooms": answer, "direct": {"seq": 0, "recovered": True}})

    def test_all_in_order_is_well(self):
        self.hears(self.message(1), self.message(2))
        self.resumes([self.room(4, True, [3, 4])])
        self.hears(self.message(5))
        self.assertEqual(self.found(), [])

    def test_a_hole_must_be_told_unless_it_is_its_own_message(self):
        self.hears(self.message(1), self.message(3))
        self.assertEqual(self.found(), ["untold hole"])
        self.setUp()
        own = self.message(2, by="a")
        self.hears(self.message(1))
        sent = self.ledger.sent["k2"]
        self.account.on_answered(sent, {"tea": 1}, {"room": own["room"], "seq": 2})
        self.hears(self.message(3))
        self.assertEqual(self.found(), [])
        self.setUp()
        self.ledger.losses.add("evict")
        self.hears(self.message(1))
        self.gap(2, 2)
        self.hears(self.message(3))
        self.assertEqual(self.found(), [])

    def test_where_nothing_was_lost_nothing_is_told_as_lost(self):
        self.hears(self.message(1))
        self.gap(2, 3)
        self.hears(self.message(4))
        self.assertEqual(self.found(), ["told as lost, and nothing was"])

    def test_repeats_and_wrong_order_are_seen(self):
        self.hears(self.message(1), self.message(1))
        self.assertEqual(self.found(), ["repeat"])
        self.setUp()
        self.hears(self.message(1), self.message(2, key="k1"))
        self.assertEqual(self.found(), ["published twice"])
        self.setUp()
        self.hears(self.message(2), self.message(1))
        self.assertIn("out of order", self.found())

    def test_what_redis_has_lost_may_come_again(self):
        self.ledger.losses.add("promote")
        self.hears(self.message(1), self.message(2))
        self.epoch("f", 1)
        self.hears(self.message(2, key="other"), self.message(3, key="k2"))
        self.assertEqual(self.found(), [])
        self.epoch("g", 3)
        self.hears(self.message(3, key="other"))
        self.assertEqual(self.found(), ["repeat"])

    def test_a_recovery_is_complete_and_goes_forward(self):
        self.hears(self.message(1))
        self.resumes([self.room(3, True, [3])])
        self.assertEqual(self.found(), ["recovered with a hole"])
        self.setUp()
        self.hears(self.message(1), self.message(2))
        self.resumes([self.room(1, False)])
        self.assertIn("a position goes back", self.found())
        self.setUp()
        self.resumes([])
        self.assertEqual(self.found(), ["a room is forgotten"])

    def test_a_number_has_one_message(self):
        other = Account("c", self.ledger)
        other.on_joined(None, self.room(seq=0, recovered=False))
        self.hears(self.message(1))
        other.on_message(self.message(1, key="another"))
        self.assertEqual(self.found(), ["two messages with one number"])

    def test_a_message_to_several_rooms_has_a_number_in_each(self):
        self.account.on_joined(None, self.room(seq=0, recovered=False) | {"room": "cake"})
        self.hears(self.message(1, cake=2))
        self.assertEqual(self.found(), ["untold hole"])


if __name__ == "__main__":
    unittest.main()
