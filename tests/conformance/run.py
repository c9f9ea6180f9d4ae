"""One run of Autobahn's cases, compared with the pinned verdicts. `scripts/conformance.sh` calls it.

A case that does better than its pin fails the run as one that does worse: the pin is then out of date,
and `docs/conformance.md` with it. What a run can get wrong without a word is checked here too: no index,
a case that is missing, a suite that ends with 0 on failures as `wstest` does.
"""

import argparse
import collections
import contextlib
import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts" / "third-party"))

from server import Server, wait_for  # noqa: E402

# What Autobahn has, without a subset chosen.
CASES = 517

# As many cases at once as keep two cores busy; the reference runs one after another.
PARALLEL = 4

# Several times what a run takes on two busy cores; the reference is the slower suite.
RUN_S_MAX = {"kosoku": 900, "wstest": 3600}

# Autobahn's largest message has 16 MiB (9.1.6), and its echo must have room.
SETTINGS = {
    "echo": "true",
    "max_message_bytes": "16MiB",
    "buffer_bytes": "64MiB",
    "mailbox_bytes": "64MiB",
    # Every message is compressed where the case agrees on it, however short.
    "compression_threshold": 0,
}

LISTENS = re.compile(r"fuzzingserver listening on ws://(\S+)")


def main():
    # So that whatever was started is ended, when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args = arguments()
    shutil.rmtree(args.reports, ignore_errors=True)
    args.reports.mkdir(parents=True)
    began = time.monotonic()
    if args.client:
        index = client_side(args)
    else:
        index = server_side(args)
    took = time.monotonic() - began

    pins = json.loads(args.pins.read_text()) if args.pins.exists() else {}
    found = {case: verdict(entry) for case, entry in index.items()}
    if args.update:
        update(args, pins, found)
    differences = compare(selected(pins, args.include), found)
    for case, was, now in differences:
        print(f"  {case}: pinned {words(was)}, now {words(now)}{reasons(args.reports, index.get(case))}")
    tally = collections.Counter(behavior(entry) for entry in found.values())
    counts = ", ".join(f"{count} {name}" for name, count in tally.most_common())
    verdict_in_words = f"{len(differences)} not as pinned" if differences else "all as pinned"
    print(f"{args.title}: {len(found)} cases in {took:.0f} s: {counts}; {verdict_in_words}")
    if not args.include and len(found) != CASES:
        sys.exit(f"{CASES} cases were to be run, and {len(found)} were")
    if not found or differences:
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", required=True, help="what the line with the outcome begins with")
    parser.add_argument("--pins", type=pathlib.Path, required=True)
    parser.add_argument("--reports", type=pathlib.Path, required=True, help="emptied first")
    parser.add_argument("--kosoku", required=True, help="the suite that is the gate")
    parser.add_argument("--wstest", help="the reference, which is then run instead")
    parser.add_argument("--server", help="the server's binary")
    parser.add_argument("--mode", help="the server's compression")
    parser.add_argument("--client", help="the client's binary, tested instead of a server")
    parser.add_argument("-i", "--include", action="append", metavar="PATTERN", default=[])
    parser.add_argument("--update", action="store_true")
    return parser.parse_args()


def server_side(args):
    with Server(args.server, compression=args.mode, **SETTINGS) as server:
        wait_for("answer from /health", lambda: healthy(server))
        command, limit_s = suite(args, server.ws("/echo"))
        try:
            run(command, limit_s, args.reports / "suite.log")
            # A server that fell over near the end may have passed all that was seen of it.
            wait_for("answer from /health after the run", lambda: healthy(server))
        finally:
            (args.reports / "server.log").write_text(server.log_text())
    return read_index(args.reports)


