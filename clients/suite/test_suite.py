"""That the suite fails when it should: clients that err on purpose, and arguments that are none."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent

# An adapter without a client, which says yes to all but the addresses that begin with one scheme.
LIAR = """
import json, sys
for line in sys.stdin:
    order = json.loads(line)
    answer = {"name": "liar", "by_design": BY_DESIGN} if order["do"] == "about" else None
    is_wrong = order["do"] == "connect" and order["url"].startswith(REFUSED)
    told = {"error": "caller"} if is_wrong else {"ok": answer}
    print(json.dumps({"result": order["n"], **told}), flush=True)
"""


class SuiteTest(unittest.TestCase):
    def run_suite(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE / "run.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def run_liar(self, case: str, by_design: str = "{}") -> subprocess.CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(LIAR.replace("BY_DESIGN", by_design).replace("REFUSED", "'ftp:'"))
            file.flush()
            return self.run_suite("--client", f"{sys.executable} {file.name}", case)

    def test_a_client_that_errs_fails_and_so_does_the_run(self) -> None:
        ran = self.run_liar("misuse/url-empty")
        self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
        self.assertRegex(ran.stdout, r"liar +misuse/url-empty +FAILED")

    def test_a_client_that_does_well_passes(self) -> None:
        ran = self.run_liar("misuse/url-scheme")
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertRegex(ran.stdout, r"liar: 1 passed, 0 failed")

    def test_what_fails_by_design_is_no_failure(self) -> None:
        ran = self.run_liar("misuse/url-empty", "{'misuse/url-empty': 'it takes anything'}")
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertRegex(ran.stdout, r"by design +\d+\.\d s: it takes anything")

    def test_a_manifest_with_a_case_that_passes_or_is_none_is_wrong(self) -> None:
        ran = self.run_liar("misuse/url-scheme", "{'misuse/url-scheme': ''}")
        self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
        ran = self.run_liar("misuse/url-empty", "{'misuse/nothing': ''}")
        self.assertEqual(ran.returncode, 2, ran.stdout + ran.stderr)

    def test_wrong_arguments(self) -> None:
        self.assertEqual(self.run_suite("--list", "handshake/99").returncode, 2)
        self.assertEqual(self.run_suite("--client", "/nowhere/at-all").returncode, 2)
        self.assertEqual(self.run_suite().returncode, 2)

    def test_the_list_has_each_case_with_what_it_asks_for(self) -> None:
        lines = self.run_suite("--list").stdout.splitlines()
        self.assertGreater(len(lines), 300)
        for line in lines:
            self.assertRegex(line, r"^[a-z]+/\S+ +\S.*$")


if __name__ == "__main__":
    unittest.main()
