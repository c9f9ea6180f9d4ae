"""What goes wrong in a cluster: faults of nodes, of Redis and of the links between, by seed."""

import asyncio
import contextlib
import random
import signal
import time

from .member import ROOMS
from .redis import PRIMARY

# A node that is not heard of for longer has lost its sessions to the others.
LEASE_S = 10
PAUSES_S = (0.4, 2.5)
PROMOTION_S_MAX = 25
TROUBLES = {}
# Those that need a link of each node, and those that need a Sentinel.
OF_LINKS = {"cut", "stall", "slow", "promote", "demote", "wipe-redis"}
OF_SENTINEL = {"sentinel-kill", "sentinel-freeze", "sentinel-order"}
# Those that need a replica, which shards have not.
OF_REPLICA = {"promote", "demote"} | OF_SENTINEL


def trouble(name, loses=False):
    """Adds a fault by the name that the command line knows; `loses` if messages or sessions may be
    lost by it."""

    def add(run):
        TROUBLES[name] = (run, loses)
        return run

    return add


def plan(seed, seconds, names, has_sentinel, has_shards=False):
    """The faults of a run: when each begins, and the seed of what it does."""
    chance = random.Random(f"{seed} faults")
    out = OF_LINKS if has_sentinel else OF_REPLICA if has_shards else OF_SENTINEL
    names = [name for name in names if name in TROUBLES and name not in out]
    at, found = 1.0, []
    while names and at < seconds - 0.5:
        found.append((round(at, 2), chance.choice(names), chance.getrandbits(32)))
        at += chance.uniform(*PAUSES_S)
    return found


async def make(cluster, at, name, seed):
    """Does one of them when its time has come."""
    run, loses = TROUBLES[name]
    await asyncio.sleep(max(0, at - cluster.ledger.now()))
    if loses:
        cluster.ledger.losses.add(name)
    ledger = cluster.ledger
    await run(cluster, random.Random(seed), lambda words: ledger.note("fault", f"{name}: {words}"))
    ledger.counts[f"fault {name}"] += 1


@contextlib.asynccontextmanager
async def absence(cluster, what):
    """Something that makes nodes unheard of for as long as it lasts."""
    began = time.monotonic()
    try:
        yield
    finally:
        if time.monotonic() - began > LEASE_S - 3:
            cluster.ledger.losses.add(f"long {what}")


@trouble("kill")
async def kill(cluster, chance, tell):
    """kill -9 of a node, and its next process some time later"""
    node = chance.choice(cluster.nodes)
    async with node.lock:
        tell(node.name)
        node.kill()
        await asyncio.sleep(chance.choice((0, 0.5, 1.5, 3)))
        tell(f"{node.name} starts")
        node.start()
        await node.wait_until_ready()
        tell(f"{node.name} is ready")


@trouble("freeze-node")
async def freeze_node(cluster, chance, tell):
    """SIGSTOP of a node, and SIGCONT"""
    node = chance.choice(cluster.nodes)
    async with node.lock, absence(cluster, "freeze"):
        tell(node.name)
        node.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.choice((0.3, 1, 3, 5)))
        node.signal(signal.SIGCONT)
        tell(f"{node.name} goes on")


@trouble("freeze-redis")
async def freeze_redis(cluster, chance, tell):
    """SIGSTOP of Redis, and SIGCONT"""
    async with cluster.redis_lock, absence(cluster, "freeze"):
        redis = await cluster.one_redis(chance)
        # A Sentinel would promote another one.
        seconds = chance.choice((0.2, 0.5) if cluster.sentinel else (0.2, 1, 2.5, 5))
        tell(f"{redis.port} for {seconds} s")
        redis.freeze()
        await asyncio.sleep(seconds)
        redis.go_on()
        tell("goes on")


@trouble("restart-redis")
async def restart_redis(cluster, chance, tell):
    """kill -9 of Redis, and its next process with all data"""
    async with cluster.redis_lock, absence(cluster, "restart"):
        redis = await cluster.one_redis(chance)
        if cluster.sentinel:
            # It may promote the replica, which may lack the last messages.
            cluster.ledger.losses.add("restart-redis")
        tell(f"kill -9 of {redis.port}")
        redis.kill()
        await asyncio.sleep(0 if cluster.sentinel else chance.choice((0, 0.3, 2, 4)))
        await redis.start()
        tell("is there again")


@trouble("wipe-redis", loses=True)
async def wipe_redis(cluster, chance, tell):
    """kill -9 of Redis, and its next process without data"""
    async with cluster.redis_lock, absence(cluster, "restart"):
        redis = await cluster.one_redis(chance)
        tell(f"kill -9 of {redis.port}")
        redis.kill()
        redis.forget()
        await asyncio.sleep(chance.choice((0, 0.3, 2)))
        await redis.start()
        tell("is there again, and empty")


@trouble("promote", loses=True)
async def promote(cluster, chance, tell):
    """kill -9 of Redis, and its replica is promoted, which may lack the last messages"""
    async with cluster.redis_lock, absence(cluster, "promotion"):
        old, new = await cluster.primary(), await cluster.replica()
        lag_s = chance.choice((0, 0, 0.3, 0.8))
        if lag_s:
            tell(f"the replica hears nothing for {lag_s} s")
            cluster.copies.stall_all()
            await asyncio.sleep(lag_s)
        tell("kill -9 of the primary")
        old.kill()
        cluster.copies.cut()
        await asyncio.sleep(chance.choice((0, 0.5, 2)))
        await take_over(cluster, new)
        tell("the replica is promoted")
        old.forget()
        await old.start()
        await cluster.follow(old, new)
        tell("the old primary follows")


