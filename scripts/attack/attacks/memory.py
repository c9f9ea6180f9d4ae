"""What a stranger can have the server keep."""

import time

from .. import wire
from ..scene import pump
from . import attack
from .http import request
from .presence import compressed


@attack("rooms", "fills 9,999 rooms with 4 × 64 KiB, then leaves")
def rooms(scene):
    count = scene.scale(9_999, 800)
    stranger = scene.stranger()
    body = "x" * 65_000
    with scene.measured():
        for nth in range(count):
            room = f"squat.{nth}"
            stranger.sendall(
                wire.command(type="join", room=room)
                + wire.command(type="publish", room=room, content=body) * 4
                + wire.command(type="leave", room=room)
            )
        stranger.settimeout(60)
        stranger.sendall(wire.command(type="ping", ref="all"))
        read_until(stranger, b'"ref":"all"')
    # The stranger has gone. What is left for the others?
    newcomer = scene.client()
    welcome = newcomer.wait_for(type="welcome")
    scene.fact("newcomer_has_default_room", "room" in welcome)
    scene.fact("newcomer_can_make_a_room", newcomer.ask(type="join", room="mine")["type"] == "ok")
    stats = scene.server.stats() or {}
    scene.fact("rooms_kept", stats.get("rooms"))
    scene.fact("history_mb", round((stats.get("history_bytes") or 0) / 1e6))


def read_until(sock, mark):
    data = b""
    while mark not in data:
        part = sock.recv(1 << 20)
        if not part:
            break
        data = data[-len(mark) :] + part


def fill_room(scene, room="old"):
    """A room whose history is as large as may be."""
    sock = scene.stranger(wire.command(type="join", room=room))
    sock.sendall(wire.command(type="publish", room=room, content="x" * 64_000) * 4)


@attack("history-unread", "600 sessions that ask for history and never read", MAX_CONN=1000)
def history_unread(scene):
    fill_room(scene)
    count = scene.scale(600, 100)
    join = wire.command(type="join", room="old")
    strangers = [scene.stranger(join) for _ in range(count)]
    with scene.measured():
        ask = wire.command(type="history", room="old")
        pump(strangers, ask * 100, scene.scale(15, 3), reads=False)


@attack(
    "dedicated",
    "(no attack) `dedicated` compression, one message each way",
    COMPRESSION="dedicated",
    MAX_CONN=2000,
)
def dedicated(scene):
    count = scene.scale(1000, 300)
    scene.server.stats()
    bare, _ = scene.server.memory_mb()
    crowd = scene.crowd(count, extra=wire.DEFLATE)
    say = b'{"type":"publish","content":"' + b"one and another " * 30 + b'","echo":true}'
    with scene.measured():
        # Each has left the lobby, so that it is one message and not a thousand.
        crowd.say(wire.command(type="leave", room="lobby"))
        for nth in range(2):
            crowd.say(wire.command(type="ping"))
            time.sleep(0.5)
        asked = compressed(b'{"type":"ping","ref":"' + b"r" * 100 + b'","x":"' + b"xy" * 300 + b'"}')
        crowd.say(asked)
        crowd.say(compressed(b'{"type":"history","room":"' + b"unknown." * 15 + b'"}'))
        own = b"".join([wire.command(type="join", room="shared", ref="r" * 100, presence=True)])
        crowd.say(own)
        time.sleep(scene.scale(3, 1))
        del say
        now, _ = scene.server.memory_mb()
    scene.fact("kib_per_client", round((now - bare) * 1024 / count))


@attack("mixture", "a mixture of these for 20 s", MAX_CONN=10000, COMPRESSION="dedicated")
def mixture(scene):
    fill_room(scene)
    join = wire.command(type="join", room="old")
    askers = [scene.stranger(join) for _ in range(scene.scale(2000, 200))]
    inflaters = [scene.stranger(extra=wire.DEFLATE) for _ in range(scene.scale(1000, 100))]
    pages = [scene.dial(receive_bytes=4096) for _ in range(scene.scale(1500, 200))]
    flooder = scene.stranger()
    filler = scene.stranger()
    seconds = scene.scale(4, 0.7)
    with scene.measured():
        pump(askers, wire.command(type="history", room="old") * 100, seconds, reads=False)
        pump(pages, request("GET /stats") * 1000, seconds, reads=False)
        pump(inflaters, compressed(b'{"content":"' + b"ab" * 30_000 + b'"}'), seconds, reads=False)
        filler.settimeout(60)
        for nth in range(scene.scale(5000, 400)):
            room = f"squat.{nth}"
            publish = wire.command(type="publish", room=room, content="x" * 65_000) * 4
            filler.sendall(
                wire.command(type="join", room=room)
                + publish
                + wire.command(type="leave", room=room)
            )
        pump([flooder], wire.command(content="x" * 60_000), seconds)
