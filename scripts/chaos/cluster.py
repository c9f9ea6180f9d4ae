#!/usr/bin/env python3
"""Lets clients talk through several nodes and a real Redis while processes, links and data go, by
seeds, and holds what each client is told against the protocol. Faults are the same for the same
seed; when each message comes is not."""

import argparse
import asyncio
import collections
import contextlib
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from .ledger import Ledger
from .links import Link
from .nodes import Node
from .redis import PRIMARY, Redis, program
from .stage import BINARY, REPOSITORY

try:
    from . import trouble
    from .member import ROOMS, Member
except ModuleNotFoundError as error:
    sys.exit(f"cluster.py: {error}; scripts/chaos.sh has a Python that has it")

OUT = REPOSITORY / "target/chaos"
CLIENTS, NODES, SECONDS, MULTI = 20, 2, 20, 0.1
SHORT = {"clients": 12, "nodes": 2, "seconds": 7, "multi": 0.0}
# Those of the short form: each of them is over soon.
SHORT_FAULTS = ("kill", "freeze-redis", "restart-redis", "cut", "drop-pubsub", "flush-scripts")
# How long a session is kept whose client is away, and what is added until it has ended if its node
# is gone: the lease, and a look at those that have run out.
WINDOW_S, LEASE_S = 8, 13
SETTLE_S_MAX = 45
# More than this of one kind says nothing new.
TOLD_MAX = 3
EMPTY = ("active_connections", "sessions", "sessions_away", "engine_waiting")