@trouble("demote", loses=True)
async def demote(cluster, chance, tell):
    """the replica is promoted, and the old primary, which goes on, is its replica"""
    async with cluster.redis_lock:
        old, new = await cluster.primary(), await cluster.replica()
        tell("the replica is promoted")
        await take_over(cluster, new)
        await asyncio.sleep(chance.choice((0, 0.2)))
        await cluster.follow(old, new)
        tell("the old primary follows")


async def take_over(cluster, new):
    await new.command("REPLICAOF", "NO", "ONE")
    cluster.primary_by_hand = new
    for node in cluster.nodes:
        node.links[0].target = new.port


@trouble("cut")
async def cut(cluster, chance, tell):
    """all connections of a node to Redis are reset, and none is taken for some time"""
    node = chance.choice(cluster.nodes)
    link, seconds = node.link(chance), chance.choice((0, 0, 0.5, 2, 5))
    tell(f"{node.name} and {link.target} for {seconds} s")
    async with absence(cluster, "cut"):
        link.is_refusing = seconds > 0
        link.cut()
        await asyncio.sleep(seconds)
        link.is_refusing = False
        tell(f"{node.name} may connect")


@trouble("stall")
async def stall(cluster, chance, tell):
    """nothing comes through the link of a node, or not through some of it"""
    node = chance.choice(cluster.nodes)
    link = node.link(chance)
    async with absence(cluster, "stall"):
        what = link.stall(chance)
        seconds = chance.choice((0.1, 0.4, 1, 3, 6))
        tell(f"{node.name} and {link.target}: {what}, for {seconds} s")
        await asyncio.sleep(seconds)
        link.heal()
        tell(f"{node.name} is heard again")


@trouble("slow")
async def slow(cluster, chance, tell):
    """a link with more delay in each direction"""
    node = chance.choice(cluster.nodes)
    link = node.link(chance)
    link.delay_s = chance.choice((0.01, 0.05, 0.3))
    tell(f"{node.name} and {link.target}: {link.delay_s} s more each way")
    await asyncio.sleep(chance.choice((0.5, 2, 4)))
    link.delay_s = 0
    tell(f"{node.name} is quick again")


@trouble("drop-pubsub")
async def drop_pubsub(cluster, chance, tell):
    """CLIENT KILL TYPE pubsub"""
    tell(await ask(cluster, chance, "CLIENT", "KILL", "TYPE", "pubsub"))


@trouble("flush-scripts")
async def flush_scripts(cluster, chance, tell):
    """SCRIPT FLUSH"""
    tell(await ask(cluster, chance, "SCRIPT", "FLUSH"))


@trouble("evict", loses=True)
async def evict(cluster, chance, tell):
    """the stream of a room is deleted, or all but its last messages"""
    room = chance.choice(ROOMS)
    stream = f"{cluster.prefix}:{{{room}}}:h"
    if chance.random() < 0.6:
        tell(f"{room}: {await ask(cluster, chance, 'DEL', stream)}")
    else:
        words = await ask(cluster, chance, "XTRIM", stream, "MAXLEN", 3)
        tell(f"{room} keeps 3: {words}")


async def ask(cluster, chance, *words):
    """Asks the primary, or that of one shard, which may be away."""
    try:
        return await (await cluster.one_redis(chance)).command(*words)
    except (OSError, TimeoutError, RuntimeError, EOFError) as error:
        return f"{type(error).__name__} {error}"


@trouble("sentinel-kill", loses=True)
async def sentinel_kill(cluster, chance, tell):
    """kill -9 of Redis, until Sentinel has promoted its replica"""
    async with cluster.redis_lock, absence(cluster, "failover"):
        old = await cluster.primary()
        tell("kill -9")
        old.kill()
        await promoted(cluster, old, tell)
        await old.start()
        tell("the old primary is there again")
        await cluster.wait_until_copied()


@trouble("sentinel-freeze", loses=True)
async def sentinel_freeze(cluster, chance, tell):
    """SIGSTOP of Redis, until Sentinel has promoted its replica, and SIGCONT"""
    async with cluster.redis_lock, absence(cluster, "failover"):
        old = await cluster.primary()
        tell("SIGSTOP")
        old.freeze()
        await promoted(cluster, old, tell)
        old.go_on()
        tell("the old primary goes on")
        await cluster.wait_until_copied()


@trouble("sentinel-order", loses=True)
async def sentinel_order(cluster, chance, tell):
    """SENTINEL FAILOVER"""
    async with cluster.redis_lock, absence(cluster, "failover"):
        old = await cluster.primary()
        with contextlib.suppress(RuntimeError):
            tell(await cluster.sentinel.command("SENTINEL", "FAILOVER", PRIMARY))
            await promoted(cluster, old, tell)
        await cluster.wait_until_copied()


async def promoted(cluster, old, tell):
    """Waits until Sentinel names another primary than `old`."""
    deadline = time.monotonic() + PROMOTION_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError, EOFError):
            if await cluster.primary() is not old:
                return tell("Sentinel has promoted the replica")
        await asyncio.sleep(0.05)
    tell("Sentinel promotes nothing")
