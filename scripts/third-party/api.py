"""The server API under tools that nobody here wrote: curl, schemathesis on the OpenAPI file, and promtool on
/metrics.

    api.py --binary PATH --schemathesis PATH [--promtool PATH]

Ends with `N passed, N failed`; exits 1 if any failed. Run by scripts/test.sh, which installs the tools.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from functools import partial
from pathlib import Path

from checks import equal, run_checks
from server import Server, wait_for

HERE = Path(__file__).resolve().parent
KEY = "0123456789abcdef-third-party"
ADMIN = re.compile(r"admin listener is on (\S+:\d+)")

# What one run may take; it takes a fifth of that on two idle cores.
SECONDS_MAX = 300
EXAMPLES = 25


def curl(program, address):
    """What a shell script would do, as docs/api.md shows it, and bodies in each way that curl sends them."""

    def ask(path, *more):
        command = [program, "-sS", "--fail-with-body", "--max-time", "20", "-H", f"Authorization: Bearer {KEY}"]
        command += [*more, f"http://{address}{path}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    message = '{"room":"lobby","content":"hello"}'
    for seq, more in enumerate([[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]], 1):
        equal(json.loads(ask("/v1/publish", *more, "-d", message))["seq"], seq)
    lines = ask("/v1/batch", "--data-binary", f"{message}\n{message}").splitlines()
    equal([json.loads(line)["seq"] for line in lines], [4, 5])
    page = json.loads(ask("/v1/rooms/lobby/history?limit=2"))
    equal([message["seq"] for message in page["messages"]], [4, 5])
    equal(json.loads(ask("/v1/revoke", "-d", '{"user":"nobody"}')), {"closed": 0})
    assert "rusty_socks_messages_in_total" in ask("/metrics")


def schemathesis(program, address):
    """Requests that fit the file and requests that do not. A drain would end the server, and schemathesis
    cannot write lines of JSON: tests/api_test.rs has both."""
    command = [program, "--config-file", HERE / "schemathesis.toml"]
    command += ["run", HERE.parent.parent / "docs" / "openapi.json", "--url", f"http://{address}"]
    command += ["-H", f"Authorization: Bearer {KEY}", "--max-examples", str(EXAMPLES)]
    command += ["--phases", "examples,coverage,fuzzing"]
    command += ["--exclude-path", "/v1/drain", "--exclude-path", "/v1/batch"]
    # Its own files go where they are thrown away.
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(command, check=True, timeout=SECONDS_MAX, cwd=scratch)


def promtool(program, address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text = answer.read()
    subprocess.run([program, "check", "metrics"], input=text, check=True, timeout=60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--promtool")
    args = parser.parse_args()
    checks = [(curl, "curl"), (schemathesis, args.schemathesis), (promtool, args.promtool)]
    if not args.promtool:
        print("!!! /metrics WAS NOT CHECKED: there is no promtool", flush=True)
        checks.pop()
    with Server(args.binary, admin_port=0, api_key=KEY) as server:
        address = wait_for("admin address in the log", lambda: ADMIN.search(server.log_text())).group(1)
        outcome = run_checks([(check.__name__, partial(check, program, address)) for check, program in checks])
        assert server.process.poll() is None, server.log_text()
    return outcome


if __name__ == "__main__":
    sys.exit(main())
