#!/usr/bin/env python3
"""Promises at their full size: a restart under load that loses nothing, a crowd outside a full
server that those inside do not notice, and a node that is killed and missed by nobody."""

import argparse
import asyncio
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..attack.server import Server, get_json
from . import lines
from .redis import Redis
from .stage import BINARY, REPOSITORY, Stage, equal, listener, wait_for

OUT = REPOSITORY / "target/chaos"
RUN_S_MAX = 240
# Two processes of clients, because one does not read for 5,000.
PROCESSES = 2
TICK_MS, STEP_S = 250, 0.5
BEFORE_S, AFTER_S = 10, 12
# What `closing` asks clients for, at most.
RECONNECT_MS_MAX = 5000
INSIDE, OUTSIDE = 5000, 15_000
# With 4,096, the default, most of a crowd that connects before it says anything is refused unheard:
# cheaper for those inside, but then not all who could be served are. So this is for the empty one.
HEADS_MAX = 12_000
# A publisher for each room, and as many messages in a second as are delivered to 10 % of all.
ROOMS, RATE = 50, 50
FANOUT_S, STORM_AT_S = 40, 15
CROWD_NICE = 8


def restart(options):
    """5,000 session clients that publish and receive, and a new process on the same socket."""
    count = options.clients
    with Stage(options.binary) as stage:
        stage.settings = {
            "SNAPSHOT": stage.dir / "state",
            "MAX_CONN": 2 * count,
            "HISTORY": 500,
            "DEFAULT_ROOM": "",
            "DRAIN_TIMEOUT": 30,
        }
        stage.start()
        crowds = enter(stage, options)
        began = time.time()
        tell(crowds, "go")
        time.sleep(BEFORE_S)
        marks = [(time.time(), "SIGTERM")]
        stage.terminate()
        equal(stage.ends(60), 0, "exit status")
        wrote = stage.log_line("snapshot: wrote")
        marks.append((time.time(), "next process"))
        stage.start()
        took = stage.log_line("snapshot: took up")
        ready = time.time()
        back, settled, seen = come_back(crowds, count)
        asked = sorted(asked for _, asked in seen["aways"] if asked is not None)
        ticks = [crowd.ticks for crowd in crowds]
        stats = stage.stats()

    fifths = [0] * 5
    for ms in asked:
        fifths[min(ms * 5 // RECONNECT_MS_MAX, 4)] += 1
    result = {
        "clients": count,
        "published": seen["published"],
        "delivered": seen["delivered"],
        "wrong": wrongs(settled, seen),
        "closes": seen["closes"],
        "connections_refused": seen["refused"],
        "resumed": seen["resumed"],
        "refused_by_the_next_server": stats["rejected_total"],
        "drain_s": round(marks[1][0] - marks[0][0], 2),
        "ready_after_s": round(ready - marks[1][0], 2),
        "all_back_after_s": round(back - marks[0][0], 2),
        "asked_to_wait_by_fifths_of_5_s": fifths,
        "away_ms": quantiles([away for away, _ in seen["aways"]]),
        "log": [wrote, took],
        "told": seen["told"],
    }
    if options.plot:
        picture = draw_restart(ticks, began, marks, count)
        options.plot.write_text(picture)
    faults = []
    if result["wrong"]:
        faults.append(f"{result['wrong']}")
    if seen["refused"] or stats["rejected_total"]:
        faults.append(f"refused: {seen['refused']}, by the server {stats['rejected_total']}")
    if seen["closes"] != {"1012": count} or seen["resumed"] != count:
        faults.append(f"closes {seen['closes']}, resumed {seen['resumed']}")
    # A fifth of all is in each, give or take five standard deviations.
    spread = 5 * (count * 0.16) ** 0.5
    if any(abs(fifth - count / 5) > spread for fifth in fifths):
        faults.append(f"reconnects are not spread: {fifths}")
    return result, faults


def node(options):
    """Clients of a node that is killed, and what they find on the one that is left: both have one
    Redis, and their clients reach them at one address."""
    count = options.clients
    redis = Redis()
    try:
        asyncio.run(redis.begin("--appendonly", "no"))
        with Stage(options.binary) as stage, listener() as admin:
            stage.settings = {
                "ENGINE": "redis",
                "REDIS_URL": f"redis://127.0.0.1:{redis.port}",
                "MAX_CONN": 2 * count,
                "MAX_PENDING_HEADS": HEADS_MAX,
                "DEFAULT_ROOM": "",
            }
            stage.start()
            crowds = enter(stage, options)
            # It listens at the same address, so nobody connects between its start and the end of
            # the first.
            other = Server(options.binary, stage.settings, sockets=[stage.sockets[0], admin])
            stage.kept.callback(other.stop)
            wait_for("second node", lambda: get_json(admin.getsockname(), "/ready", 1))
            tell(crowds, "go")
            time.sleep(BEFORE_S)
            stage.server.process.kill()
            killed = time.time()
            back, settled, seen = come_back(crowds, count)
            spent = get_json(admin.getsockname(), "/stats", 5)["cpu_seconds"]
    finally:
        redis.end()
    result = {
        "clients": count,
        "published": seen["published"],
        "delivered": seen["delivered"],
        "wrong": wrongs(settled, seen),
        "closes": seen["closes"],
        "resumed": seen["resumed"],
        "all_back_after_s": round(back - killed, 2),
        "away_ms": quantiles([away for away, _ in seen["aways"]]),
        "cpu_s_of_the_other": spent,
        "told": seen["told"],
    }
    faults = [f"{result['wrong']}"] if result["wrong"] else []
    if seen["resumed"] != count:
        faults.append(f"resumed {seen['resumed']}, not {count}")
    return result, faults


def enter(stage, options):
    """All clients in their rooms; they publish when they are told to `go`."""
    each = options.clients // PROCESSES
    plan = {"clients": each, "everyMs": options.every_ms, "tickMs": TICK_MS, "arrivals": 2}
    return [stage.clients(first=nth * each, **plan) for nth in range(PROCESSES)]


def come_back(crowds, count):
    """Waits until all have resumed, lets them talk on, and returns when they were back, what is
    still missing after they have fallen silent, and all that they have seen."""

    def all_are_back():
        figures = totals(tell(crowds, "report"))
        return figures["open"] == count and figures["resumed"] >= count

    wait_for("return of all", all_are_back, 60)
    back = time.time()
    time.sleep(AFTER_S)
    settled = totals(tell(crowds, "settle", withinMs=60_000))
    return back, settled, totals(tell(crowds, "report"))


def wrongs(settled, seen):
    """What must not be, if it is."""
    names = ("doubled", "disordered", "announced", "unannounced", "failed", "ended", "anew")
    found = settled | {name: seen[name] for name in names}
    return {name: value for name, value in found.items() if value}


def tell(crowds, order, **how):
    for crowd in crowds:
        crowd.begin(order, **how)
    return [crowd.end(order) for crowd in crowds]


def totals(parts):
    """Figures of several processes as one."""
    whole = {}
    for part in parts:
        for name, value in (part or {}).items():
            if isinstance(value, dict):
                found = whole.setdefault(name, {})
                for key, count in value.items():
                    found[key] = found.get(key, 0) + count
            else:
                whole[name] = whole[name] + value if name in whole else value
    return whole


def quantiles(values):
    values = sorted(values)
    at = {"p1": 0.01, "p50": 0.5, "p99": 0.99}
    found = {name: values[int(share * (len(values) - 1))] for name, share in at.items()}
    return found | {"max": values[-1]}


def draw_restart(ticks, began, marks, count):
    """Connections and messages in each step of time, of all processes together."""
    start = max(process[0]["at"] for process in ticks)
    end = min(process[-1]["at"] for process in ticks)
    times = [start + STEP_S * nth for nth in range(int((end - start) / STEP_S))]

    def whole(name):
        return [sum(at_time(process, name, at) for process in ticks) for at in times]

    def rates(name):
        sums = whole(name)
        return [
            (at - began, (later - earlier) / STEP_S)
            for at, earlier, later in zip(times[1:], sums, sums[1:])
        ]

    open_now = [(at - began, value) for at, value in zip(times, whole("open"))]
    panels = [
        lines.Panel("connections", [("connections", open_now)], count),
        lines.Panel("deliveries a second", [("deliveries", rates("delivered"))]),
        lines.Panel("answered publishes a second", [("publishes", rates("published"))]),
    ]
    title = f"A restart under {count:,} clients that publish and receive"
    marks = [(at - began, word) for at, word in marks]
    return lines.Lines(title, "seconds", panels, marks).draw()


def at_time(ticks, name, at):
    """A figure between two ticks."""
    nth = bisect.bisect_right(ticks, at, key=lambda tick: tick["at"])
    earlier, later = ticks[max(nth - 1, 0)], ticks[min(nth, len(ticks) - 1)]
    if later["at"] == earlier["at"]:
        return earlier[name]
    share = (at - earlier["at"]) / (later["at"] - earlier["at"])
    return earlier[name] + (later[name] - earlier[name]) * share


class Load:
    """A load test that runs, less urgent than everything else by so much."""

    def __init__(self, binary, *args, nice=0):
        # A pipe would fill up while nobody reads it.
        self.said = tempfile.TemporaryFile("w+")
        command = [str(binary), "load", *map(str, args), "--json"]
        self.process = subprocess.Popen(
            command,
            stdout=self.said,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.nice(nice),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.said.close()

    def is_running(self):
        return self.process.poll() is None

    def result(self):
        """Waits for the end, and returns what was found."""
        self.process.wait(RUN_S_MAX)
        self.said.seek(0)
        return json.load(self.said)


# From four addresses, for as long as the line may wait and some more.
SOURCES = ",".join(f"127.0.0.{nth}" for nth in range(2, 6))
STORM = ("-c", OUTSIDE, "--connecting", OUTSIDE, "--timeout", 30, "--source", SOURCES)


def crowd(options):
    """15,000 at once: outside an empty server with 5,000 places, and outside a full one."""
    result, faults = {}, []
    with Stage(options.binary, MAX_CONN=INSIDE, DEFAULT_ROOM="") as stage:
        faults += crowd_at_empty(stage, result)
    with Stage(options.binary, MAX_CONN=INSIDE, DEFAULT_ROOM="") as stage:
        faults += crowd_at_full(stage, result)
    return result, faults


def crowd_at_empty(stage, result):
    stage.start(MAX_PENDING_HEADS=HEADS_MAX)
    url = f"ws://127.0.0.1:{stage.port}/ws"
    line_max = stage.stats()["max_queued_tasks"]
    most = {"active_connections": 0, "queued": 0}
    with Load(stage.binary, url, *STORM, "--hold", 12) as arrivals:
        while arrivals.is_running():
            stats = stage.stats()
            most = {name: max(value, stats[name]) for name, value in most.items()}
            time.sleep(0.1)
        found = outcome(arrivals.result())
    result["empty"] = found | {"most": most, "rejected": rejected(stage)}
    faults = judge(found, INSIDE, OUTSIDE - INSIDE)
    if most != {"active_connections": INSIDE, "queued": line_max}:
        faults.append(f"at most {most}, not {INSIDE} and {line_max}")
    return faults


def crowd_at_full(stage, result):
    stage.start()
    url = f"ws://127.0.0.1:{stage.port}/ws"
    fanout = ("--publishers", ROOMS, "--subscribers", INSIDE - ROOMS, "--rooms", ROOMS)
    fanout += ("--rate", RATE, "--duration", FANOUT_S, "--warmup", 2)
    with Load(stage.binary, "fanout", url, *fanout) as inside:
        stage.wait_for_stats("full server", lambda stats: stats["active_connections"] == INSIDE, 60)
        time.sleep(STORM_AT_S)
        # A crowd would have machines of its own.
        with Load(stage.binary, url, *STORM, "--hold", 1, nice=CROWD_NICE) as arrivals:
            outside = outcome(arrivals.result())
        found = inside.result()
    result["full"] = outside | {"rejected": rejected(stage)}
    result["inside"] = inside_of(found)
    faults = judge(outside, 0, OUTSIDE)
    if not found["outcome"]["passed"]:
        faults.append(f"inside: {found['outcome']['headline']}")
    for phase in ("arrivals", "during"):
        if result["inside"][phase]["p99_ms"] > 2 * result["inside"]["before"]["p99_ms"]:
            faults.append(f"the p99 of those inside is more than twice what it was: {phase}")
    return faults


def rejected(stage):
    return {name: count for name, count in stage.stats()["rejected"].items() if count}


def outcome(found):
    """What became of the arrivals."""
    served = {
        name: times["count"]
        for name, times in found["served"].items()
        if isinstance(times, dict) and times["count"]
    }
    return {
        "served": served,
        "refused": found["rejected"]["by_status"],
        "failed": found["failed"]["by_cause"],
    }


def judge(found, served, refused):
    """Whether as many were served as there were places, and all others read a 503."""
    faults = []
    if sum(found["served"].values()) != served or found["failed"]:
        faults.append(f"served {found['served']}, not {served}; failed {found['failed']}")
    told = found["refused"].get("503", {})
    if list(found["refused"]) != ["503"] or told["count"] != refused:
        faults.append(f"refused {found['refused']}, not {refused} with 503")
    if not told.get("retry_after_s_min"):
        faults.append("some have no Retry-After")
    return faults


def inside_of(found):
    """The p99 of those inside in each quarter of a second, before the crowd came and while it was
    turned away. `/stats` tells when that was."""
    over, first = found["over_time"], found["measured_from_ms"]
    figures = [(sample["at_ms"], sample["figures"]) for sample in over["server"]]
    base = figures[0][1]["sockets_total"]
    last = max(one["sockets_total"] for _, one in figures)
    begins = max(at for at, one in figures if one["sockets_total"] < base + INSIDE + 50)
    ends = min(
        at for at, one in figures if one["rejected_total"] == figures[-1][1]["rejected_total"]
    )
    arrived = min(at for at, one in figures if one["sockets_total"] > last - 50)

    def between(start, end):
        width = over["interval_ms"]
        values = [
            value
            for nth, value in enumerate(over["p99_ms"])
            if value is not None and nth * width >= start and (nth + 1) * width <= end
        ]
        return {
            "ms": round(end - start),
            "p99_ms": round(statistics.median(values), 2),
            "p99_ms_max": max(values),
        }

    return {
        "deliveries": found["traffic"]["expected"],
        "missing": found["traffic"]["missing"],
        "repeated": found["traffic"]["repeated"],
        "before": between(first, begins),
        "arrivals": between(begins, arrived),
        "during": between(begins, ends),
        "client": found["client"]["reasons"],
    }


SHOWS = {"restart": restart, "crowd": crowd, "node": node}


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos.sh --show", description=__doc__)
    parser.add_argument("show", choices=SHOWS)
    parser.add_argument("--binary", type=Path, default=BINARY, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=5000, help="of `restart` and `node`")
    parser.add_argument("--every-ms", type=int, default=10_000, help="how often each publishes")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the picture of `restart` there"
    )
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    result, faults = SHOWS[options.show](options)
    (OUT / f"{options.show}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    for words in faults:
        print(f"FAILED: {words}")
    print("all good" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
