"""What the soak test calls growth: `python3 -m unittest scripts.chaos.test_chaos`."""

import random
import unittest

from . import growth, lines


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


if __name__ == "__main__":
    unittest.main()
