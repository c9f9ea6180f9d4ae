"""What is claimed from measurements, and that a page comes of them: python3 benches/compare/report/test_report.py"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import figures  # noqa: E402
import page  # noqa: E402
import plot  # noqa: E402

ABOUT = {
    "date": "2000-01-01",
    "commit": "0000000",
    "cpu": "one",
    "cores": 2,
    "memory_gib": 1,
    "kernel": "one",
    "pins": {"driver": "1"},
    "busy_at_start": 0.0,
    "versions": {"rustc": "1"},
}


def measured(costs, work="echo:128:1:64"):
    """The works read back from slices in which each server had these costs."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        with results.open("w") as lines:
            for server, values in costs.items():
                for number, cost in enumerate(values):
                    report = {"cpu_us_per_message": cost, "messages_per_s": 1e6 / cost, "latency": {"p99_us": cost}}
                    entry = {"slice": number, "work": work, "server": server, "report": report}
                    entry |= {"server_command": server, "driver_command": "drive"}
                    lines.write(json.dumps(entry) + "\n")
        return figures.read(results)


def ratio(costs):
    [work] = measured(costs)
    return figures.Ratio.of(work.metrics[0], work.servers["rusty"], work.servers["tokio"])


class Claims(unittest.TestCase):
    def test_a_lead_shows_through_drift_that_is_larger_than_it(self):
        drift = [10 * (1 + (number * 7 % 15) / 10) for number in range(15)]
        found = ratio({"rusty": drift, "tokio": [1.2 * cost for cost in drift]})
        self.assertAlmostEqual(found.median, 1.2)
        self.assertTrue(found.is_told)

    def test_what_is_ahead_in_every_other_slice_is_not_told(self):
        found = ratio({"rusty": [10.0] * 14, "tokio": [8.0, 12.5] * 7})
        self.assertFalse(found.is_told)

    def test_a_sure_but_small_lead_is_not_told(self):
        self.assertFalse(ratio({"rusty": [10.0] * 15, "tokio": [10.3] * 15}).is_told)

    def test_the_interval_is_that_of_the_sign_test(self):
        # From the binomial distribution: the widest of 15 without three at each end holds the median with 96.5 %.
        expected = {1: 0, 5: 0, 6: 0, 8: 0, 9: 1, 15: 3, 25: 7}
        self.assertEqual({count: figures.skipped(count) for count in expected}, expected)

    def test_only_slices_that_both_have_are_compared(self):
        self.assertEqual(ratio({"rusty": [10.0, 99.0], "tokio": [20.0]}).median, 2.0)


class Pages(unittest.TestCase):
    def test_a_loss_stands_first_and_the_floor_is_none(self):
        works = measured({"rusty": [10.0] * 15, "tokio": [5.0] * 15, "axum": [20.0] * 15, "floor": [4.0] * 15})
        text = page.render(works, ABOUT)
        lost, won = text.index("CPU per message, 10 µs: tokio-tungstenite ×2.00"), text.index("axum ×2.00")
        self.assertLess(lost, won)
        self.assertIn("| **0.50** |", text)
        self.assertIn("| 0.40 |", text)
        self.assertIn("<svg", plot.draw(works[0]))


unittest.main()
