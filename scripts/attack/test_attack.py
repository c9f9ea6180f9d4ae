"""`python3 -m unittest scripts.attack.test_attack`: what the attacks are judged with."""

import contextlib
import io
import os
import re
import subprocess
import time
import unittest
from pathlib import Path
from unittest import mock

from . import bounds, core_wait, report, run, wire
from .attacks import ATTACKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/reliability.md"


def result(name="inflate", **during):
    """Figures with which every bound of `inflate` holds."""
    before = {"ping_p99_ms": 5.0, "publish_p99_ms": 5.0, "rss_mb": 7.0}
    during = before | {"ping_p50_ms": 1.0, "peak_mb": 20.0} | during
    return {
        "name": name,
        "line": ATTACKS[name].line,
        "phases": {"before": before, "during": during, "after": {"turn_max_ms": 3.0}},
        "insiders_closed": 0,
        "closed": {},
        "refused": {},
        "facts": {},
    }


class Waiting(unittest.TestCase):
    def test_who_shares_a_core_is_seen_to_wait_for_it(self):
        core = min(os.sched_getaffinity(0))
        with mock.patch.object(core_wait, "WORKER", "yes"), contextlib.ExitStack() as stack:
            busy = [subprocess.Popen("yes", stdout=subprocess.DEVNULL) for _ in range(2)]
            for process in busy:
                stack.callback(process.wait)
                stack.callback(process.kill)
                os.sched_setaffinity(process.pid, {core})
            deadline, waited = time.monotonic() + 30, 0
            while not waited and time.monotonic() < deadline:
                looking = core_wait.CoreWait(busy[0].pid, None)
                stack.callback(looking.kill)
                time.sleep(0.2)
                waited = looking.finish()
        self.assertGreater(waited, 0)


class Bounds(unittest.TestCase):
    def test_what_is_well_breaks_none(self):
        self.assertEqual(bounds.broken([result()]), [])

    def test_each_bound_is_named_where_it_is_broken(self):
        slow = result(ping_p99_ms=46.0)
        fat = result(peak_mb=501.0)
        unheard = result(publish_p99_ms=None)
        ended = result() | {"insiders_closed": 1}
        long_turn = result()
        long_turn["phases"]["after"]["turn_max_ms"] = bounds.TURN_MS_MAX + 1
        failed = {"name": "inflate", "line": "", "failed": "it hung"}
        for broken, what in [
            (slow, "ping p99 46 ms, at most 45"),
            (fat, "RSS 501 MB"),
            (unheard, "no publish was answered"),
            (ended, "1 insiders were closed"),
            (long_turn, "a turn of 41 ms"),
            (failed, "it hung"),
        ]:
            said = bounds.broken([broken])
            self.assertEqual(len(said), 1, said)
            self.assertIn(what, said[0])

    def test_a_fact_is_a_largest_number_or_a_value(self):
        squat = result("squat")
        self.assertIn("newcomers_refused is None", bounds.broken([squat])[0])
        squat["facts"] = {"newcomers_refused": 0}
        self.assertEqual(bounds.broken([squat]), [])
        poison = result("deep-json")
        poison["facts"] = {"python": "well", "javascript": "RangeError"}
        self.assertEqual(len(bounds.broken([poison])), 1)


class Document(unittest.TestCase):
    def test_it_has_a_row_for_each_attack(self):
        rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*\|$", DOCUMENT.read_text(), re.MULTILINE)
        self.assertEqual(sorted(rows), sorted(ATTACKS))

    def test_a_column_is_filled_and_the_others_stay(self):
        text = "| `inflate` | an attack | old |  |\n| `squat` | another | old |  |"
        filled = report.fill(text, [result()], "after").split("\n")
        self.assertTrue(filled[0].startswith("| `inflate` | an attack | old | ping 1.0/"), filled)
        self.assertEqual(filled[1], "| `squat` | another | old |  |")
        again = report.fill("\n".join(filled), [result(ping_p50_ms=2.0)], "before").split("\n")
        self.assertIn("| an attack | ping 2.0/", again[0])
        self.assertIn("| ping 1.0/", again[0])


class Wire(unittest.TestCase):
    def test_nothing_but_the_loopback_is_dialled(self):
        for host in ("192.0.2.1", "0.0.0.0", "::", "example.org"):
            with self.assertRaises(ValueError):
                wire.dial((host, 9))

    def test_frames_are_read_however_they_are_cut(self):
        sizes = [0, 125, 126, 65_535, 65_536]
        # As a server sends them: without a mask.
        stream = b"".join(server_frame(b"x" * size) for size in sizes)
        for step in (1, 7, 4096, len(stream)):
            frames, sizes_read = wire.Frames(), []
            for at in range(0, len(stream), step):
                frames.feed(stream[at : at + step])
                sizes_read += [len(payload) for _, payload in frames.take()]
            self.assertEqual(sizes_read, sizes, f"in steps of {step}")


def server_frame(payload):
    masked = bytearray(wire.frame(payload))
    head = len(masked) - len(payload) - len(wire.MASK)
    masked[1] &= 0x7F
    return bytes(masked[:head]) + payload


class Arguments(unittest.TestCase):
    def test_a_wrong_name_is_told(self):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
            run.arguments(["inflat"])
        self.assertIn("no such attack: inflat", said.getvalue())
