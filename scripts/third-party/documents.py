"""The commands of README.md and docs/, run as they are shown.

    documents.py --binary PATH [PAGE …]

All blocks of `sh` of a page are one script, in an empty directory and with the real binary; each
command has to succeed. A block of any language whose first line is a comment with the name of a
file is that file; `<?php` may stand before it. After a server in the background a page has `sleep
1`, for readers who paste the whole block; here the server is waited for instead. Free ports stand
in place of 3030 to 3032. A block that is not run stands in `NOT_RUN` with the reason; one that
stands nowhere fails.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from checks import run_checks
from server import bare_environment

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60

# Pages whose commands are for another machine, or take long.
NOT_RUN_PAGES = {
    "docs/benchmarks.md": "scripts/test.sh compare",
    "docs/clustering.md": "needs Docker; deploy.py reads its files",
    "docs/conformance.md": "scripts/test.sh conformance",
    "docs/operations.md": "needs systemd, Docker or Kubernetes; deploy.py reads its files",
    "docs/reliability.md": "scripts/chaos.sh, scripts/soak.sh",
    "docs/scaling.md": "scripts/test.sh compare",
}

# Single blocks, by how they begin.
NOT_RUN = {
    ("README.md", "cargo install --path ."): "a release build: conformance makes one",
    ("docs/access.md", "rusty_socks token --user anna"): "needs a secret; configuration.md has one",
    ("docs/access.md", "curl -H"): "tests/api_users_test.rs",
    ("docs/clients.md", "clients/suite/run.py"): "scripts/test.sh suite",
    ("docs/clients.md", "rusty_socks connect localhost "): "tests/connect_test.rs",
    ("docs/configuration.md", "kill -HUP"): "tests/reload_test.rs",
    ("docs/configuration.md", "export RUSTY_SOCKS_TLS_CERT"): "tests/tls_test.rs",
    ("docs/hooks.md", "openssl rand"): "tests/hooks_test.rs",
    ("docs/load-testing.md", "rusty_socks load ws://"): "tests/load_modes_test.rs",
}
# What a recipe needs, and what asks whether it is there.
FOR_RECIPES = {
    "go run": ["go", "version"],
    "php artisan": ["php", "-r", "require 'Illuminate/autoload.php'; require 'GuzzleHttp/autoload.php';"],
}
for start, asks in FOR_RECIPES.items():
    if shutil.which(asks[0]) is None or subprocess.run(asks, capture_output=True).returncode != 0:
        print(f"!!! THE RECIPE `{start}` WAS NOT PLAYED: what it needs is not installed", flush=True)
        NOT_RUN["docs/recipes/backends.md", start] = "it is not here"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"(?:<\?php\n)?(?:#|//) ([\w-]+\.\w+)\n")
SERVER = re.compile(r"^(.*\brusty_socks(?: --config \S+)?) & sleep 1(?: +#.*)?$", re.MULTILINE)
NOT_AWAITED = re.compile(r"^.*\brusty_socks\b[^|&]* &(?: +#.*)?$", re.MULTILINE)

# Fails a page whose server does not come up, without a line of output for each look.
AWAIT = """
await_server() {
  set +x
  for _ in $(seq 200); do
    grep -q 'listens on ' "$1" && set -x && return
    sleep 0.05
  done
  cat "$1"
  return 1
}
"""


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def is_run(page, block):
    return not any(page == where and block.startswith(start) for where, start in NOT_RUN)


def script_of(page, text, home, ports):
    """The commands of a page; its files are written."""

    def filled(text):
        return re.sub(r"\b303([0-2])\b", lambda found: str(ports[int(found[1])]), text)

    parts = []
    for language, block in BLOCK.findall(text):
        named = NAMED.match(block)
        if named:
            (home / named[1]).write_text(filled(block))
        elif language == "sh" and is_run(page, block):
            parts.append(filled(block))
    script = "\n".join(parts)
    early = NOT_AWAITED.search(script)
    assert early is None, f"what follows may come before the server listens: {early[0]}"
    logs = iter(range(1000))

    def in_background(found):
        log = f"server-{next(logs)}.log"
        return f"{found[1]} 2>{log} &\nawait_server {log}"

    return SERVER.sub(in_background, script)


def run(page, binary):
    text = (ROOT / page).read_text()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        ports = free_ports(3)
        script = script_of(page, text, home, ports)
        env = {**bare_environment(), "RUSTY_SOCKS_PORT": str(ports[0]), "RUSTY_SOCKS_HOST": "127.0.0.1"}
        # An answer that is no success fails the command, which people see with their eyes.
        (home / ".curlrc").write_text("fail-with-body\nmax-time = 20\n")
        env["HOME"] = name
        env["PATH"] = os.pathsep.join([str(Path(binary).resolve().parent), env["PATH"]])
        command = ["bash", "-eux", "-c", AWAIT + script]
        # For the recipe of Laravel, which is for an application that is there already.
        shutil.copy(Path(__file__).parent / "artisan.php", home / "artisan")
        # A group of its own, so that what a page leaves running ends with it.
        process = subprocess.Popen(
            command, cwd=home, env=env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=(home / "output").open("w"), stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            code = "no end"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        assert code == 0, f"{page} ended with {code}:\n{(home / 'output').read_text()}"


def pages():
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def check_lists():
    """That nothing is on the lists which is not there any more."""
    blocks = {page: [block for _, block in BLOCK.findall((ROOT / page).read_text())] for page in pages()}
    for page, start in NOT_RUN:
        assert any(block.startswith(start) for block in blocks[page]), f"{page} has no block {start}"
    for page in NOT_RUN_PAGES:
        assert page in blocks, page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the server to start")
    parser.add_argument("page", nargs="*")
    args = parser.parse_args()
    checks = [("what is not run is still there", check_lists)]
    for page in args.page or pages():
        text = (ROOT / page).read_text()
        has_commands = any(language == "sh" and is_run(page, block) for language, block in BLOCK.findall(text))
        if has_commands and page not in NOT_RUN_PAGES:
            checks.append((f"the commands of {page}", partial(run, page, args.binary)))
    return run_checks(checks)


if __name__ == "__main__":
    sys.exit(main())
