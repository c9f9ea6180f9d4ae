#!/usr/bin/env python3
"""Plays a scripted, misbehaving server to clients, and judges them by what they send and yield.

    clients/suite/run.py --client 'node clients/suite/adapters/js.mjs'
    clients/suite/run.py --client 'my-adapter' close resume/gone   # these groups and cases
    clients/suite/run.py --list

Several --client make a table. Exits with 1 if a case fails, and with 2 for wrong arguments.
Needs Python 3.10 and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import server  # noqa: E402
from adapter import Adapter  # noqa: E402
from case import CASES, Case, Failed, Skipped, Table, end  # noqa: E402
from cases import load  # noqa: E402

# A case that takes longer hangs; the longest waits are a fraction of it.
CASE_S_MAX = 60.0

# What is shown of one frame.
TRACE_CHARACTERS_MAX = 400


@dataclass
class Verdict:
    """`passed`, `FAILED`, `by design` (the manifest says why not) or `n/a`."""

    word: str
    why: str = ""
    seconds: float = 0.0


@dataclass
class Client:
    command: str
    name: str
    by_design: dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", action="append", default=[], metavar="COMMAND", help="an adapter; repeat for a table")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--jobs", type=int, default=12, help="cases at a time; most of one is waiting (default: 12)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--quiet", action="store_true", help="print only cases that do not pass")
    parser.add_argument("--trace", action="store_true", help="print every frame, order and yield, with one job")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names or groups; all if there are none")
    arguments = parser.parse_args()
    load()
    if arguments.trace:
        arguments.jobs = 1
        server.trace = tracer()
    names = [name for name in CASES if not arguments.cases or any(name == each or name.startswith(each.rstrip("/") + "/") for each in arguments.cases)]
    unknown = [each for each in arguments.cases if not any(n == each or n.startswith(each.rstrip("/") + "/") for n in CASES)]
    if unknown or arguments.jobs < 1:
        print(f"run.py: there is no case {unknown[0]!r}; see --list" if unknown else "run.py: --jobs is at least 1", file=sys.stderr)
        return 2
    if arguments.list:
        for name in names:
            print(f"{name:34} {CASES[name].what}")
        return 0
    if not arguments.client:
        parser.error("--client is needed")
    return asyncio.run(run(arguments, [CASES[name] for name in names]))


def tracer() -> Callable[[str, object], None]:
    began = time.monotonic()

    def show(arrow: str, what: object) -> None:
        line = what.decode(errors="backslashreplace").rstrip() if isinstance(what, bytes) else str(what)
        print(f"{time.monotonic() - began:8.3f} {arrow:10} {line[:TRACE_CHARACTERS_MAX]}", flush=True)

    return show


async def run(arguments: argparse.Namespace, cases: list[Case]) -> int:
    results: dict[str, dict[str, Verdict]] = {}
    for command in arguments.client:
        client = await about(command)
        if client is None:
            return 2
        strange = [name for name in client.by_design if name not in CASES]
        if strange:
            print(f"run.py: the manifest of {client.name} names {strange[0]!r}, which is no case", file=sys.stderr)
            return 2
        began = time.monotonic()
        results[client.name] = await play_all(client, cases, arguments)
        words = [verdict.word for verdict in results[client.name].values()]
        print(
            f"{client.name}: {words.count('passed')} passed, {words.count('FAILED')} failed, "
            f"{words.count('by design')} by design, {words.count('n/a')} n/a in {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if len(results) > 1 or arguments.markdown:
        table(results, cases, arguments.markdown)
    return int(any(verdict.word == "FAILED" for verdicts in results.values() for verdict in verdicts.values()))


async def about(command: str) -> Client | None:
    """Asks a client for its name, and for the cases that do not hold for it by design."""
    adapter = Adapter(command)
    try:
        await adapter.start()
        stage = Table(adapter)
        told = await stage.ok(stage.order("about"))
        await end(adapter)
        return Client(command, told["name"], told.get("by_design", {}))
    except (OSError, Failed, Skipped, KeyError, TypeError) as error:
        print(f"run.py: {command!r} does not say what it is about: {error}", file=sys.stderr)
        sys.stderr.write(adapter.noise.decode(errors="replace"))
        return None


async def play_all(client: Client, cases: list[Case], arguments: argparse.Namespace) -> dict[str, Verdict]:
    places = asyncio.Semaphore(arguments.jobs)
    # The adapters that have played a case well, and are free for the next one.
    free: list[Adapter] = []

    async def play_one(case: Case) -> Verdict:
        async with places:
            return await play(client, case, free)

    tasks = [asyncio.create_task(play_one(case)) for case in cases]
    verdicts = {}
    # In their order, each as soon as it is known.
    for case, task in zip(cases, tasks):
        verdict = verdicts[case.name] = await task
        say(arguments, client, case.name, verdict)
    try:
        await asyncio.gather(*(end(adapter) for adapter in free))
    except Failed as failed:
        verdicts["end"] = Verdict("FAILED", str(failed))
        say(arguments, client, "end", verdicts["end"])
    return verdicts


def say(arguments: argparse.Namespace, client: Client, name: str, verdict: Verdict) -> None:
    if not arguments.quiet or verdict.word == "FAILED":
        why = f": {verdict.why}" if verdict.why else ""
        print(f"{client.name:8} {name:34} {verdict.word:9} {verdict.seconds:5.1f} s{why}", flush=True)


async def play(client: Client, case: Case, free: list[Adapter]) -> Verdict:
    began = time.monotonic()
    adapter = free.pop() if free else Adapter(client.command)

    async def whole() -> None:
        if not adapter.is_started:
            await adapter.start()
        stage = Table(adapter)
        await stage.start()
        try:
            await case.play(stage)
        finally:
            # What a case has found is said before what its end shows.
            failing = sys.exc_info()[1]
            try:
                await stage.stop()
            except Failed:
                if failing is None:
                    raise

    try:
        await asyncio.wait_for(whole(), CASE_S_MAX)
        verdict = Verdict("passed")
    except Skipped as skipped:
        verdict = Verdict("n/a", str(skipped))
    except Failed as failed:
        verdict = Verdict("FAILED", str(failed))
    except asyncio.TimeoutError:
        verdict = Verdict("FAILED", f"takes longer than {CASE_S_MAX} s")
    except Exception as error:
        # A command that no case foresees; or a fault of the case, which the trace tells apart.
        verdict = Verdict("FAILED", f"the case ends with {error!r}")
    if verdict.word == "FAILED":
        # What is left of it is nothing for the next case.
        adapter.kill()
        await adapter.stop()
    elif not adapter.is_over:
        free.append(adapter)
    if case.name in client.by_design:
        verdict = by_design(verdict, client.by_design[case.name])
    verdict.seconds = time.monotonic() - began
    return verdict


def by_design(verdict: Verdict, reason: str) -> Verdict:
    if verdict.word == "passed":
        return Verdict("FAILED", "passes, though the manifest says that it does not hold: remove it there")
    return Verdict("by design", reason) if verdict.word == "FAILED" else verdict


def table(results: dict[str, dict[str, Verdict]], cases: list[Case], is_markdown: bool) -> None:
    """A line a group, and one for each case that fails somewhere, by design or not."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.name.split("/")[0], []).append(case)
    rows = [["cases", *results]]
    for group, members in groups.items():
        cells = []
        for verdicts in results.values():
            words = [verdicts[case.name].word for case in members]
            others = [f"{words.count(word)} {word}" for word in ("FAILED", "by design", "n/a") if word in words]
            cells.append(f"{words.count('passed')} passed" + "".join(f", {other}" for other in others))
        rows.append([f"{group} ({len(members)})", *cells])
        for case in members:
            words = [verdicts[case.name].word for verdicts in results.values()]
            if any(word in ("FAILED", "by design") for word in words):
                rows.append([f"- {case.name}", *words])
    if is_markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        return
    print()
    for first, *others in rows:
        print(f"{first:36}" + "".join(f"{other:36}" for other in others).rstrip())


if __name__ == "__main__":
    sys.exit(main())
