#!/usr/bin/env python3
"""Runs `cargo test --workspace` with several of its programs at once: one more than there are processors.

cargo builds a program for each file below tests/ and runs one after the other, though most of a test is waiting:
the processors were idle half of the time. What is built and what is run is the same. Prints the output of each
program in one piece when it has ended; on SIGTERM, that of those which have not. Ends with 1 if any has failed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed

# These take longest; at the end they would run alone.
LONGEST = [
    "tests/cluster_test.rs",
    "crates/testing/tests/simulator.rs",
    "tests/shards_test.rs",
    "tests/load_modes_test.rs",
    "tests/session_client_test.rs",
]

CARGO = ["cargo", "test", "--workspace"]

# The programs that run, by the file that has their output.
running = {}


def built():
    """The source of each program of tests, where cargo would run it, and how."""
    build = [*CARGO, "--no-run", "--message-format=json-render-diagnostics"]
    done = subprocess.run(build, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit("the tests cannot be built")
    for message in map(json.loads, done.stdout.splitlines()):
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            source = os.path.relpath(message["target"]["src_path"])
            yield source, os.path.dirname(message["manifest_path"]), [message["executable"]]


def run(name, directory, command):
    """The name of a program, whether it has passed, and what it printed."""
    with tempfile.NamedTemporaryFile() as output:
        running[output.name] = name
        code = subprocess.call(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        del running[output.name]
        output.seek(0)
        return name, code == 0, output.read()


def show(title, output):
    print(title, flush=True)
    sys.stdout.buffer.write(output)
    sys.stdout.flush()


def tell_unfinished(*_):
    """Shows how far the others have come. Whoever ends this process ends theirs."""
    for path, name in list(running.items()):
        with open(path, "rb") as output:
            show(f"     NOT FINISHED {name}", output.read())
    os._exit(1)


def main():
    programs = [*built(), ("examples in comments", None, [*CARGO, "--doc", "--no-fail-fast"])]
    programs.sort(key=lambda program: program[0] not in LONGEST)
    signal.signal(signal.SIGTERM, tell_unfinished)
    failed = []
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as threads:
        for done in as_completed([threads.submit(run, *program) for program in programs]):
            name, passed, output = done.result()
            show(f"     Running {name}", output)
            if not passed:
                failed.append(name)
    if failed:
        sys.exit("these failed: " + ", ".join(failed))


main()