class Cluster:
    """Nodes, Redis and its replica, with a Sentinel or with links. For the length of an `async
    with`."""

    def __init__(self, options, seed):
        self.options, self.seed = options, seed
        self.ledger = Ledger()
        self.prefix = f"chaos{seed}"
        self.window_s = WINDOW_S
        self.is_settling = False
        self.redis_lock = asyncio.Lock()
        self.redises, self.nodes, self.members = [], [], []
        self.sentinel = self.copies = self.primary_by_hand = None
        chance = random.Random(f"{seed} cluster")
        names = options.faults or list(trouble.TROUBLES)
        can_watch = not options.faults or trouble.OF_SENTINEL & set(names)
        needs_links = options.faults and trouble.OF_LINKS & set(names)
        self.has_sentinel = bool(can_watch and not needs_links and chance.random() < 0.3)
        if options.faults and can_watch and not needs_links:
            self.has_sentinel = True
        self.has_shards = options.shards > 1
        self.has_sentinel &= not self.has_shards
        plan = (seed, options.seconds, names, self.has_sentinel, self.has_shards)
        self.plan = trouble.plan(*plan)

    async def __aenter__(self):
        try:
            await self._begin()
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(self, *_):
        self._end()

    async def _begin(self):
        first = await self._redis()
        self.primary_by_hand = first
        if self.has_shards:
            # Each on its own: what replicas do, one Redis shows as well.
            for _ in range(1, self.options.shards):
                await self._redis()
        else:
            await self._begin_replica(first)
        await self._begin_nodes(first)

    async def _begin_replica(self, first):
        second = await self._redis()
        if self.has_sentinel:
            await second.command("REPLICAOF", "127.0.0.1", first.port)
        else:
            self.copies = await Link(first.port).begin()
            await self.follow(second, first)
        await self.wait_until_copied()
        if self.has_sentinel:
            self.sentinel = Redis(watched=first.port)
            await self.sentinel.begin()
            await self._until("a replica that Sentinel knows", self._is_watched)

    async def _begin_nodes(self, first):
        settings = {
            "ENGINE": "redis",
            "REDIS_PREFIX": self.prefix,
            "THREAD_POOL_SIZE": 2,
            "DEFAULT_ROOM": "",
            "RESUME_WINDOW": self.window_s,
            "HISTORY": 2000,
            "HISTORY_BYTES": "16MiB",
            "MAX_ERRORS": 0,
            "RATE_MESSAGES": 0,
            "RATE_BYTES": 0,
            "RATE_ROOMS": 0,
            "DRAIN_TIMEOUT": 1,
        }
        for number in range(self.options.nodes):
            node = Node(number, self.options.binary, dict(settings))
            self.nodes.append(node)
            if self.has_sentinel:
                url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{PRIMARY}"
                node.settings["REDIS_URL"] = url
            elif self.has_shards:
                await node.connect_to(*(redis.port for redis in self.redises))
            else:
                await node.connect_to(first.port)
            node.start()
        for node in self.nodes:
            if not await node.wait_until_ready():
                raise AssertionError(f"{node.name} is not ready: {node.log()}")

    async def _redis(self):
        redis = Redis()
        self.redises.append(redis)
        return await redis.begin()

    def _end(self):
        for node in self.nodes:
            node.end()
        for redis in [self.sentinel, *self.redises]:
            if redis:
                redis.end()
        if self.copies:
            self.copies.end()

    async def primary(self):
        if self.sentinel:
            words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)
            port = int((await self.sentinel.command(*words))[1])
            return next(redis for redis in self.redises if redis.port == port)
        return self.primary_by_hand

    async def one_redis(self, chance):
        """The primary, or one of the shards."""
        return chance.choice(self.redises) if self.has_shards else await self.primary()

    async def replica(self):
        primary = await self.primary()
        replica = next(redis for redis in self.redises if redis is not primary)
        await self.wait_until_copied()
        return replica

    async def follow(self, replica, primary):
        """Makes one the replica of the other, by a link that can be stalled."""
        self.copies.heal()
        self.copies.target = primary.port
        await replica.command("REPLICAOF", "127.0.0.1", self.copies.port)

    async def wait_until_copied(self):
        """Waits until the replica follows the primary."""

        async def follows():
            primary = await self.primary()
            of = [await redis.info() for redis in self.redises if redis is not primary]
            return all(info.get("master_link_status") == "up" for info in of)

        await self._until("a replica that follows", follows)

    async def _is_watched(self):
        return await self.sentinel.command("SENTINEL", "REPLICAS", PRIMARY)

    async def _until(self, what, holds, within=SETTLE_S_MAX):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, TimeoutError, RuntimeError, EOFError):
                if await holds():
                    return True
            await asyncio.sleep(0.1)
        raise AssertionError(f"no {what} within {within} s")

    # --- The run.

    async def run(self):
        """All of it: talk under faults, peace, and the judgement."""
        ledger = self.ledger
        for number in range(self.options.clients):
            self.members.append(Member(number, self.seed, self, self.options.multi))
        lives = [asyncio.create_task(member.live()) for member in self.members]
        troubles = [asyncio.create_task(trouble.make(self, *one)) for one in self.plan]
        try:
            await asyncio.sleep(self.options.seconds)
            await asyncio.gather(*troubles)
            ledger.note("fault", "peace")
            for node in self.nodes:
                if not await node.wait_until_ready():
                    ledger.find("a node that does not recover", node.name, node.log()[-2000:])
            self.is_settling = True
            done, left = await asyncio.wait(lives, timeout=SETTLE_S_MAX)
            for life in done:
                life.result()
            for member in self.members:
                if not member.is_settled():
                    words = f"{len(member.pending)} unanswered, wants {list(member.wanted)}"
                    member.find("a client that gets nowhere", words)
            if not left:
                await self._judge()
        finally:
            for task in [*lives, *troubles]:
                task.cancel()
            await asyncio.gather(*lives, *troubles, return_exceptions=True)
        ledger.judge()
        for node in self.nodes:
            for line in node.faults()[:TOLD_MAX]:
                ledger.find("a fault in the log", node.name, line)

    async def _judge(self):
        """Looks at a cluster in peace: the last messages come to all, all agree on who is there,
        and nothing is left when all have gone."""
        await self._say_last_words()
        await self._compare_presence()
        await self._in_time(self._are_olds_closed, 10)
        for member in self.members:
            self._look_at(member)
        await asyncio.gather(*(member.close() for member in self.members))
        await self._empty()

    async def _say_last_words(self):
        last = []
        for room in ROOMS:
            inside = [member for member in self.members if room in member.account.rooms]
            if inside:
                sent, command = inside[0]._compose([room], True)
                sent.echo = command["echo"] = True
                await inside[0].publish(sent, command)
                last += [(member, room, sent.key) for member in inside]

        def deaf():
            return [
                (member, room, key)
                for member, room, key in last
                if room in member.account.rooms and key not in member.account.rooms[room].got
            ]

        if not await self._in_time(lambda: not deaf(), 15):
            for member, room, key in deaf():
                member.find("deaf", f"has not got {key} in {room}")

    async def _in_time(self, holds, within):
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _compare_presence(self):
        """Each client asks its node, until all say what is so."""
        deadline = time.monotonic() + WINDOW_S + LEASE_S + 10
        wrong = None
        while wrong is None or wrong and time.monotonic() < deadline:
            wrong = []
            truth = collections.defaultdict(set)
            for member in self.members:
                for room in member.account.rooms:
                    truth[room].add(member.account.client_id)
            for member in self.members:
                for room in list(member.account.rooms):
                    present = await member.present(room) if member.conn else None
                    if present != truth[room]:
                        words = f"{room}: {difference(present or set(), truth[room])}"
                        wrong.append((member, words))
            await asyncio.sleep(0.2 if wrong else 0)
        for member, words in wrong[:TOLD_MAX]:
            node = member.conn.node.name if member.conn else "no node"
            member.find("presence", f"{node} says of {words}")

    def _are_olds_closed(self):
        return all(old.closed.is_set() for member in self.members for old in member.olds)

    def _look_at(self, member):
        account = member.account
        for old in member.olds:
            if not old.closed.is_set():
                member.find("an old connection stays open", old.node.name)
            elif old.ws.close_code not in (4010, 1006, None):
                member.find("an old connection is closed otherwise", old.ws.close_code)
        if self.ledger.is_lossless:
            for sent in self.ledger.sent.values():
                is_due = sent.to is account and sent.fate == "acked"
                if is_due and sent.key not in account.directs:
                    member.find("direct message lost", sent.key)

    async def _empty(self):
        """Waits until no node and no key knows of anybody."""
        left = {}

        async def is_empty():
            left.clear()
            for node in self.nodes:
                stats = await node.stats()
                left.update({f"{node.name} {of}": stats.get(of) for of in EMPTY if stats.get(of) != 0})
            for redis in self.redises if self.has_shards else [await self.primary()]:
                for key in await redis.command("KEYS", f"{self.prefix}:{{*}}:p"):
                    left[key] = "has members"
                for key in await redis.command("KEYS", f"{self.prefix}:s:*"):
                    # Of a session that has moved a fence stays.
                    is_hash = await redis.command("TYPE", key) == "hash"
                    if is_hash and await redis.command("HEXISTS", key, "n"):
                        left[key] = "is a session"
            return not left

        try:
            await self._until("end of all", is_empty, WINDOW_S + LEASE_S + 15)
        except AssertionError:
            self.ledger.find("not empty at the end", "fault", dict(list(left.items())[:8]))

    def save(self):
        """Writes down the stories and the logs, and returns where."""
        place = OUT / f"cluster-{self.seed}"
        place.mkdir(parents=True, exist_ok=True)
        with open(place / "stories", "w") as file:
            lines = [(at, who, of) for who, of_all in self.ledger.stories.items() for at, of in of_all]
            file.writelines(f"{at:9.3f} {who:7} {of}\n" for at, who, of in sorted(lines))
        for node in self.nodes:
            (place / f"{node.name}.log").write_text(node.log())
        for number, redis in enumerate(self.redises):
            with contextlib.suppress(OSError):
                (place / f"redis{number}.log").write_bytes((redis.dir / "log").read_bytes())
        return place