def suite(args, url):
    """The command that plays the cases against `url`, and how long it may take."""
    if not args.wstest:
        include = [word for pattern in args.include for word in ("-i", pattern)]
        options = ["-m", "fuzzingclient", "-p", str(PARALLEL), "-o", str(args.reports)]
        return [args.kosoku, *options, *include, url], RUN_S_MAX["kosoku"]
    spec = args.reports / "spec.json"
    wanted = {
        "outdir": str(args.reports),
        "servers": [{"agent": "rusty_socks", "url": url}],
        "cases": args.include or ["*"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    spec.write_text(json.dumps(wanted))
    return [args.wstest, "-m", "fuzzingclient", "-s", str(spec)], RUN_S_MAX["wstest"]


def healthy(server):
    if server.process.poll() is not None:
        raise AssertionError(f"the server ended with {server.process.returncode}")
    with contextlib.suppress(OSError):
        return server.get("/health")[0] == 200
    return False


def client_side(args):
    """The suite is the server here, and ends when the client asks for the reports."""
    include = [word for pattern in args.include for word in ("-i", pattern)]
    options = ["-m", "fuzzingserver", "-o", str(args.reports)]
    # Port 0 is a free one, and it is told.
    command = [args.kosoku, *options, *include, "127.0.0.1:0"]
    end = time.monotonic() + RUN_S_MAX["kosoku"]
    with open(args.reports / "suite.log", "w+") as log:
        suite = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with ended(suite):
            address = wait_for("fuzzing server", lambda: listens(suite, args.reports / "suite.log"))
            run([args.client, address], RUN_S_MAX["kosoku"], args.reports / "client.log", must_succeed=True)
            suite.wait(timeout=max(1, end - time.monotonic()))
    return read_index(args.reports)


def listens(suite, log):
    text = log.read_text()
    if suite.poll() is not None:
        raise AssertionError(f"the fuzzing server ended with {suite.returncode}: {text}")
    found = LISTENS.search(text)
    return found and found.group(1)


def run(command, limit_s, log, must_succeed=False):
    """Runs to the end. The exit code of a suite says less than its index does."""
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        with ended(process):
            try:
                code = process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                sys.exit(f"{command[0]} was not done after {limit_s} s; its words are in {log}")
    if must_succeed and code != 0:
        sys.exit(f"{command[0]} ended with {code}: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def ended(process):
    """Ends the process on the way out, if it has not ended by itself."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def read_index(reports):
    try:
        agents = json.loads((reports / "index.json").read_text())
    except FileNotFoundError:
        log = (reports / "suite.log").read_text()
        sys.exit(f"the suite has left no index; its last words:\n{log[-2000:]}")
    if len(agents) != 1:
        sys.exit(f"the suite names {len(agents)} agents instead of one: {', '.join(agents)}")
    (index,) = agents.values()
    return index


def verdict(entry):
    return {"behavior": entry["behavior"], "behaviorClose": entry["behaviorClose"]}


def behavior(entry):
    """The verdict in one word, which is the worse of the two where only one is."""
    both = list(entry.values())
    return both[0] if both[0] != "OK" or both[1] == "OK" else f"close {both[1]}"


def words(entry):
    return f"{entry['behavior']} (close {entry['behaviorClose']})" if entry else "nothing"


def reasons(reports, entry):
    """What the suite's own report says of a case."""
    if not entry:
        return ""
    report = json.loads((reports / entry["reportfile"]).read_text())
    return f"\n    {report['result']} {report['resultClose']}\n    {reports / entry['reportfile']}"


def selected(pins, patterns):
    if not patterns:
        return pins
    return {case: pin for case, pin in pins.items() if any(fnmatch.fnmatchcase(case, p) for p in patterns)}


def compare(pins, found):
    """Each case where the two differ, a missing one on either side included."""
    cases = sorted({*pins, *found}, key=order)
    both = ((case, pins.get(case), found.get(case)) for case in cases)
    return [(case, was, now) for case, was, now in both if was != now]


def update(args, pins, found):
    """Writes what was found over the pins: all of them, or those that were run."""
    if not args.include and len(found) != CASES:
        sys.exit(f"{CASES} cases were to be run, and {len(found)} were; the pins stay as they are")
    pinned = {**pins, **found} if args.include else found
    for case, was, now in compare(selected(pins, args.include), found):
        print(f"  {case}: pinned {words(was)} until now, from now on {words(now)}")
    lines = [f"  {json.dumps(case)}: {json.dumps(pinned[case])}" for case in sorted(pinned, key=order)]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    # Whole or not at all.
    with tempfile.NamedTemporaryFile("w", dir=args.pins.parent, delete=False) as new:
        new.write(text)
    os.chmod(new.name, 0o644)
    os.replace(new.name, args.pins)
    pins.clear()
    pins.update(pinned)


def order(case):
    return [int(part) for part in case.split(".")]


if __name__ == "__main__":
    try:
        main()
    except AssertionError as fault:
        sys.exit(f"conformance: {fault}")
