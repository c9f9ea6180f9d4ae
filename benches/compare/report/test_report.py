"""What is claimed from measurements, and that pages come of them."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import benchmarks  # noqa: E402
import figures  # noqa: E402
import page  # noqa: E402
import scaling  # noqa: E402

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
        # From the binomial distribution: 15 without three at each end hold the median with 96.5 %.
        expected = {1: 0, 5: 0, 6: 0, 8: 0, 9: 1, 15: 3, 25: 7}
        self.assertEqual({count: figures.skipped(count) for count in expected}, expected)

    def test_only_slices_that_both_have_are_compared(self):
        self.assertEqual(ratio({"rusty": [10.0, 99.0], "tokio": [20.0]}).median, 2.0)


class Pages(unittest.TestCase):
    def test_a_loss_stands_first_and_the_floor_is_none(self):
        works = measured({"rusty": [10.0] * 15, "tokio": [5.0] * 15, "axum": [20.0] * 15, "floor": [4.0] * 15})
        text = "\n".join(filter(None, benchmarks.render(works, ABOUT, {"tls": "| a table |\n"})))
        drawn = benchmarks.draw_opening(works)
        self.assertEqual(drawn.count("<rect "), 3, "each but the floor")
        lost, won = text.index("CPU per message, 10 µs: tokio-tungstenite ×2.00"), text.index("axum ×2.00")
        self.assertLess(text.index("](benchmarks/opening.svg)"), lost)
        self.assertLess(lost, text.index("## In short"))
        self.assertLess(lost, won)
        self.assertIn("\n\n| a table |\n## Commands", text)
        self.assertIn("| **0.50** |", text)
        self.assertIn("| 0.40 |", text)
        self.assertEqual(benchmarks.draw(works[0]).count("<rect "), 4 * 3)

    def test_the_law_of_a_publish_is_found_and_what_was_not_measured_is_left_out(self):
        works = []
        for members in (1, 10, 100, 1000):
            cost = 19.5 + 4.5 * members
            report = {"cpu_us_per_publish": cost, "cpu_us_per_delivery": cost / members}
            report |= {"last_member": {"p50_us": 1}, "server_busy": 1.0}
            server = figures.Server("rusty", {1: report}, server_command="serve", driver_command="drive")
            works.append(figures.Work(f"members:{members}", {"rusty": server}))
        parts, plots = scaling.render(works, ABOUT | {"files_max": 1000, "kernel_limits": {}})
        text = " ".join("\n".join(filter(None, parts)).split())
        self.assertIn("A publish costs ≈ **19.5 µs + 4.50 µs × members**", text)
        self.assertIn("220,000 messages a second", text)
        self.assertNotIn("### Memory", text)
        self.assertEqual(list(plots), ["members"])
        self.assertEqual(plots["members"].draw().count("<circle "), 1 + 4)

    def test_a_missing_figure_takes_its_piece_or_its_section_with_it(self):
        def gone():
            raise page.Missing("not measured")

        template = "# Page\n\n## One\n\na {x:us}\n? b {gone()}\n? c\n\n### Two\n\n{gone()}\n\n### Three\n\n"
        template += "| n | what |\n?{2 * x} | {2 * x}\n | large\n?{gone()} | 0 | none\n?{x} | {x} | small"
        parts = list(page.fill(template, {"x": 5, "gone": gone}))
        shown = ["# Page", "## One", "a 5 µs c", "### Three", page.table(["n", "what"], [["5", "small"], ["10", "large"]])]
        self.assertEqual(parts, shown)

    def test_prose_wraps_and_no_line_becomes_a_list(self):
        text = page.prose("a cost of " + "1 µs + 2 µs - 3 µs " * 20 + "\n\n- one\n  two\n- three")
        lines = text.split("\n")
        self.assertLessEqual(max(map(len, lines)), page.WIDTH)
        self.assertEqual(lines[-2:], ["- one two", "- three"])
        self.assertFalse([line for line in lines[:-2] if line.startswith(("+", "-"))])


unittest.main()