def difference(present, truth):
    return f"too many {sorted(present - truth)}, too few {sorted(truth - present)}"


async def one(options, seed):
    """One run. Returns whether nothing was found."""
    began = time.monotonic()
    async with Cluster(options, seed) as cluster:
        ledger = cluster.ledger
        if options.verbose:
            print(f"seed {seed}: {cluster.plan}", flush=True)
        try:
            await cluster.run()
        except Exception as error:
            traceback.print_exc()
            ledger.find("the run failed", "fault", f"{type(error).__name__}: {error}")
        counts = ledger.counts
        figures = ("published", "delivered", "directs", "resumes", "take-overs", "sessions lost")
        figures += ("epochs", "told", "not recovered", "late", "overtaken")
        words = ", ".join(f"{counts[name]} {name}" for name in figures if counts[name])
        faults = collections.Counter(name for _, name, _ in cluster.plan)
        done = " ".join(f"{name}×{count}" for name, count in sorted(faults.items()))
        kind = "Sentinel" if cluster.has_sentinel else "links"
        kind = f"{options.shards} shards" if cluster.has_shards else kind
        loss = "nothing may be lost" if ledger.is_lossless else "data goes"
        took_s = time.monotonic() - began
        verdict = "FAILED" if ledger.findings else "ok    "
        print(f"{verdict} seed {seed}, {kind}, {loss}, {took_s:.0f} s: {words}; {done}", flush=True)
        if options.verbose or ledger.findings:
            print(f"   {dict(sorted(counts.items()))}")
        if ledger.findings:
            seen = collections.Counter()
            for finding in sorted(ledger.findings, key=lambda finding: finding.at):
                seen[finding.what] += 1
                if seen[finding.what] <= TOLD_MAX:
                    print(ledger.tell(finding))
            print(f"{len(ledger.findings)} findings: {dict(seen)}")
            print(f"faults: {cluster.plan}")
            print(f"stories and logs: {cluster.save()}")
            again = f"--seconds {options.seconds:g} --clients {options.clients}"
            again += f" --nodes {options.nodes} --multi {options.multi:g}"
            again += f" --shards {options.shards}" if cluster.has_shards else ""
            if options.faults:
                again += f" --faults {','.join(options.faults)}"
            print(f"again: scripts/chaos.sh --cluster --seed {seed} {again}", flush=True)
        return not ledger.findings


