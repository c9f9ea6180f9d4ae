#!/usr/bin/env python3
"""Attacks a server of one's own on this machine, and says what its other clients noticed.

Starts the server for each attack on a free port of the loopback; nothing else is ever dialled.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # As a script of its own it finds its siblings all the same.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    __package__ = "scripts.attack"

from . import bounds, report  # noqa: E402
from .attacks import ATTACKS  # noqa: E402
from .scene import Scene  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/rusty_socks"
# Beyond this something hangs.
ATTACK_S_MAX = 240


def arguments(args):
    parser = argparse.ArgumentParser(prog="scripts/attack/run.py", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="attacks to run")
    parser.add_argument("--list", action="store_true", help="list the attacks and their bounds")
    parser.add_argument("--all", action="store_true", help="run every attack")
    parser.add_argument("--short", action="store_true", help="2 to 4 s each, and fewer of all")
    parser.add_argument("--check", action="store_true", help="fail where a bound does not hold")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="fill the column 'after' of the table in FILE, e.g. docs/reliability.md",
    )
    parser.add_argument("--column", default="after", choices=["before", "after"])
    parser.add_argument("--from", type=Path, dest="taken", metavar="FILE", help="take the figures "
                        "of an earlier --json instead of running anything")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        help="a setting of the server for all attacks, such as MEMORY_MAX=128MiB",
    )
    parser.add_argument("--binary", type=Path, default=BINARY, help="default: %(default)s")
    options = parser.parse_args(args)
    unknown = [name for name in options.names if name not in ATTACKS]
    if unknown:
        parser.error(f"no such attack: {', '.join(unknown)}; --list shows them")
    if not (options.names or options.all or options.list or options.taken):
        parser.error("name attacks, or give --all or --list")
    return options


def setting(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def main(args=None):
    options = arguments(args)
    if options.list:
        for attack in ATTACKS.values():
            print(f"{attack.name:16} {attack.line}")
        print()
        print(bounds.table())
        return 0
    names = list(ATTACKS) if options.all else options.names
    if options.taken:
        results = json.loads(options.taken.read_text())
        results = [one for one in results if not names or one["name"] in names]
    else:
        results = run_all(names, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        text = report.fill(options.markdown.read_text(), results, options.column)
        options.markdown.write_text(text)
    print()
    print(report.table(results))
    if not options.check:
        return 1 if any("failed" in result for result in results) else 0
    broken = bounds.broken(results)
    for line in broken:
        print(f"does not hold: {line}")
    print(f"{len(results)} attacks, {len(broken)} bounds do not hold")
    return 1 if broken else 0


def run_all(names, options):
    if not options.binary.exists():
        sys.exit(f"{options.binary} is not there: cargo build --release, or give --binary")
    raise_file_limit()
    results = []
    for name in names:
        print(f"{name:16} {ATTACKS[name].line}", flush=True)
        result = run_apart(name, options)
        print(report.line(result), flush=True)
        results.append(result)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    return results


def raise_file_limit():
    """A client is an open file, and a crowd is thousands."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_apart(name, options):
    """Runs one attack in a process of its own, so that none is the worse for another."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_one, args=(name, options, theirs))
    process.start()
    theirs.close()
    pid, result = None, {"name": name, "line": ATTACKS[name].line, "failed": "took too long"}
    try:
        if ours.poll(ATTACK_S_MAX / 4):
            pid = ours.recv()
            if ours.poll(ATTACK_S_MAX):
                result = ours.recv()
    except EOFError:
        result["failed"] = "ended without a result"
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
    if pid and f"/{options.binary.name}" in command_of(pid):
        os.kill(pid, signal.SIGKILL)
    return result


def command_of(pid):
    try:
        return "/" + os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def run_one(name, options, pipe):
    attack, scene = ATTACKS[name], None
    try:
        scene = Scene(attack, str(options.binary), options.short, dict(options.set))
        pipe.send(scene.server.pid)
        scene.begin()
        attack.run(scene)
        pipe.send(scene.result())
    except Exception as error:
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        if not scene:
            pipe.send(None)
        failed = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        pipe.send({"name": name, "line": attack.line, "failed": failed})
    finally:
        if scene:
            scene.close()


if __name__ == "__main__":
    sys.exit(main())
