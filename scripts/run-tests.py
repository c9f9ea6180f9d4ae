#!/usr/bin/env python3
"""Runs `cargo test --workspace` with several of its programs at once.

    scripts/run-tests.py [AT_ONCE]     one more than there are processors, unless told

cargo builds a program for each file below tests/ and runs one after the other, though most of a test is waiting:
the processors were idle half of the time. What is built and what is run is the same. Prints the output of each
program in one piece when it has ended; ends with 1 if any has failed.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

# These take longest; at the end they would run alone.
LONGEST = ["cluster_test", "simulator", "shards_test", "load_modes_test", "session_client_test"]

CARGO = ["cargo", "test", "--workspace"]


def built():
    """The name of each program of tests, where cargo would run it, and how."""
    build = [*CARGO, "--no-run", "--message-format=json-render-diagnostics"]
    done = subprocess.run(build, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit("the tests cannot be built")
    for message in map(json.loads, done.stdout.splitlines()):
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            yield message["target"]["name"], os.path.dirname(message["manifest_path"]), [message["executable"]]


def run(directory, command):
    """Whether a program has passed, and what it printed."""
    done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode == 0, done.stdout


def main():
    at_once = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() + 1
    programs = [*built(), ("examples in comments", None, [*CARGO, "--doc", "--no-fail-fast"])]
    programs.sort(key=lambda program: program[0] not in LONGEST)
    failed = []
    with ThreadPoolExecutor(at_once) as threads:
        running = {threads.submit(run, *how): name for name, *how in programs}
        for done in as_completed(running):
            passed, output = done.result()
            print(f"     Running {running[done]}", flush=True)
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
            if not passed:
                failed.append(running[done])
    if failed:
        sys.exit("these failed: " + ", ".join(failed))


main()