def main():
    names = ", ".join(trouble.TROUBLES)
    parser = argparse.ArgumentParser(prog="scripts/chaos.sh --cluster", description=__doc__)
    parser.add_argument("--binary", type=Path, default=BINARY, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--runs", type=int, default=1, help="as many seeds, one after the other")
    parser.add_argument("--seconds", type=float, help=f"of talk under faults; default: {SECONDS}")
    parser.add_argument("--clients", type=int, help=f"default: {CLIENTS}")
    parser.add_argument("--nodes", type=int, help=f"default: {NODES}, or 3 for every third seed")
    parser.add_argument(
        "--shards",
        type=int,
        default=1,
        help="Redises over which rooms are spread, without replicas and messages to several rooms",
    )
    parser.add_argument(
        "--multi", type=float, help=f"share of messages to several rooms; default: {MULTI}"
    )
    parser.add_argument("--faults", default="", help=f"of: {names}; default: all, or 'none'")
    parser.add_argument("--short", action="store_true", help="fewer clients for a shorter time")
    parser.add_argument("--verbose", action="store_true", help="with all faults and figures")
    options = parser.parse_args()
    options.faults = [name for name in options.faults.split(",") if name]
    if unknown := [name for name in options.faults if name not in (*trouble.TROUBLES, "none")]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are: {names}")
    if options.shards > 1:
        if options.multi:
            parser.error("--multi: rooms of different shards get no message in common")
        options.multi = 0.0
    if program() is None:
        print("!!! NO CLUSTER WAS TESTED: that needs redis-server")
        return 0
    # Whoever ends it ends its processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    first = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    defaults = {"clients": CLIENTS, "seconds": SECONDS, "multi": MULTI}
    if options.short and not options.faults:
        options.faults = list(SHORT_FAULTS)
    for name, value in (SHORT if options.short else defaults).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    has_nodes = options.nodes is not None
    failed = []
    for seed in range(first, first + options.runs):
        if not has_nodes:
            options.nodes = 3 if seed % 3 == 0 else NODES
        if not asyncio.run(one(options, seed)):
            failed.append(seed)
    print(f"{options.runs - len(failed)} of {options.runs} seeds passed; failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
