"""Floods of messages."""

import time

from .. import wire
from ..scene import pump
from . import attack

# 19 bytes on the wire: the cheapest way to say something to the default room.
TINY = wire.frame(b'{"content":1}')
LARGE = wire.command(content="x" * 65_000)
FLOOD_S, FLOOD_SHORT_S = 10, 2


def burst(scene, readers, publishes):
    scene.crowd(readers)
    stranger = scene.stranger()
    with scene.measured():
        # Its answers are none; what the others say is not read until the end.
        stranger.sendall(TINY * publishes)


@attack(
    "burst-5000",
    "one burst of 10,000 tiny publishes into a room of 5,000 readers",
    MAX_CONN=6000,
)
def burst_5000(scene):
    burst(scene, scene.scale(5000, 500), scene.scale(10_000, 2000))


@attack("burst-1000", "one burst of 16,000 into a room of 1,000 readers", MAX_CONN=2000)
def burst_1000(scene):
    # As many letters as fill a mailbox, so that the pressure is felt too.
    burst(scene, scene.scale(1000, 200), scene.scale(16_000, 2000))


@attack("flood", "keeps flooding a room of 5,000 readers", MAX_CONN=6000)
def flood(scene):
    scene.crowd(scene.scale(5000, 500))
    stranger = scene.stranger()
    with scene.measured():
        pump([stranger], TINY * 3000, scene.scale(FLOOD_S, FLOOD_SHORT_S))


@attack(
    "direct-flood",
    "a flood of `direct` to one client that reads steadily",
    RATE_MESSAGES=0,
    RATE_BYTES=0,
)
def direct_flood(scene):
    # An honest client of a slow network: 1 MB a second, without a pause.
    scene.crowd(1, wire.command(type="join", room="victim"), paced=1_000_000)
    spy = scene.client()
    spy.ask(type="join", room="victim")
    members = spy.ask(type="presence", room="victim")["members"]
    victim = next(m["client_id"] for m in members if m["client_id"] not in spy_ids(spy))
    spy.close()
    strangers = [scene.stranger() for _ in range(4)]
    direct = wire.command(type="direct", to=victim, content="x" * 1000)
    with scene.measured():
        pump(strangers, direct * 60, scene.scale(FLOOD_S, FLOOD_SHORT_S))


def spy_ids(spy):
    spy.send(type="direct", to="00000000-0000-4000-8000-000000000000", content=0)
    # A message of its own shows a client its id.
    spy.send(type="publish", room="victim", content="me", echo=True)
    return {spy.wait_for(type="message", room="victim", content="me")["client_id"]}


@attack(
    "lobby-64k",
    "publishes of 64 KiB in the lobby for 3 s, to 50 clients that read steadily",
    RATE_MESSAGES=0,
    RATE_BYTES=0,
)
def lobby_64k(scene):
    # What a network of 80 Mbit/s takes.
    scene.crowd(50, paced=10_000_000)
    stranger = scene.stranger()
    with scene.measured():
        pump([stranger], LARGE, scene.scale(3, 2))


# The quiet clients send 20 messages a second each, so the rate must be a little more.
RATE = 25


@attack(
    "rate-reconnect",
    "`RATE_MESSAGES=25`, and a new connection after each 25 messages",
    RATE_MESSAGES=RATE,
    # The stranger is on this machine, and an address may do twice what a connection may.
    LIMITED_ADDRESSES="all",
    RATE_MESSAGES_PER_IP=2 * RATE,
)
def rate_reconnect(scene):
    opening = wire.UPGRADE.format(extra="").encode() + TINY * RATE
    seconds = scene.scale(FLOOD_S, FLOOD_SHORT_S)
    before = messages_taken(scene)
    with scene.measured():
        deadline, held, made = time.monotonic() + seconds, [], 0
        while time.monotonic() < deadline:
            try:
                sock = wire.dial(scene.address)
                sock.sendall(opening)
            except OSError:
                continue
            held.append(sock)
            made += 1
            # A place is free again as soon as one is gone.
            if len(held) > 50:
                wire.reset(held.pop(0))
        for sock in held:
            sock.close()
        after = messages_taken(scene)
    quiet = 2 * 40 * (seconds + 5)
    scene.fact("connections_per_s", round(made / seconds))
    scene.fact("messages_per_s", max(0, round((after - before - quiet) / seconds)))


def messages_taken(scene):
    """Messages that were read and not refused for a rate."""
    stats = scene.server.stats() or {}
    refused = stats.get("rate_limited", 0) + stats.get("rate_limited_per_ip", 0)
    return stats.get("messages_in", 0) - refused
