#!/usr/bin/env python3
"""What several servers on one Redis cost and how long messages take, beside one server without Redis, in the same run.

    nodes.py --binary target/release/rusty_socks [--rounds 3] [--seconds 4]

Linux, two cores that nothing else uses, redis-server. The servers have core 0 and one thread each; Redis, which keeps
nothing on disk, and the load tool share core 1; everything is on the loopback. Prints a table as Markdown: medians of
the rounds, in which the numbers of servers take turns.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "third-party"))
from checks import free_port  # noqa: E402

from tls import LOAD_CORE, SERVER_CORE, Server, result  # noqa: E402

# Servers on one Redis; 0 is one without it.
NODES = (0, 1, 2, 3)
# What is published: subscribers, rooms, messages a second.
WORKS = {
    "50 rooms of 2, 500 a second": (100, 50, 500),
    "50 rooms of 2, 2,000 a second": (100, 50, 2000),
    "50 rooms of 2, 4,000 a second": (100, 50, 4000),
    "50 rooms of 2, 8,000 a second": (100, 50, 8000),
    "10 rooms of 100, 100 a second": (1000, 10, 100),
    "10 rooms of 100, 400 a second": (1000, 10, 400),
}
PUBLISHERS = 50
WARM_UP_S = 1


class Redis(Server):
    """A Redis with nothing in it."""

    def __init__(self, directory):
        self.directory, self.port, self.name = directory, free_port(), "redis-server"

    def command(self):
        return ["redis-server", "--port", str(self.port), "--save", "", "--dir", self.directory]

    def environment(self):
        return None


class Node(Server):
    """A server on `redis`, or by itself."""

    def __init__(self, args, redis):
        super().__init__(args, "Rusty Socks", False)
        self.redis = redis

    def environment(self):
        ours = {"RUSTY_SOCKS_DEFAULT_ROOM": ""}
        if self.redis:
            ours |= {"RUSTY_SOCKS_ENGINE": "redis", "RUSTY_SOCKS_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}"}
        return {**super().environment(), **ours}


def measure(args, nodes, work, directory):
    """CPU of Redis a message and of the servers a delivery, in microseconds; p50 and p99 in ms; what is missing."""
    subscribers, rooms, rate = work
    with contextlib.ExitStack() as kept:
        redis = kept.enter_context(Redis(directory)) if nodes else None
        if redis:
            subprocess.run(["taskset", "-acp", LOAD_CORE, str(redis.process.pid)], check=True, capture_output=True)
        servers = [kept.enter_context(Node(args, redis)) for _ in range(max(nodes, 1))]
        run = ["fanout", *(server.url("/ws") for server in servers)]
        run += ["--publishers", str(PUBLISHERS), "--subscribers", str(subscribers), "--rooms", str(rooms)]
        run += ["--rate", str(rate), "--warmup", str(WARM_UP_S), "--duration", str(args.seconds)]
        loading = servers[0].load(*run)
        # When all have come in, and while it runs.
        time.sleep(WARM_UP_S + 0.5)
        watched = [*servers, *([redis] if redis else [])]
        before = [one.cpu_s() for one in watched]
        began = time.monotonic()
        time.sleep(args.seconds - 1)
        spent = [one.cpu_s() - earlier for one, earlier in zip(watched, before)]
        messages = rate * (time.monotonic() - began)
        told = result(loading)
    traffic = told["traffic"]
    of_redis = spent.pop() / messages * 1e6 if redis else 0
    of_servers = sum(spent) / (messages * subscribers / rooms) * 1e6
    latency = traffic["latency"]
    return of_redis, of_servers, latency["p50_ms"], latency["p99_ms"], traffic["missing"] + traffic["repeated"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(args.rounds):
            for name, work in WORKS.items():
                for nodes in NODES:
                    found.setdefault((name, nodes), []).append(measure(args, nodes, work, directory))
    print("| messages | servers | Redis, CPU a message, µs | servers, CPU a delivery, µs | p50, ms | p99, ms | wrong |")
    print("|---|---|---|---|---|---|---|")
    for (name, nodes), rounds in found.items():
        of_redis, of_servers, p50, p99, wrong = (statistics.median(values) for values in zip(*rounds))
        servers = f"{nodes}" if nodes else "1, without Redis"
        redis = f"{of_redis:.0f}" if nodes else "–"
        print(f"| {name} | {servers} | {redis} | {of_servers:.1f} | {p50:.2g} | {p99:.2g} | {wrong:.0f} |")


if __name__ == "__main__":
    main()
